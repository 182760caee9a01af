//! Subscribers who mean harm or are broken: each is bounded and ends by a named reason, and its neighbour gets every
//! event all the while.

use std::{cell::Cell, net::SocketAddr, num::NonZeroU32, time::Duration};

use futures_util::SinkExt;
use relay::fanout::subscriber;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Got, LONG, Relay, config, serve},
    stream::raw,
};

/// A relay with little patience, and a well-behaved subscriber of it.
async fn relay_and_neighbour() -> (Relay, crate::harness::Subscriber) {
    let mut config = config(&[]);
    serve(&mut config).subscriber = subscriber::Config {
        stall_max: Duration::from_millis(500),
        close_wait: Duration::from_millis(500),
        input_bytes_at_once: NonZeroU32::new(100 << 10).unwrap(),
        input_bytes_per_second: NonZeroU32::new(1 << 10).unwrap(),
        ..serve(&mut config).subscriber
    };
    let relay = Relay::start(config).await;
    let neighbour = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    (relay, neighbour)
}

/// The neighbour gets all that comes while `harm` is done, which ends by itself.
async fn unharmed(relay: &Relay, neighbour: &mut crate::harness::Subscriber, harm: impl Future<Output = ()>) {
    let mut first = relay.stores.log.window().borrow().last.0 + 1;
    let over = Cell::new(false);
    let harm = async {
        tokio::time::timeout(LONG, harm).await.expect("it is still there");
        over.set(true);
    };
    let served = async {
        while !over.get() {
            relay.append(4, 100_000).await;
            neighbour.expect_events(first, first + 3).await;
            first += 4;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(harm, served);
}

async fn ended(relay: &Relay, reason: &str) {
    relay.wait_for_metric(&format!("mainstem_fanout_disconnects_total{{reason=\"{reason}\"}}"), 1.0).await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
}

/// A subscriber with little room at its end.
async fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(addr).await.unwrap();
    let request = "GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// Writes `bytes` again and again until the socket is closed. Reads what comes, or it might be too slow before it is too
/// talkative.
async fn flood(socket: &mut TcpStream, bytes: &[u8]) {
    let (mut reads, mut writes) = socket.split();
    let mut sink = tokio::io::sink();
    tokio::select! {
        () = async { while writes.write_all(bytes).await.is_ok() {} } => {}
        _closed = tokio::io::copy(&mut reads, &mut sink) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_never_reads_is_too_slow() {
    let (relay, mut neighbour) = relay_and_neighbour().await;
    let _dead = narrow(relay.public).await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    unharmed(&relay, &mut neighbour, ended(&relay, "too_slow")).await;
    relay.drain().await;
}

/// The kernel lets room grow before it tells of it, so that a trickle at the other end is no progress at ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_reads_a_byte_now_and_then_is_too_slow() {
    let (relay, mut neighbour) = relay_and_neighbour().await;
    let mut trickle = narrow(relay.public).await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    let reads = async {
        while trickle.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let harm = async {
        tokio::select! {
            () = reads => {}
            () = ended(&relay, "too_slow") => {}
        }
    };
    unharmed(&relay, &mut neighbour, harm).await;
    ended(&relay, "too_slow").await;
    relay.drain().await;
}

/// It is not waited for the end of what its head announces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_sends_a_message_of_megabytes_is_too_talkative() {
    let (relay, mut neighbour) = relay_and_neighbour().await;
    let mut sender = raw(&relay, "").await;
    let harm = async {
        // The head of a masked binary frame of 64 MiB.
        let mut head = vec![0x82, 0xff];
        head.extend_from_slice(&(64_u64 << 20).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        sender.write_all(&head).await.unwrap();
        flood(&mut sender, &[7; 4_096]).await;
    };
    unharmed(&relay, &mut neighbour, harm).await;
    ended(&relay, "too_talkative").await;
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_sends_megabytes_in_small_messages_is_too_talkative() {
    let (relay, mut neighbour) = relay_and_neighbour().await;
    let mut sender = raw(&relay, "").await;
    // A masked binary frame of 10,000 bytes.
    let mut message = vec![0x82, 0xfe, 0x27, 0x10, 0, 0, 0, 0];
    message.resize(message.len() + 10_000, 7);
    unharmed(&relay, &mut neighbour, flood(&mut sender, &message)).await;
    ended(&relay, "too_talkative").await;
    relay.drain().await;
}

/// It is told, after the last whole frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_floods_pings_is_too_talkative() {
    let (relay, mut neighbour) = relay_and_neighbour().await;
    let mut pings = relay.subscribe("").await;
    for _ in 0..1_100 {
        pings.socket.feed(Message::Ping(vec![7; 100].into())).await.unwrap();
    }
    let _cut_off = pings.socket.flush().await;
    let told = async {
        loop {
            match pings.next().await {
                Got::Pong(_) | Got::Event(_) => {}
                Got::Closed(code) => return assert_eq!(code, Some(1008)),
                got @ (Got::Info(_) | Got::Error(_)) => panic!("{got:?}"),
            }
        }
    };
    unharmed(&relay, &mut neighbour, told).await;
    ended(&relay, "too_talkative").await;

    // One who does not even read the answers.
    let mut deaf = narrow(relay.public).await;
    unharmed(&relay, &mut neighbour, flood(&mut deaf, &[0x89, 0x80, 0, 0, 0, 0].repeat(500))).await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    relay.drain().await;
}
