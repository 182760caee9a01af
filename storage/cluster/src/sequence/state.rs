//! The state in `sequencer-state`, read.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use crate::{
    kafka::{client::ends, quiet::Quiet},
    wire::sequencer::{self, State},
};

/// How far before the end the last state is looked for first: each transaction leaves a record and a mark.
const STEP_BACK: i64 = 16;
/// How long a poll waits: there are other things to look after.
const POLL: Duration = Duration::from_millis(100);

/// Why the state can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("failed to read the sequencer's state")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Malformed(#[from] crate::wire::Malformed),
}

/// Reads the last committed state.
pub(crate) struct StateReader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
}

/// The last committed state; `None` where there is none. What was committed before the call is seen.
pub(crate) fn read_last(client: &ClientConfig, topic: &str, wait: Duration) -> Result<Option<State>, ReadError> {
    StateReader::new(client, topic)?.last(wait)
}

impl StateReader {
    pub(crate) fn new(client: &ClientConfig, topic: &str) -> KafkaResult<StateReader> {
        let consumer: BaseConsumer<Quiet> = client
            .clone()
            // Never joined: assigning partitions asks for a name.
            .set("group.id", format!("{topic}.readers"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .create_with_context(Quiet)?;
        Ok(StateReader { consumer, topic: topic.to_owned() })
    }

    /// As [`read_last`].
    pub(crate) fn last(&self, wait: Duration) -> Result<Option<State>, ReadError> {
        let until = Instant::now() + wait;
        let (low, high) = self.watermarks(wait)?;
        let mut back = STEP_BACK;
        loop {
            let from = (high - back).max(low);
            if let Some(state) = self.last_from(from, high, until)? {
                return Ok(Some(state));
            }
            if from == low {
                return Ok(None);
            }
            back *= 16;
        }
    }

    /// The offsets of the first record and after the last.
    pub(crate) fn watermarks(&self, wait: Duration) -> KafkaResult<(i64, i64)> {
        ends(&self.consumer, &self.topic, 0, wait)
    }

    /// The last one from this offset to that; what is written meanwhile may be seen too. Who waited for the topic's end would
    /// never meet it where the order goes on all the time.
    fn last_from(&self, from: i64, high: i64, until: Instant) -> Result<Option<State>, ReadError> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(&self.topic, 0, Offset::Offset(from))?;
        self.consumer.assign(&partitions)?;
        let mut last = None;
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    if message.key() == Some(sequencer::KEY) {
                        last = Some(State::decode(message.payload().unwrap_or_default())?);
                    }
                    if message.offset() + 1 >= high {
                        return Ok(last);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                Some(Err(error)) if !is_passing(&error) => return Err(error.into()),
                None | Some(Err(_)) => {}
            }
            if Instant::now() > until {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into());
            }
        }
    }
}

/// Whether a client of Kafka gets over this by itself.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::MessageConsumption(
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve
        ) | KafkaError::NoMessageReceived
    )
}

/// A topic's end, and whether it has ever held a record: offsets are never used again.
pub(crate) fn has_held(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    wait: Duration,
) -> KafkaResult<bool> {
    let (_, high) = ends(consumer, topic, partition, wait)?;
    Ok(high > 0)
}
