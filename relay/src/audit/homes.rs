//! Which host each account is on. Frames don't say it, so our relay is asked, and of accounts it does not know their
//! directory.
//!
//! What must hold: each account is asked for once, those that lack most first, and no more than a number of them; the
//! directory is asked slowly. Who gives no answer several times in a row is not asked further.

use std::{collections::HashMap, time::Duration};

use atproto::{
    did_doc::DidDocument,
    syntax::{Did, HostName},
};
use http::{StatusCode, header};
use runtime::egress::{self, Egress, Response};
use tokio::time::{Instant, sleep_until};
use url::{Position, Url};

/// A DID document's bytes, and those of any other answer.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The time for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Between two questions to directories.
const DIRECTORY_PAUSE: Duration = Duration::from_millis(50);

/// Questions in a row without an answer, after which no more are asked.
const SILENCE_MAX: u32 = 3;

/// Whom to ask.
pub struct Homes {
    /// Our relay, which says by getRepo where an account is.
    relay: Door,
    /// The directory of did:plc.
    directory: Door,
    /// For hosts of did:web, whose names strangers choose.
    strangers: Egress,
    next_question: Instant,
    found: HashMap<String, HostName>,
}

/// A server that is asked for as long as it answers.
struct Door {
    egress: Egress,
    url: Option<Url>,
    silent: u32,
}

impl Homes {
    /// Asks the relay at `relay` and the directory at `directory` over `egress`; hosts of did:web over `strangers`.
    pub fn new(relay: Option<Url>, directory: Url, egress: Egress, strangers: Egress) -> Homes {
        Homes {
            relay: Door { egress: egress.clone(), url: relay, silent: 0 },
            directory: Door { egress, url: Some(directory), silent: 0 },
            strangers,
            next_question: Instant::now(),
            found: HashMap::new(),
        }
    }

    /// Asks for accounts, one after the other. Cancel-safe: what is found is kept.
    pub async fn ask(&mut self, accounts: &[String]) {
        for account in accounts {
            let Ok(did) = Did::parse(account) else { continue };
            let home = match self.of_relay(&did).await {
                Some(home) => Some(home),
                None => self.of_document(&did).await,
            };
            if let Some(home) = home {
                self.found.insert(account.clone(), home);
            }
        }
    }

    /// Where an account is, if that was found.
    pub fn of(&self, account: &str) -> Option<&HostName> {
        self.found.get(account)
    }

    async fn of_relay(&mut self, did: &Did) -> Option<HostName> {
        let answer = self.relay.get(&format!("/xrpc/com.atproto.sync.getRepo?did={did}")).await?;
        redirected_to(&answer)
    }

    async fn of_document(&mut self, did: &Did) -> Option<HostName> {
        sleep_until(self.next_question).await;
        self.next_question = Instant::now() + DIRECTORY_PAUSE;
        let answer = match did.as_str().strip_prefix("did:web:") {
            // Atproto knows only bare names.
            Some(host) if host.contains(':') => return None,
            Some(host) => {
                let url = Url::parse(&format!("https://{host}/.well-known/did.json")).ok()?;
                self.strangers.get(&url, ANSWER_BYTES_MAX, ANSWER_WITHIN).await.ok()?
            }
            None => self.directory.get(&format!("/{did}")).await?,
        };
        if answer.status != StatusCode::OK {
            return None;
        }
        DidDocument::parse(&answer.body, did).ok()?.pds
    }
}

impl Door {
    async fn get(&mut self, path: &str) -> Option<Response> {
        if self.silent >= SILENCE_MAX {
            return None;
        }
        let url = self.url.as_ref()?.join(path).ok()?;
        match self.egress.get(&url, ANSWER_BYTES_MAX, ANSWER_WITHIN).await {
            Ok(answer) => {
                self.silent = 0;
                Some(answer)
            }
            // It answered, only not as it should.
            Err(egress::Error::TooLarge { .. }) => None,
            Err(
                egress::Error::AddressRefused { .. }
                | egress::Error::PlainRefused { .. }
                | egress::Error::Resolve { .. }
                | egress::Error::NoAddress { .. }
                | egress::Error::Connect { .. }
                | egress::Error::Tls { .. }
                | egress::Error::Timeout { .. }
                | egress::Error::BadUrl { .. }
                | egress::Error::Http(_),
            ) => {
                self.silent += 1;
                None
            }
        }
    }
}

/// The host that an answer sends us to.
fn redirected_to(answer: &Response) -> Option<HostName> {
    if !answer.status.is_redirection() {
        return None;
    }
    let location = Url::parse(answer.headers.get(header::LOCATION)?.to_str().ok()?).ok()?;
    HostName::parse(&location[..Position::BeforePath]).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_redirection_names_the_host() {
        let answer = |status, location: Option<&str>| {
            let headers: HeaderMap =
                location.map(|value| (header::LOCATION, value.parse().unwrap())).into_iter().collect();
            redirected_to(&Response { status, headers, body: Bytes::new() }).map(|host| host.to_string())
        };
        for (location, host) in [
            ("https://pds.example.com/xrpc/com.atproto.sync.getRepo?did=did:plc:x", Some("pds.example.com")),
            ("http://localhost:2583/xrpc/com.atproto.sync.getRepo", Some("localhost:2583")),
            ("/elsewhere", None),
            ("https://someone@pds.example.com/", None),
            ("mailto:a@b.test", None),
        ] {
            assert_eq!(answer(StatusCode::FOUND, Some(location)).as_deref(), host, "{location}");
        }
        assert_eq!(answer(StatusCode::FOUND, None), None);
        assert_eq!(answer(StatusCode::OK, Some("https://pds.example.com/")), None);
    }
}
