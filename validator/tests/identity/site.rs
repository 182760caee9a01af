//! A small HTTP server on loopback whose answers a test decides.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// What a request is answered with.
pub(crate) enum Reply {
    /// A status and a body.
    Now(u16, String),
    /// A status with Retry-After in seconds.
    RetryAfter(u16, u64),
    /// 200 after some time.
    Late(Duration, String),
    /// Nothing, ever.
    Hang,
    /// 302 to there.
    Redirect(String),
    /// 200 and a body that never ends, in pieces, each after some time.
    Endless(&'static [u8], Duration),
    /// 200 and a body that breaks off.
    BreaksOff,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

/// A server; ends with its value.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
    task: JoinSet<()>,
}

struct State {
    script: Box<Script>,
    requests: Mutex<HashMap<String, usize>>,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

impl Site {
    /// Answers by `script`, which is given the path and how many requests for it came before.
    pub(crate) fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Site {
        Site::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// As [`Site::start`], at an address where nobody listens.
    pub(crate) fn start_at(addr: SocketAddr, script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Site {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener = socket.listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Box::new(script),
            requests: Mutex::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
        });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::clone(&state)));
        Site { addr, state, task }
    }

    /// Closes the port and all connections.
    pub(crate) async fn stop(mut self) {
        self.task.shutdown().await;
    }

    /// Its root.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many requests a path had.
    pub(crate) fn requests(&self, path: &str) -> usize {
        self.state.requests.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// The most requests that were open at once.
    pub(crate) fn open_max(&self) -> usize {
        self.state.open_max.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(connection(socket, Arc::clone(&state)));
    }
}

async fn connection(socket: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| answer(request, &state));
    // A connection that breaks is the test's doing.
    let _broken = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(request: Request<Incoming>, state: &State) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let before = {
        let mut requests = state.requests.lock().unwrap();
        let count = requests.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
    state.open_max.fetch_max(open, Ordering::SeqCst);
    let response = Response::builder();
    let response = match (state.script)(&path, before) {
        Reply::Now(status, body) => response.status(status).body(whole(body)),
        Reply::RetryAfter(status, seconds) => {
            response.status(status).header("retry-after", seconds).body(whole(String::new()))
        }
        Reply::Late(delay, body) => {
            tokio::time::sleep(delay).await;
            response.body(whole(body))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Redirect(to) => {
            let to = HeaderValue::from_str(&to).unwrap();
            response.status(302).header("location", to).body(whole(String::new()))
        }
        Reply::Endless(piece, every) => {
            let pieces = stream::unfold((), move |()| async move {
                tokio::time::sleep(every).await;
                Some((Ok(Frame::data(Bytes::from_static(piece))), ()))
            });
            response.body(StreamBody::new(pieces).boxed_unsync())
        }
        Reply::BreaksOff => {
            let pieces = [Ok(Frame::data(Bytes::from_static(b"{"))), Err(std::io::ErrorKind::BrokenPipe.into())];
            response.body(StreamBody::new(stream::iter(pieces)).boxed_unsync())
        }
    };
    state.open.fetch_sub(1, Ordering::SeqCst);
    Ok(response.unwrap())
}

fn whole(body: String) -> Body {
    Full::from(body).map_err(|never| match never {}).boxed_unsync()
}
