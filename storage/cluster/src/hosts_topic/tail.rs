//! Hearing what is said on the topic: nudges, and others' claims.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::KafkaResult,
};
use runtime::backoff::Backoff;
use storage::hosts::Shards;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Shared, shard_of};
use crate::{
    kafka::{client::all_ends, quiet::Quiet},
    wire::hosts::{Record, Says},
};

const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);
/// How long Kafka may take to say where the partitions end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A client that reads nothing yet.
pub(super) fn open(settings: &ClientConfig, name: &str) -> KafkaResult<StreamConsumer<Quiet>> {
    settings
        .clone()
        // Never joined: assigning partitions asks for a name.
        .set("group.id", format!("{name}.readers"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What is gone is not missed: rows are the truth.
        .set("auto.offset.reset", "latest")
        .set("queued.max.messages.kbytes", "1024")
        .create_with_context(Quiet)
}

/// Has it read all partitions from where they end now. Blocks.
fn begin(reader: &StreamConsumer<Quiet>, topic: &str, shards: Shards) -> KafkaResult<()> {
    let count = i32::try_from(shards.0.get()).expect("shares are partitions");
    let mut places = TopicPartitionList::new();
    for (partition, (_, end)) in (0..).zip(all_ends(reader, topic, count, ENDS_WITHIN)?) {
        places.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    reader.assign(&places)
}

/// Tells what is heard, for as long as somebody is there. Says first that from now on everything is.
pub(super) async fn run(reader: StreamConsumer<Quiet>, shared: Weak<Shared>) {
    let reader = Arc::new(reader);
    let mut backoff = Backoff::new(AGAIN_AFTER, AGAIN_AFTER_MAX);
    loop {
        let Some((topic, shards)) = shared.upgrade().map(|all| (all.parts.topic.clone(), all.parts.shards)) else {
            return;
        };
        let begins = Arc::clone(&reader);
        match tokio::task::spawn_blocking(move || begin(&begins, &topic, shards)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => warn!(%error, "where the topic of hosts ends is not known yet"),
            Err(_panicked) => warn!("looking for the end of the topic of hosts has panicked"),
        }
        let wait = backoff.next(&mut rand::rng());
        sleep(wait).await;
    }
    backoff.reset();
    match shared.upgrade() {
        Some(shared) => shared.listening.send_replace(true),
        None => return,
    };
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
