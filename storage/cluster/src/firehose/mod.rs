//! The firehose, read: the newest events from memory, older ones from Kafka.
//!
//! Owns what one node knows of the topic `firehose`. Writing there is the sequencer's.
//!
//! ```text
//!   firehose │ first … ────────── older ────────── … │ newest │
//!                 ▲                   ▲                   ▲
//!             watermarks          replay: seq →         tail: a thread
//!             (each second)       offset, chunks        → ring → window
//! ```
//!
//! What must hold:
//! - Only committed records are read, so that every node gives the same bytes for the same seq.
//! - The window never shows an event that can't be read here, and never goes back.
//! - What is in memory is bounded in bytes: the ring, the chunks, and what the clients have read ahead.

mod chunks;
mod metrics;
mod replay;
mod ring;
mod search;
mod tail;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use storage::{
    buffers::Buffers,
    error::Error,
    log::{Block, Published, ReadError, Window},
    seq::Seq,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::metrics::Metrics;
use self::{replay::Replay, ring::Ring, search::Index, search::Point, tail::Tail};
use crate::{
    config,
    kafka::{
        client::{ends, settings},
        quiet::Quiet,
        topics::Topics,
    },
    wire::{self, Malformed},
};

/// How long Kafka may be silent before a call fails.
const PATIENCE: Duration = Duration::from_secs(15);
/// Who has not met the end for so long is behind; a batch takes less.
const BEHIND_AFTER: Duration = Duration::from_secs(1);
/// Memory of blocks that is kept to be used again.
const BLOCK_BYTES_KEPT_MAX: usize = 8 << 20;

/// What a reader is made of.
#[derive(Clone)]
pub(crate) struct Config {
    /// What all clients of Kafka have in common.
    pub(crate) client: ClientConfig,
    /// The topic of events.
    pub(crate) topic: String,
    /// The topic of the sequencer's state.
    pub(crate) state: String,
    pub(crate) limits: Limits,
}

impl Config {
    /// Of a cluster.
    pub(crate) fn of(config: &config::Config) -> Config {
        let Topics { firehose, sequencer_state, .. } = Topics::of(&config.name);
        let client = settings(&config.kafka, &format!("{}.reader", config.name));
        Config { client, topic: firehose, state: sequencer_state, limits: Limits::default() }
    }
}

/// Memory, in bytes, and readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The newest events.
    pub(crate) ring_bytes_max: usize,
    /// Older events that were read of late.
    pub(crate) chunk_bytes_max: usize,
    /// How many older places are read at once; each reads some MiB ahead.
    pub(crate) readers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { ring_bytes_max: 16 << 20, chunk_bytes_max: 32 << 20, readers: 4 }
    }
}

/// One node's view of the firehose.
pub(crate) struct Firehose {
    shared: Arc<Shared>,
    replay: Arc<Replay>,
    buffers: Buffers,
    /// When the last catching-up that succeeded had begun.
    caught_up: tokio::sync::Mutex<Option<Instant>>,
    _ends: DropGuard,
}

/// What the tail and the readers share.
struct Shared {
    config: Config,
    metrics: Metrics,
    ring: Mutex<Ring>,
    index: Mutex<Index>,
    window: watch::Sender<Window>,
    /// The first record that is kept, and the offset after the last that the tail has seen.
    ends: Mutex<Ends>,
    stop: CancellationToken,
}

/// The topic's ends, as far as they are known.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// The low watermark.
    low: i64,
    /// The first record from there on.
    first: Option<Point>,
    /// The offset after the newest record.
    next: i64,
    /// The end of the topic, as it was seen last.
    high: i64,
    /// When the tail had met the end.
    met_end: std::time::Instant,
    /// Bytes and number of the events that the tail has seen: what is kept is estimated by them.
    seen_bytes: u64,
    seen: u64,
}

impl Firehose {
    /// Looks where the log stands and follows it from then on. When it answers, the window shows all that was committed
    /// before the call.
    pub(crate) async fn open(config: Config, metrics: Metrics) -> Result<Firehose, Error> {
        let stop = CancellationToken::new();
        let ends = stop.clone().drop_guard();
        let shared = blocking(move || {
            let (tail, shared) = Tail::open(config, metrics, stop)?;
            tail.start().map_err(|error| Error::Determinate { what: "follow the firehose", source: error.into() })?;
            Ok(shared)
        })
        .await?;
        let replay = Arc::new(Replay::new(Arc::clone(&shared)));
        let buffers = Buffers::new(BLOCK_BYTES_KEPT_MAX);
        Ok(Firehose { shared, replay, buffers, caught_up: tokio::sync::Mutex::default(), _ends: ends })
    }

    /// What can be read now; the receiver wakes when it changes.
    pub(crate) fn window(&self) -> watch::Receiver<Window> {
        self.shared.window.subscribe()
    }

    /// As [`storage::log::EventLog::read`].
    pub(crate) async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        let Window { first, last, .. } = *self.shared.window.borrow();
        if after >= last {
            return Ok(Vec::new());
        }
        if after.next() < first {
            return Err(ReadError::Outdated { after, first });
        }
        let found = self.shared.ring().read(after, bytes_max);
        match found {
            Some(found) => Ok(found),
            None => self.replay.read(after, bytes_max).await,
        }
    }

    /// As [`storage::log::EventLog::read_block`].
    pub(crate) async fn read_block(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        let events = self.read(after, bytes_max).await?;
        Ok(Block::copy_of(&events, &self.buffers))
    }

    /// Since when the end was not met, and how many offsets are missing up to the end that was seen last; `None` where
    /// all is read. Marks of transactions count.
    pub(crate) fn behind(&self) -> Option<(Duration, u64)> {
        let Ends { met_end, high, next, .. } = *self.shared.ends();
        let behind = met_end.elapsed();
        (behind > BEHIND_AFTER).then(|| (behind, high.saturating_sub(next).max(0).unsigned_abs()))
    }

    /// Asks the partition's leader for the end of the log and waits until the window shows it. Calls that wait at the
    /// same time ask together.
    pub(crate) async fn catch_up(&self) -> Result<Window, Error> {
        let called = Instant::now();
        let mut caught_up = self.caught_up.lock().await;
        if caught_up.is_none_or(|began| began < called) {
            let began = Instant::now();
            let shared = Arc::clone(&self.shared);
            blocking(move || tail::catch_up(&shared)).await?;
            *caught_up = Some(began);
        }
        Ok(*self.shared.window.borrow())
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first event that a cluster keeps, and when it was accepted, in microseconds since 1970. Blocks.
pub(crate) fn first_kept(config: &config::Config) -> Result<Option<(Seq, u64)>, Error> {
    let reader = Reader::new(&Config::of(config), 16 << 10, 16 << 10).map_err(failed)?;
    let (low, _) = reader.watermarks()?;
    Ok(reader.look(low)?.map(|(point, at_micros)| (point.seq, at_micros)))
}

/// A reader of the topic at one place after another.
struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
}

/// What a reader finds.
enum Found<'a> {
    /// The next record.
    Record(Box<BorrowedMessage<'a>>),
    /// There is none yet.
    End,
    /// Nothing came in that time.
    Nothing,
}

impl Reader {
    /// A reader that reads at most about `ahead_bytes` ahead, in steps of `step_bytes`.
    fn new(config: &Config, ahead_bytes: usize, step_bytes: usize) -> KafkaResult<Reader> {
        let consumer = config
            .client
            .clone()
            // Never joined: assigning partitions asks for a name.
            .set("group.id", format!("{}.readers", config.topic))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("queued.min.messages", "1000000")
            .set("queued.max.messages.kbytes", (ahead_bytes >> 10).max(1).to_string())
            .set("fetch.message.max.bytes", step_bytes.to_string())
            // A full queue is no reason to pause for a second.
            .set("fetch.queue.backoff.ms", "5")
            .create_with_context(Quiet)?;
        Ok(Reader { consumer, topic: config.topic.clone() })
    }

    /// Goes on at this offset.
    fn place(&self, offset: i64) -> KafkaResult<()> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(&self.topic, 0, Offset::Offset(offset))?;
        self.consumer.assign(&partitions)
    }

    /// The next record. What a client of Kafka gets over by itself is waited out.
    fn next(&self, wait: Duration) -> KafkaResult<Found<'_>> {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => Ok(Found::Record(Box::new(message))),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Found::End),
            Some(Err(error)) if !crate::sequence::state::is_passing(&error) => Err(error),
            None | Some(Err(_)) => Ok(Found::Nothing),
        }
    }

    /// The first record from this offset on.
    fn look(&self, offset: i64) -> Result<Option<(Point, u64)>, Error> {
        self.place(offset).map_err(failed)?;
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            match self.next(Duration::from_millis(100)).map_err(failed)? {
                Found::Record(message) => {
                    let head = decode(&message)?.head;
                    return Ok(Some((Point { seq: head.seq, offset: message.offset() }, head.at_micros)));
                }
                Found::End => return Ok(None),
                Found::Nothing => {}
            }
        }
        Err(silent())
    }

    /// The offsets of the first record and after the last.
    fn watermarks(&self) -> Result<(i64, i64), Error> {
        ends(&self.consumer, &self.topic, 0, PATIENCE).map_err(failed)
    }
}

fn decode<'a>(message: &'a BorrowedMessage<'_>) -> Result<wire::firehose::Record<'a>, Error> {
    wire::firehose::Record::decode(message.payload().unwrap_or_default())
        .map_err(|malformed: Malformed| Error::Damaged { what: format!("{malformed} (offset {})", message.offset()) })
}

fn publish(record: &wire::firehose::Record<'_>) -> Published {
    let wire::firehose::Head { seq, account, taken_down, at_micros: _, origin: _ } = record.head;
    Published { seq, account, taken_down, frame: bytes::Bytes::copy_from_slice(record.frame) }
}

/// Reading changes nothing: it may be tried again.
fn failed(error: KafkaError) -> Error {
    Error::Determinate { what: "read the firehose", source: error.into() }
}

fn silent() -> Error {
    Error::Determinate { what: "read the firehose", source: format!("kafka was silent for {PATIENCE:?}").into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => Err(Error::Determinate { what: "read the firehose", source: panic.into() }),
    }
}
