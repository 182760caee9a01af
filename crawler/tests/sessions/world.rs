//! A crawler between hosts that a test plays by hand and an intake whose receipts it gives.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use atproto::{
    event::{Event, IdentityEvent},
    frame,
    syntax::HostName,
};
use crawler::{Config, Crawler, Handle, HostView, Parts, Start, Timing};
use futures_util::{SinkExt, StreamExt};
use prometheus::Registry;
use runtime::{
    clock::Clock,
    egress::{Egress, Policy},
    tasks::Tasks,
    trace::Tracer,
};
use storage::{
    Stores,
    error::Error,
    hosts::{AllHosts, Assignment, HostCursor, Hosts},
    intake::{Command, Intake, Position, RawFrame, Taken},
    lane::{Lane, LaneCount},
    limits::{Limits, Rules},
    refusal::Refusals,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};
use tokio_util::sync::CancellationToken;

/// Long enough for the busiest machine; nothing waits for it to pass.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "never {what}");
}

// === The intake ===

/// An intake that keeps what is pushed; the test gives the receipts.
pub(crate) struct Held {
    frames: Mutex<Vec<RawFrame>>,
    room: Semaphore,
}

impl Held {
    fn new() -> Held {
        Held { frames: Mutex::default(), room: Semaphore::new(1_000_000) }
    }

    /// From now on a push waits.
    pub(crate) fn fill(&self) {
        self.room.forget_permits(1_000_000);
    }

    /// From now on it does not.
    pub(crate) fn empty(&self) {
        self.room.add_permits(1_000_000);
    }

    pub(crate) fn frames(&self) -> Vec<RawFrame> {
        self.frames.lock().unwrap().clone()
    }

    /// The seqs pushed so far, in order.
    pub(crate) fn seqs(&self) -> Vec<u64> {
        self.frames().iter().map(|frame| frame.upstream_seq).collect()
    }

    /// Waits until exactly these were pushed.
    pub(crate) async fn has(&self, seqs: &[u64]) {
        until(&format!("had {} frames", seqs.len()), || self.frames.lock().unwrap().len() >= seqs.len()).await;
        assert_eq!(self.seqs(), seqs);
    }

    /// Gives the receipts of the last pushed frames with these seqs.
    pub(crate) fn take(&self, seqs: &[u64]) {
        let frames = self.frames();
        for seq in seqs {
            let frame = frames.iter().rfind(|frame| frame.upstream_seq == *seq).unwrap();
            frame.receipts.taken(*seq);
        }
    }
}

#[async_trait]
impl Intake for Held {
    fn lanes(&self) -> LaneCount {
        LaneCount(std::num::NonZeroU32::MIN)
    }

    async fn push(&self, frame: RawFrame) -> Result<(), Error> {
        self.room.acquire().await.unwrap().forget();
        self.frames.lock().unwrap().push(frame);
        Ok(())
    }

    async fn push_command(&self, _: Command) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn pull(&self, _: Lane, _: usize) -> Result<Vec<Taken>, Error> {
        Err(Error::Closed)
    }

    async fn cover(&self, _: Lane, _: Position) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn settle(&self, _: Lane, _: &[Position]) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn bytes_held(&self) -> u64 {
        0
    }
}

// === The crawler ===

pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) intake: Arc<Held>,
    pub(crate) hosts: Arc<dyn Hosts>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) limits: Limits,
    pub(crate) registry: Registry,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
    run: JoinHandle<()>,
}

/// As fast as a test wants it.
pub(crate) fn quick() -> Config {
    Config {
        opens_per_second: std::num::NonZeroU32::new(10_000).unwrap(),
        timing: Timing {
            backoff_base: Duration::from_millis(20),
            backoff_cap: Duration::from_millis(200),
            ..Timing::default()
        },
        save_every: Duration::from_millis(10),
        settle_within: Duration::from_millis(50),
        ..Config::default()
    }
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let Stores { hosts, .. } = storage::memory::open();
        World::with_hosts(config, hosts)
    }

    /// As after a restart on the same store.
    pub(crate) fn with_hosts(config: Config, hosts: Arc<dyn Hosts>) -> World {
        let policy = Policy { allow_local: true, ..Policy::default() };
        World::with_policy(config, hosts, policy)
    }

    pub(crate) fn with_policy(config: Config, hosts: Arc<dyn Hosts>, policy: Policy) -> World {
        World::with_parts(config, hosts, Arc::new(AllHosts::default()), policy)
    }

    /// One of several that share the hosts.
    pub(crate) fn with_parts(
        config: Config,
        hosts: Arc<dyn Hosts>,
        crawled: Arc<dyn Assignment>,
        policy: Policy,
    ) -> World {
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let intake = Arc::new(Held::new());
        let refusals = Arc::new(Refusals::default());
        let limits = Limits::new(Rules::default(), true);
        let registry = Registry::new();
        let parts = Parts {
            intake: intake.clone(),
            hosts: hosts.clone(),
            crawled,
            refusals: refusals.clone(),
            limits: limits.clone(),
            egress: Egress::new(policy),
            clock: Clock::manual(1_000_000),
            tracer: Tracer::off(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let (crawler, handle) = Crawler::build(config, parts, &registry).unwrap();
        let run = tasks.spawn("crawler", async move { crawler.run().await.unwrap() });
        World { handle, intake, hosts, refusals, limits, registry, stop, tasks, run }
    }

    pub(crate) async fn read(&self, pds: &Pds, start: Start) {
        self.handle.add_host(&pds.name, start).await.unwrap();
    }

    pub(crate) fn view(&self, pds: &Pds) -> HostView {
        self.handle.host(&pds.name).unwrap()
    }

    /// Asks for the host to be read, and gives how it is.
    pub(crate) async fn read_and_look(&self, pds: &Pds) -> storage::hosts::HostStatus {
        self.read(pds, Start::Oldest).await;
        self.view(pds).status
    }

    pub(crate) async fn saved(&self, pds: &Pds) -> HostCursor {
        self.hosts.get(&pds.name).await.unwrap().unwrap().cursor
    }

    pub(crate) async fn saves(&self, pds: &Pds, cursor: HostCursor) {
        let waiting = async {
            while self.saved(pds).await != cursor {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(SOON, waiting).await.is_ok(), "{:?} is never {cursor:?}", self.saved(pds).await);
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        timeout(SOON, self.run).await.unwrap().unwrap();
        self.tasks.drain(SOON).await.unwrap();
    }

    /// A counter's value, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }
}

// === A host ===

/// A host whose side of each connection the test plays.
pub(crate) struct Pds {
    pub(crate) name: HostName,
    pub(crate) addr: SocketAddr,
    /// Connections that came, handshakes or not.
    pub(crate) connects: Arc<AtomicUsize>,
    connections: mpsc::UnboundedReceiver<Connection>,
    _serving: JoinHandle<()>,
}

/// The host's end of a connection.
pub(crate) struct Connection {
    /// What the crawler asked for.
    pub(crate) target: String,
    pub(crate) agent: String,
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Pds {
    pub(crate) async fn new() -> Pds {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connects = Arc::new(AtomicUsize::new(0));
        let count = connects.clone();
        let (sender, connections) = mpsc::unbounded_channel();
        let serving = Tasks::new().spawn("pds", async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (mut target, mut agent) = (String::new(), String::new());
                #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
                let look = |request: &Request, response: Response| {
                    target = request.uri().to_string();
                    agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
                    Ok(response)
                };
                if let Ok(socket) = accept_hdr_async(stream, look).await {
                    let _ = sender.send(Connection { target, agent, socket });
                }
            }
        });
        let name = HostName::parse(&addr.to_string()).unwrap();
        Pds { name, addr, connects, connections, _serving: serving }
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> Connection {
        timeout(SOON, self.connections.recv()).await.expect("the crawler connects").unwrap()
    }

    /// The next connection, which must ask for this cursor.
    pub(crate) async fn accept_at(&mut self, cursor: Option<u64>) -> Connection {
        let connection = self.accept().await;
        let query = cursor.map_or(String::new(), |cursor| format!("?cursor={cursor}"));
        assert_eq!(connection.target, format!("/xrpc/com.atproto.sync.subscribeRepos{query}"));
        connection
    }
}

impl Connection {
    pub(crate) async fn send(&mut self, bytes: impl Into<bytes::Bytes>) {
        self.socket.send(Message::binary(bytes.into())).await.unwrap();
    }

    pub(crate) async fn events(&mut self, seqs: &[u64]) {
        for &seq in seqs {
            self.send(identity(seq)).await;
        }
    }

    pub(crate) async fn error(&mut self, error: &str) {
        self.send(frame::encode_error(error, Some("says the test"))).await;
    }

    /// The next message of the crawler, pings left out (tungstenite answers them while it is polled).
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match timeout(SOON, self.socket.next()).await.expect("the crawler says something") {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Ends it as hosts do.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.close(None).await;
        while self.next().await.is_some() {}
    }
}

/// An event that is good enough for the crawler.
pub(crate) fn identity(seq: u64) -> Vec<u8> {
    let did = format!("did:web:account{}.example.com", seq % 5);
    let time = "2025-01-01T00:00:00.000Z";
    Event::Identity(IdentityEvent { seq, did: &did, time, handle: None }).encode()
}
