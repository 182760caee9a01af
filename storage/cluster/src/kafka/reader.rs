//! Reading partitions from given offsets, many with one client, each at its reader's pace.
//!
//! A partition's records wait in a queue of its own, bounded in bytes: who does not read stops the fetching of that
//! partition alone.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{Consumer, DefaultConsumerContext, StreamConsumer, stream_consumer::StreamPartitionQueue},
    error::KafkaError,
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};
use storage::error::Error;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::client::{ends, failed};

/// How long it may take to find out where a topic is.
const PREPARE_WITHIN: Duration = Duration::from_secs(5);

/// One client that reads.
pub(crate) struct Reader {
    consumer: Arc<StreamConsumer>,
    /// Serves the client's events; ends with this value.
    _events: JoinSet<()>,
}

impl Reader {
    /// `read_ahead_bytes` is what waits of each partition at most, but for what was under way.
    pub(crate) fn new(settings: &ClientConfig, name: &str, read_ahead_bytes: usize) -> Result<Reader, KafkaError> {
        let consumer: StreamConsumer = settings
            .clone()
            // Never joined: assigning partitions asks for a name.
            .set("group.id", format!("{name}.readers"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // Nothing there is transactional.
            .set("isolation.level", "read_uncommitted")
            .set("queued.max.messages.kbytes", (read_ahead_bytes >> 10).max(64).to_string())
            // A partition that is opened is fetched only once the request before has been answered, with whatever it asks for.
            .set("fetch.wait.max.ms", "50")
            // A full queue is no reason to pause for a second.
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let consumer = Arc::new(consumer);
        let mut events = JoinSet::new();
        let served = Arc::clone(&consumer);
        events.spawn(async move {
            loop {
                // Records come to their partitions' queues.
                if let Err(error) = served.recv().await {
                    warn!(%error, "reading from kafka is disturbed");
                }
            }
        });
        Ok(Reader { consumer, _events: events })
    }

    /// Finds out where these topics' partitions are. A client looks for the leaders of topics that are new to it once a
    /// second, so the first partition of a second topic would else come so much later. Where Kafka is silent nothing is
    /// known more than before.
    pub(crate) async fn prepare(&self, topics: [String; 2]) {
        let consumer = Arc::clone(&self.consumer);
        let asking = tokio::task::spawn_blocking(move || {
            for topic in topics {
                if let Err(error) = consumer.fetch_metadata(Some(&topic), PREPARE_WITHIN) {
                    debug!(topic, %error, "where the topic is will be found out later");
                }
            }
        });
        if let Err(panic) = asking.await {
            std::panic::resume_unwind(panic.into_panic());
        }
    }

    /// Reads a partition from `offset` on. One reader of a partition at a time.
    pub(crate) fn open(&self, topic: &str, partition: i32, offset: i64) -> Result<Partition, Error> {
        let what = "read a partition";
        // Before the partition is assigned, so that its records never come to the queue of all.
        let queue = self.consumer.split_partition_queue(topic, partition).ok_or_else(|| Error::Indeterminate {
            what,
            source: format!("{topic} has no partition {partition}").into(),
        })?;
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed(what))?;
        self.consumer.incremental_assign(&at).map_err(failed(what))?;
        Ok(Partition { queue, consumer: Arc::clone(&self.consumer), at, next: offset })
    }

    /// The first offset that a partition holds, and the one after its last. Blocks.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let within = Duration::from_secs(30);
        ends(&*self.consumer, topic, partition, within).map_err(failed("find a partition's ends"))
    }
}

/// A partition that is being read.
pub(crate) struct Partition {
    queue: StreamPartitionQueue<DefaultConsumerContext>,
    consumer: Arc<StreamConsumer>,
    at: TopicPartitionList,
    /// Records before it are none of ours: of an earlier reading.
    next: i64,
}

impl Partition {
    /// The next record, given to `take`. Cancel-safe.
    pub(crate) async fn next<T>(&self, take: impl FnOnce(i64, &[u8]) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let record = self.queue.recv().await.map_err(|error| self.broken(error))?;
            if record.offset() >= self.next {
                return take_payload(&record, take);
            }
        }
    }

    /// As [`Partition::next`], where one has come already.
    pub(crate) fn next_if_here<T>(
        &self,
        take: impl FnOnce(i64, &[u8]) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let record = self.queue.recv().now_or_never()?;
        Some(record.map_err(|error| self.broken(error)).and_then(|record| take_payload(&record, take)))
    }

    fn broken(&self, error: KafkaError) -> Error {
        let lost = [RDKafkaErrorCode::OffsetOutOfRange, RDKafkaErrorCode::AutoOffsetReset];
        match error.rdkafka_error_code() {
            Some(code) if lost.contains(&code) => {
                let places = self.at.elements();
                let what = places.first().map_or(String::new(), |place| {
                    let offset = place.offset().to_raw().unwrap_or_default();
                    format!("{} no longer holds offset {offset} of partition {}", place.topic(), place.partition())
                });
                Error::Damaged { what }
            }
            Some(_) | None => failed("read a partition")(error),
        }
    }
}

fn take_payload<T>(
    record: &BorrowedMessage<'_>,
    take: impl FnOnce(i64, &[u8]) -> Result<T, Error>,
) -> Result<T, Error> {
    take(record.offset(), record.payload().unwrap_or_default())
}

impl Drop for Partition {
    fn drop(&mut self) {
        if let Err(error) = self.consumer.incremental_unassign(&self.at) {
            warn!(%error, "a partition is still read though nobody wants it");
        }
    }
}
