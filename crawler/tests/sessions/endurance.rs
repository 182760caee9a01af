//! Hosts that are slow, silent, gone, in the way, or too fast.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use atproto::frame::FRAME_BYTES_MAX;
use bytes::Bytes;
use crawler::{Config, End, Patience, Phase, Rate, Start};
use futures_util::SinkExt;
use storage::{hosts::HostStatus, limits::Rules};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Pds, SOON, World, identity, quick, until};

#[tokio::test]
async fn a_host_that_accepts_and_drops_is_tried_ever_more_rarely() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Live).await;
    pds.accept().await.close().await;
    let began = Instant::now();
    for _ in 0..5 {
        drop(pds.accept().await);
    }
    // Half of 20, 40, 80, 160 and 200 ms at least, less what the first close took.
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    until("called offline", || world.view(&pds).status == HostStatus::Offline).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_silent_host_that_answers_pings_stays() {
    let patience = Patience { ping_interval: Duration::from_millis(10), pong_within: SOON, ..Patience::default() };
    let (world, mut pds) = (World::new(Config { patience, ..quick() }), Pds::new().await);
    world.read(&pds, Start::Live).await;
    let mut connection = pds.accept().await;
    let mut pings = 0;
    while pings < 20 {
        let message = timeout(SOON, futures_util::StreamExt::next(&mut connection.socket)).await.unwrap();
        pings += usize::from(matches!(message, Some(Ok(Message::Ping(_)))));
    }
    assert_eq!(pds.connects.load(Ordering::Relaxed), 1);
    assert_eq!(world.view(&pds).status, HostStatus::Active);
    // And it is asked in turn.
    connection.socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(connection.next().await, Some(Message::Pong(Bytes::from_static(b"there?"))));
    world.stopped().await;
}

#[tokio::test]
async fn a_host_that_does_not_answer_pings_is_left() {
    let quick_ping = Duration::from_millis(10);
    let patience = Patience { ping_interval: quick_ping, pong_within: quick_ping, ..Patience::default() };
    let (world, mut pds) = (World::new(Config { patience, ..quick() }), Pds::new().await);
    world.read(&pds, Start::Live).await;
    // Held and never polled, so that nothing is answered.
    let first = pds.accept().await;
    let second = pds.accept().await;
    assert_eq!(world.view(&pds).last_end.unwrap().end, End::Silent);
    drop((first, second));
    world.stopped().await;
}

#[tokio::test]
async fn a_full_intake_stops_the_reading_and_nothing_is_lost() {
    let patience = Patience { ping_interval: Duration::from_millis(50), pong_within: SOON, ..Patience::default() };
    let (world, mut pds) = (World::new(Config { patience, ..quick() }), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    world.intake.fill();
    // 128 MiB offered in messages of 1 MiB, each followed by an event.
    let large = Bytes::from(vec![0xff; 1 << 20]);
    let mut sent = 0;
    while sent < 128 {
        let both = async {
            connection.send(identity(sent + 1)).await;
            connection.send(large.clone()).await;
        };
        if timeout(Duration::from_millis(500), both).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB were taken while the intake was full");
    assert!(world.intake.seqs().is_empty());
    assert_eq!(pds.connects.load(Ordering::Relaxed), 1);

    world.intake.empty();
    let last = sent + 1;
    timeout(SOON, connection.socket.flush()).await.unwrap().unwrap();
    connection.events(&[1_000]).await;
    until("all arrived", || world.intake.seqs().last() == Some(&1_000)).await;
    let seqs = world.intake.seqs();
    let expected: Vec<u64> = (1..=sent).collect();
    assert_eq!(seqs[..expected.len()], expected);
    assert!(seqs.len() as u64 <= last + 1);
    assert_eq!(pds.connects.load(Ordering::Relaxed), 1, "waiting is no reason to be left");
    world.stopped().await;
}

fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap()
}

#[tokio::test]
async fn a_host_over_its_rate_is_slowed_and_shown_and_loses_nothing() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.limits.set_rules(rules("[[rule]]\nhosts = \"127.0.0.1\"\nevents_per_second = 100\n"));
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    let began = Instant::now();
    let seqs: Vec<u64> = (1..=1_050).collect();
    connection.events(&seqs).await;
    until("throttled", || world.view(&pds).status == HostStatus::Throttled).await;
    world.intake.has(&seqs).await;
    assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());
    assert!(world.metric("mainstem_crawler_throttled_seconds_total") >= 0.49);
    world.stopped().await;
}

#[tokio::test]
async fn a_throttled_host_stays_connected_its_neighbour_goes_on_and_new_rules_free_it_at_once() {
    let patience = Patience {
        ping_interval: Duration::from_millis(20),
        pong_within: Duration::from_millis(500),
        message_within: Duration::from_millis(500),
    };
    let (world, mut slow, mut fast) = (World::new(Config { patience, ..quick() }), Pds::new().await, Pds::new().await);
    world.limits.set_rules(rules(&format!("[[rule]]\nhosts = \"{}\"\nevents_per_hour = 2\n", slow.name)));
    world.read(&slow, Start::Oldest).await;
    world.read(&fast, Start::Oldest).await;
    let (mut slow_connection, mut fast_connection) = (slow.accept().await, fast.accept().await);
    // What waits fills the room there is, so that the socket is not read.
    let seqs: Vec<u64> = (1..=1_000).collect();
    slow_connection.events(&seqs).await;
    until("held", || world.view(&slow).throttled.is_some()).await;
    let throttled = world.view(&slow).throttled.unwrap();
    assert_eq!((throttled.by, throttled.limit), (Rate::EventsPerHour, 2));
    assert!(throttled.next_in > Duration::from_secs(1_700), "{throttled:?}");
    assert!(throttled.restored_in > Duration::from_secs(5_300), "{throttled:?}");
    assert_eq!(world.view(&slow).phase, Phase::Throttled);

    fast_connection.events(&[5_001, 5_002]).await;
    until("the neighbour is read", || world.intake.seqs().ends_with(&[5_001, 5_002])).await;
    assert_eq!(world.intake.seqs(), [1, 2, 5_001, 5_002]);
    assert_eq!(world.view(&fast).throttled, None);

    // It hears from us all the time, though it is not read: longer than our patience, and any host's.
    let mut pongs = 0;
    while pongs < 50 {
        let message = timeout(SOON, futures_util::StreamExt::next(&mut slow_connection.socket)).await.unwrap();
        pongs += usize::from(matches!(message.unwrap().unwrap(), Message::Pong(_)));
    }
    world.limits.set_rules(rules(""));
    until("all arrived", || world.intake.seqs().len() == 1_002).await;
    assert_eq!(world.intake.seqs()[4..], seqs[2..]);
    assert_eq!(slow.connects.load(Ordering::Relaxed), 1);
    assert_eq!(world.view(&slow).throttled, None);
    world.stopped().await;
}

#[tokio::test]
async fn pings_are_answered_while_events_wait_for_their_turn() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.limits.set_rules(rules("[[rule]]\nhosts = \"127.0.0.1\"\nevents_per_hour = 1\n"));
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1, 2, 3]).await;
    until("held", || world.view(&pds).throttled.is_some()).await;
    connection.socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(connection.next().await, Some(Message::Pong(Bytes::from_static(b"there?"))));
    assert_eq!(world.intake.seqs(), [1]);
    world.stopped().await;
}

#[tokio::test]
async fn large_messages_that_are_not_whole_are_bounded_over_all_hosts() {
    let patience = Patience { message_within: Duration::from_millis(300), ..Patience::default() };
    let config = Config { patience, half_messages_bytes_max: FRAME_BYTES_MAX, ..quick() };
    let world = World::new(config);
    let mut hosts = Vec::new();
    for _ in 0..3 {
        let mut pds = Pds::new().await;
        world.read(&pds, Start::Oldest).await;
        let connection = pds.accept().await;
        hosts.push((pds, connection));
    }
    let gauge = || {
        let families = world.registry.gather();
        let family = families.iter().find(|family| family.name() == "mainstem_crawler_half_message_bytes").unwrap();
        family.get_metric()[0].get_gauge().get_value()
    };
    // One begins the largest message there is, and does not go on.
    let begun = [&[0x82, 127, 0, 0, 0, 0, 0, 0x4f, 0xff, 0xff][..], &[0; 100]].concat();
    let [(first_pds, first), (second_pds, second), (_, third)] = &mut hosts[..] else { panic!("three hosts") };
    first.socket.get_mut().write_all(&begun).await.unwrap();
    until("set aside", || gauge() > 5e6).await;
    // Another's large message waits until that one has had its time, and goes through then.
    let large = vec![0xff; 1 << 20];
    let sending = async {
        second.send(large).await;
        second.events(&[7]).await;
    };
    // A third, which sends small ones, does not wait.
    let others = async {
        until("the others", || world.intake.seqs().len() >= 2).await;
    };
    third.events(&[3, 4]).await;
    tokio::join!(sending, others);
    until("all", || world.intake.seqs().len() == 3).await;
    assert_eq!(world.intake.seqs(), [3, 4, 7]);
    assert_eq!(world.view(first_pds).last_end.unwrap().end, End::Silent);
    assert!(world.metric("mainstem_crawler_half_message_waiting_seconds_total") > 0.0);
    assert_eq!(second_pds.connects.load(Ordering::Relaxed), 1);
    until("given back", || gauge() == 0.0).await;
    world.stopped().await;
}

#[tokio::test]
async fn redirects_are_refused() {
    let target = Pds::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = atproto::syntax::HostName::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let world = World::new(quick());
    world.handle.add_host(&name, Start::Live).await.unwrap();
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/xrpc/com.atproto.sync.subscribeRepos\r\n\
         retry-after: 1\r\ncontent-length: 0\r\n\r\n",
        target.addr
    );
    let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let _ = stream.read(&mut [0; 4_096]).await.unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    until("refused", || {
        let view = world.handle.host(&name).unwrap();
        view.last_end.is_some_and(|last| last.end == End::Refused && last.detail.contains("307"))
    })
    .await;
    // It asks to be left alone for a second, but not longer than the cap of this test's back-off.
    let (_, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert_eq!(target.connects.load(Ordering::Relaxed), 0);
    world.stopped().await;
}

#[tokio::test]
async fn a_host_that_can_not_be_reached_is_offline_and_read_once_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let name = atproto::syntax::HostName::parse(&addr.to_string()).unwrap();
    let world = World::new(quick());
    world.handle.add_host(&name, Start::Live).await.unwrap();
    let view = || world.handle.host(&name).unwrap();
    until("offline", || view().status == HostStatus::Offline).await;
    assert_eq!(view().last_end.unwrap().end, End::Unreachable);
    let listener = TcpListener::bind(addr).await.unwrap();
    let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    until("active", || view().status == HostStatus::Active).await;
    drop(socket);
    world.stopped().await;
}

#[tokio::test]
async fn a_hundred_hosts_at_once() {
    let world = World::new(quick());
    let mut hosts = Vec::new();
    for _ in 0..100 {
        let pds = Pds::new().await;
        world.read(&pds, Start::Oldest).await;
        hosts.push(pds);
    }
    let seqs: Vec<u64> = (1..=50).collect();
    let mut connections = Vec::new();
    for pds in &mut hosts {
        let mut connection = pds.accept_at(Some(0)).await;
        connection.events(&seqs).await;
        connections.push(connection);
    }
    until("all are in", || world.intake.seqs().len() == 5_000).await;
    for frame in world.intake.frames() {
        frame.receipts.taken(frame.upstream_seq);
    }
    let store = world.hosts.clone();
    world.stopped().await;
    for pds in &hosts {
        let row = store.get(&pds.name).await.unwrap().unwrap();
        assert_eq!((row.cursor.seq, row.status), (Some(50), HostStatus::Active));
    }
}

#[tokio::test]
async fn a_stop_with_a_full_intake_does_not_wait_for_what_never_arrived() {
    let (world, mut pds) = (World::new(Config { settle_within: SOON, ..quick() }), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1]).await;
    world.intake.has(&[1]).await;
    world.intake.fill();
    connection.events(&[2]).await;
    until("the push waits", || world.view(&pds).in_flight == 2).await;
    world.intake.take(&[1]);
    let (hosts, name) = (world.hosts.clone(), pds.name.clone());
    let began = Instant::now();
    world.stopped().await;
    assert!(began.elapsed() < SOON);
    assert_eq!(hosts.get(&name).await.unwrap().unwrap().cursor.seq, Some(1));
}
