//! The codec and the handshake against tungstenite, both ways, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::{
    http::{Limits, Listener, Peer},
    tasks::Tasks,
    ws::{self, CloseCode, Data, Decoder, Event, HandshakeError, Role, Socket, Upgrade},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode as PeerCode},
};

const SOON: Duration = Duration::from_secs(30);

/// Reads a socket until it gives the next event.
async fn next(socket: &mut Socket<TcpStream>, decoder: &mut Decoder) -> Event {
    loop {
        let mut input = &socket.read[..];
        let event = decoder.next(&mut input).unwrap();
        let used = socket.read.len() - input.len();
        socket.read = socket.read.slice(used..);
        if let Some(event) = event {
            return event;
        }
        let mut buffer = vec![0; 1_000];
        let n = tokio::time::timeout(SOON, socket.stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "the peer closed the socket");
        buffer.truncate(n);
        socket.read = buffer.into();
    }
}

async fn dial(addr: SocketAddr) -> Result<Socket<TcpStream>, HandshakeError> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let request = ws::Request {
        authority: addr.to_string(),
        target: "/stream?cursor=7".into(),
        headers: HeaderMap::new(),
        deflate: false,
    };
    ws::connect(stream, request, SOON).await
}

#[tokio::test]
async fn as_a_client_of_tungstenite() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn("peer", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = tokio_tungstenite::accept_async(stream).await.unwrap();
        // Sent at once with the handshake's answer, so that the client finds them in its first read.
        peer.send(Message::binary(vec![1; 10])).await.unwrap();
        peer.send(Message::text("text")).await.unwrap();
        peer.send(Message::binary(vec![2; 3_000])).await.unwrap();
        peer.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"there?")));
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::Ping(Bytes::from_static(b"and you?")));
        peer.send(Message::binary(vec![3; 2_000])).await.unwrap();
        let closed = peer.next().await.unwrap().unwrap();
        let expected = CloseFrame { code: PeerCode::Away, reason: "done".into() };
        assert_eq!(closed, Message::Close(Some(expected)));
        // tungstenite echoes the close and ends.
        assert!(peer.next().await.is_none());
    });

    let mut socket = dial(addr).await.unwrap();
    let mut decoder = Decoder::new(Role::Client, 2_000);
    let binary = |byte, bytes| Event::Message { data: Data::Binary, payload: vec![byte; bytes].into() };
    assert_eq!(next(&mut socket, &mut decoder).await, binary(1, 10));
    let text = Event::Message { data: Data::Text, payload: Bytes::from_static(b"text") };
    assert_eq!(next(&mut socket, &mut decoder).await, text);
    assert_eq!(next(&mut socket, &mut decoder).await, Event::TooLarge { bytes: 3_000 });
    assert_eq!(next(&mut socket, &mut decoder).await, Event::Ping(Bytes::from_static(b"there?")));
    socket.stream.write_all(&ws::pong(b"there?", Some([1, 2, 3, 4]))).await.unwrap();
    socket.stream.write_all(&ws::ping(b"and you?", Some([5, 6, 7, 8]))).await.unwrap();
    let (mut pong, mut message) = (false, false);
    while !(pong && message) {
        match next(&mut socket, &mut decoder).await {
            Event::Pong(payload) => pong = payload == b"and you?"[..],
            event => message = event == binary(3, 2_000),
        }
    }
    socket.stream.write_all(&ws::close(Some(CloseCode::GOING_AWAY), "done", Some([9; 4]))).await.unwrap();
    let closed = next(&mut socket, &mut decoder).await;
    assert_eq!(closed, Event::Close { code: Some(CloseCode::GOING_AWAY), reason: "done".into() });
    tasks.drain(SOON).await.unwrap();
}

#[tokio::test]
async fn as_a_server_of_tungstenite_with_the_raw_socket_in_hand() {
    async fn serve(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let refuse = |status| Ok(Response::builder().status(status).body(Empty::new()).unwrap());
        let headers = match ws::accept(request.method(), request.headers()) {
            Upgrade::Accept(headers) => headers,
            Upgrade::WrongMethod => return refuse(StatusCode::METHOD_NOT_ALLOWED),
            Upgrade::Required => return refuse(StatusCode::UPGRADE_REQUIRED),
            Upgrade::BadKey => return refuse(StatusCode::BAD_REQUEST),
        };
        let peer: Peer = request.extensions_mut().remove().unwrap();
        let tasks: Tasks = Tasks::new();
        tasks.spawn("socket", async move {
            let _peer = peer;
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let parts = upgraded.downcast::<TokioIo<TcpStream>>().unwrap();
            let mut socket = Socket { stream: parts.io.into_inner(), read: parts.read_buf, deflate: false };
            let mut decoder = Decoder::new(Role::Server, 100_000);
            loop {
                let reply = match next(&mut socket, &mut decoder).await {
                    Event::Message { data, payload } => {
                        let mut reply = ws::header(data, payload.len()).as_bytes().to_vec();
                        reply.extend_from_slice(&payload);
                        reply
                    }
                    Event::Ping(payload) => ws::pong(&payload, None),
                    Event::Close { code, reason } => {
                        socket.stream.write_all(&ws::close(code, &reason, None)).await.unwrap();
                        return;
                    }
                    Event::Pong(_) | Event::TooLarge { .. } => continue,
                };
                socket.stream.write_all(&reply).await.unwrap();
            }
        });
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        Ok(response)
    }

    let tasks = Tasks::new();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "--bind").unwrap();
    let addr = listener.local_addr();
    tasks.spawn_critical("http", listener.serve(tower::service_fn(serve), Limits::default(), tasks.clone()));

    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut peer, _) = tokio_tungstenite::client_async(format!("ws://{addr}/"), stream).await.unwrap();
    for bytes in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let message = Message::binary((0..bytes).map(|i| i as u8).collect::<Vec<_>>());
        peer.send(message.clone()).await.unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), message);
    }
    peer.send(Message::text("grüß")).await.unwrap();
    assert_eq!(peer.next().await.unwrap().unwrap(), Message::text("grüß"));
    peer.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(peer.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"x")));
    let close = CloseFrame { code: PeerCode::Normal, reason: "bye".into() };
    peer.close(Some(close.clone())).await.unwrap();
    assert_eq!(peer.next().await.unwrap().unwrap(), Message::Close(Some(close)));

    // The same server tells who asks wrongly.
    for (request, status) in [
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "426"),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade, close\r\nupgrade: WebSocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: short\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\
             sec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "426",
        ),
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    tasks.drain(SOON).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_goes_wrong_says_how() {
    type Case = (&'static str, fn(&HandshakeError) -> bool);
    let answers: [Case; 7] = [
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", |error| {
            matches!(error, HandshakeError::Refused { status, headers, .. }
                if *status == StatusCode::FOUND && headers.contains_key("location"))
        }),
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nnope",
            |error| matches!(error, HandshakeError::Refused { body, .. } if body == "nope"),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nwithout an end", |error| matches!(error, HandshakeError::Refused { .. })),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n", |error| {
            matches!(error, HandshakeError::BadUpgrade("no Upgrade: websocket"))
        }),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: AAAA\r\n\r\n",
            |error| matches!(error, HandshakeError::BadUpgrade("wrong Sec-WebSocket-Accept")),
        ),
        ("\0\0not http at all\r\n\r\n", |error| matches!(error, HandshakeError::Http(_))),
        ("", |error| matches!(error, HandshakeError::Http(_))),
    ];
    for (answer, expected) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 2_000];
            let n = stream.read(&mut asked).await.unwrap();
            assert!(asked[..n].starts_with(b"GET /stream?cursor=7 HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (result, ()) = tokio::join!(dial(addr), server);
        let error = result.unwrap_err();
        assert!(expected(&error), "{answer:?} gave {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let request = ws::Request { authority: "x".into(), target: "/".into(), headers: HeaderMap::new(), deflate: false };
    let error = ws::connect(stream, request, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout { .. }), "{error:?}");
}
