//! What stands behind the hosts of a player: the methods that a relay asks for, and the stream.

use std::sync::{Arc, atomic::Ordering};

use atproto::syntax::Did;
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::{
    blocks::Block,
    player::{Gate, Part, Stage},
};
use crate::network::{
    host::{Query, Refused, fail, ok, refuse, upgrade},
    listener::{Answer, Site, Socket},
};

/// One host, or all of them.
pub(super) struct HostSite {
    stage: Arc<Stage>,
    /// `None` is whichever the request's `Host` names.
    host: Option<usize>,
}

/// Who wants to read what.
pub(super) struct Subscription {
    host: usize,
    cursor: Option<String>,
}

/// What goes to a socket at once: little enough that its stamps are still true when the last byte is written.
const WRITE_BYTES: usize = 64 * 1024;

const READ_BYTES: usize = 1024;

type StreamError = Box<dyn std::error::Error + Send + Sync>;

impl HostSite {
    pub(super) fn one(stage: Arc<Stage>, host: usize) -> HostSite {
        HostSite { stage, host: Some(host) }
    }

    pub(super) fn all(stage: Arc<Stage>) -> HostSite {
        HostSite { stage, host: None }
    }

    fn host_of(&self, request: &Request<()>) -> Option<usize> {
        self.host.or_else(|| {
            let name = request.headers().get(header::HOST)?.to_str().ok()?;
            let number = name.strip_prefix('h')?.split_once('.')?.0.parse().ok()?;
            (number < self.stage.hosts.len()).then_some(number)
        })
    }

    /// Its accounts stay as they are, so that there is nothing to say but that.
    fn repo_status(&self, host: usize, query: &Query) -> Response<Full<Bytes>> {
        let did = query.get("did").unwrap_or_default();
        let home = Did::parse(did).ok().and_then(|did| self.stage.home.get(&did).copied());
        match home == Some(host) {
            true => ok(&json!({"did": did, "active": true})),
            false => refuse(StatusCode::BAD_REQUEST, "RepoNotFound", &format!("Could not find repo for DID: {did}")),
        }
    }
}

impl Site for HostSite {
    type Stream = Subscription;

    async fn answer(&self, request: &Request<()>) -> Answer<Subscription> {
        let query = Query::of(request);
        let Some(host) = self.host_of(request) else {
            return Answer::Plain(refuse(StatusCode::MISDIRECTED_REQUEST, "InvalidRequest", "No such host"));
        };
        Answer::Plain(match (request.uri().path(), upgrade(request.headers())) {
            ("/xrpc/com.atproto.sync.subscribeRepos", Some(response)) => {
                return Answer::Upgrade(
                    response,
                    Subscription { host, cursor: query.get("cursor").map(str::to_owned) },
                );
            }
            ("/xrpc/com.atproto.sync.subscribeRepos", None) => {
                refuse(StatusCode::UPGRADE_REQUIRED, "InvalidRequest", "Expected a WebSocket")
            }
            ("/xrpc/com.atproto.server.describeServer", _) => ok(&json!({
                "did": "did:web:localhost", "availableUserDomains": [".sim.test"], "inviteCodeRequired": false,
                "links": {}, "contact": {},
            })),
            ("/xrpc/_health", _) => ok(&json!({"version": "simulated"})),
            ("/xrpc/com.atproto.sync.getRepoStatus", _) => self.repo_status(host, &query),
            _ => refuse(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", "Method Not Implemented"),
        })
    }

    async fn stream(&self, socket: Socket, Subscription { host, cursor }: Subscription) {
        // A subscriber only ever says pings and pongs; the usual buffer of 128 KiB for each of thousands is too much.
        let limits = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(limits)).await;
        let subscribers = &self.stage.hosts[host].subscribers;
        subscribers.fetch_add(1, Ordering::Relaxed);
        let sent = match self.start(host, cursor.as_deref()) {
            Ok(after) => self.send_all(&mut socket, host, after).await,
            Err(refused) => fail(&mut socket, refused).await.map_err(Into::into),
        };
        subscribers.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = sent {
            // Mostly a subscriber that has gone away; but damage on the disk comes here too.
            tracing::warn!(host, error, "a stream of traffic ended");
        }
    }
}

impl HostSite {
    /// The seq after which a subscriber begins; whoever has no cursor gets all, as one who was there from the start.
    fn start(&self, host: usize, cursor: Option<&str>) -> Result<u64, Refused> {
        let cursor: i64 = match cursor {
            None | Some("") => 0,
            Some(text) => text.parse().map_err(|_| Refused::NO_NUMBER)?,
        };
        let after = u64::try_from(cursor).unwrap_or(0);
        let last = [Part::Measured, Part::WarmUp].into_iter().find_map(|part| self.stage.blocks(part).last_seq(host));
        match after > last.unwrap_or(0) {
            true => Err(Refused::FUTURE),
            false => Ok(after),
        }
    }

    async fn send_all(&self, socket: &mut WebSocketStream<Socket>, host: usize, after: u64) -> Result<(), StreamError> {
        for part in [Part::WarmUp, Part::Measured] {
            let blocks = self.stage.blocks(part);
            for number in blocks.block_after(host, after)..blocks.blocks(host) {
                let block = self.read(part, host, number).await?;
                if self.send_block(socket, host, part, block, after).await? == End::Gone {
                    return Ok(());
                }
            }
        }
        // There is nothing more, but a host does not go away for that.
        while let Some(said) = socket.next().await {
            said?;
        }
        Ok(())
    }

    async fn send_block(
        &self,
        socket: &mut WebSocketStream<Socket>,
        host: usize,
        part: Part,
        mut block: Block,
        after: u64,
    ) -> Result<End, StreamError> {
        let stage = &*self.stage;
        let mut gate = stage.gate.subscribe();
        let mut next = block.first_after(after);
        while next < block.len() {
            let open: Gate = gate.borrow_and_update().clone();
            let now = Instant::now();
            let (due, next_due) = stage.due(&open, part, host, now);
            let due = usize::try_from(due.saturating_sub(block.frames_before())).unwrap_or(usize::MAX).min(block.len());
            if due > next {
                let end = block.end_of(next, WRITE_BYTES, due);
                let (first, last) = (block.frames_before() + next as u64, block.frames_before() + end as u64);
                stage.note_late(&open, host, first, now);
                let bytes = block.frame_bytes(next..end);
                // What the protocol itself has to say must be out before we write past it.
                socket.flush().await?;
                let messages = block.stamped(next..end, stage.clock.now_micros());
                socket.get_mut().write_all(messages).await?;
                stage.note_sent(part, host, last, bytes);
                next = end;
                match socket.next().now_or_never() {
                    None | Some(Some(Ok(_))) => {}
                    Some(Some(Err(error))) => return Err(error.into()),
                    Some(None) => return Ok(End::Gone),
                }
                continue;
            }
            let wait = async {
                match next_due {
                    Some(time) => tokio::time::sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = gate.changed() => changed?,
                () = wait => {}
                // Pings are answered by reading on; whatever else a subscriber says is ignored.
                said = socket.next() => match said {
                    Some(said) => drop(said?),
                    None => return Ok(End::Gone),
                },
            }
        }
        Ok(End::Sent)
    }

    async fn read(&self, part: Part, host: usize, number: usize) -> Result<Block, StreamError> {
        let stage = Arc::clone(&self.stage);
        let read = tokio::task::spawn_blocking(move || stage.blocks(part).read(host, number));
        Ok(read.await??)
    }
}

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Sent,
    /// The subscriber has gone.
    Gone,
}
