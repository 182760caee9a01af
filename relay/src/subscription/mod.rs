//! Reading a stream, ours or another's, as any subscriber does: where it is, a connection to it, its messages.
//!
//! A connection answers pings and asks for a sign of life when nothing comes. It looks at no message, and does not come
//! back by itself: cursors, and when to try again, are its owner's.

mod address;

use std::{io, ops::Range, time::Duration};

use atproto::frame::FRAME_BYTES_MAX;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use runtime::{
    egress::{self, Egress, Stream},
    ws::{self, CloseCode, Decoder, HandshakeError, ProtocolError, Role},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use address::{Address, NotAnAddress};

use crate::fanout::shard::Shard;

/// The time for a connection's handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// After this long without a byte the server is asked for a sign of life, and then taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// What of a stream is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// After which seq to begin; live where there is none.
    pub cursor: Option<u64>,
    /// Only the accounts of one part.
    pub shard: Option<Shard>,
    /// Whether compressed messages are taken.
    pub compressed: bool,
}

/// What a connection brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A whole message.
    Message(Bytes),
    /// A message over the limit, which was discarded.
    TooLarge {
        /// How long it was.
        bytes: u64,
    },
    /// All that has come was given out; what follows has to be waited for.
    Drained,
}

/// Why a connection ended, or was none.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Nobody could be reached.
    #[error(transparent)]
    Connect(#[from] egress::Error),
    /// There was no WebSocket.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It broke off.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// What came was no WebSocket's.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Not even an answer to a ping.
    #[error("nothing came for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// The server ended it, in its own words, which may hold anything.
    #[error("the server closed: {0}")]
    Closed(String),
}

/// The server refuses us, and will do so again.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status}: {message}")]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// What it said, which may hold anything.
    pub message: String,
}

impl Lost {
    /// Whether trying again is of no use.
    pub fn refused(&self) -> Option<Refused> {
        match self {
            Lost::Handshake(HandshakeError::Refused { status, body, .. })
                if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS =>
            {
                Some(Refused { status: *status, message: String::from_utf8_lossy(body).trim().to_owned() })
            }
            Lost::Connect(_)
            | Lost::Handshake(_)
            | Lost::Broken(_)
            | Lost::Protocol(_)
            | Lost::Silent
            | Lost::Closed(_) => None,
        }
    }
}

/// A connection to a stream.
pub struct Subscription {
    stream: Stream,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// What of the buffer the decoder has not had.
    unread: Range<usize>,
    /// Whether [`Heard::Drained`] was said since the last message.
    drained: bool,
}

impl Subscription {
    /// Connects.
    pub async fn open(egress: &Egress, address: &Address, wish: Wish) -> Result<Subscription, Lost> {
        let stream = egress.connect(&address.host, address.port, address.tls).await?;
        let mut headers = HeaderMap::new();
        if let Ok(agent) = HeaderValue::from_str(egress.user_agent()) {
            headers.insert(header::USER_AGENT, agent);
        }
        let target = wish.target(&address.path);
        let request = ws::Request { authority: address.authority.clone(), target, headers, deflate: wish.compressed };
        let ws::Socket { stream, read, deflate } = ws::connect(stream, request, HANDSHAKE_MAX).await?;
        let mut buffer = read.to_vec();
        let unread = 0..buffer.len();
        buffer.resize(buffer.len().max(READ_BYTES), 0);
        let decoder = Decoder::new(Role::Client, FRAME_BYTES_MAX).taking_deflated(deflate);
        Ok(Subscription { stream, decoder, buffer, unread, drained: false })
    }

    /// What comes next. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Heard, Lost> {
        loop {
            let mut input = &self.buffer[self.unread.clone()];
            let event = self.decoder.next(&mut input)?;
            self.unread.start = self.unread.end - input.len();
            match event {
                Some(ws::Event::Message { payload, .. }) => {
                    self.drained = false;
                    return Ok(Heard::Message(payload));
                }
                Some(ws::Event::TooLarge { bytes }) => {
                    self.drained = false;
                    return Ok(Heard::TooLarge { bytes });
                }
                Some(ws::Event::Ping(payload)) => self.write(&ws::pong(&payload, Some(rand::random()))).await?,
                Some(ws::Event::Pong(_)) => {}
                Some(ws::Event::Close { code, reason }) => {
                    let close = ws::close(code, "", Some(rand::random()));
                    let _ = self.stream.write_all(&close).await;
                    let code = code.map_or_else(String::new, |CloseCode(code)| code.to_string());
                    return Err(Lost::Closed(format!("{code} {reason}").trim().to_owned()));
                }
                None if !self.drained => {
                    self.drained = true;
                    return Ok(Heard::Drained);
                }
                None => self.fill().await?,
            }
        }
    }

    /// Waits for more.
    async fn fill(&mut self) -> Result<(), Lost> {
        let mut asked = false;
        loop {
            match tokio::time::timeout(SILENCE_MAX, self.stream.read(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(Lost::Closed("end of the stream".to_owned())),
                Ok(n) => {
                    self.unread = 0..n.map_err(Lost::Broken)?;
                    return Ok(());
                }
                Err(_) if asked => return Err(Lost::Silent),
                Err(_) => {
                    asked = true;
                    self.write(&ws::ping(&[], Some(rand::random()))).await?;
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.stream.write_all(bytes).await.map_err(Lost::Broken)
    }
}

impl Wish {
    /// The path with what is asked for.
    fn target(&self, path: &str) -> String {
        let cursor = self.cursor.map(|cursor| format!("cursor={cursor}"));
        let shard = self.shard.map(|shard| format!("shard={shard}"));
        let query: Vec<String> = cursor.into_iter().chain(shard).collect();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        let target = |cursor, shard: Option<&str>| {
            Wish { cursor, shard: shard.map(|shard| shard.parse().unwrap()), compressed: false }.target("/stream")
        };
        assert_eq!(target(None, None), "/stream");
        assert_eq!(target(Some(7), None), "/stream?cursor=7");
        assert_eq!(target(None, Some("0/2")), "/stream?shard=0/2");
        assert_eq!(target(Some(7), Some("1/2")), "/stream?cursor=7&shard=1/2");
    }

    #[test]
    fn only_a_refusal_that_will_be_repeated_is_final() {
        let refused = |status| {
            let (headers, body) = (Box::default(), Bytes::from_static(b" no \n"));
            Lost::Handshake(HandshakeError::Refused { status, headers, body }).refused()
        };
        assert_eq!(refused(StatusCode::BAD_REQUEST).unwrap().to_string(), "the server answered 400 Bad Request: no");
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::FOUND] {
            assert!(refused(status).is_none(), "{status}");
        }
        assert!(Lost::Silent.refused().is_none());
    }
}
