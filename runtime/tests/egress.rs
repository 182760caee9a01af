//! What leaves the process, and what does not.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use runtime::{
    egress::{Class, Egress, Error, Policy},
    http::{BindError, Limits, Listener, Peer},
    tasks::Tasks,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

const SOON: Duration = Duration::from_secs(30);

fn local() -> Egress {
    Egress::new(Policy { allow_local: true, contact: Some("ops@example.com (night)\n".into()), ..Policy::default() })
}

/// Answers with the peer's port and the User-Agent; `/redirect` redirects; `/long` is 100,000 bytes.
fn server(tasks: &Tasks, limits: Limits) -> SocketAddr {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let peer: &Peer = request.extensions().get().unwrap();
        let agent = request.headers().get("user-agent").map_or("", |agent| agent.to_str().unwrap());
        Ok(match request.uri().path() {
            "/redirect" => {
                Response::builder().status(302).header("location", "http://127.0.0.1:1/").body(Full::default()).unwrap()
            }
            "/long" => Response::new(Full::from(vec![b'x'; 100_000])),
            "/slow" => std::future::pending().await,
            _ => Response::new(Full::from(format!("{} {agent}", peer.addr.port()))),
        })
    }
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "--bind").unwrap();
    let addr = listener.local_addr();
    tasks.spawn_critical("http", listener.serve(tower::service_fn(answer), limits, tasks.clone()));
    addr
}

fn url(addr: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("http://{addr}{path}")).unwrap()
}

#[tokio::test]
async fn one_origin_is_asked_over_one_connection_and_told_who_asks() {
    let tasks = Tasks::new();
    let addr = server(&tasks, Limits::default());
    let egress = local();
    let first = egress.get(&url(addr, "/"), 1_000, SOON).await.unwrap();
    let second = egress.get(&url(addr, "/#fragment"), 1_000, SOON).await.unwrap();
    assert_eq!(first.status, 200);
    assert_eq!(first.body, second.body, "the port of the second connection is the first's");
    let body = String::from_utf8(first.body.to_vec()).unwrap();
    let agent = concat!("Mainstem/", env!("CARGO_PKG_VERSION"), " (+https://github.com/mainstem/mainstem; contact ");
    assert!(body.contains(&format!("{agent}ops@example.com night)")), "{body}");
    tasks.shutdown("test");
}

#[tokio::test]
async fn bounds_of_an_answer() {
    let tasks = Tasks::new();
    let addr = server(&tasks, Limits::default());
    let egress = local();
    let redirect = egress.get(&url(addr, "/redirect"), 1_000, SOON).await.unwrap();
    assert_eq!(redirect.status, 302, "it is not followed");
    assert_eq!(redirect.headers["location"], "http://127.0.0.1:1/");
    let long = egress.get(&url(addr, "/long"), 99_999, SOON).await.unwrap_err();
    assert!(matches!(long, Error::TooLarge { bytes_max: 99_999 }), "{long:?}");
    assert_eq!(egress.get(&url(addr, "/long"), 100_000, SOON).await.unwrap().body.len(), 100_000);
    let slow = egress.get(&url(addr, "/slow"), 1_000, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(slow, Error::Timeout { .. }), "{slow:?}");
    let credentials = Url::parse("https://me:secret@example.com/").unwrap();
    for bad in [Url::parse("ftp://127.0.0.1/").unwrap(), Url::parse("data:,x").unwrap(), credentials] {
        let error = egress.get(&bad, 1_000, SOON).await.unwrap_err();
        assert!(matches!(error, Error::BadUrl { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn local_addresses_are_refused_unless_allowed_and_then_only_they_may_be_plain() {
    let strict = Egress::new(Policy::default());
    for (host, class) in [
        ("127.0.0.1", Class::Loopback),
        ("localhost", Class::Loopback),
        ("PDS.localhost", Class::Loopback),
        ("::1", Class::Loopback),
        ("10.1.2.3", Class::Private),
        ("::ffff:192.168.0.1", Class::Private),
        ("169.254.169.254", Class::Special),
        ("0.0.0.0", Class::Special),
        ("fd00:ec2::254", Class::Special),
        ("64:ff9b::10.0.0.1", Class::Private),
        // What the system's resolver takes for an address.
        ("127.1", Class::Loopback),
        ("2130706433", Class::Loopback),
        ("0x7f000001", Class::Loopback),
        ("0177.0.0.1", Class::Loopback),
    ] {
        for tls in [true, false] {
            let error = strict.connect(host, 443, tls).await.unwrap_err();
            assert!(matches!(&error, Error::AddressRefused { class: c, .. } if *c == class), "{host}: {error:?}");
        }
    }
    for egress in [strict, local()] {
        let error = egress.connect("1.1.1.1", 80, false).await.unwrap_err();
        assert!(matches!(error, Error::PlainRefused { .. }), "{error:?}");
        let error = egress.connect("169.254.169.254", 80, true).await.unwrap_err();
        assert!(matches!(error, Error::AddressRefused { class: Class::Special, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn the_client_passes_on_what_the_dialer_says() {
    let url = Url::parse("http://[::1]:1/").unwrap();
    let error = Egress::new(Policy::default()).get(&url, 1_000, SOON).await.unwrap_err();
    assert!(matches!(error, Error::AddressRefused { class: Class::Loopback, .. }), "{error:?}");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = local().get(&Url::parse(&format!("http://{free}/")).unwrap(), 1_000, SOON).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn names_under_localhost_need_no_resolver_and_both_families_are_tried() {
    let tasks = Tasks::new();
    let addr = server(&tasks, Limits::default());
    let stream = local().connect("pds7.localhost", addr.port(), false).await.unwrap();
    assert_eq!(stream.tcp().peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn tls_with_who_does_not_speak_it_fails_as_such() {
    let tasks = Tasks::new();
    let addr = server(&tasks, Limits::default());
    let error = local().connect("localhost", addr.port(), true).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_listener_bounds_its_connections_and_their_heads() {
    let tasks = Tasks::new();
    let limits = Limits { connections_max: 1, head_timeout: Duration::from_millis(200), ..Limits::default() };
    let addr = server(&tasks, limits);
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = String::new();
    // The second connection finds the first there, however the accepts race: the first is in the queue before it.
    let mut second = TcpStream::connect(addr).await.unwrap();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    // The first never ends its head, so it is closed, and there is room again.
    let _ = tokio::time::timeout(SOON, idle.read_to_end(&mut Vec::new())).await.unwrap();
    tokio::time::timeout(SOON, async {
        while local().get(&url(addr, "/"), 1_000, SOON).await.map(|response| response.status).ok()
            != Some(http::StatusCode::OK)
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_taken_port_names_the_flag_that_changes_it() {
    let first = Listener::bind("127.0.0.1:0".parse().unwrap(), "--bind").unwrap();
    let error = Listener::bind(first.local_addr(), "--admin-bind").unwrap_err();
    assert!(matches!(error, BindError::Taken { .. }), "{error:?}");
    assert!(error.to_string().contains("--admin-bind"), "{error}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_waits_for_requests() {
    let tasks = Tasks::new();
    let addr = server(&tasks, Limits::default());
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1_000]).await.unwrap() > 0);
    tasks.drain(SOON).await.unwrap();
    assert_eq!(idle.read(&mut [0; 1_000]).await.unwrap(), 0, "closed");
}

/// A server that says what it is told to each connection, and then a piece every now and then for ever.
async fn rude(says: &'static [u8], then: &'static [u8], every: Duration) -> (SocketAddr, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            open.spawn(async move {
                // The request: it is small, and comes in one piece.
                let _ = socket.read(&mut [0; 4096]).await;
                let mut said = socket.write_all(says).await;
                while said.is_ok() && !then.is_empty() {
                    tokio::time::sleep(every).await;
                    said = socket.write_all(then).await;
                }
                if then.is_empty() {
                    let _ = socket.shutdown().await;
                }
            });
        }
    });
    (addr, tasks)
}

#[tokio::test]
async fn answers_without_an_end_are_given_up() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const CHUNK: &[u8] =
        b"400\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    let (now, slow) = (Duration::ZERO, Duration::from_millis(20));
    let limit = Duration::from_secs(2);
    type Check = fn(&Error) -> bool;
    let late: Check = |error| matches!(error, Error::Timeout { .. });
    let broken: Check = |error| matches!(error, Error::Http(_));
    let large: Check = |error| matches!(error, Error::TooLarge { .. });
    type Row = (&'static str, &'static [u8], &'static [u8], Duration, Check);
    let table: [Row; 7] = [
        ("a head, one byte at a time", b"HTTP/1.1 200 OK\r\nx: ", b"y", slow, late),
        ("a head without an end", b"HTTP/1.1 200 OK\r\nx: ", &[b'y'; 4096], now, broken),
        ("a body, one byte at a time", b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", b"y", slow, late),
        ("a body without an end", b"HTTP/1.1 200 OK\r\n\r\n", &[b'y'; 4096], now, large),
        ("a length over the limit", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", b"y", slow, large),
        ("a body that breaks off", b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nyy", b"", now, broken),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.9\r\n", b"", now, broken),
    ];
    for (what, says, then, every, is_meant) in table {
        let (addr, _server) = rude(says, then, every).await;
        let begun = tokio::time::Instant::now();
        let error = local().get(&url(addr, "/"), 100_000, limit).await.unwrap_err();
        assert!(is_meant(&error), "{what}: {error:?}");
        assert!(begun.elapsed() < SOON, "{what}");
    }
    // Chunks whose sizes lie are no way around the limit either.
    let (addr, _server) = rude(HEAD, CHUNK, now).await;
    let error = local().get(&url(addr, "/"), 100_000, limit).await.unwrap_err();
    assert!(broken(&error) || large(&error), "{error:?}");
}
