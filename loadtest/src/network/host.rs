//! A host: the XRPC methods that a relay asks a PDS for, and its stream.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use atproto::{
    cid::Cid,
    event, frame,
    syntax::{Did, HostName, Tid},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{
    listener::{Answer, Site, Socket, reply},
    outbox::{Outbox, Reader, Start},
};

/// A PDS as a relay sees it.
pub(super) struct Host {
    pub(super) name: HostName,
    pub(super) outbox: Outbox,
    accounts: Mutex<BTreeMap<Did, AccountStatus>>,
}

/// What a host says about an account that is or was on it.
#[derive(Clone, Debug)]
pub(super) struct AccountStatus {
    pub(super) active: bool,
    /// Why not active.
    pub(super) status: Option<&'static str>,
    pub(super) rev: Tid,
    pub(super) head: Cid,
}

/// The `cursor` of a subscriber, not read yet.
pub(super) struct Subscription {
    cursor: Option<String>,
}

/// About as much as goes to a socket at once.
const BATCH_BYTES: usize = 256 * 1024;

impl Host {
    /// A host that is reached as `name` and keeps `window_bytes` of its newest frames.
    pub(super) fn new(name: HostName, window_bytes: usize, last_seq: u64, clock: Clock) -> Host {
        Host { name, outbox: Outbox::new(window_bytes, last_seq, clock), accounts: Mutex::default() }
    }

    pub(super) fn set_account(&self, did: &Did, status: AccountStatus) {
        self.accounts().insert(did.clone(), status);
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<Did, AccountStatus>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repo_status(&self, query: &Query) -> Response<Full<Bytes>> {
        let did = query.get("did").unwrap_or_default();
        let found = Did::parse(did).ok().and_then(|did| self.accounts().get(&did).cloned());
        match found {
            Some(account) if account.active => ok(&json!({"did": did, "active": true, "rev": account.rev.to_string()})),
            Some(account) => ok(&json!({"did": did, "active": false, "status": account.status})),
            None => refuse(StatusCode::BAD_REQUEST, "RepoNotFound", &format!("Could not find repo for DID: {did}")),
        }
    }

    fn latest_commit(&self, query: &Query) -> Response<Full<Bytes>> {
        let did = query.get("did").unwrap_or_default();
        let found = Did::parse(did).ok().and_then(|did| self.accounts().get(&did).cloned());
        match found {
            Some(account) if account.active => {
                ok(&json!({"cid": account.head.to_string(), "rev": account.rev.to_string()}))
            }
            Some(_) => refuse(StatusCode::BAD_REQUEST, "RepoDeactivated", &format!("Repo has been deactivated: {did}")),
            None => refuse(StatusCode::BAD_REQUEST, "RepoNotFound", &format!("Could not find repo for DID: {did}")),
        }
    }

    fn list_repos(&self, query: &Query) -> Response<Full<Bytes>> {
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(500usize).clamp(1, 1_000);
        let after = query.get("cursor").and_then(|cursor| Did::parse(cursor).ok());
        let from = match &after {
            Some(did) => Bound::Excluded(did),
            None => Bound::Unbounded,
        };
        let accounts = self.accounts();
        let page: Vec<(&Did, &AccountStatus)> =
            accounts.range::<Did, _>((from, Bound::Unbounded)).take(limit).collect();
        let cursor = (page.len() == limit).then(|| page.last().map(|(did, _)| did.as_str())).flatten();
        let repos: Vec<Value> = page
            .iter()
            .map(|(did, account)| {
                json!({"did": did.as_str(), "head": account.head.to_string(), "rev": account.rev.to_string(),
                       "active": account.active, "status": account.status})
            })
            .collect();
        ok(&match cursor {
            Some(cursor) => json!({"cursor": cursor, "repos": repos}),
            None => json!({"repos": repos}),
        })
    }
}

impl Site for Host {
    type Stream = Subscription;

    async fn answer(&self, request: &Request<()>) -> Answer<Subscription> {
        let query = Query::of(request);
        Answer::Plain(match request.uri().path() {
            "/xrpc/com.atproto.sync.subscribeRepos" => {
                return match upgrade(request.headers()) {
                    Some(response) => {
                        Answer::Upgrade(response, Subscription { cursor: query.get("cursor").map(str::to_owned) })
                    }
                    None => {
                        Answer::Plain(refuse(StatusCode::UPGRADE_REQUIRED, "InvalidRequest", "Expected a WebSocket"))
                    }
                };
            }
            "/xrpc/com.atproto.server.describeServer" => ok(&json!({
                "did": "did:web:localhost", "availableUserDomains": [".sim.test"], "inviteCodeRequired": false,
                "links": {}, "contact": {},
            })),
            "/xrpc/_health" => ok(&json!({"version": "simulated"})),
            "/xrpc/com.atproto.sync.getRepoStatus" => self.repo_status(&query),
            "/xrpc/com.atproto.sync.getLatestCommit" => self.latest_commit(&query),
            "/xrpc/com.atproto.sync.listRepos" => self.list_repos(&query),
            _ => refuse(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", "Method Not Implemented"),
        })
    }

    async fn stream(&self, socket: Socket, subscription: Subscription) {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        // A subscriber that has gone away is no error of the host's.
        let _ = match self.place(&subscription) {
            Ok(place) => stream(&mut socket, place).await,
            Err(refused) => fail(&mut socket, refused).await,
        };
    }
}

impl Host {
    fn place(&self, subscription: &Subscription) -> Result<Place<'_>, Refused> {
        let cursor = match subscription.cursor.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| Refused::NO_NUMBER)?),
        };
        match self.outbox.start(cursor) {
            Start::After(seq) => Ok(Place { info: None, reader: self.outbox.reader(seq) }),
            Start::Outdated => {
                let info = event::encode_info(
                    "OutdatedCursor",
                    Some("Requested cursor exceeded limit. Possibly missing events"),
                );
                Ok(Place { info: Some(info), reader: self.outbox.reader(self.outbox.window_start()) })
            }
            Start::Future => Err(Refused::FUTURE),
        }
    }
}

/// Where a subscriber begins.
struct Place<'a> {
    /// An `#info` frame to send first.
    info: Option<Vec<u8>>,
    reader: Reader<'a>,
}

/// Why a subscriber gets an error frame instead of a place.
pub(crate) struct Refused {
    pub(crate) error: &'static str,
    pub(crate) message: &'static str,
}

impl Refused {
    /// The cursor is no number.
    pub(crate) const NO_NUMBER: Refused =
        Refused { error: "InvalidRequest", message: "Params must have a numeric cursor" };
    /// The cursor has not been reached.
    pub(crate) const FUTURE: Refused = Refused { error: "FutureCursor", message: "Cursor in the future." };
}

pub(crate) type StreamResult = Result<(), tokio_tungstenite::tungstenite::Error>;

async fn stream(socket: &mut WebSocketStream<Socket>, Place { info, mut reader }: Place<'_>) -> StreamResult {
    if let Some(info) = info {
        socket.send(Message::Binary(info.into())).await?;
    }
    loop {
        tokio::select! {
            batch = reader.next(BATCH_BYTES) => {
                for frame in batch {
                    socket.feed(Message::Binary(frame)).await?;
                }
                socket.flush().await?;
            }
            // Pings are answered by reading on; whatever else a subscriber says is ignored.
            said = socket.next() => match said {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

/// Says why there is no stream, and closes.
pub(crate) async fn fail(socket: &mut WebSocketStream<Socket>, Refused { error, message }: Refused) -> StreamResult {
    socket.send(Message::Binary(frame::encode_error(error, Some(message)).into())).await?;
    socket.close(Some(CloseFrame { code: CloseCode::Policy, reason: message.into() })).await?;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}

/// The answer to a WebSocket handshake, if it is one.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<Response<Full<Bytes>>> {
    let asks = headers.get(header::UPGRADE)?.to_str().ok()?.eq_ignore_ascii_case("websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

pub(crate) fn ok(body: &Value) -> Response<Full<Bytes>> {
    reply(StatusCode::OK, "application/json; charset=utf-8", body.to_string())
}

pub(crate) fn refuse(status: StatusCode, error: &str, message: &str) -> Response<Full<Bytes>> {
    reply(status, "application/json; charset=utf-8", json!({"error": error, "message": message}).to_string())
}

/// A request's query.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(request: &Request<()>) -> Query {
        let query = request.uri().query().unwrap_or_default();
        Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}
