//! Reading a stretch of a partition once, from one offset to another.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::quiet::Quiet;
use crate::{
    sequence::state::{ReadError, is_passing},
    wire::Malformed,
};

/// How long Kafka may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Gives the records of `from..until` to `take`, as long as it wants more. The client tells the partition's end
/// (`enable.partition.eof`), and reads nothing else meanwhile. Blocks.
pub(crate) fn read(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    from: i64,
    until: i64,
    mut take: impl FnMut(i64, &[u8]) -> Result<bool, Malformed>,
) -> Result<(), ReadError> {
    if from >= until {
        return Ok(());
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(from))?;
    consumer.assign(&place)?;
    let mut silent_since = Instant::now();
    loop {
        match consumer.poll(LOOK) {
            Some(Ok(record)) => {
                silent_since = Instant::now();
                let wanted = record.offset() < until && take(record.offset(), record.payload().unwrap_or_default())?;
                if !wanted || record.offset() + 1 == until {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if !is_passing(&error) => return Err(error.into()),
            None | Some(Err(_)) if silent_since.elapsed() > PATIENCE => {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into());
            }
            None | Some(Err(_)) => {}
        }
    }
}
