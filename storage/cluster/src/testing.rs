//! A cluster's topics on a real broker, and a sequencer, for the tests of the parts.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use atproto::frame::SeqSlot;
use prometheus::Registry;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use runtime::clock::Clock;
use storage::seq::Seq;
use testservers::Kafka;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    kafka::client::settings,
    sequence::{Config, Error, Limits, Metrics, Sequencer},
    wire::{
        sequencer::{KEY, State},
        verified::{EventView, View},
    },
};

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const LANES: u32 = 4;

/// A cluster's topics on the shared broker.
pub(crate) struct Topics {
    pub(crate) client: ClientConfig,
    pub(crate) name: String,
    producer: BaseProducer,
}

impl Topics {
    pub(crate) async fn create() -> Topics {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sequencer{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let brokers = vec![Kafka::shared().bootstrap()];
        let client = settings(&config::Kafka { brokers, tls: None, sasl: None }, "test");
        let producer = client.clone().set("enable.idempotence", "true").create().unwrap();
        let topics = Topics { client, name, producer };
        topics.make("raw", LANES as i32).await;
        topics.make("verified", LANES as i32).await;
        topics.make("firehose", 1).await;
        topics.make("sequencer-state", 1).await;
        topics
    }

    pub(crate) fn topic(&self, which: &str) -> String {
        format!("{}.{which}", self.name)
    }

    pub(crate) async fn make(&self, which: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client.create().unwrap();
        let name = self.topic(which);
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|topic| drop(topic.unwrap()));
    }

    pub(crate) async fn delete_topic(&self, which: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client.create().unwrap();
        let name = self.topic(which);
        admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap();
        // It goes a little later; a new one of its name must not be taken for it.
        let consumer: BaseConsumer = self.client.create().unwrap();
        wait_until("the topic is gone", || {
            let metadata = consumer.fetch_metadata(None, SOON).unwrap();
            metadata.topics().iter().all(|topic| topic.name() != name)
        })
        .await;
    }

    pub(crate) fn start_at(&self, next_seq: u64, lanes: u32) {
        let state = State::start(Seq(next_seq), lanes).encode();
        self.produce("sequencer-state", 0, Some(KEY), &state);
    }

    pub(crate) fn produce(&self, which: &str, partition: i32, key: Option<&[u8]>, payload: &[u8]) {
        let topic = self.topic(which);
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(payload);
        record.key = key;
        while let Err((_full, again)) = self.producer.send(record) {
            self.producer.poll(Duration::from_millis(1));
            record = again;
        }
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(SOON).unwrap();
    }

    pub(crate) fn claim(&self, lane: u32) {
        self.produce("verified", lane as i32, None, &View::Claim([7; 16]).encode());
    }

    /// An event whose frame is `text` and a seq of one byte after it.
    pub(crate) fn event(&self, lane: u32, claim: i64, text: &str) {
        let frame = [text.as_bytes(), &[0]].concat();
        let end = frame.len() as u32;
        let event = EventView {
            claim,
            position: None,
            command: false,
            account: 7,
            taken_down: false,
            seq_slot: SeqSlot { start: end - 1, end },
            at_micros: Clock::system().now_micros(),
            did: b"did:web:a.example",
            state: &[],
            frame: &frame,
        };
        self.produce("verified", lane as i32, None, &View::Event(event).encode());
    }

    pub(crate) fn sequencer(&self) -> Running {
        self.sequencer_with(Limits::default())
    }

    pub(crate) fn sequencer_with(&self, limits: Limits) -> Running {
        let config = Config {
            client: self.client.clone(),
            name: self.topic("sequencer"),
            lanes_group: self.topic("validators"),
            raw: self.topic("raw"),
            verified: self.topic("verified"),
            firehose: self.topic("firehose"),
            state: self.topic("sequencer-state"),
            lanes: LANES,
            limits,
            clock: Clock::system(),
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let stop = CancellationToken::new();
        let sequencer = Sequencer::new(config, metrics.clone());
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let task = tokio::spawn(sequencer.run(stop.clone()));
        Running { stop: stop.drop_guard(), task, metrics }
    }
}

pub(crate) struct Running {
    stop: tokio_util::sync::DropGuard,
    pub(crate) task: tokio::task::JoinHandle<Result<(), Error>>,
    pub(crate) metrics: Metrics,
}

impl Running {
    pub(crate) async fn end(self) {
        let Running { stop, task, metrics: _ } = self;
        drop(stop);
        task.await.unwrap().unwrap();
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
