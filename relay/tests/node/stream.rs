//! subscribeRepos: every row of the cursor table, the seam, what subscribers may do, and HTTP before the upgrade.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use relay::fanout::{ring::Found, subscriber};
use storage::seq::Seq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Got, LONG, Relay, ask, config, get, in_memory, serve};

const METHOD: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// A relay that has forgotten its first events: the window is `first..=100`.
async fn relay_with_a_past() -> (Relay, u64) {
    let mut config = config(&[]);
    config.store = in_memory(50_000);
    let relay = Relay::start(config).await;
    relay.append(100, 1_000).await;
    let window = *relay.stores.log.window().borrow();
    assert!(window.first.0 > 20 && window.first.0 < 90 && window.last.0 == 100, "{window:?}");
    (relay, window.first.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_table() {
    let (relay, first) = relay_with_a_past().await;
    let mut live = Vec::new();
    for query in ["", "?cursor=", "?cursor=100", "?other=1"] {
        live.push(relay.subscribe(query).await);
    }

    let mut oldest = relay.subscribe("?cursor=0").await;
    oldest.expect_events(first, 100).await;

    let mut inside = relay.subscribe(&format!("?cursor={}", first + 3)).await;
    inside.expect_events(first + 4, 100).await;

    let mut just_inside = relay.subscribe(&format!("?cursor={}", first - 1)).await;
    just_inside.expect_events(first, 100).await;

    let mut older = relay.subscribe("?cursor=1").await;
    assert_eq!(older.next().await, Got::Info("OutdatedCursor".into()));
    older.expect_events(first, 100).await;

    let mut future = relay.subscribe("?cursor=101").await;
    assert_eq!(future.next().await, Got::Error("FutureCursor".into()));
    assert_eq!(future.next().await, Got::Closed(Some(1008)));

    for unreadable in ["-1", "abc", "1.5", "99999999999999999999", "1e3", "%00"] {
        let answer = upgrade(&relay, &format!("{METHOD}?cursor={unreadable}")).await;
        answer.expect_error(400, "InvalidRequest");
    }

    // Those who were live from the start, and those who have caught up, get what comes now and nothing else.
    relay.wait_for_metric("mainstem_fanout_subscribers", 8.0).await;
    relay.append(5, 1_000).await;
    live.extend([oldest, inside, just_inside, older]);
    for subscriber in &mut live {
        subscriber.expect_events(101, 105).await;
    }
    assert_eq!(relay.metric("mainstem_fanout_disconnects_total{reason=\"future_cursor\"}").await, 1.0);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_log_has_a_past_of_nothing() {
    let relay = Relay::start(config(&["--seq-start", "1000"])).await;
    let mut subscribers =
        [relay.subscribe("").await, relay.subscribe("?cursor=0").await, relay.subscribe("?cursor=999").await];
    let mut older = relay.subscribe("?cursor=5").await;
    assert_eq!(older.next().await, Got::Info("OutdatedCursor".into()));
    let mut future = relay.subscribe("?cursor=1000").await;
    assert_eq!(future.next().await, Got::Error("FutureCursor".into()));
    relay.wait_for_metric("mainstem_fanout_subscribers", 4.0).await;
    relay.append(3, 200).await;
    for subscriber in subscribers.iter_mut().chain([&mut older]) {
        subscriber.expect_events(1000, 1002).await;
    }
    relay.drain().await;
}

/// Hundreds that come back shortly behind would otherwise all send at once, from memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_waits_for_a_turn_and_who_is_live_does_not() {
    const LIVE: &str = "mainstem_fanout_live_subscribers";
    let mut config = config(&[]);
    serve(&mut config).hub.replay.turns_max = 1;
    let relay = Relay::start(config).await;
    let mut live = relay.subscribe("").await;
    relay.wait_for_metric(LIVE, 1.0).await;
    relay.append(5, 1_000).await;
    live.expect_events(1, 5).await;

    let turn = relay.app.hub.turn().await.unwrap();
    let mut back = relay.subscribe("?cursor=1").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    relay.append(5, 1_000).await;
    live.expect_events(6, 10).await;
    assert_eq!(relay.metric(LIVE).await, 1.0);
    drop(turn);
    back.expect_events(2, 10).await;

    // It has caught up, and waits for nothing any more.
    relay.wait_for_metric(LIVE, 2.0).await;
    let _turn = relay.app.hub.turn().await.unwrap();
    relay.append(5, 1_000).await;
    live.expect_events(11, 15).await;
    back.expect_events(11, 15).await;
    relay.drain().await;
}

/// Subscribers that begin everywhere while events flow at full speed, through a ring so small that most of them read
/// from the log first, fall behind it and catch up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seam_between_replay_and_live_has_no_gap_and_no_repeat() {
    const EVENTS: u64 = 30_000;
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 64 << 10;
    serve(&mut config).hub.chunk_bytes = 8 << 10;
    serve(&mut config).hub.replay.piece_bytes = 8 << 10;
    let relay = Relay::start(config).await;
    let append = async {
        for _ in 0..EVENTS / 50 {
            relay.append(50, 300).await;
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        let mut readers = JoinSet::new();
        for n in 0..12_u64 {
            // Begin where the log is now, or anywhere before it.
            let last = relay.stores.log.window().borrow().last.0;
            let cursor = last * (n % 4) / 3;
            let mut subscriber = relay.subscribe(&format!("?cursor={cursor}")).await;
            readers.spawn(async move { subscriber.expect_events(cursor + 1, EVENTS).await });
            let next = last + EVENTS / 16;
            let mut window = relay.stores.log.window();
            let _ = window.wait_for(|window| window.last.0 >= next.min(EVENTS)).await;
        }
        readers.join_all().await;
    };
    tokio::join!(append, read);
    assert!(relay.metric("mainstem_fanout_replay_reads_total").await > 0.0, "nobody read from the log");
    relay.drain().await;
}

/// A herd that comes back with the same cursor costs about one read a piece, not one for each of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_replay_the_same_events_share_the_reads() {
    const READERS: u64 = 12;
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 8 << 10;
    serve(&mut config).hub.chunk_bytes = 8 << 10;
    serve(&mut config).hub.replay.piece_bytes = 8 << 10;
    let relay = Relay::start(config).await;
    relay.append(3_000, 300).await;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let mut subscriber = relay.subscribe("?cursor=0").await;
        readers.spawn(async move { subscriber.expect_events(1, 3_000).await });
    }
    readers.join_all().await;
    let reads = relay.metric("mainstem_fanout_replay_reads_total").await;
    let shared = relay.metric("mainstem_fanout_replay_shared_total").await;
    assert!(reads > 50.0 && reads * READERS as f64 <= (reads + shared) * 1.2, "{reads} reads, {shared} shared");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_and_what_subscribers_send_is_ignored() {
    let relay = Relay::start(config(&[])).await;
    let mut subscriber = relay.subscribe("").await;
    subscriber.send(Message::text("hello")).await;
    subscriber.send(Message::binary(vec![0xff; 1000])).await;
    subscriber.send(Message::Ping(Bytes::from_static(b"there?"))).await;
    assert_eq!(subscriber.next().await, Got::Pong(Bytes::from_static(b"there?")));
    relay.append(2, 200).await;
    subscriber.expect_events(1, 2).await;

    subscriber.send(Message::Close(None)).await;
    assert_eq!(subscriber.next().await, Got::Closed(None));
    relay.wait_for_metric("mainstem_fanout_subscribers", 0.0).await;
    assert_eq!(relay.metric("mainstem_fanout_disconnects_total{reason=\"left\"}").await, 1.0);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_between_frames_of_a_replay() {
    let relay = Relay::start(config(&[])).await;
    for _ in 0..40 {
        relay.append(10, 100_000).await;
    }
    // Forty megabytes are more than the sockets' buffers hold.
    let mut subscriber = relay.subscribe("?cursor=0").await;
    subscriber.expect_events(1, 5).await;
    subscriber.send(Message::Ping(Bytes::from_static(b"now"))).await;
    let mut pongs = 0;
    let mut next = 6;
    while next <= 400 {
        match subscriber.next().await {
            Got::Pong(_) => pongs += 1,
            got => {
                assert_eq!(got, Got::Event(next));
                next += 1;
            }
        }
    }
    assert_eq!(pongs, 1);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_ends_the_connection() {
    let relay = Relay::start(config(&[])).await;
    let mut subscriber = relay.subscribe("").await;
    subscriber.send(Message::binary(vec![0; 65 << 10])).await;
    assert_eq!(subscriber.next().await, Got::Closed(Some(1009)));
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_protocol_ends_the_connection() {
    let relay = Relay::start(config(&[])).await;
    let mut socket = raw(&relay, "").await;
    // A client's frames must be masked.
    socket.write_all(&[0x81, 0x01, b'x']).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[..4], [0x88, answer[1], 0x03, 0xea], "close with 1002");
    relay.wait_for_metric("mainstem_fanout_disconnects_total{reason=\"protocol\"}", 1.0).await;
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_is_told_and_closed() {
    let mut config = config(&[]);
    serve(&mut config).subscriber =
        subscriber::Config { stall_max: Duration::from_millis(300), close_wait: LONG, ..serve(&mut config).subscriber };
    let relay = Relay::start(config).await;
    let mut slow = relay.subscribe("").await;
    let mut quick = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    for n in 0..40 {
        relay.append(10, 100_000).await;
        quick.expect_events(n * 10 + 1, n * 10 + 10).await;
    }
    // The other one did nothing but wait; it is the only one that is too slow.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut next = 1;
    loop {
        match slow.next().await {
            Got::Event(seq) => assert_eq!((seq, next), (next, seq)),
            got => break assert_eq!(got, Got::Error("ConsumerTooSlow".into())),
        }
        next += 1;
    }
    assert!(next < 400);
    assert_eq!(slow.next().await, Got::Closed(Some(1008)));
    drop(slow);
    relay.append(1, 200).await;
    quick.expect_events(401, 401).await;
    drop(quick);
    relay.wait_for_metric("mainstem_fanout_disconnects_total{reason=\"too_slow\"}", 1.0).await;
    relay.drain().await;
}

/// Who stands still holds neither what it was sent nor what it was to be sent next: those chunks end when the ring lets
/// them go. When it reads on, nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_still_keeps_no_chunk_alive() {
    const STEPS: u64 = 60;
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 1 << 20;
    serve(&mut config).hub.chunk_bytes = 200_000;
    let relay = Relay::start(config).await;
    let mut still = JoinSet::new();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(relay.subscribe("").await);
    }
    let mut quick = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 9.0).await;
    let mut chunks = Vec::new();
    for step in 0..STEPS {
        relay.append(10, 50_000).await;
        quick.expect_events(step * 10 + 1, step * 10 + 10).await;
        if let Found::Chunks(found) = relay.app.hub.find(Seq(step * 10), usize::MAX) {
            chunks.extend(found.iter().map(Arc::downgrade));
        }
    }
    assert!(chunks.len() as u64 >= STEPS, "{} chunks were seen", chunks.len());
    // The quick one may be letting go of its last.
    let only_the_ring = async {
        while chunks.iter().filter_map(Weak::upgrade).map(|chunk| chunk.memory_bytes()).sum::<usize>() > 2 << 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, only_the_ring).await.expect("chunks are kept alive");
    for mut stalled in stalled {
        still.spawn(async move { stalled.expect_events(1, STEPS * 10).await });
    }
    still.join_all().await;
    assert!(relay.metric("mainstem_fanout_replay_reads_total").await > 0.0, "nobody had been left behind");
    relay.drain().await;
}

/// A pong does not wait for all that is on its way to a subscriber that had stopped reading, and breaks no frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_between_frames_while_events_flow() {
    let relay = Relay::start(config(&[])).await;
    let mut subscriber = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    let append = async {
        for _ in 0..100 {
            relay.append(10, 20_000).await;
        }
    };
    let read = async {
        let (mut next, mut pongs, mut pings) = (1, 0, 0_u64);
        while next <= 1_000 || pongs < pings {
            match subscriber.next().await {
                Got::Pong(payload) => {
                    assert_eq!(payload[..], u64::to_be_bytes(pongs));
                    pongs += 1;
                }
                got => {
                    assert_eq!(got, Got::Event(next));
                    if next % 50 == 0 {
                        subscriber.send(Message::Ping(Bytes::copy_from_slice(&pings.to_be_bytes()))).await;
                        pings += 1;
                    }
                    next += 1;
                }
            }
        }
        assert_eq!(pongs, 20);
    };
    tokio::join!(append, read);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_close_comes_after_a_whole_frame() {
    let mut config = config(&[]);
    serve(&mut config).subscriber.close_wait = LONG;
    let relay = Relay::start(config).await;
    for _ in 0..40 {
        relay.append(10, 100_000).await;
    }
    let mut subscriber = relay.subscribe("?cursor=0").await;
    subscriber.expect_events(1, 5).await;
    relay.app.roster.disconnect(relay.app.roster.list()[0].id).unwrap();
    let mut next = 6;
    let code = loop {
        match subscriber.next().await {
            Got::Closed(code) => break code,
            got => assert_eq!(got, Got::Event(next)),
        }
        next += 1;
    };
    assert_eq!(code, Some(1008));
    assert!(next < 400, "forty megabytes were sent before the close");
    drop(subscriber);
    relay.wait_for_metric("mainstem_fanout_disconnects_total{reason=\"disconnected\"}", 1.0).await;
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_out_of_the_window_is_told_and_closed() {
    let mut config = config(&[]);
    config.store = in_memory(1_000_000);
    serve(&mut config).hub.ring_bytes = 500_000;
    serve(&mut config).hub.chunk_bytes = 200_000;
    let relay = Relay::start(config).await;
    let mut slow = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    relay.append(1, 200).await;
    slow.expect_events(1, 1).await;
    for _ in 0..40 {
        relay.append(10, 100_000).await;
    }
    let mut next = 2;
    loop {
        match slow.next().await {
            Got::Event(seq) => assert_eq!((seq, next), (next, seq)),
            got => break assert_eq!(got, Got::Error("ConsumerTooSlow".into())),
        }
        next += 1;
    }
    assert!(next < 400);
    assert_eq!(slow.next().await, Got::Closed(Some(1008)));
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_is_pinged_and_then_gone() {
    let mut config = config(&[]);
    serve(&mut config).subscriber = subscriber::Config {
        ping_every: Duration::from_millis(100),
        silence_max: Duration::from_millis(800),
        ..serve(&mut config).subscriber
    };
    let relay = Relay::start(config).await;
    // This one answers pings, as long as it is polled.
    let mut alive = relay.subscribe("").await;
    let mut dead = raw(&relay, "").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    let mut got = Vec::new();
    let silent = tokio::time::timeout(LONG, dead.read_to_end(&mut got));
    tokio::select! {
        got = alive.next() => panic!("{got:?}"),
        end = silent => { end.unwrap().unwrap(); }
    }
    assert!(got.starts_with(&[0x89, 0x00]), "it was pinged");
    relay.append(1, 200).await;
    alive.expect_events(1, 1).await;
    assert_eq!(relay.metric("mainstem_fanout_disconnects_total{reason=\"no_pong\"}").await, 1.0);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subscriber_too_many_is_asked_to_come_later() {
    let relay = Relay::start(config(&["--subscribers-max", "2"])).await;
    let _first = relay.subscribe("").await;
    let second = relay.subscribe("").await;
    let answer = upgrade(&relay, METHOD).await;
    answer.expect_error(503, "NotEnoughResources");
    assert!(answer.header("retry-after").is_some());
    drop(second);
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    let _third = relay.subscribe("").await;
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_before_the_upgrade() {
    let relay = Relay::start(config(&[])).await;
    let answer = ask(relay.public, "POST", METHOD, &[], "").await;
    answer.expect_error(405, "InvalidRequest");
    assert_eq!(answer.header("allow"), Some("GET"));

    let answer = get(relay.public, METHOD).await;
    answer.expect_error(426, "InvalidRequest");
    assert_eq!(answer.header("upgrade"), Some("websocket"));

    let headers = [("connection", "Upgrade, close"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let answer = ask(relay.public, "GET", METHOD, &headers, "").await;
    answer.expect_error(400, "InvalidRequest");

    get(relay.public, "/xrpc/com.atproto.sync.subscribeRepoz").await.expect_error(501, "MethodNotImplemented");
    get(relay.public, "/nothing").await.expect_error(404, "NotFound");
    relay.drain().await;
}

/// Asks for an upgrade that is going to be refused.
async fn upgrade(relay: &Relay, path: &str) -> crate::harness::Answer {
    let headers = [
        ("connection", "Upgrade, close"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    ask(relay.public, "GET", path, &headers, "").await
}

/// A subscriber's bare socket, after the handshake.
pub(crate) async fn raw(relay: &Relay, query: &str) -> TcpStream {
    let mut socket = TcpStream::connect(relay.public).await.unwrap();
    let request = format!(
        "GET {METHOD}{query} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    socket
}
