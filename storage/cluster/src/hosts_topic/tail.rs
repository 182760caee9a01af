//! Hearing what is said on the topic: nudges, and others' claims.

use std::{sync::Weak, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::KafkaResult,
};
use runtime::backoff::Backoff;
use storage::hosts::Shards;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Shared, partition, shard_of};
use crate::{
    kafka::quiet::Quiet,
    wire::hosts::{Record, Says},
};

const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);

/// Reads all partitions from their ends.
pub(super) fn open(
    settings: &ClientConfig,
    name: &str,
    topic: &str,
    shards: Shards,
) -> KafkaResult<StreamConsumer<Quiet>> {
    let reader: StreamConsumer<Quiet> = settings
        .clone()
        // Never joined: assigning partitions asks for a name.
        .set("group.id", format!("{name}.readers"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What is gone is not missed: rows are the truth.
        .set("auto.offset.reset", "latest")
        .set("queued.max.messages.kbytes", "1024")
        .create_with_context(Quiet)?;
    let mut ends = TopicPartitionList::new();
    for shard in shards.all() {
        ends.add_partition_offset(topic, partition(shard), Offset::End)?;
    }
    reader.assign(&ends)?;
    Ok(reader)
}

/// Tells what is heard, for as long as somebody is there.
pub(super) async fn run(reader: StreamConsumer<Quiet>, shared: Weak<Shared>) {
    let mut backoff = Backoff::new(AGAIN_AFTER, AGAIN_AFTER_MAX);
    loop {
        let heard = reader.recv().await;
        let Some(shared) = shared.upgrade() else { return };
        match heard {
            Ok(record) => {
                backoff.reset();
                shared.hear(record.partition(), record.offset(), record.payload().unwrap_or_default());
            }
            Err(error) => {
                let wait = backoff.next(&mut rand::rng());
                debug!(%error, ?wait, "the topic of hosts can't be read now");
                drop(shared);
                sleep(wait).await;
            }
        }
    }
}

impl Shared {
    fn hear(&self, partition: i32, offset: i64, payload: &[u8]) {
        let metrics = &self.parts.metrics;
        match Record::decode(payload) {
            Ok(Record { from, .. }) if from == self.instance => {}
            Ok(Record { says: Says::Claim, .. }) => {
                if let Some(shard) = shard_of(partition, self.parts.shards) {
                    self.seen_claim(shard, offset);
                }
            }
            Ok(Record { says: Says::Nudge(nudge), .. }) => {
                metrics.nudges_seen.inc();
                if !self.queue.nudge(nudge) {
                    metrics.nudges_dropped.inc();
                }
            }
            Err(error) => {
                metrics.malformed.inc();
                warn!(%error, partition, offset, "a record of hosts is passed over");
            }
        }
    }
}
