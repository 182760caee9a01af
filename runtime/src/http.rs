//! HTTP served: a bound port, and the loop that accepts its connections within limits.
//!
//! A handler that upgrades a connection gets the raw socket by
//! `hyper::upgrade::on(request).await?.downcast::<TokioIo<TcpStream>>()`, and keeps the request's [`Peer`] as long as
//! the socket, which then goes on counting as a connection.

use std::{convert::Infallible, error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::{Service, ServiceExt};
use tracing::{debug, info_span, warn};

use crate::tasks::Tasks;

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once, upgraded ones included. One more is answered 503 and closed.
    pub connections_max: usize,
    /// The time for a request's head; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections_max: 4_096, head_timeout: Duration::from_secs(15), head_bytes_max: 16 * 1024 }
    }
}

/// Who is at the other end; an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    _permit: Arc<OwnedSemaphorePermit>,
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
            Ok(Listener { listener, addr })
        };
        open().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { addr, flag },
            _ => BindError::Io { addr, flag, source },
        })
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
        let free = Arc::new(Semaphore::new(limits.connections_max));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.head_bytes_max.max(8 * 1024));
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
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                refuse(stream).await;
                continue;
            };
            let peer = Peer { addr, _permit: Arc::new(permit) };
            let _ = stream.set_nodelay(true);
            let connection = connection(http.clone(), stream, peer, service.clone(), tasks.clone());
            tasks.spawn_in(info_span!("http", peer = %addr), "http connection", connection);
        }
    }
}

async fn connection<S, B>(http: http1::Builder, stream: TcpStream, peer: Peer, service: S, tasks: Tasks)
where
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
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = tasks.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "connection broke off");
    }
}

/// Errors that `accept` passes on from the connection it would have given.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Says that there is no room. One small write into a fresh socket's empty buffer; what does not fit is dropped.
async fn refuse(mut stream: TcpStream) {
    const FULL: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 30\r\n\r\n";
    let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(FULL)).await;
}
