//! One try: from a DID to a URL, and from the answer to what it means.

use std::{sync::Arc, time::Duration};

use atproto::{
    did_doc::{DidDocError, DidDocument},
    syntax::{Did, HostName},
};
use http::{HeaderMap, StatusCode, header};
use runtime::egress::{self, Egress};
use url::Url;

use super::Absence;

/// The largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The longest a directory may keep us away with Retry-After.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a directory is left alone that says 429 without Retry-After.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);

/// Who answers for a DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    /// The directory.
    Plc,
    /// The account's own host.
    Web,
}

/// What a try brought.
#[derive(Clone, Debug)]
pub(crate) enum Fetched {
    /// The document.
    Document(Arc<DidDocument>),
    /// A definite no.
    Absent(Absence),
    /// No answer; the same question may be answered later.
    Silence(Silence),
}

/// Why there was no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// Nothing came back.
    #[error(transparent)]
    Unreachable(#[from] egress::Error),
    /// A status that says nothing of the account.
    #[error("status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// How long to leave the directory alone.
        pause: Option<Duration>,
    },
    /// Not a DID document at all: something else stands in the directory's place.
    #[error("not a did document")]
    Garbage,
}

impl Method {
    pub(crate) const ALL: [Method; 2] = [Method::Plc, Method::Web];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Method::Plc => "plc",
            Method::Web => "web",
        }
    }
}

impl Fetched {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Fetched::Document(_) => "document",
            Fetched::Absent(Absence::NotFound) => "not_found",
            Fetched::Absent(Absence::Tombstoned) => "tombstoned",
            Fetched::Absent(Absence::BadDocument) => "bad_document",
            Fetched::Absent(Absence::Unsupported) => "unsupported",
            Fetched::Absent(Absence::Unanswered) | Fetched::Silence(_) => "silence",
        }
    }
}

/// Where the document of a DID is. An error where it certainly has none.
pub(crate) fn locate(did: &Did, plc_url: &Url, allow_local: bool) -> Result<(Method, Url), Absence> {
    let text = did.as_str();
    if let Some(id) = text.strip_prefix("did:plc:") {
        let is_base32 = id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        if id.len() != 24 || !is_base32 {
            return Err(Absence::NotFound);
        }
        let mut url = plc_url.clone();
        url.path_segments_mut().map_err(|()| Absence::Unsupported)?.pop_if_empty().push(text);
        return Ok((Method::Plc, url));
    }
    let name = text.strip_prefix("did:web:").ok_or(Absence::Unsupported)?;
    // A colon would begin a path, which the protocol does not allow; a port is for development only.
    if name.contains(':') {
        return Err(Absence::Unsupported);
    }
    let host = HostName::parse(&name.replace("%3A", ":").replace("%3a", ":")).map_err(|_| Absence::Unsupported)?;
    let local = allow_local && host.is_local();
    if !local && (host.port().is_some() || host.is_local()) {
        return Err(Absence::Unsupported);
    }
    let scheme = host.scheme(allow_local);
    let url = Url::parse(&format!("{scheme}://{host}/.well-known/did.json")).map_err(|_| Absence::Unsupported)?;
    Ok((Method::Web, url))
}

/// Asks once.
pub(crate) async fn fetch(egress: &Egress, did: &Did, method: Method, url: &Url, limit: Duration) -> Fetched {
    match egress.get(url, DOCUMENT_BYTES_MAX, limit).await {
        Ok(response) => interpret(did, method, response.status, &response.headers, &response.body),
        Err(egress::Error::TooLarge { .. }) => Fetched::Absent(Absence::BadDocument),
        Err(
            egress::Error::AddressRefused { .. } | egress::Error::PlainRefused { .. } | egress::Error::BadUrl { .. },
        ) if method == Method::Web => Fetched::Absent(Absence::Unsupported),
        Err(error) => Fetched::Silence(Silence::Unreachable(error)),
    }
}

/// What an answer says of the account.
fn interpret(did: &Did, method: Method, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Fetched {
    match status {
        StatusCode::OK => match DidDocument::parse(body, did) {
            Ok(document) => Fetched::Document(Arc::new(document)),
            Err(DidDocError::WrongDid { .. }) => Fetched::Absent(Absence::BadDocument),
            // An account's own host may serve what it likes; a directory that serves no documents is broken.
            Err(DidDocError::Unreadable) => match method {
                Method::Plc => Fetched::Silence(Silence::Garbage),
                Method::Web => Fetched::Absent(Absence::BadDocument),
            },
        },
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Fetched::Absent(Absence::NotFound),
        StatusCode::GONE => Fetched::Absent(Absence::Tombstoned),
        status => {
            let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let pause = match asked {
                Some(seconds) if busy => Some(Duration::from_secs(seconds).min(PAUSE_MAX)),
                Some(_) | None => (status == StatusCode::TOO_MANY_REQUESTS).then_some(PAUSE_DEFAULT),
            };
            Fetched::Silence(Silence::Status { status, pause })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    #[test]
    fn each_did_has_its_place_or_none() {
        let plc = Url::parse("https://plc.example.com").unwrap();
        let found = |text: &str, local| locate(&Did::parse(text).unwrap(), &plc, local).map(|(_, url)| url.to_string());
        let table = [
            (DID, false, Ok("https://plc.example.com/did:plc:ewvi7nxzyoun6zhxrhs64oiz")),
            ("did:plc:short", false, Err(Absence::NotFound)),
            ("did:plc:ewvi7nxzyoun6zhxrhs64oi1", false, Err(Absence::NotFound)),
            ("did:web:alice.example.com", false, Ok("https://alice.example.com/.well-known/did.json")),
            ("did:web:alice.example.com:user", false, Err(Absence::Unsupported)),
            ("did:web:alice.example.com%3A8443", false, Err(Absence::Unsupported)),
            ("did:web:alice.example.com%3A8443", true, Err(Absence::Unsupported)),
            ("did:web:localhost%3A2583", false, Err(Absence::Unsupported)),
            ("did:web:localhost%3A2583", true, Ok("http://localhost:2583/.well-known/did.json")),
            ("did:web:127.0.0.1", false, Err(Absence::Unsupported)),
            ("did:key:z6Mk", false, Err(Absence::Unsupported)),
        ];
        for (did, local, expected) in table {
            assert_eq!(found(did, local), expected.map(str::to_owned), "{did} {local}");
        }
    }

    #[test]
    fn a_directory_below_a_path_is_asked_there() {
        let plc = Url::parse("http://localhost:2582/plc/").unwrap();
        let (_, url) = locate(&Did::parse(DID).unwrap(), &plc, true).unwrap();
        assert_eq!(url.as_str(), "http://localhost:2582/plc/did:plc:ewvi7nxzyoun6zhxrhs64oiz");
    }

    #[test]
    fn answers_are_definite_or_silence() {
        let did = Did::parse(DID).unwrap();
        let document = format!(r#"{{"id":"{DID}"}}"#);
        let wrong = r#"{"id":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}"#;
        let word = |method, status: u16, body: &str, retry_after: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(after) = retry_after {
                headers.insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            match interpret(&did, method, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()) {
                Fetched::Document(_) => "document".to_owned(),
                Fetched::Absent(absence) => format!("{absence:?}"),
                Fetched::Silence(Silence::Status { pause: Some(pause), .. }) => format!("silence {}", pause.as_secs()),
                Fetched::Silence(_) => "silence".to_owned(),
            }
        };
        let table = [
            (Method::Plc, 200, document.as_str(), None, "document"),
            (Method::Plc, 200, wrong, None, "BadDocument"),
            (Method::Plc, 200, "<html>", None, "silence"),
            (Method::Web, 200, "<html>", None, "BadDocument"),
            (Method::Plc, 404, "", None, "NotFound"),
            (Method::Plc, 410, "", None, "Tombstoned"),
            (Method::Plc, 400, "", None, "NotFound"),
            (Method::Plc, 301, "", None, "silence"),
            (Method::Plc, 403, "", None, "silence"),
            (Method::Plc, 429, "", None, "silence 2"),
            (Method::Plc, 429, "", Some("7"), "silence 7"),
            (Method::Plc, 429, "", Some("86400"), "silence 60"),
            (Method::Plc, 429, "", Some("soon"), "silence 2"),
            (Method::Plc, 503, "", Some("3"), "silence 3"),
            (Method::Plc, 500, "", Some("3"), "silence"),
        ];
        for (method, status, body, retry_after, expected) in table {
            assert_eq!(word(method, status, body, retry_after), expected, "{method:?} {status} {body}");
        }
    }
}
