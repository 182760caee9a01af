//! A small HTTP server on loopback whose connections end with it, so that a simulated host can vanish like a real one.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A connection after its upgrade.
pub(crate) type Socket = TokioIo<Upgraded>;

/// What stands behind a listener.
pub(crate) trait Site: Send + Sync + 'static {
    /// What an upgraded connection is about.
    type Stream: Send;

    fn answer(&self, request: &Request<()>) -> impl Future<Output = Answer<Self::Stream>> + Send;

    /// Serves an upgraded connection to its end.
    fn stream(&self, socket: Socket, stream: Self::Stream) -> impl Future<Output = ()> + Send;
}

/// An answer to a request.
pub(crate) enum Answer<S> {
    /// The whole answer.
    Plain(Response<Full<Bytes>>),
    /// A `101`; the connection goes on as this stream.
    Upgrade(Response<Full<Bytes>>, S),
}

/// A plain answer.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// Listens; port 0 takes a free one.
pub(crate) async fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((address, port)).await
}

/// How a listener is reached: `localhost:PORT`, or `ADDRESS:PORT` where it is not loopback.
pub(crate) fn name_of(listener: &TcpListener) -> io::Result<String> {
    Ok(match listener.local_addr()? {
        local if local.ip().is_loopback() => format!("localhost:{}", local.port()),
        other => other.to_string(),
    })
}

/// Serves for ever; dropped, it closes the port and cuts all connections.
pub(crate) async fn serve<S: Site>(listener: TcpListener, site: Arc<S>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve_connection(socket, Arc::clone(&site)));
                }
                // Out of file descriptors, most likely: some time later there may be one.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn serve_connection<S: Site>(socket: TcpStream, site: Arc<S>) {
    // A frame should leave when it is ready; without this small ones wait for an acknowledgement.
    let _ = socket.set_nodelay(true);
    let upgraded = Mutex::new(None);
    let answer = async |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        match site.answer(&Request::from_parts(parts, ())).await {
            Answer::Plain(response) => Ok::<_, Infallible>(response),
            Answer::Upgrade(response, stream) => {
                *upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, stream));
                Ok(response)
            }
        }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service_fn(answer))
        .with_upgrades();
    if connection.await.is_err() {
        return;
    }
    let upgraded = upgraded.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((upgrade, stream)) = upgraded
        && let Ok(socket) = upgrade.await
    {
        site.stream(TokioIo::new(socket), stream).await;
    }
}
