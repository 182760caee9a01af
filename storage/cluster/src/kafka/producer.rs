//! A producer whose records are in their partition in the order in which they were sent, each once, without a hole.
//!
//! What must hold: a record that can't be delivered ends the producer, and nothing that was sent after it is delivered. It
//! never gives up by time: a broker that is away is waited for.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use storage::error::Error;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{client::failed, quiet};

/// Told the offset of a record, or that it may not be there. Called on the producer's own thread, a partition's in their
/// order: must not block.
pub(crate) type Delivered = Box<dyn FnOnce(Result<i64, Undelivered>) + Send + Sync>;

/// A record that may not be there: its producer has ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the producer has ended: {why}")]
pub(crate) struct Undelivered {
    why: String,
}

impl Undelivered {
    /// What it means for who wanted `what`.
    pub(crate) fn during(self, what: &'static str) -> Error {
        Error::Indeterminate { what, source: self.into() }
    }
}

/// See the module's documentation.
pub(crate) struct Producer {
    inner: ThreadedProducer<Context>,
    ended: CancellationToken,
}

impl Producer {
    /// A producer of its own connections. What is under way must be bounded by who sends, below `queue_bytes_max`.
    pub(crate) fn new(settings: &ClientConfig, queue_bytes_max: usize) -> Result<Producer, KafkaError> {
        let ended = CancellationToken::new();
        let context = Context { ended: ended.clone(), why: Mutex::default() };
        let queue_kib = (queue_bytes_max >> 10).max(1 << 10);
        let inner = settings
            .clone()
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            // What comes within it goes as one request: brokers and consumers pay by the request, not by the record.
            .set("linger.ms", "10")
            .set("batch.size", (1 << 20).to_string())
            .set("compression.type", "none")
            .set("queue.buffering.max.kbytes", queue_kib.to_string())
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(context)?;
        Ok(Producer { inner, ended })
    }

    /// Sends a record. Returns at once; the records of a partition keep the order of the calls.
    pub(crate) fn send(&self, topic: &str, partition: i32, payload: &[u8], delivered: Delivered) -> Result<(), Error> {
        let record: BaseRecord<'_, (), [u8], Box<Delivered>> =
            BaseRecord::with_opaque_to(topic, Box::new(delivered)).partition(partition).payload(payload);
        self.inner.send(record).map_err(|(error, _)| {
            // A hole would be there if later ones were taken.
            self.inner.context().end(&error);
            failed("hand a record to kafka")(error)
        })
    }

    /// Whether a broker answers within the time. Blocks.
    pub(crate) fn is_answered(&self, topic: &str, within: Duration) -> bool {
        self.inner.client().fetch_metadata(Some(topic), within).is_ok()
    }

    /// Cancelled when it has ended by itself.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

struct Context {
    ended: CancellationToken,
    why: Mutex<Option<String>>,
}

impl Context {
    fn end(&self, error: &KafkaError) -> Undelivered {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_none() {
            error!(%error, "a producer has ended");
        }
        let why = why.get_or_insert_with(|| error.to_string()).clone();
        self.ended.cancel();
        Undelivered { why }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        quiet::told(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Delivered>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivered: Box<Delivered>) {
        match result {
            Ok(message) => delivered(Ok(message.offset())),
            Err((error, _)) => delivered(Err(self.end(error))),
        }
    }
}
