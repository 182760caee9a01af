//! A relay with nobody before it: tests append to its log themselves.

use std::{fmt::Write as _, net::SocketAddr, num::NonZeroU64, time::Duration};

use atproto::{
    cid::Cid,
    event::{self, AccountEvent, Event, Routed},
    syntax::{Did, HostName, Tid},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use relay::{
    app::App,
    cli::{self, Command},
    config::{Config, Crawl, Local, Memory, Serve, Store},
    node::{Node, Running},
};
use runtime::tasks::Tasks;
use storage::{
    Stores,
    log::Accepted,
    repos::{AccountStatus, Head, LocalStatus, RepoState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error as WsError, Message},
};

/// Long enough for a busy machine; a test that works never waits that long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A running relay.
pub(crate) struct Relay {
    pub(crate) public: SocketAddr,
    pub(crate) private: SocketAddr,
    pub(crate) stores: Stores,
    /// For tests that play the part of the operator.
    pub(crate) app: App,
    pub(crate) tasks: Tasks,
    running: Running,
}

/// The settings of a relay on free ports; `args` are more arguments of `mainstem run`.
pub(crate) fn config(args: &[&str]) -> Config {
    let all = ["mainstem", "run", "--dev", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"];
    let (cli, _) = cli::parse(all.iter().chain(["--plc-url", "http://127.0.0.1:9"].iter()).chain(args)).unwrap();
    let config = match cli.command {
        Command::Run(args) => Config::from_args(&args).unwrap(),
        command => panic!("{command:?}"),
    };
    let Store::Local(Local { window_bytes, seq_start, .. }) = config.store else { panic!("a run has a folder") };
    Config { store: Store::Memory(Memory { window_bytes, seq_start }), ..config }
}

/// A store in memory with a window of about this many bytes.
pub(crate) fn in_memory(window_bytes: u64) -> Store {
    Store::Memory(Memory { window_bytes: NonZeroU64::new(window_bytes).unwrap(), seq_start: None })
}

/// The part of the settings that is about serving.
pub(crate) fn serve(config: &mut Config) -> &mut Serve {
    config.serve.as_mut().unwrap()
}

/// The part of the settings that is about reading hosts.
pub(crate) fn crawl(config: &mut Config) -> &mut Crawl {
    config.crawl.as_mut().unwrap()
}

impl Relay {
    pub(crate) async fn start(config: Config) -> Relay {
        let tasks = Tasks::new();
        let node = Node::build(config, tasks.clone()).await.unwrap();
        let (public, private, app) = (node.public_addr().unwrap(), node.private_addr(), node.app().unwrap().clone());
        Relay { public, private, stores: app.stores.clone(), app, tasks, running: node.start() }
    }

    pub(crate) async fn drain(self) {
        drop((self.stores, self.app));
        self.running.drain(LONG).await.unwrap();
    }

    /// Appends `count` events of about `bytes` each.
    pub(crate) async fn append(&self, count: usize, bytes: usize) {
        self.stores.log.append((0..count).map(|_| accepted(DID, bytes)).collect()).await.unwrap();
    }

    pub(crate) async fn subscribe(&self, query: &str) -> Subscriber {
        let url = format!("ws://{}/xrpc/com.atproto.sync.subscribeRepos{query}", self.public);
        Subscriber { socket: connect_async(url).await.unwrap().0 }
    }

    /// A value of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = get(self.private, "/metrics").await;
        let line = answer.body.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no metric {name}")).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn wait_for_metric(&self, name: &str, value: f64) {
        let wait = async {
            while self.metric(name).await != value {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{name} never was {value}"));
    }
}

pub(crate) const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// An event of an account, padded to about `bytes`.
pub(crate) fn accepted(did: &str, bytes: usize) -> Accepted {
    let padding = "x".repeat(bytes.saturating_sub(100));
    let event = AccountEvent { seq: 1, did, time: "2026-01-02T03:04:05.678Z", active: true, status: Some(&padding) };
    let frame = Event::Account(event).encode();
    let Ok(Routed::Event(route)) = event::route(&frame) else { panic!("not an event") };
    let seq_slot = route.seq_slot;
    let did = Did::parse(did).unwrap();
    Accepted { did, state: state("localhost:2583"), frame: Bytes::from(frame), seq_slot, position: None }
}

/// A state with a head.
pub(crate) fn state(host: &str) -> RepoState {
    RepoState {
        host: HostName::parse(host).unwrap(),
        host_epoch: 0,
        upstream_seq: 1,
        head: Some(Head {
            rev: Tid::parse("3l4nk7lqxyk2a").unwrap(),
            commit: Cid::of_cbor(b"commit"),
            data: Cid::of_cbor(b"data"),
        }),
        upstream: AccountStatus::Active,
        local: LocalStatus::None,
    }
}

/// A subscriber of another make.
pub(crate) struct Subscriber {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a subscriber gets.
#[derive(Debug, PartialEq)]
pub(crate) enum Got {
    Event(u64),
    Info(String),
    Error(String),
    Pong(Bytes),
    Closed(Option<u16>),
}

impl Subscriber {
    /// The next thing that comes, pings left out.
    pub(crate) async fn next(&mut self) -> Got {
        loop {
            let message = tokio::time::timeout(LONG, self.socket.next()).await.expect("nothing came");
            return match message {
                Some(Ok(Message::Binary(frame))) => match event::route(&frame).unwrap() {
                    Routed::Event(route) => Got::Event(route.seq),
                    Routed::Info { name, .. } => Got::Info(name.to_owned()),
                    Routed::Error { error, .. } => Got::Error(error.to_owned()),
                    Routed::Unknown { .. } => panic!("an unknown frame"),
                },
                Some(Ok(Message::Ping(_))) => continue,
                Some(Ok(Message::Pong(payload))) => Got::Pong(payload),
                Some(Ok(Message::Close(frame))) => Got::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) | None => Got::Closed(None),
                Some(Err(error)) => panic!("{error}"),
            };
        }
    }

    /// The next things are the events from `first` to `last`.
    pub(crate) async fn expect_events(&mut self, first: u64, last: u64) {
        for seq in first..=last {
            assert_eq!(self.next().await, Got::Event(seq));
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether it is this XRPC error.
    pub(crate) fn expect_error(&self, status: u16, name: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(name)), "{self:?}");
        assert!(self.json()["message"].is_string(), "{self:?}");
    }
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path, &[], "").await
}

/// Asks over a connection of its own.
pub(crate) async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        request.push_str("connection: close\r\n");
    }
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.push_str("\r\n");
    request.push_str(body);
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
