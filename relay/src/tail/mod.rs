//! `mainstem tail`: watches a firehose, ours or another's, and prints what comes.
//!
//! It reads like any subscriber: reconnects with jittered back-off and the cursor of what it has printed, so that it
//! can be left running. It verifies nothing.

mod line;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use atproto::{
    event::{self, Routed},
    frame::FRAME_BYTES_MAX,
    syntax::HostName,
};
use http::{HeaderMap, HeaderValue, header};
use runtime::{
    backoff::Backoff,
    chain::Chain,
    egress::{self, Egress, Policy, Stream},
    ws::{self, CloseCode, Decoder, HandshakeError, ProtocolError, Role, Socket},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use crate::{cli::TailArgs, fanout::shard::Shard};

const PATH: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// The time for a connection's handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// After this long without a byte the server is asked for a sign of life, and then taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Why `tail` ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the address of a stream.
    #[error(
        "{0:?} is not the address of a stream; write it like ws://127.0.0.1:2470, wss://relay.example.com or pds.example.com"
    )]
    Address(String),
    /// The server refuses us, and will do so again.
    #[error("the server answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: http::StatusCode,
        /// What it said.
        message: String,
    },
    /// Standard output is gone.
    #[error("failed to print")]
    Print(#[from] io::Error),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] egress::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("nothing came for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the server closed: {0}")]
    Closed(String),
    #[error("failed to print")]
    Print(#[source] io::Error),
}

/// Prints until interrupted, or until nobody reads what is printed.
pub async fn run(args: &TailArgs) -> Result<ExitCode, Error> {
    let address = Address::parse(&args.url)?;
    let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
    let mut tail = Tail {
        cursor: args.cursor,
        shard: args.shard,
        compressed: args.compressed,
        json: args.json,
        color: io::stdout().is_terminal(),
        heard: false,
    };
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        tail.heard = false;
        let lost = match tail.connect(&egress, &address).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        };
        match lost {
            Lost::Print(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            Lost::Print(error) => return Err(Error::Print(error)),
            Lost::Handshake(HandshakeError::Refused { status, body, .. })
                if status.is_client_error() && status != http::StatusCode::TOO_MANY_REQUESTS =>
            {
                return Err(Error::Refused { status, message: String::from_utf8_lossy(&body).trim().to_owned() });
            }
            Lost::Connect(_)
            | Lost::Handshake(_)
            | Lost::Broken(_)
            | Lost::Protocol(_)
            | Lost::Silent
            | Lost::Closed(_) => {}
        }
        if tail.heard {
            backoff.reset();
        }
        let wait = backoff.next(&mut rand::rng());
        let why = Chain(&lost).to_string();
        eprintln!("{}: {why}; trying again in {:.1} s", address.authority, wait.as_secs_f64());
        tokio::time::sleep(wait).await;
    }
}

/// What is said and done between connections.
struct Tail {
    cursor: Option<u64>,
    shard: Option<Shard>,
    compressed: bool,
    json: bool,
    color: bool,
    /// Whether this connection has brought anything.
    heard: bool,
}

enum Never {}

impl Tail {
    async fn connect(&mut self, egress: &Egress, address: &Address) -> Result<Never, Lost> {
        let stream = egress.connect(&address.host, address.port, address.tls).await?;
        let mut headers = HeaderMap::new();
        if let Ok(agent) = HeaderValue::from_str(egress.user_agent()) {
            headers.insert(header::USER_AGENT, agent);
        }
        let target = self.target(&address.path);
        let request = ws::Request { authority: address.authority.clone(), target, headers, deflate: self.compressed };
        let socket = ws::connect(stream, request, HANDSHAKE_MAX).await?;
        self.read(socket).await
    }

    /// The path with what is asked for.
    fn target(&self, path: &str) -> String {
        let cursor = self.cursor.map(|cursor| format!("cursor={cursor}"));
        let shard = self.shard.map(|shard| format!("shard={shard}"));
        let query: Vec<String> = cursor.into_iter().chain(shard).collect();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }

    async fn read(&mut self, socket: Socket<Stream>) -> Result<Never, Lost> {
        let Socket { mut stream, read, deflate } = socket;
        let mut decoder = Decoder::new(Role::Client, FRAME_BYTES_MAX).taking_deflated(deflate);
        let mut buffer = vec![0; 64 << 10];
        let mut input = &read[..];
        let mut asked = false;
        loop {
            while let Some(event) = decoder.next(&mut input)? {
                match event {
                    ws::Event::Message { payload, .. } => self.take(&payload)?,
                    ws::Event::Ping(payload) => {
                        let pong = ws::pong(&payload, Some(rand::random()));
                        stream.write_all(&pong).await.map_err(Lost::Broken)?;
                    }
                    ws::Event::Pong(_) => {}
                    ws::Event::TooLarge { bytes } => eprintln!("a message of {bytes} bytes was left out"),
                    ws::Event::Close { code, reason } => {
                        let close = ws::close(code, "", Some(rand::random()));
                        let _ = stream.write_all(&close).await;
                        let code = code.map_or_else(String::new, |CloseCode(code)| code.to_string());
                        return Err(Lost::Closed(format!("{code} {}", line::clean(&reason))));
                    }
                }
            }
            io::stdout().flush().map_err(Lost::Print)?;
            let n = match tokio::time::timeout(SILENCE_MAX, stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Err(Lost::Closed("end of the stream".into())),
                Ok(n) => n.map_err(Lost::Broken)?,
                Err(_) if asked => return Err(Lost::Silent),
                Err(_) => {
                    asked = true;
                    stream.write_all(&ws::ping(&[], Some(rand::random()))).await.map_err(Lost::Broken)?;
                    input = &[];
                    continue;
                }
            };
            asked = false;
            input = &buffer[..n];
        }
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), Lost> {
        self.heard = true;
        match event::route(frame) {
            Ok(Routed::Event(route)) => {
                self.cursor = Some(route.seq);
                self.print(frame)
            }
            // Going on from there would end the same way.
            Ok(Routed::Error { error: "FutureCursor", .. }) => {
                self.cursor = None;
                self.print(frame)
            }
            Ok(Routed::Info { .. } | Routed::Error { .. }) => self.print(frame),
            Ok(Routed::Unknown { seq }) => {
                self.cursor = seq.or(self.cursor);
                Ok(())
            }
            Err(error) => {
                eprintln!("a message that can't be read: {error}");
                Ok(())
            }
        }
    }

    fn print(&mut self, frame: &[u8]) -> Result<(), Lost> {
        let mut out = io::stdout().lock();
        let text = if self.json { line::json(frame) } else { line::text(frame, self.color) };
        match text {
            Ok(text) => writeln!(out, "{text}").map_err(Lost::Print),
            Err(error) => {
                eprintln!("a message that can't be shown: {error}");
                Ok(())
            }
        }
    }
}

/// Where a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    tls: bool,
    /// `host` or `host:port`, as the Host header has it.
    authority: String,
    path: String,
}

impl Address {
    fn parse(text: &str) -> Result<Address, Error> {
        let bad = || Error::Address(text.to_owned());
        if !text.contains("://") {
            let name = HostName::parse(text).map_err(|_| bad())?;
            let tls = !name.is_local();
            return Ok(Address {
                host: name.host().to_owned(),
                port: name.port().unwrap_or(if tls { 443 } else { 80 }),
                tls,
                authority: name.to_string(),
                path: PATH.to_owned(),
            });
        }
        let url = Url::parse(text).map_err(|_| bad())?;
        let tls = match url.scheme() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(bad()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = match url.path() {
            "" | "/" => PATH.to_owned(),
            path => path.to_owned(),
        };
        Ok(Address {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            authority,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        let target = |cursor, shard: Option<&str>| {
            let shard = shard.map(|shard| shard.parse().unwrap());
            Tail { cursor, shard, compressed: false, json: false, color: false, heard: false }.target("/stream")
        };
        assert_eq!(target(None, None), "/stream");
        assert_eq!(target(Some(7), None), "/stream?cursor=7");
        assert_eq!(target(None, Some("0/2")), "/stream?shard=0/2");
        assert_eq!(target(Some(7), Some("1/2")), "/stream?cursor=7&shard=1/2");
    }

    #[test]
    fn addresses() {
        let address = |host: &str, port, tls, authority: &str, path: &str| Address {
            host: host.into(),
            port,
            tls,
            authority: authority.into(),
            path: path.into(),
        };
        for (text, expected) in [
            ("ws://127.0.0.1:2470", address("127.0.0.1", 2470, false, "127.0.0.1:2470", PATH)),
            ("wss://relay.example.com/", address("relay.example.com", 443, true, "relay.example.com", PATH)),
            ("https://relay.example.com", address("relay.example.com", 443, true, "relay.example.com", PATH)),
            ("ws://[::1]:80/other", address("::1", 80, false, "[::1]", "/other")),
            ("pds.example.com", address("pds.example.com", 443, true, "pds.example.com", PATH)),
            ("localhost:2583", address("localhost", 2583, false, "localhost:2583", PATH)),
        ] {
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "ftp://example.com", "not a host", "wss://"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
