//! The sequencer on a real broker.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use storage::lane::Lane;

use super::Error;
use crate::{
    testing::{LANES, SOON, Topics, blocking, wait_until},
    wire::firehose::Record,
};

struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    fn of(topics: &Topics) -> Reader {
        let consumer: BaseConsumer = topics
            .client
            .clone()
            .set("group.id", "reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(&topics.topic("firehose"), 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        Reader { consumer }
    }

    /// The next events: seq, lane and the frame's text.
    fn next(&self, count: usize) -> Vec<(u64, Lane, String)> {
        let started = Instant::now();
        let mut got = Vec::new();
        while got.len() < count {
            assert!(started.elapsed() < SOON, "{} of {count} events", got.len());
            let Some(message) = self.consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            let Record { head, frame } = Record::decode(message.payload().unwrap()).unwrap();
            let text = frame.iter().take_while(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
            got.push((head.seq.0, head.origin.lane, text));
        }
        got
    }

    /// Nothing more is there.
    fn ends(&self) {
        assert!(self.consumer.poll(Duration::from_millis(500)).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_what_counts_and_goes_on_where_it_was() {
    let topics = Topics::create().await;
    topics.start_at(300, LANES);
    topics.claim(0);
    topics.event(0, 0, "a1");
    topics.claim(0);
    topics.event(0, 0, "zombie");
    topics.event(0, 2, "a2");
    topics.flush();
    let running = topics.sequencer();
    let reader = Reader::of(&topics);
    let (first, reader) = blocking(move || (reader.next(2), reader)).await;
    assert_eq!(first, [(300, Lane(0), "a1".into()), (301, Lane(0), "a2".into())]);
    assert_eq!(running.metrics.stale.get(), 1);
    running.end().await;

    topics.event(0, 2, "a3");
    topics.event(1, 0, "nobody's");
    topics.claim(1);
    topics.event(1, 1, "b1");
    topics.flush();
    let running = topics.sequencer();
    let (more, reader) = blocking(move || (reader.next(2), reader)).await;
    let seqs: Vec<_> = more.iter().map(|(seq, ..)| *seq).collect();
    let mut texts: Vec<_> = more.iter().map(|(.., text)| text.as_str()).collect();
    texts.sort_unstable();
    assert_eq!((seqs, texts), (vec![302, 303], vec!["a3", "b1"]));
    blocking(move || reader.ends()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_hands_over_at_once() {
    let topics = Topics::create().await;
    topics.start_at(1, LANES);
    topics.claim(0);
    topics.flush();
    let mut leader = topics.sequencer();
    let mut reader = Reader::of(&topics);
    for round in 1..4 {
        topics.event(0, 0, &format!("r{round}"));
        topics.flush();
        let (got, back) = blocking(move || (reader.next(1), reader)).await;
        assert_eq!(got, [(round, Lane(0), format!("r{round}"))]);
        reader = back;
        let other = topics.sequencer();
        // It stands by before the leader goes, and leaves it the lead.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(other.metrics.take_over_seconds.get_sample_count(), 0);
        let stopped = Instant::now();
        let ending = std::mem::replace(&mut leader, other);
        let ended = async {
            ending.end().await;
            stopped.elapsed()
        };
        let leads = wait_until("the other leads", || leader.metrics.take_over_seconds.get_sample_count() == 1);
        let leads = async {
            leads.await;
            stopped.elapsed()
        };
        let (ended, leads) = tokio::join!(ended, leads);
        let taking_s = leader.metrics.take_over_seconds.get_sample_sum();
        println!("ended in {ended:?}, handed over in {leads:?}, taking over {taking_s} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_to_begin_without_a_state() {
    let topics = Topics::create().await;
    let error = topics.sequencer().task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NotMade { .. }), "{error}");
    topics.claim(2);
    topics.flush();
    let error = topics.sequencer().task.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::StateLost { held, .. } if *held == topics.topic("verified")), "{error}");
    topics.start_at(1, LANES + 1);
    topics.flush();
    let error = topics.sequencer().task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lanes { stored: 5, configured: 4, .. }), "{error}");
}
