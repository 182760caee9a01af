//! Whether the brokers let us in, asked once before work begins.
//!
//! A client of librdkafka tries for ever: what comes of a wrong password is a call that times out. What it was told
//! meanwhile goes to its context, and is kept here.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{client::settings, quiet};
use crate::config::Kafka;

/// For how long brokers that do not answer are tried: they may be starting, as we are.
const TRIED_FOR: Duration = Duration::from_secs(30);
/// Between two tries: one may fail at once.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// One try.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Brokers that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("kafka at {brokers} can't be used: {reason}")]
pub struct Unreachable {
    /// Who was tried.
    pub brokers: String,
    /// What the client was told last.
    pub reason: String,
}

/// Waits until a broker answers. Ends early where trying again is of no use: they refuse us, or we don't trust them.
pub(crate) async fn reach(kafka: &Kafka, client_id: &str) -> Result<(), Unreachable> {
    let (kafka, client_id) = (kafka.clone(), client_id.to_owned());
    let tried = tokio::task::spawn_blocking(move || try_until(&kafka, &client_id, Instant::now() + TRIED_FOR)).await;
    tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn try_until(kafka: &Kafka, client_id: &str, until: Instant) -> Result<(), Unreachable> {
    let unreachable = |reason: String| Unreachable { brokers: kafka.brokers.join(","), reason };
    let settings = settings(kafka, client_id);
    let protocol = settings.get("security.protocol").unwrap_or_default().to_owned();
    let consumer: BaseConsumer<Told> =
        settings.create_with_context(Told::default()).map_err(|error| unreachable(error.to_string()))?;
    loop {
        let error = match consumer.fetch_metadata(None, ANSWER_WITHIN) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Errors of the client as a whole are events that only a poll delivers, one each.
        (0..EVENTS_MAX).for_each(|_| drop(consumer.poll(Duration::ZERO)));
        let told = consumer.context().last();
        if let Some(Telling { refused: true, reason }) = told {
            return Err(unreachable(reason));
        }
        if Instant::now() >= until {
            return Err(unreachable(
                told.map_or_else(|| format!("no answer over {protocol}: {error}"), |telling| telling.reason),
            ));
        }
        std::thread::sleep(AGAIN_AFTER);
    }
}

/// More events than the client has after a try.
const EVENTS_MAX: usize = 64;

/// What the client has told.
#[derive(Clone, Debug)]
struct Telling {
    refused: bool,
    reason: String,
}

#[derive(Default)]
struct Told(Mutex<Option<Telling>>);

impl Told {
    fn last(&self) -> Option<Telling> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, refused: bool, reason: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused || !last.as_ref().is_some_and(|last| last.refused) {
            *last = Some(Telling { refused, reason: reason.to_owned() });
        }
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
        // Why a connection failed is told in the log alone, where it is not the password.
        if facility == "FAIL" {
            self.tell(message.contains("SSL handshake failed"), message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {}
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => self.tell(true, reason),
            _ => self.tell(false, reason),
        }
    }
}

impl ConsumerContext for Told {}
