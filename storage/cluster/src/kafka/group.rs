//! Membership of a consumer group that says who has which partitions of a topic, and nothing else: a thread that is a
//! member of it.
//!
//! The member reads nothing: its partitions are paused, and what they hold is read by another client. So it may block
//! where the group asks for partitions back, and those that stay do not notice.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{client::wake, quiet};

/// How long a look at the group may take: how soon a call to end is seen.
const LOOK: Duration = Duration::from_millis(50);
/// How long a partition is left alone that could not be taken.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a client waits between two requests to join: partitions that go to another before it has passed are nobody's
/// until then. Librdkafka's, and not a setting (`rkcg_join_intvl`).
const JOIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long the group waits for a member: to give partitions back, and, once the coordinator was away, for those whom it
/// remembers and who have long come back under new names. Those can't be told from others who are late; Kafka 4.3.1 has
/// waited for them to the end, though their sessions had expired before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);

/// Who does something with the partitions. All calls come on the member's thread.
pub(crate) trait Holder: Send + Sync + Sized + 'static {
    /// The group has given these. Where it fails it is called again, as long as the member stays.
    fn given(&self, member: &BaseConsumer<Context<Self>>, partitions: &TopicPartitionList) -> KafkaResult<()>;

    /// The group wants these back, and waits for this call.
    fn wanted_back(&self, member: &BaseConsumer<Context<Self>>, partitions: &[i32]);

    /// The group has given these to others already.
    fn lost(&self, partitions: &[i32]);

    /// Called many times a second.
    fn round(&self, _member: &BaseConsumer<Context<Self>>) {}

    /// Partitions are about to come or go.
    fn rebalances(&self) {}

    /// What became of a commit that was not waited for.
    fn committed(&self, _result: KafkaResult<()>) {}
}

/// A group on a topic.
pub(crate) struct Group<'a> {
    /// What all clients of Kafka have in common.
    pub(crate) client: &'a ClientConfig,
    /// Its name.
    pub(crate) name: String,
    /// Whose partitions it gives.
    pub(crate) topic: &'a str,
    /// The thread's name.
    pub(crate) thread: &'static str,
}

/// A member that runs. Leaves the group as [`Running::leave`] says, or at once when dropped.
pub(crate) struct Running {
    leave: CancellationToken,
    desert: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A member can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The settings are wrong.
    #[error("failed to make the group's client")]
    Client(#[from] KafkaError),
    /// No thread can be had.
    #[error("failed to start the group's thread")]
    Thread(#[from] io::Error),
}

impl Group<'_> {
    /// Joins, on a thread of its own.
    pub(crate) fn join<H: Holder>(self, holder: Arc<H>) -> Result<Running, JoinError> {
        let (leave, desert) = (CancellationToken::new(), CancellationToken::new());
        let context = Context { holder: Arc::clone(&holder), leave: leave.clone(), desert: desert.clone() };
        let consumer: BaseConsumer<Context<H>> = self
            .client
            .clone()
            .set("group.id", self.name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            // Who stays learns that somebody came or left with its next heartbeat.
            .set("heartbeat.interval.ms", "150")
            .set("max.poll.interval.ms", PATIENCE.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64")
            .create_with_context(context)?;
        consumer.subscribe(&[self.topic])?;
        let (leaves, deserts) = (leave.clone(), desert.clone());
        let run = move || {
            while !leaves.is_cancelled() && !deserts.is_cancelled() {
                look(&consumer);
                holder.round(&consumer);
            }
            consumer.unsubscribe();
            let until = Instant::now() + LEAVE_WITHIN;
            while consumer.assignment().is_ok_and(|held| held.count() > 0) && Instant::now() < until {
                look(&consumer);
            }
            // Dropping it tells the group.
        };
        let thread = thread::Builder::new().name(self.thread.into()).spawn(run)?;
        Ok(Running { leave, desert, thread: Some(thread) })
    }
}

impl Running {
    /// Gives all partitions back and leaves the group: others take them at once. Blocks until that is done.
    pub(crate) fn leave(mut self) {
        self.leave.cancel();
        self.wait();
    }

    /// Leaves the group without a word to the holder, who goes on as if all were ours: as a process that is cut off.
    #[cfg(test)]
    pub(crate) fn desert(mut self) {
        self.desert.cancel();
        self.wait();
    }

    fn wait(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the group's thread has panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends by itself: waiting for threads is forbidden where others are served.
        self.desert.cancel();
    }
}

/// Lets the group call. Records are none: the partitions are paused.
fn look<H: Holder>(consumer: &BaseConsumer<Context<H>>) {
    wake(consumer);
    if let Some(Err(error)) = consumer.poll(LOOK) {
        warn!(%error, "the group is disturbed");
    }
}

/// What the group calls, on the member's thread.
pub(crate) struct Context<H> {
    holder: Arc<H>,
    leave: CancellationToken,
    desert: CancellationToken,
}

impl<H: Holder> ClientContext for Context<H> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        quiet::told(&error, reason);
    }
}

impl<H: Holder> ConsumerContext for Context<H> {
    fn rebalance(&self, member: &BaseConsumer<Context<H>>, what: RDKafkaRespErr, places: &mut TopicPartitionList) {
        let partitions: Vec<i32> = places.elements().iter().map(|place| place.partition()).collect();
        self.holder.rebalances();
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(member, &partitions, places),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.revoke(member, &partitions);
                member.incremental_unassign(places)
            }
            other => {
                error!(code = other as i32, "the group can't be made out");
                self.holder.lost(&partitions);
                member.incremental_unassign(places)
            }
        };
        if let Err(error) = done {
            error!(%error, "the group's word can't be followed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.holder.committed(result);
    }
}

impl<H: Holder> Context<H> {
    fn assign(
        &self,
        member: &BaseConsumer<Context<H>>,
        partitions: &[i32],
        places: &TopicPartitionList,
    ) -> KafkaResult<()> {
        member.incremental_assign(places)?;
        if partitions.is_empty() {
            return Ok(());
        }
        member.pause(places)?;
        info!(?partitions, "the group has given partitions");
        while let Err(error) = self.holder.given(member, places) {
            warn!(%error, "what the group has given can't be taken yet");
            if self.leave.is_cancelled() || self.desert.is_cancelled() {
                break;
            }
            thread::sleep(AGAIN_AFTER);
        }
        Ok(())
    }

    fn revoke(&self, member: &BaseConsumer<Context<H>>, partitions: &[i32]) {
        if self.desert.is_cancelled() {
            return;
        }
        if member.assignment_lost() {
            warn!(?partitions, "the group has given partitions to others without asking");
            self.holder.lost(partitions);
        } else {
            info!(?partitions, "the group wants partitions back");
            self.keep_until_others_may_join(member);
            self.holder.wanted_back(member, partitions);
        }
    }
    /// Partitions change hands in two rounds: we give them back, and all join again. All have just joined, so that round is
    /// [`JOIN_INTERVAL`] away. The partitions are worked on meanwhile. Who leaves does not wait: that takes no second round.
    fn keep_until_others_may_join(&self, member: &BaseConsumer<Context<H>>) {
        let until = Instant::now() + JOIN_INTERVAL;
        while Instant::now() < until && !self.leave.is_cancelled() && !self.desert.is_cancelled() {
            wake(member);
            thread::sleep(LOOK);
        }
    }
}
