//! How much the sequencer alone takes, beside one bare idempotent producer on the same broker. Not a test: run it by
//!
//! ```text
//!   cargo test --release -p storage-cluster --lib beside_a_bare_producer -- --ignored --nocapture
//! ```

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::testing::{LANES, Topics, wait_until};

/// Records a round.
const COUNT: u64 = 40_000;
/// Bytes of a frame.
const FRAME_BYTES: usize = 5_000;
const ROUNDS: u64 = 3;

fn bare(topics: &Topics) -> f64 {
    let producer: BaseProducer = topics
        .client
        .clone()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("batch.size", (1 << 20).to_string())
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    let (topic, payload) = (topics.topic("bare"), vec![b'x'; FRAME_BYTES]);
    producer.client().fetch_metadata(Some(&topic), Duration::from_secs(10)).unwrap();
    let began = Instant::now();
    for _ in 0..COUNT {
        let mut record = BaseRecord::<(), [u8]>::to(&topic).partition(0).payload(&payload);
        while let Err((_full, again)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = again;
        }
        producer.poll(Duration::ZERO);
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    COUNT as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn beside_a_bare_producer() {
    let topics = Topics::create().await;
    topics.make("bare", 1).await;
    topics.start_at(1, LANES);
    (0..LANES).for_each(|lane| topics.claim(lane));
    topics.flush();
    let text = "x".repeat(FRAME_BYTES);
    for round in 1..=ROUNDS {
        (0..COUNT).for_each(|number| topics.event((number % u64::from(LANES)) as u32, 0, &text));
        topics.flush();
        let bare_first = (round % 2 == 1).then(|| bare(&topics));
        let running = topics.sequencer();
        let metrics = running.metrics.clone();
        wait_until("it leads", || metrics.take_over_seconds.get_sample_count() == 1).await;
        let began = Instant::now();
        wait_until("all are published", || metrics.events.get() == COUNT).await;
        let ordered = COUNT as f64 / began.elapsed().as_secs_f64();
        running.end().await;
        let bare = bare_first.unwrap_or_else(|| bare(&topics));
        let transactions = metrics.committed.get();
        let commit_ms = 1000.0 * metrics.commit_seconds.get_sample_sum() / transactions as f64;
        println!(
            "round {round}: bare {bare:.0}/s, sequencer {ordered:.0}/s: {:.2}; {transactions} transactions, each {commit_ms:.1} ms \
             to its end",
            ordered / bare
        );
    }
}
