//! A client's own words, in our log.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError};
use tracing::{debug, warn};

/// Says what Kafka's client has to say, the end of a partition excepted: it is where a reader usually is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        told(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// For contexts that do more: a line of the client's log.
pub(crate) fn say(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            warn!(facility, message, "kafka's client");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            debug!(facility, message, "kafka's client")
        }
    }
}

/// For contexts that do more: an error of the client as a whole. Calls that it makes fail tell their callers.
pub(crate) fn told(error: &KafkaError, reason: &str) {
    match error {
        KafkaError::PartitionEOF(_) => {}
        _ => debug!(%error, reason, "kafka's client"),
    }
}
