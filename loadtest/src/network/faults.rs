//! Hosts that misbehave at the socket. A fault stands in for a host of the network, on the host's own port, until the
//! host comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atproto::{
    event::{Event, IdentityEvent},
    frame,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

/// What a host does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Takes the connection and the handshake, and drops both.
    Drop,
    /// Sends what is no event, for ever.
    Garbage,
    /// Answers the handshake with a redirect to this URL.
    Redirect(String),
    /// Answers the handshake with 503.
    Unavailable,
    /// Begins a message and does not go on; answers pings, as far as it can between bytes.
    Stall,
    /// Takes the handshake and answers nothing any more, not even pings.
    Deaf,
    /// Says nothing for ever, and answers pings: no fault at all.
    Silent,
    /// Takes the connection and never answers the handshake.
    SlowHandshake,
    /// Says `FutureCursor` to every cursor but 0.
    FutureCursor,
    /// Sends one event of nobody with a seq of 1, whatever the cursor, and no more.
    SeqWentBack,
    /// Breaks the WebSocket protocol.
    BadFrame,
}

/// Counts what comes to a host that is broken. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    connections: Arc<AtomicU64>,
}

impl Visits {
    /// TCP connections that came.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves a fault for ever; dropped, it closes the port and cuts all connections.
pub(super) async fn serve(listener: TcpListener, fault: Fault, visits: Visits) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                visits.connections.fetch_add(1, Ordering::Relaxed);
                let fault = fault.clone();
                // Whoever is served by a fault goes away sooner or later; that is no error of the fault's.
                connections.spawn(async move {
                    let _gone = misbehave(stream, fault).await;
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn misbehave(mut stream: TcpStream, fault: Fault) -> Option<()> {
    match fault {
        Fault::Drop => drop(accept(stream).await?),
        Fault::Garbage => {
            let (mut socket, _) = accept(stream).await?;
            let mut ticks = interval(Duration::from_millis(50));
            let mut count = 0u8;
            loop {
                tokio::select! {
                    message = socket.next() => { message?.ok()?; }
                    _ = ticks.tick() => {
                        count = count.wrapping_add(1);
                        socket.send(Message::binary(vec![count; 1 + usize::from(count)])).await.ok()?;
                    }
                }
            }
        }
        Fault::Redirect(to) => {
            let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            answer_plainly(&mut stream, &answer).await?;
        }
        Fault::Unavailable => {
            answer_plainly(&mut stream, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
        }
        Fault::Stall => {
            let (mut socket, _) = accept(stream).await?;
            // The head of a binary message of 1 MiB and a part of it.
            let begun = [&[0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &[7; 1000]].concat();
            socket.get_mut().write_all(&begun).await.ok()?;
            while socket.get_mut().read(&mut [0; 1024]).await.ok()? > 0 {}
        }
        Fault::Deaf => {
            let _socket = accept(stream).await?;
            std::future::pending::<()>().await;
        }
        Fault::Silent => {
            let (mut socket, _) = accept(stream).await?;
            while socket.next().await?.is_ok() {}
        }
        Fault::SlowHandshake => {
            let _stream = stream;
            std::future::pending::<()>().await;
        }
        Fault::FutureCursor => {
            let (mut socket, target) = accept(stream).await?;
            match target.split_once("cursor=") {
                None | Some((_, "0")) => while socket.next().await?.is_ok() {},
                Some(_) => {
                    let error = frame::encode_error("FutureCursor", Some("Cursor in the future."));
                    socket.send(Message::binary(error)).await.ok()?;
                    socket.close(None).await.ok()?;
                    // Until the other end has gone too.
                    while socket.next().await?.is_ok() {}
                }
            }
        }
        Fault::SeqWentBack => {
            let (mut socket, _) = accept(stream).await?;
            let event =
                IdentityEvent { seq: 1, did: "did:web:nobody.invalid", time: "2025-01-01T00:00:00.000Z", handle: None };
            socket.send(Message::binary(Event::Identity(event).encode())).await.ok()?;
            while socket.next().await?.is_ok() {}
        }
        Fault::BadFrame => {
            let (mut socket, _) = accept(stream).await?;
            // Reserved bits are set.
            socket.get_mut().write_all(&[0xf2, 0x01, 0x00]).await.ok()?;
            while socket.get_mut().read(&mut [0; 1024]).await.ok()? > 0 {}
        }
    }
    Some(())
}

/// Does the handshake; gives what was asked for.
async fn accept(stream: TcpStream) -> Option<(WebSocketStream<TcpStream>, String)> {
    let mut target = String::new();
    #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
    let look = |request: &Request, response: Response| {
        target = request.uri().to_string();
        Ok(response)
    };
    let socket = accept_hdr_async(stream, look).await.ok()?;
    Some((socket, target))
}

async fn answer_plainly(stream: &mut TcpStream, answer: &str) -> Option<()> {
    // A request's head fits; whether it does or not, the answer is the same.
    let _read = stream.read(&mut [0; 4096]).await.ok()?;
    stream.write_all(answer.as_bytes()).await.ok()?;
    // So that the answer is not lost in a reset.
    sleep(Duration::from_millis(50)).await;
    Some(())
}
