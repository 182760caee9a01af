//! Reading the firehose of a real broker.

use std::time::Duration;

use prometheus::Registry;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use storage::{
    log::{Published, ReadError, Window},
    seq::Seq,
};

use super::{Config, Firehose, Limits, Metrics};
use crate::{
    sequence,
    testing::{LANES, Topics, wait_until},
};

async fn open(topics: &Topics, limits: Limits) -> Firehose {
    let (client, topic, state) = (topics.client.clone(), topics.topic("firehose"), topics.topic("sequencer-state"));
    let metrics = Metrics::register(&Registry::new()).unwrap();
    Firehose::open(Config { client, topic, state, limits }, metrics).await.unwrap()
}

fn window(firehose: &Firehose) -> Window {
    *firehose.window().borrow()
}

/// Everything after `after`, in steps of about `bytes_max`.
async fn read_all(firehose: &Firehose, after: u64, bytes_max: usize) -> Vec<Published> {
    let (mut all, mut cursor) = (Vec::new(), Seq(after));
    loop {
        let some = firehose.read(cursor, bytes_max).await.unwrap();
        let Some(last) = some.last() else { return all };
        assert_eq!(some[0].seq, cursor.next());
        cursor = last.seq;
        all.extend(some);
    }
}

fn texts(events: &[Published]) -> Vec<String> {
    let text = |event: &Published| {
        event.frame.iter().take_while(|byte| byte.is_ascii_digit()).map(|b| char::from(*b)).collect()
    };
    events.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_an_empty_log() {
    let topics = Topics::create().await;
    topics.start_at(700, LANES);
    topics.claim(0);
    topics.flush();
    let firehose = open(&topics, Limits::default()).await;
    let empty = window(&firehose);
    assert_eq!((empty.first, empty.last, empty.first_at_micros), (Seq(700), Seq(699), None));
    assert_eq!(firehose.catch_up().await.unwrap(), empty);
    assert_eq!(firehose.read(Seq(699), 1000).await.unwrap(), []);

    let running = topics.sequencer();
    (0..10).for_each(|number| topics.event(0, 0, &number.to_string()));
    topics.flush();
    let mut watcher = firehose.window();
    tokio::time::timeout(crate::testing::SOON, watcher.wait_for(|window| window.last == Seq(709)))
        .await
        .unwrap()
        .unwrap();
    let all = read_all(&firehose, 699, 20).await;
    assert_eq!(texts(&all), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(window(&firehose).first, Seq(700));
    assert!(window(&firehose).first_at_micros.is_some());
    assert_eq!(firehose.catch_up().await.unwrap().last, Seq(709));
    running.end().await;
    // Who begins now sees the same.
    let other = open(&topics, Limits::default()).await;
    assert_eq!(read_all(&other, 699, 1 << 20).await, all);
    assert_eq!((window(&other).first, window(&other).last), (Seq(700), Seq(709)));
}

#[tokio::test(flavor = "multi_thread")]
async fn begins_and_is_not_behind_while_more_is_written_all_the_time() {
    let topics = Topics::create().await;
    topics.start_at(1, LANES);
    topics.claim(0);
    let running = topics.sequencer();
    // Never a moment in which Kafka has nothing to give.
    let write = async {
        for number in 0_u64.. {
            topics.event(0, 0, &number.to_string());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let read = async {
        let firehose = open(&topics, Limits::default()).await;
        let mut watcher = firehose.window();
        // Long enough for its age to count.
        watcher.wait_for(|window| window.last >= Seq(200)).await.unwrap();
        while firehose.behind().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = write => {}
        read = tokio::time::timeout(crate::testing::SOON, read) => read.unwrap(),
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_events_are_found_and_shared_and_go() {
    const COUNT: u64 = 30_000;
    let topics = Topics::create().await;
    topics.start_at(1, LANES);
    topics.claim(0);
    let running = topics.sequencer_with(sequence::Limits {
        transaction_bytes: 20_000,
        linger: Duration::ZERO,
        ..sequence::Limits::default()
    });
    let padding = "x".repeat(400);
    (1..=COUNT).for_each(|number| topics.event(0, 0, &format!("{number}{padding}")));
    topics.flush();
    let limits = Limits { ring_bytes_max: 200_000, chunk_bytes_max: 3 << 20, readers: 2 };
    let firehose = open(&topics, limits).await;
    let mut watcher = firehose.window();
    tokio::time::timeout(crate::testing::SOON, watcher.wait_for(|window| window.last == Seq(COUNT)))
        .await
        .unwrap()
        .unwrap();
    running.end().await;

    let all = read_all(&firehose, 0, 100_000).await;
    assert_eq!(texts(&all), (1..=COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
    let looks = firehose.shared.metrics.looks.get();
    assert_eq!(looks, 0, "who begins at the beginning need not search");
    // A new node knows nothing of what is between.
    let other = open(&topics, limits).await;
    for (number, after) in [15_000_u64, 3, 25_000, 24_000, 15_010, 7_777].into_iter().enumerate() {
        let found = other.read(Seq(after), 5_000).await.unwrap();
        let expected = &all[after as usize..][..found.len()];
        assert!(found.len() > 5 && found == expected, "after {after}");
        let looks = other.shared.metrics.looks.get();
        assert!(looks <= 8 * (1 + number as u64), "{looks} looks for {} places", number + 1);
    }
    println!("{} looks", other.shared.metrics.looks.get());
    let reads = other.shared.metrics.chunk_reads.get();
    let near = (0..20).map(|near| other.read(Seq(25_000 + 10 * near), 5_000));
    for found in futures_util::future::join_all(near).await {
        assert!(found.unwrap().len() > 5);
    }
    assert!(other.shared.metrics.chunk_reads.get() <= reads + 1, "readers near each other share");

    let bytes = window(&other).bytes;
    assert!((400 * COUNT..700 * COUNT).contains(&bytes), "{bytes}");
    let admin: AdminClient<DefaultClientContext> = topics.client.create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topics.topic("firehose"), 0, Offset::Offset(10_000)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    wait_until("the window has shrunk", || window(&other).first > Seq(1)).await;
    let first = window(&other).first;
    assert!(first > Seq(5_000) && first <= Seq(10_000));
    let outdated = other.read(Seq(first.0 - 2), 1000).await;
    assert!(matches!(outdated, Err(ReadError::Outdated { first: said, .. }) if said == first));
    assert!(read_all(&other, first.0 - 1, 1 << 20).await == all[first.0 as usize - 1..]);
}
