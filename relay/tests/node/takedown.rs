//! What subscribers and the public methods say of an account that is taken down, and restored.

use std::{num::NonZeroU64, time::Duration};

use atproto::syntax::Did;
use relay::config::{Local, Store};
use serde_json::json;
use storage::{log::Accepted, repos::LocalStatus};

use crate::harness::{Got, Relay, Subscriber, accepted, config, get, serve};

const UNWANTED: &str = "did:web:unwanted.example.com";
const OTHER: &str = "did:web:other.example.com";

fn unwanted() -> Did {
    Did::parse(UNWANTED).unwrap()
}

/// An `#account` event of its host while the account is taken down.
fn while_down() -> Accepted {
    let mut event = accepted(UNWANTED, 200);
    event.state.local = LocalStatus::TakenDown;
    event
}

/// Events of the two accounts in turn, the unwanted one's first.
async fn append_in_turn(relay: &Relay, count: usize, bytes: usize) {
    let dids = [UNWANTED, OTHER].into_iter().cycle();
    relay.stores.log.append(dids.take(count).map(|did| accepted(did, bytes)).collect()).await.unwrap();
}

async fn expect(subscriber: &mut Subscriber, seqs: &[u64]) {
    for seq in seqs {
        assert_eq!(subscriber.next().await, Got::Event(*seq));
    }
}

/// Live, from memory and from the log; with a ring that holds all and one that holds nearly nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_served_but_the_takedown_until_the_account_is_restored() {
    for ring_bytes in [1 << 20, 1] {
        let mut config = config(&[]);
        serve(&mut config).hub.ring_bytes = ring_bytes;
        serve(&mut config).hub.chunk_bytes = 300;
        serve(&mut config).hub.replay.piece_bytes = 300;
        // Who passes over a piece of nothing but what is withheld must not keep its turn.
        serve(&mut config).hub.replay.turns_max = 1;
        let relay = Relay::start(config).await;
        append_in_turn(&relay, 6, 200).await;
        let mut live = relay.subscribe("?cursor=0").await;
        expect(&mut live, &[1, 2, 3, 4, 5, 6]).await;

        let state = relay.app.takedown(&unwanted()).await.unwrap();
        assert_eq!(state.local, LocalStatus::TakenDown);
        expect(&mut live, &[7]).await;
        expect(&mut relay.subscribe("?cursor=0").await, &[2, 4, 6, 7]).await;
        expect(&mut relay.subscribe("?cursor=4").await, &[6, 7]).await;

        // What its host says meanwhile is kept, and not served.
        relay.stores.log.append(vec![while_down(), accepted(OTHER, 200)]).await.unwrap();
        expect(&mut live, &[9]).await;
        expect(&mut relay.subscribe("?cursor=2").await, &[4, 6, 7, 9]).await;
        assert_eq!(relay.metric("mainstem_fanout_withheld_accounts").await, 1.0);
        for (method, status, name) in [("getLatestCommit", 400, "RepoTakendown"), ("getRepo", 400, "RepoTakendown")] {
            let path = format!("/xrpc/com.atproto.sync.{method}?did={UNWANTED}");
            get(relay.public, &path).await.expect_error(status, name);
        }
        let path = format!("/xrpc/com.atproto.sync.getRepoStatus?did={UNWANTED}");
        let expected = json!({ "did": UNWANTED, "active": false, "status": "takendown" });
        assert_eq!(get(relay.public, &path).await.json(), expected);
        let listed = get(relay.public, "/xrpc/com.atproto.sync.listRepos").await.json();
        assert_eq!(
            (&listed["repos"][1]["active"], &listed["repos"][1]["status"]),
            (&json!(false), &json!("takendown"))
        );

        // Once more changes nothing.
        relay.app.takedown(&unwanted()).await.unwrap();
        assert_eq!(relay.stores.log.window().borrow().last.0, 9);

        let state = relay.app.restore(&unwanted()).await.unwrap();
        assert_eq!(state.local, LocalStatus::None);
        relay.app.restore(&unwanted()).await.unwrap();
        append_in_turn(&relay, 2, 200).await;
        expect(&mut live, &[10, 11, 12]).await;
        expect(&mut relay.subscribe("?cursor=0").await, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).await;
        assert_eq!(relay.metric("mainstem_fanout_withheld_accounts").await, 0.0);
        assert_eq!(get(relay.public, &path).await.json()["active"], json!(true));
        relay.drain().await;
    }
}

/// Who stands far behind, with events on their way, gets no more of them than its socket has taken already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_for_a_slow_subscriber_is_taken_back() {
    let relay = Relay::start(config(&[])).await;
    for _ in 0..40 {
        append_in_turn(&relay, 10, 100_000).await;
    }
    let mut slow = relay.subscribe("?cursor=0").await;
    expect(&mut slow, &[1, 2]).await;
    relay.app.takedown(&unwanted()).await.unwrap();
    let mut got = Vec::new();
    while got.last() != Some(&401) {
        let Got::Event(seq) = slow.next().await else { panic!("not an event") };
        got.push(seq);
    }
    let served = got.iter().filter(|seq| **seq % 2 == 1 && **seq < 400).max().copied().unwrap_or(0);
    assert!(served < 300, "event {served} was not in the socket's buffers");
    let expected: Vec<u64> = (3..=401).filter(|seq| *seq <= served || *seq % 2 == 0 || *seq == 401).collect();
    assert_eq!(got, expected, "no gap and no repeat");
    relay.drain().await;
}

/// Subscribers that come and read while the account is taken down and restored again and again: the other account's
/// events come without a gap or a repeat, and every `#account` of ours comes to who is live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takedowns_in_mid_stream_cost_the_others_nothing() {
    let mut config = config(&[]);
    serve(&mut config).hub.ring_bytes = 20_000;
    serve(&mut config).hub.chunk_bytes = 4_000;
    serve(&mut config).hub.replay.piece_bytes = 4_000;
    let relay = Relay::start(config).await;
    append_in_turn(&relay, 400, 300).await;
    let mut subscribers = Vec::new();
    for cursor in [0, 100, 300, 400] {
        subscribers.push((cursor, relay.subscribe(&format!("?cursor={cursor}")).await));
    }
    let (mut own, mut others) = (Vec::new(), (2..=400).step_by(2).collect::<Vec<u64>>());
    for _ in 0..5 {
        relay.app.takedown(&unwanted()).await.unwrap();
        own.push(relay.stores.log.window().borrow().last.0);
        let mut batch: Vec<Accepted> = Vec::new();
        batch.resize_with(20, || accepted(OTHER, 300));
        relay.stores.log.append(batch).await.unwrap();
        others.extend(own.last().unwrap() + 1..=own.last().unwrap() + 20);
        relay.app.restore(&unwanted()).await.unwrap();
        own.push(relay.stores.log.window().borrow().last.0);
    }
    relay.stores.log.append(vec![accepted(OTHER, 300)]).await.unwrap();
    let last = relay.stores.log.window().borrow().last.0;
    others.push(last);
    for (cursor, mut subscriber) in subscribers {
        let mut got = Vec::new();
        while got.last() != Some(&last) {
            let Got::Event(seq) = subscriber.next().await else { panic!("not an event") };
            got.push(seq);
        }
        assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
        let of_others: Vec<u64> = got.iter().filter(|seq| others.contains(seq)).copied().collect();
        assert_eq!(of_others, others.iter().filter(|seq| **seq > cursor).copied().collect::<Vec<_>>());
        // Who was behind may have been past a takedown when it was in force no longer; nobody misses the last restore.
        assert!(got.contains(own.last().unwrap()));
    }
    relay.drain().await;
}

/// What is taken down is known before the first subscriber of the next process is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takedown_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let start = || async {
        let mut config = config(&[]);
        config.store = Store::Local(Local {
            data_dir: dir.path().join("data"),
            window: Duration::from_secs(3600),
            window_bytes: NonZeroU64::new(1 << 30).unwrap(),
            seq_start: None,
        });
        Relay::start(config).await
    };
    let relay = start().await;
    append_in_turn(&relay, 4, 200).await;
    relay.app.takedown(&unwanted()).await.unwrap();
    relay.stores.log.append(vec![while_down(), accepted(OTHER, 200)]).await.unwrap();
    relay.drain().await;

    let relay = start().await;
    expect(&mut relay.subscribe("?cursor=0").await, &[2, 4, 5, 7]).await;
    relay.app.takedown(&unwanted()).await.unwrap();
    assert_eq!(relay.stores.log.window().borrow().last.0, 7);
    relay.app.restore(&unwanted()).await.unwrap();
    relay.drain().await;

    let relay = start().await;
    expect(&mut relay.subscribe("?cursor=0").await, &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    relay.drain().await;
}
