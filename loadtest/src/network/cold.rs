//! A network of very many accounts that nobody knows yet, for a relay's cold start.
//!
//! Nothing is kept of an account but two bits: its DID, its document and its events follow from its number. Every account
//! has the same key, so that a million of them cost no million keys. Of each account one event is sent in each round; the
//! first round begins at once, others when they are let go. Of the first events every eighth is a signed commit, the rest
//! are `#account`, which is as good a reason to ask who the account is.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atproto::{
    crypto::{Curve, PublicKey, SigningKey},
    event::{AccountEvent, Event},
    syntax::{Did, HostName, Tid},
};
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use runtime::clock::Clock;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::Role},
};

use super::{
    Error,
    directory::{Form, document},
    host::{Query, upgrade},
    listener::{Answer, Site, Socket, bind, reply, serve},
    repo::{Repo, Write},
};

/// Of the first events of all accounts one in so many is a commit.
const COMMIT_EVERY: u64 = 8;

/// Frames that go to a socket at once.
const BATCH: u64 = 256;

const TIME: &str = "2026-01-01T00:00:00.000Z";

/// The size of a network.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many hosts.
    pub hosts: u64,
    /// How many accounts, dealt to the hosts in turn.
    pub accounts: u64,
    /// How long the directory takes for an answer.
    pub latency: Duration,
}

/// A network at work; ends with its value.
pub struct ColdNetwork {
    shared: Arc<Shared>,
    hosts: Vec<HostName>,
    plc_url: String,
    _tasks: JoinSet<()>,
}

struct Shared {
    config: Config,
    key: SigningKey,
    public_key: PublicKey,
    /// Where the revs of all commits begin.
    epoch_micros: u64,
    hosts: watch::Sender<Vec<HostName>>,
    rounds: watch::Sender<u64>,
    requests: AtomicU64,
    asked: Mutex<Asked>,
}

/// What the directory was asked.
#[derive(Default)]
struct Asked {
    /// A bit an account.
    once: Vec<u64>,
    again: u64,
    unknown: u64,
    /// Requests of the last second, and the most there were in any.
    last: VecDeque<Instant>,
    per_second_max: usize,
}

/// What the directory was asked so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// In all.
    pub all: u64,
    /// For accounts that had been asked for before.
    pub again: u64,
    /// For accounts that there are none of.
    pub unknown: u64,
    /// The most within any one second.
    pub per_second_max: usize,
}

struct PlcSite(Arc<Shared>);

struct HostSite {
    shared: Arc<Shared>,
    index: u64,
}

impl ColdNetwork {
    /// Starts it.
    pub async fn start(config: Config) -> Result<ColdNetwork, Error> {
        let key = SigningKey::from_bytes(Curve::K256, &[7; 32]).map_err(|_| Error::Died)?;
        let words = usize::try_from(config.accounts.div_ceil(64)).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            public_key: key.public_key(),
            key,
            epoch_micros: Clock::system().now_micros().saturating_sub(config.accounts),
            config,
            hosts: watch::Sender::default(),
            rounds: watch::Sender::new(1),
            requests: AtomicU64::new(0),
            asked: Mutex::new(Asked { once: vec![0; words], ..Asked::default() }),
        });
        let mut tasks = JoinSet::new();
        let mut hosts = Vec::new();
        for index in 0..config.hosts {
            let listener = bind(Ipv4Addr::LOCALHOST, 0).await.map_err(Error::Listen)?;
            let port = listener.local_addr().map_err(Error::Listen)?.port();
            hosts.push(HostName::parse(&format!("localhost:{port}")).map_err(Error::Name)?);
            tasks.spawn(serve(listener, Arc::new(HostSite { shared: Arc::clone(&shared), index })));
        }
        shared.hosts.send_replace(hosts.clone());
        let listener = bind(Ipv4Addr::LOCALHOST, 0).await.map_err(Error::Listen)?;
        let plc_url = format!("http://{}", listener.local_addr().map_err(Error::Listen)?);
        tasks.spawn(serve(listener, Arc::new(PlcSite(Arc::clone(&shared)))));
        Ok(ColdNetwork { shared, hosts, plc_url, _tasks: tasks })
    }

    /// The hosts' names.
    pub fn hosts(&self) -> &[HostName] {
        &self.hosts
    }

    /// The directory.
    pub fn plc_url(&self) -> &str {
        &self.plc_url
    }

    /// Lets every account send one more event.
    pub fn next_round(&self) {
        self.shared.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// What the directory was asked so far.
    pub fn requests(&self) -> Requests {
        let asked = self.shared.asked();
        Requests {
            all: self.shared.requests.load(Ordering::Relaxed),
            again: asked.again,
            unknown: asked.unknown,
            per_second_max: asked.per_second_max,
        }
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many accounts a host has.
    fn accounts_of(&self, host: u64) -> u64 {
        let Config { hosts, accounts, .. } = self.config;
        (accounts + hosts - 1 - host) / hosts
    }

    /// A host's event with this seq, from 1.
    fn frame(&self, host: u64, seq: u64) -> Result<Vec<u8>, Error> {
        let of_host = self.accounts_of(host);
        let (round, place) = ((seq - 1) / of_host, (seq - 1) % of_host);
        let number = place * self.config.hosts + host;
        let did = did_of(number)?;
        if round > 0 || place % COMMIT_EVERY > 0 {
            let event = AccountEvent { seq, did: did.as_str(), time: TIME, active: true, status: None };
            return Ok(Event::Account(event).encode());
        }
        let record = b"\xa1\x64text\x65hello".to_vec();
        let write = Write::Create { path: "app.bsky.feed.post/3jzfcijpj2z2a".to_owned(), record };
        let rev = Tid::from_micros(self.epoch_micros + number, 0);
        let change = Repo::new(did).commit(vec![write], rev, &self.key).map_err(Error::Repo)?;
        Ok(change.encode(seq, TIME))
    }
}

impl Asked {
    fn note(&mut self, number: Option<u64>, now: Instant) {
        let word = number.and_then(|number| {
            let word = self.once.get_mut(usize::try_from(number / 64).ok()?)?;
            Some((word, 1_u64 << (number % 64)))
        });
        match word {
            Some((word, bit)) => {
                self.again += u64::from(*word & bit != 0);
                *word |= bit;
            }
            None => self.unknown += 1,
        }
        self.last.push_back(now);
        while self.last.front().is_some_and(|first| now.duration_since(*first) >= Duration::from_secs(1)) {
            self.last.pop_front();
        }
        self.per_second_max = self.per_second_max.max(self.last.len());
    }
}

const DIGITS: &[u8; 16] = b"abcdefghijklmnop";

fn did_of(number: u64) -> Result<Did, Error> {
    let digit = |place: u32| char::from(DIGITS[(number >> (4 * place) & 15) as usize]);
    let digits: String = (0..16).rev().map(digit).collect();
    Did::parse(&format!("did:plc:coldcold{digits}")).map_err(Error::Name)
}

fn number_of(did: &str) -> Option<u64> {
    let digits = did.strip_prefix("did:plc:coldcold").filter(|digits| digits.len() == 16)?;
    digits.bytes().try_fold(0, |number, digit| {
        let value = DIGITS.iter().position(|found| *found == digit)?;
        Some(number << 4 | value as u64)
    })
}

impl Site for PlcSite {
    type Stream = std::convert::Infallible;

    async fn answer(&self, request: &Request<()>) -> Answer<Self::Stream> {
        let shared = &self.0;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let text = request.uri().path().trim_start_matches('/');
        let number = number_of(text).filter(|number| *number < shared.config.accounts);
        shared.asked().note(number, Instant::now());
        tokio::time::sleep(shared.config.latency).await;
        let host = number.and_then(|number| {
            let index = usize::try_from(number % shared.config.hosts).ok()?;
            shared.hosts.borrow().get(index).cloned()
        });
        Answer::Plain(match (Did::parse(text), host) {
            (Ok(did), Some(host)) => {
                let document = document(&did, "cold.sim.test", &shared.public_key, &host, Form::Multikey);
                reply(StatusCode::OK, "application/did+ld+json", document)
            }
            (_, None) | (Err(_), _) => reply(StatusCode::NOT_FOUND, "application/json", "{\"message\":\"unknown\"}"),
        })
    }

    async fn stream(&self, _: Socket, stream: Self::Stream) {
        match stream {}
    }
}

impl Site for HostSite {
    /// The seq after which it begins.
    type Stream = u64;

    async fn answer(&self, request: &Request<()>) -> Answer<u64> {
        let cursor = Query::of(request).get("cursor").and_then(|cursor| cursor.parse().ok());
        Answer::Plain(match (request.uri().path(), upgrade(request.headers())) {
            ("/xrpc/com.atproto.sync.subscribeRepos", Some(response)) => {
                return Answer::Upgrade(response, cursor.unwrap_or(0));
            }
            ("/xrpc/com.atproto.server.describeServer", _) => reply(
                StatusCode::OK,
                "application/json",
                r#"{"did":"did:web:localhost","availableUserDomains":[".sim.test"]}"#,
            ),
            _ => reply(StatusCode::NOT_IMPLEMENTED, "application/json", r#"{"error":"MethodNotImplemented"}"#),
        })
    }

    async fn stream(&self, socket: Socket, after: u64) {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        // A subscriber that has gone away is no error of the host's.
        let _ = self.send_all(&mut socket, after).await;
    }
}

impl HostSite {
    async fn send_all(
        &self,
        socket: &mut WebSocketStream<Socket>,
        mut seq: u64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut rounds = self.shared.rounds.subscribe();
        loop {
            let last = *rounds.borrow_and_update() * self.shared.accounts_of(self.index);
            let batch = last.saturating_sub(seq).min(BATCH);
            for _ in 0..batch {
                seq += 1;
                socket.feed(Message::Binary(self.shared.frame(self.index, seq)?.into())).await?;
            }
            if batch > 0 {
                socket.flush().await?;
                continue;
            }
            tokio::select! {
                changed = rounds.changed() => changed?,
                said = socket.next() => match said {
                    Some(Ok(_)) => {}
                    Some(Err(tungstenite::Error::ConnectionClosed)) | None => return Ok(()),
                    Some(Err(error)) => return Err(error.into()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_did_is_a_number() {
        for number in [0, 1, 15, 16, 999_999, u64::MAX] {
            assert_eq!(number_of(did_of(number).unwrap().as_str()), Some(number));
        }
        assert_eq!(number_of("did:plc:coldcoldaaaaaaaaaaaaaaaz"), None);
        assert_eq!(number_of("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), None);
    }
}
