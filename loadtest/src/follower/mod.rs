//! A consumer that keeps a [`ledger`] of every frame's hash, drops what a cut has left of a frame, and comes back at its
//! last whole event, for as long as it lives and when it is started again.
//!
//! Unlike [`crate::subscriber`] it owns its socket down to the bytes: it knows what was torn, it can read in sips, leave
//! in the middle of a frame, and give up a connection from which nothing comes. What happens to it is written to a
//! [`journal`] beside the ledger.

pub mod frames;
pub mod inflate;
pub mod journal;
pub mod ledger;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use atproto::event::{Routed, route};
use aws_lc_rs::digest::{SHA256, digest};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use self::{
    frames::{Frame, Frames, Opcode},
    inflate::Inflater,
    journal::{Ending, Journal, Note},
    ledger::{Entry, Ledger},
};

/// Whom to follow, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay.
    pub relay: SocketAddr,
    /// Its ledger is `NAME.ledger` in the folder, its journal `NAME.journal`.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Where it begins, and how it behaves.
    pub manner: Manner,
    /// The part of all accounts that it asks for.
    pub shard: Option<Shard>,
    /// It offers permessage-deflate.
    pub compressed: bool,
    /// Sips, pauses and departures follow from it.
    pub seed: u64,
}

/// Part `index` of `count` of all accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

impl Shard {
    /// Whether an account is in it: by the first 8 bytes of the SHA-256 of its DID, big-endian.
    pub fn holds(self, did: &str) -> bool {
        let hash = digest(&SHA256, did.as_bytes());
        let first = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        u64::from_be_bytes(*first) % self.count == self.index
    }
}

/// Where a follower begins when its ledger is empty, and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads what comes from now on, as fast as it comes.
    Live,
    /// Begins with the oldest event that there is.
    FromStart,
    /// Begins with the oldest event, into a small receive buffer, a few KiB at a time and with pauses.
    Sipping,
    /// Begins with the oldest event, and leaves after some thousands of bytes, mostly within a frame, again and again.
    Restless,
    /// Begins with the oldest event, of one shard of all accounts.
    Sharded,
}

impl Manner {
    /// All of them.
    pub const ALL: [Manner; 5] = [Manner::Live, Manner::FromStart, Manner::Sipping, Manner::Restless, Manner::Sharded];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Manner::Live => "live",
            Manner::FromStart => "from-start",
            Manner::Sipping => "sipping",
            Manner::Restless => "restless",
            Manner::Sharded => "sharded",
        }
    }

    fn first_cursor(self) -> Option<u64> {
        match self {
            Manner::Live => None,
            Manner::FromStart | Manner::Sipping | Manner::Restless | Manner::Sharded => Some(0),
        }
    }
}

/// Without a byte for so long, a connection is given up: on the way here it may have ended long ago.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// More than an answer to the handshake has.
const HEAD_BYTES_MAX: usize = 8 << 10;
const READ_BYTES: usize = 256 << 10;
const SIP_BYTES_MAX: usize = 16 << 10;
const SIP_PAUSE_MAX_MICROS: u64 = 4_000;
const SIP_RECEIVE_BUFFER_BYTES: u32 = 8 << 10;
/// What a restless one reads on one connection, at most.
const STAY_BYTES_MAX: u64 = 1 << 20;

/// A running follower.
struct Follower {
    config: Config,
    ledger: Ledger,
    journal: Journal,
    rng: Xoshiro256PlusPlus,
}

/// One connection of it, open.
struct Connection {
    socket: TcpStream,
    frames: Frames,
    /// Where the relay agreed to compress messages.
    inflater: Option<Inflater>,
    /// Some message was compressed.
    inflated: bool,
}

/// Where a follower's ledger is.
pub fn ledger_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.ledger"))
}

/// Where its journal is.
pub fn journal_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.journal"))
}

/// Follows until it is dropped. Errors are those of the ledger and the journal.
pub async fn follow(config: Config) -> io::Result<()> {
    let mut follower = Follower {
        ledger: Ledger::open(&ledger_path(&config.dir, &config.name))?,
        journal: Journal::open(&journal_path(&config.dir, &config.name))?,
        rng: Xoshiro256PlusPlus::seed_from_u64(config.seed),
        config,
    };
    loop {
        follower.connect_once().await?;
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

impl Follower {
    /// One connection, from its opening to its end.
    async fn connect_once(&mut self) -> io::Result<()> {
        let cursor = self.ledger.last_seq().or(self.config.manner.first_cursor());
        let opened = timeout(CONNECT_WITHIN, self.open(cursor)).await;
        let mut connection = match opened {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.journal.write(&Note::Refused { why: error.to_string() }),
            Err(_) => return self.journal.write(&Note::Refused { why: "no answer".to_owned() }),
        };
        self.journal.write(&Note::Opened { cursor, compressed: connection.inflater.is_some() })?;
        let ending = self.read(&mut connection).await?;
        let torn_bytes = connection.frames.partial_bytes();
        let ended = Note::Ended { ending, last_seq: self.ledger.last_seq(), torn_bytes };
        self.journal.write(&ended)
    }

    /// A WebSocket, and what has come on it behind the handshake.
    async fn open(&self, cursor: Option<u64>) -> io::Result<Connection> {
        let socket = match self.config.relay {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.config.manner == Manner::Sipping {
            socket.set_recv_buffer_size(SIP_RECEIVE_BUFFER_BYTES)?;
        }
        let mut socket = socket.connect(self.config.relay).await?;
        let key = generate_key();
        let cursor = cursor.map(|cursor| format!("cursor={cursor}"));
        let shard = self.config.shard.map(|Shard { index, count }| format!("shard={index}/{count}"));
        let query: Vec<String> = cursor.into_iter().chain(shard).collect();
        let offer = match self.config.compressed {
            true => "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
            false => "",
        };
        let request = format!(
            "GET /xrpc/com.atproto.sync.subscribeRepos?{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: loadtest/{}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             {offer}\r\n",
            query.join("&"),
            self.config.relay,
            self.config.name,
        );
        socket.write_all(request.as_bytes()).await?;
        let mut read = Vec::new();
        let head_bytes = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if read.len() > HEAD_BYTES_MAX || socket.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&read[..head_bytes]);
        let value = |sought: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(name, _)| name.eq_ignore_ascii_case(sought)).map(|(_, value)| value.trim())
        };
        let accepts = value("sec-websocket-accept") == Some(&derive_accept_key(key.as_bytes()));
        if !head.starts_with("HTTP/1.1 101") || !accepts {
            return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
        }
        let compresses = match value("sec-websocket-extensions") {
            None => false,
            Some(agreed) if self.config.compressed && is_agreement(agreed) => true,
            Some(other) => return Err(io::Error::other(format!("the relay agrees to {other}"))),
        };
        let mut frames = Frames::default();
        frames.push(&read[head_bytes..]);
        Ok(Connection { socket, frames, inflater: compresses.then(Inflater::default), inflated: false })
    }

    /// Reads until one end has enough.
    async fn read(&mut self, connection: &mut Connection) -> io::Result<Ending> {
        let mut stays_for = match self.config.manner {
            Manner::Restless => self.rng.random_range(1..STAY_BYTES_MAX),
            Manner::Live | Manner::FromStart | Manner::Sipping | Manner::Sharded => u64::MAX,
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut answers = Vec::new();
            let ended = self.take_frames(connection, &mut answers);
            self.ledger.flush()?;
            if let Some(ending) = ended? {
                return Ok(ending);
            }
            if stays_for == 0 {
                // Half of the time without a goodbye even from the kernel.
                if self.rng.random() {
                    connection.socket.set_zero_linger()?;
                }
                return Ok(Ending::Left);
            }
            let size = match self.config.manner {
                Manner::Sipping => {
                    tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..SIP_PAUSE_MAX_MICROS))).await;
                    self.rng.random_range(1..SIP_BYTES_MAX)
                }
                Manner::Live | Manner::FromStart | Manner::Restless | Manner::Sharded => READ_BYTES,
            };
            let size = size.min(usize::try_from(stays_for).unwrap_or(usize::MAX));
            let exchange = async {
                connection.socket.write_all(&answers).await?;
                connection.socket.read(&mut buffer[..size]).await
            };
            match timeout(SILENCE_MAX, exchange).await {
                Ok(Ok(0)) => return Ok(Ending::Eof),
                Ok(Ok(read)) => {
                    connection.frames.push(&buffer[..read]);
                    stays_for -= read as u64;
                }
                Ok(Err(error)) => return Ok(Ending::Broken { why: error.kind().to_string() }),
                Err(_) => return Ok(Ending::Silence),
            }
        }
    }

    /// Takes all whole frames, and says what is to be answered.
    fn take_frames(&mut self, connection: &mut Connection, answers: &mut Vec<u8>) -> io::Result<Option<Ending>> {
        loop {
            let Frame { opcode, compressed, payload } = match connection.frames.take() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(Ending::Protocol { why: error.to_string() })),
            };
            match opcode {
                Opcode::Binary if compressed => {
                    let Some(inflater) = &mut connection.inflater else {
                        return Ok(Some(Ending::Protocol { why: "compressed, though nobody asked for it".to_owned() }));
                    };
                    let message = match inflater.inflate(&payload) {
                        Ok(message) => message,
                        Err(error) => return Ok(Some(Ending::Protocol { why: error.to_string() })),
                    };
                    if !std::mem::replace(&mut connection.inflated, true) {
                        self.journal.write(&Note::Inflated)?;
                    }
                    self.take_message(&message)?;
                }
                Opcode::Binary => self.take_message(&payload)?,
                Opcode::Close => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Ending::Closed { code }));
                }
                Opcode::Ping => answers.extend(pong(&payload)),
                Opcode::Pong => {}
            }
        }
    }

    fn take_message(&mut self, frame: &[u8]) -> io::Result<()> {
        let said = match route(frame) {
            Ok(Routed::Event(route)) => {
                self.ledger.add(Entry::of(route.seq, frame));
                return Ok(());
            }
            Ok(Routed::Info { name, .. } | Routed::Error { error: name, .. }) => name.to_owned(),
            Ok(Routed::Unknown { .. }) => "an unknown frame".to_owned(),
            Err(error) => format!("no frame: {error}"),
        };
        self.journal.write(&Note::Said { what: said })
    }
}

/// Whether a relay's `Sec-WebSocket-Extensions` is permessage-deflate with nothing remembered from one message for the
/// next.
fn is_agreement(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    parts.next() == Some("permessage-deflate") && parts.any(|part| part == "server_no_context_takeover")
}

/// A pong of a ping's payload; masked with zeros, which leaves it as it is.
fn pong(payload: &[u8]) -> Vec<u8> {
    let len = payload.len().min(125);
    let mut frame = vec![0x8a, 0x80 | len as u8, 0, 0, 0, 0];
    frame.extend_from_slice(&payload[..len]);
    frame
}
