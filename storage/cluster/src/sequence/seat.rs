//! Who leads: the member of the group that holds the one partition of `sequencer-state`.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use tracing::{debug, warn};

use crate::kafka::{client::wake, group::PATIENCE, quiet};

/// How long leaving may take: where Kafka is silent, the session's end does the same.
const LEAVE_TIME_MAX: Duration = Duration::from_millis(500);

/// A member of the group. It must be polled now and then; it leaves the group when dropped, so that another leads at once.
pub(super) struct Seat {
    consumer: BaseConsumer<Grants>,
}

/// What the group has given, and how often.
#[derive(Default)]
struct Grants(Mutex<Grant>);

/// Whether this member leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grant {
    /// It does now.
    pub(super) held: bool,
    /// How often it was given the lead.
    pub(super) count: u64,
}

impl Seat {
    /// Joins the group.
    pub(super) fn take(client: &ClientConfig, group: &str, topic: &str) -> KafkaResult<Seat> {
        let consumer: BaseConsumer<Grants> = client
            .clone()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // It reads nothing.
            .set("auto.offset.reset", "earliest")
            // Whoever leads keeps the lead when others come.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            // Who leads is busy for longer only where Kafka is silent.
            .set("max.poll.interval.ms", PATIENCE.as_millis().to_string())
            // Who stands by learns by its next heartbeat that the leader has left.
            .set("heartbeat.interval.ms", "200")
            .create_with_context(Grants::default())?;
        consumer.subscribe(&[topic])?;
        Ok(Seat { consumer })
    }

    /// Gives the lead back at once: another may take over while the rest of this one ends.
    pub(super) fn leave(&self) {
        self.consumer.unsubscribe();
        let asked = Instant::now();
        while self.poll(Duration::from_millis(5)).held && asked.elapsed() < LEAVE_TIME_MAX {}
    }

    /// Serves the group and says whether this member leads.
    pub(super) fn poll(&self, wait: Duration) -> Grant {
        if !wait.is_zero() {
            wake(&self.consumer);
        }
        match self.consumer.poll(wait) {
            // A record that was on its way when the partition was paused.
            None | Some(Ok(_)) => {}
            Some(Err(error)) => debug!(%error, "the sequencers' group"),
        }
        *self.consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Grants {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        quiet::told(&error, reason);
    }
}

impl ConsumerContext for Grants {
    fn post_rebalance(&self, consumer: &BaseConsumer<Grants>, rebalance: &Rebalance<'_>) {
        let mut grant = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match rebalance {
            Rebalance::Assign(partitions) if partitions.count() > 0 => {
                *grant = Grant { held: true, count: grant.count + 1 };
                // The partition is the lead, nothing more: its records are read otherwise.
                if let Err(error) = consumer.pause(partitions) {
                    warn!(%error, "failed to pause the partition of the lead");
                }
            }
            Rebalance::Assign(_) => {}
            Rebalance::Revoke(partitions) => {
                if partitions.count() > 0 {
                    grant.held = false;
                }
            }
            Rebalance::Error(error) => {
                grant.held = false;
                warn!(%error, "the sequencers' group can't be balanced");
            }
        }
    }
}
