//! HTTP served: a bound port, and the loop that accepts its connections within limits.
//!
//! A handler that upgrades a connection gets the raw socket by
//! `hyper::upgrade::on(request).await?.downcast::<TokioIo<TcpStream>>()`. A connection counts for as long as its [`Peer`]
//! lives: dropped with the request, an upgraded socket counts here no longer, and whoever took it counts it; kept, it goes
//! on counting.
//!
//! What must hold: accepting never waits for anybody. Who is turned away is told so where that costs nothing, and no
//! connection is kept for who neither asks nor reads.

use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error as StdError,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tower::{Service, ServiceExt};
use tracing::{debug, info_span, warn};

use crate::{
    networks::{Networks, party},
    tasks::Tasks,
};

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once. One more is answered 503 and closed.
    pub connections_max: usize,
    /// Of them from one address, or one /64 of IPv6; `None` for no limit. One more is answered 429 and closed.
    pub per_address_max: Option<usize>,
    /// Whose connections are not limited by address: proxies, which bring many clients.
    pub unlimited: Networks,
    /// The time for a request's head; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// How long one connection may go on with requests; then it is closed after the one under way.
    pub life_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 4_096,
            per_address_max: None,
            unlimited: Networks::default(),
            head_timeout: Duration::from_secs(15),
            head_bytes_max: 16 * 1024,
            life_max: Duration::from_secs(300),
        }
    }
}

/// The time for the request under way when its connection has lasted long enough: more than any handler takes.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(40);

/// The same when the process ends.
const LAST_REQUEST_AT_END_MAX: Duration = Duration::from_secs(5);

/// Who is at the other end; an extension of every request. Its connection counts while this lives.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    _room: Arc<Room>,
}

/// Why a connection is turned away before its request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many are open as may be.
    Full,
    /// As many are open from its address as may be.
    AddressFull,
}

impl Refused {
    /// All of them.
    pub const ALL: [Refused; 2] = [Refused::Full, Refused::AddressFull];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::AddressFull => "address_full",
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Refused::Full => {
                b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 30\r\n\r\n"
            }
            Refused::AddressFull => {
                b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 30\r\n\r\n"
            }
        }
    }
}

/// How a connection ended, upgraded ones as far as the listener had to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order: closed after its last answer, or handed over.
    Done,
    /// No whole head of a request came in time.
    NoRequest,
    /// What came is no HTTP/1.
    BadRequest,
    /// A request's head was over the limit.
    HeadTooLarge,
    /// The other end broke off.
    Broken,
    /// It took too long over its last answer.
    Stalled,
}

impl Ended {
    /// All of them.
    pub const ALL: [Ended; 6] =
        [Ended::Done, Ended::NoRequest, Ended::BadRequest, Ended::HeadTooLarge, Ended::Broken, Ended::Stalled];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::NoRequest => "no_request",
            Ended::BadRequest => "bad_request",
            Ended::HeadTooLarge => "head_too_large",
            Ended::Broken => "broken",
            Ended::Stalled => "stalled",
        }
    }

    fn of(error: &hyper::Error) -> Ended {
        match error {
            error if error.is_timeout() => Ended::NoRequest,
            error if error.is_parse_too_large() => Ended::HeadTooLarge,
            error if error.is_parse() => Ended::BadRequest,
            _ => Ended::Broken,
        }
    }
}

/// What a listener counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    connections: IntGauge,
    refused: IntCounterVec,
    ended: IntCounterVec,
}

impl Metrics {
    /// Registers those of one listener.
    pub fn register(registry: &Registry, listener: &'static str) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics::new(listener)?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        Ok(metrics)
    }

    fn new(listener: &'static str) -> Result<Metrics, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("listener", listener);
        let connections = IntGauge::with_opts(opts(
            "mainstem_http_connections",
            "Connections that are open and were not handed over to a stream.",
        ))?;
        let refused = IntCounterVec::new(
            opts("mainstem_http_refused_total", "Connections that were turned away before their request, by reason."),
            &["reason"],
        )?;
        let ended = IntCounterVec::new(
            opts("mainstem_http_ended_total", "Connections that ended or were handed over, by reason."),
            &["reason"],
        )?;
        for reason in Refused::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        for reason in Ended::ALL {
            ended.with_label_values(&[reason.as_str()]);
        }
        Ok(Metrics { connections, refused, ended })
    }

    /// Connections that were turned away for a reason.
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused.with_label_values(&[reason.as_str()]).get()
    }

    /// Connections that ended in a way.
    pub fn ended(&self, reason: Ended) -> u64 {
        self.ended.with_label_values(&[reason.as_str()]).get()
    }
}

/// Who is in.
#[derive(Debug)]
struct House {
    limits: Limits,
    metrics: Metrics,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_party: HashMap<IpAddr, usize>,
}

/// One connection's room; free again when dropped.
#[derive(Debug)]
struct Room {
    house: Arc<House>,
    party: IpAddr,
}

impl House {
    fn admit(self: &Arc<House>, address: IpAddr) -> Result<Room, Refused> {
        let party = party(address);
        let mut inside = self.inside();
        let Inside { all, by_party } = &mut *inside;
        if *all >= self.limits.connections_max {
            return Err(Refused::Full);
        }
        let of_party = by_party.get(&party).copied().unwrap_or(0);
        if self.limits.per_address_max.is_some_and(|max| of_party >= max) && !self.limits.unlimited.contain(address) {
            return Err(Refused::AddressFull);
        }
        by_party.insert(party, of_party + 1);
        *all += 1;
        self.metrics.connections.inc();
        Ok(Room { house: Arc::clone(self), party })
    }

    /// Nothing panics while it is held, and every change is whole.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut inside = self.house.inside();
        inside.all -= 1;
        if let Some(count) = inside.by_party.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                inside.by_party.remove(&self.party);
            }
        }
        self.house.metrics.connections.dec();
    }
}

/// A port can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{addr} is taken by another process; choose another with {flag}")]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Another cause.
    #[error("can't listen on {addr} ({flag})")]
    Io {
        /// The address.
        addr: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bound port that does not serve yet. Connections wait in its queue.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    addr: SocketAddr,
    metrics: Option<Metrics>,
}

impl Listener {
    /// Binds `addr` (port 0: any free one) with SO_REUSEADDR, so that a restart need not wait for old connections.
    /// `flag` is what the error tells people to change. Must be called within the Tokio runtime.
    pub fn bind(addr: SocketAddr, flag: &'static str) -> Result<Listener, BindError> {
        let open = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            let listener = socket.listen(1_024)?;
            let addr = listener.local_addr()?;
            Ok(Listener { listener, addr, metrics: None })
        };
        open().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { addr, flag },
            _ => BindError::Io { addr, flag, source },
        })
    }

    /// The same, counting in `metrics`.
    pub fn counting(self, metrics: Metrics) -> Listener {
        Listener { metrics: Some(metrics), ..self }
    }

    /// The address it is bound to, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves HTTP/1.1 until shutdown: then accepts nobody, lets requests under way finish, and returns. Its connections
    /// are tasks that the drain waits for; upgraded sockets are their handlers' business. An axum `Router` is such a
    /// service.
    pub async fn serve<S, B>(self, service: S, limits: Limits, tasks: Tasks)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.head_bytes_max.max(8 * 1024));
        let metrics = self.metrics.unwrap_or_else(|| Metrics::new("").expect("the names are sound"));
        let house = Arc::new(House { limits, metrics, inside: Mutex::default() });
        let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
        loop {
            let accepted = tokio::select! {
                () = tasks.stopped() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    // Out of file descriptors or memory: accepting at once again would only burn the CPU.
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match house.admit(addr.ip()) {
                Ok(room) => {
                    let peer = Peer { addr, _room: Arc::new(room) };
                    let _ = stream.set_nodelay(true);
                    let connection =
                        connection(http.clone(), stream, peer, service.clone(), tasks.clone(), Arc::clone(&house));
                    tasks.spawn_in(info_span!("http", peer = %addr), "http connection", connection);
                }
                Err(refused) => {
                    house.metrics.refused.with_label_values(&[refused.as_str()]).inc();
                    turn_away(stream, refused, &farewells, &tasks);
                }
            }
        }
    }
}

async fn connection<S, B>(
    http: http1::Builder,
    stream: TcpStream,
    peer: Peer,
    service: S,
    tasks: Tasks,
    house: Arc<House>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let last_request_max = tokio::select! {
        result = connection.as_mut() => return house.metrics.count(result),
        () = tasks.stopped() => LAST_REQUEST_AT_END_MAX,
        () = tokio::time::sleep(house.limits.life_max) => LAST_REQUEST_MAX,
    };
    connection.as_mut().graceful_shutdown();
    match timeout(last_request_max, connection).await {
        Ok(result) => house.metrics.count(result),
        Err(_) => house.metrics.ended.with_label_values(&[Ended::Stalled.as_str()]).inc(),
    }
}

impl Metrics {
    fn count(&self, result: Result<(), hyper::Error>) {
        let ended = match result {
            Ok(()) => Ended::Done,
            Err(error) => {
                debug!(%error, "connection broke off");
                Ended::of(&error)
            }
        };
        self.ended.with_label_values(&[ended.as_str()]).inc();
    }
}

/// Errors that `accept` passes on from the connection it would have given.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// How many of those who are turned away are looked after at once, so that they read why.
const FAREWELLS_MAX: usize = 64;

/// How long each.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// Says why, without waiting. A socket that is closed before it was read is reset, and the answer with it; so some are
/// read out for a moment, beside the accepting, and in a flood the others are told and closed.
fn turn_away(mut stream: TcpStream, refused: Refused, farewells: &Arc<Semaphore>, tasks: &Tasks) {
    let Ok(farewell) = Arc::clone(farewells).try_acquire_owned() else {
        // Into a fresh socket's empty buffer; tokio would first want to hear that there is room.
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(refused.answer());
        }
        return;
    };
    tasks.spawn("http farewell", async move {
        let _farewell = farewell;
        let read_out = async {
            stream.write_all(refused.answer()).await?;
            stream.shutdown().await?;
            let mut ignored = [0; 1024];
            while stream.read(&mut ignored).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(FAREWELL_WITHIN, read_out).await;
    });
}
