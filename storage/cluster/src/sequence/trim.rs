//! Deleting what nobody needs any more of `raw` and `verified`. The leader does it: it knows what is published.
//!
//! ```text
//!   raw       ▒▒▒▒ │ the lane's owner goes on here …
//!   verified  ▒▒▒▒ │ the next owner looks from here … │ the order goes on here …      (whichever comes first)
//! ```
//!
//! What must hold: a record is deleted only when its lane's committed position is past it, and, of `verified`, its repair
//! point and the committed state of the order are too. All three are lower bounds of what is settled, whoever has written
//! them. A commit of an earlier time may come late, and must not point before what is there: so nothing is deleted that
//! was not committed at the look before, too.

use std::{convert::Infallible, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};
use storage::lane::Lane;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Metrics, run::Config};
use crate::{
    kafka::{
        client::{all_ends, partition},
        quiet::Quiet,
    },
    lanes::committed_resume,
    tail::Resume,
    wire::sequencer::State,
};

/// How long Kafka may take for one thing.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Trims while this process leads.
pub(super) struct Trimmer {
    config: Config,
    metrics: Metrics,
    /// What is published, while this process leads.
    published: watch::Receiver<Option<State>>,
    consumer: Option<Arc<BaseConsumer<Quiet>>>,
    /// By lane, what was committed at the last look.
    before: Vec<Option<Resume>>,
}

/// What a look finds of a lane.
#[derive(Clone, Copy, Debug)]
struct Found {
    committed: Option<Resume>,
    /// The first offset that is kept, and the one after the last.
    raw: (i64, i64),
    verified: (i64, i64),
}

impl Trimmer {
    pub(super) fn new(config: Config, metrics: Metrics, published: watch::Receiver<Option<State>>) -> Trimmer {
        Trimmer { config, metrics, published, consumer: None, before: Vec::new() }
    }

    /// For as long as it is polled.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.config.limits.trim_every).await;
            let published = self.published.borrow().clone();
            let Some(published) = published else {
                self.before.clear();
                continue;
            };
            if let Err(error) = self.trim(&published).await {
                self.metrics.trim_failures.inc();
                warn!(%error, "what nobody needs any more is not deleted");
            }
        }
    }

    async fn trim(&mut self, published: &State) -> KafkaResult<()> {
        let lanes = self.look().await?;
        let before = std::mem::replace(&mut self.before, lanes.iter().map(|found| found.committed).collect());
        let mut deleted = TopicPartitionList::new();
        let (mut raw_records, mut verified_records) = (0, 0);
        let Config { raw, verified, .. } = &self.config;
        for ((lane, found), ordered) in (0..).map(Lane).zip(&lanes).zip(&published.lanes) {
            let before = before.get(lane.0 as usize).copied().flatten();
            let Some(unneeded) = unneeded(before, found.committed, ordered.next_offset) else { continue };
            for (topic, (first, end), upto, records) in [
                (raw, found.raw, unneeded.raw, &mut raw_records),
                (verified, found.verified, unneeded.verified, &mut verified_records),
            ] {
                if upto > end {
                    // Somebody has made the topic anew: it is not what the positions are of.
                    warn!(lane = lane.0, topic, upto, end, "a lane's position is past its end");
                } else if upto > first {
                    deleted.add_partition_offset(topic, partition(lane), Offset::Offset(upto))?;
                    *records += (upto - first).unsigned_abs();
                }
            }
        }
        if deleted.count() == 0 {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = self.config.client.create()?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN));
        let answered = admin.delete_records(&deleted, &options).await?;
        answered.elements().iter().try_for_each(|place| place.error())?;
        debug!(raw_records, verified_records, "deleted what nobody needs any more");
        self.metrics.trimmed_raw.inc_by(raw_records);
        self.metrics.trimmed_verified.inc_by(verified_records);
        Ok(())
    }

    async fn look(&mut self) -> KafkaResult<Vec<Found>> {
        let Config { client, lanes_group, raw, verified, lanes, .. } = self.config.clone();
        let consumer = match &self.consumer {
            Some(consumer) => Arc::clone(consumer),
            None => {
                let made = client.clone().set("group.id", lanes_group).create_with_context(Quiet)?;
                Arc::clone(self.consumer.insert(Arc::new(made)))
            }
        };
        let looked = tokio::task::spawn_blocking(move || {
            let lanes = partition(Lane(lanes));
            let mut places = TopicPartitionList::new();
            places.add_partition_range(&raw, 0, lanes - 1);
            // What is committed first: the ends that are seen after it are not before it.
            let committed = consumer.committed_offsets(places, ANSWER_WITHIN)?;
            let raw_ends = all_ends(&*consumer, &raw, lanes, ANSWER_WITHIN)?;
            let verified_ends = all_ends(&*consumer, &verified, lanes, ANSWER_WITHIN)?;
            let found = (0..).zip(raw_ends.into_iter().zip(verified_ends)).map(|(lane, (raw_ends, verified_ends))| {
                let place = committed.find_partition(&raw, lane);
                let committed = match place {
                    Some(place) => {
                        place.error()?;
                        committed_resume(&place)
                    }
                    None => None,
                };
                Ok(Found { committed, raw: raw_ends, verified: verified_ends })
            });
            found.collect()
        });
        match looked.await {
            Ok(looked) => looked,
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Err(_ends) => Err(KafkaError::Canceled),
        }
    }
}

/// Before these offsets nobody needs anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unneeded {
    raw: i64,
    verified: i64,
}

/// From what was committed at the last look and is at this one, and from the offset where the order goes on. `None` where
/// nobody has committed.
fn unneeded(before: Option<Resume>, now: Option<Resume>, ordered: i64) -> Option<Unneeded> {
    let (before, now) = before.zip(now)?;
    let raw = i64::try_from(before.raw.min(now.raw)).unwrap_or(0);
    Some(Unneeded { raw, verified: before.verified.min(now.verified).min(ordered) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_are_past_is_not_needed() {
        let at = |raw, verified| Some(Resume { raw, verified, claim: Some(0) });
        for (before, now, ordered, expected) in [
            (None, at(10, 5), 9, None),
            (at(10, 5), None, 9, None),
            (at(10, 5), at(20, 8), 9, Some((10, 5))),
            (at(20, 8), at(10, 5), 9, Some((10, 5))),
            (at(20, 8), at(20, 8), 3, Some((20, 3))),
        ] {
            let expected = expected.map(|(raw, verified)| Unneeded { raw, verified });
            assert_eq!(unneeded(before, now, ordered), expected, "{before:?} {now:?} {ordered}");
        }
    }
}
