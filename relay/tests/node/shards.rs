//! subscribeRepos with a shard: the events of some accounts alone, with the seqs and cursors of the whole.

use std::{collections::BTreeMap, time::Duration};

use atproto::{event, syntax::Did};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Got, LONG, Relay, Subscriber, accepted, config, get, serve};

const METHOD: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// One of many accounts.
fn did(n: usize) -> String {
    format!("did:plc:{n:024}").replace(['0', '1', '8', '9'], "a").replacen('a', "b", n % 3)
}

/// `count` events, each of another account than the one before.
async fn append(relay: &Relay, count: usize) {
    let events = (0..count).map(|n| accepted(&did(n % 37), 200)).collect();
    relay.stores.log.append(events).await.unwrap();
}

/// Reads until the event `last`, or one past it.
async fn read_until(subscriber: &mut Subscriber, last: u64, into: &mut BTreeMap<u64, Bytes>) {
    while into.last_key_value().is_none_or(|(seq, _)| *seq < last) {
        let message = tokio::time::timeout(LONG, subscriber.socket.next()).await.expect("nothing came");
        let Message::Binary(frame) = message.unwrap().unwrap() else { continue };
        let Ok(event::Routed::Event(route)) = event::route(&frame) else { panic!("not an event") };
        assert_eq!(into.insert(route.seq, frame.clone()), None, "twice");
    }
}

fn account(frame: &[u8]) -> u64 {
    let Ok(event::Event::Account(account)) = event::parse(frame) else { panic!("not of an account") };
    Did::lane_hash(account.did)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_together_are_the_whole_in_replay_and_live() {
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 16 << 10;
    serve(&mut config).hub.chunk_bytes = 4 << 10;
    let relay = Relay::start(config).await;
    append(&relay, 300).await;
    let mut whole = relay.subscribe("?cursor=0").await;
    let mut parts = Vec::new();
    for index in 0..3 {
        parts.push(relay.subscribe(&format!("?cursor=0&shard={index}/3")).await);
    }
    append(&relay, 300).await;
    let mut all = BTreeMap::new();
    read_until(&mut whole, 600, &mut all).await;
    assert!(all.keys().copied().eq(1..=600));

    let mut together = BTreeMap::new();
    for (index, part) in (0..).zip(&mut parts) {
        let mine = |frame: &Bytes| account(frame) % 3 == index;
        let last = *all.iter().rfind(|(_, frame)| mine(frame)).expect("each shard has accounts").0;
        let mut got = BTreeMap::new();
        read_until(part, last, &mut got).await;
        assert!(got.values().all(mine), "shard {index} got another's events");
        together.extend(got);
    }
    assert_eq!(together, all, "the same bytes under the same seqs");

    // A cursor of the whole stream is one of each shard.
    let mut rest = relay.subscribe("?shard=1/3&cursor=400").await;
    let expected: Vec<_> = all.iter().filter(|(seq, frame)| **seq > 400 && account(frame) % 3 == 1).collect();
    for (seq, _) in expected {
        assert_eq!(rest.next().await, Got::Event(*seq));
    }
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_none_is_a_bad_request() {
    let relay = Relay::start(config(&[])).await;
    for (shard, words) in [
        ("", "shard must be written i/n"),
        ("1", "shard must be written i/n"),
        ("a/b", "shard must be written i/n"),
        ("-1/2", "shard must be written i/n"),
        ("0/0", "n must be from 1 to 1024"),
        ("0/1025", "n must be from 1 to 1024"),
        ("2/2", "i counts from 0"),
    ] {
        let upgrade = [
            ("connection", "upgrade, close"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let path = format!("{METHOD}?shard={shard}");
        let answer = crate::harness::ask(relay.public, "GET", &path, &upgrade, "").await;
        answer.expect_error(400, "InvalidRequest");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{shard:?}: {message}");
    }
    let mut subscriber = relay.subscribe("?shard=0%2F1").await;
    append(&relay, 1).await;
    assert_eq!(subscriber.next().await, Got::Event(1));
    assert_eq!(get(relay.public, "/xrpc/_health").await.status, 200);
    relay.drain().await;
}

/// A shard may have nothing of a whole piece of the log: who gets nothing to send gives its turn back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_without_events_keeps_nobody_from_replaying() {
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 8 << 10;
    serve(&mut config).hub.chunk_bytes = 8 << 10;
    serve(&mut config).hub.replay.piece_bytes = 8 << 10;
    serve(&mut config).hub.replay.turns_max = 1;
    let relay = Relay::start(config).await;
    // All of one account: one of the two shards is empty.
    relay.append(500, 300).await;
    let mut shards = Vec::new();
    for index in 0..2 {
        shards.push(relay.subscribe(&format!("?cursor=0&shard={index}/2")).await);
    }
    let mut whole = relay.subscribe("?cursor=0").await;
    whole.expect_events(1, 500).await;
    // The empty one has come to the end too.
    let all_there = async {
        while relay.app.roster.list().iter().any(|view| view.position.0 < 500) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut read = JoinSet::new();
    for mut shard in shards {
        read.spawn(async move { while !matches!(shard.next().await, Got::Closed(_)) {} });
    }
    tokio::time::timeout(LONG, all_there).await.expect("a shard without events goes on");
    relay.drain().await;
    read.join_all().await;
}
