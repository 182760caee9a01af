//! The group on `raw`: one thread that is a member of it, and does nothing else with it.
//!
//! The member reads nothing: its partitions are paused, and what they hold is read by another client. So it may block
//! where the group asks for lanes back, and the lanes that stay do not notice.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use storage::lane::Lane;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Shared, lane_of};
use crate::{
    kafka::{
        client::{ends, partition},
        quiet,
    },
    tail::Resume,
};

/// How long a look at the group may take: how soon a call to end is seen.
const LOOK: Duration = Duration::from_millis(50);
/// How often positions are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// How long one call to Kafka may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a question is left alone that was not answered.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);

/// A member that has not joined yet.
pub(crate) struct Member {
    shared: Arc<Shared>,
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

impl Member {
    pub(super) fn new(shared: Arc<Shared>) -> Member {
        Member { shared }
    }

    /// Joins the group, on a thread of its own.
    pub(crate) fn join(self) -> Result<Running, JoinError> {
        let parts = &self.shared.parts;
        let (leave, desert) = (CancellationToken::new(), CancellationToken::new());
        let context = Context { shared: Arc::clone(&self.shared), leave: leave.clone(), desert: desert.clone() };
        let consumer: BaseConsumer<Context> = parts
            .settings
            .clone()
            .set("group.id", format!("{}.validators", parts.name))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            // Who stays learns that somebody came or left with its next heartbeat.
            .set("heartbeat.interval.ms", "300")
            .set("max.poll.interval.ms", "60000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64")
            .create_with_context(context)?;
        consumer.subscribe(&[&parts.topics.raw])?;
        let loops =
            Loop { shared: self.shared, leave: leave.clone(), desert: desert.clone(), committed: HashMap::new() };
        let thread = thread::Builder::new().name("lanes".into()).spawn(move || loops.run(consumer))?;
        Ok(Running { leave, desert, thread: Some(thread) })
    }
}

impl Running {
    /// Gives all lanes back and leaves the group: others take them at once. Blocks until that is done.
    pub(crate) fn leave(mut self) {
        self.leave.cancel();
        self.wait();
    }

    /// Leaves the group without a word to the lanes, which go on as if they were ours: as a process that is cut off.
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

struct Loop {
    shared: Arc<Shared>,
    leave: CancellationToken,
    desert: CancellationToken,
    /// What was committed last.
    committed: HashMap<Lane, Resume>,
}

impl Loop {
    fn run(mut self, consumer: BaseConsumer<Context>) {
        let mut commit_at = Instant::now() + COMMIT_EVERY;
        while !self.leave.is_cancelled() && !self.desert.is_cancelled() {
            look(&consumer);
            if Instant::now() >= commit_at {
                self.commit(&consumer);
                commit_at = Instant::now() + COMMIT_EVERY;
            }
        }
        consumer.unsubscribe();
        let until = Instant::now() + LEAVE_WITHIN;
        while consumer.assignment().is_ok_and(|lanes| lanes.count() > 0) && Instant::now() < until {
            look(&consumer);
        }
        // Dropping it tells the group.
    }

    fn commit(&mut self, consumer: &BaseConsumer<Context>) {
        let resumes = self.shared.resumes();
        let moved: Vec<_> = resumes.into_iter().filter(|(lane, at)| self.committed.get(lane) != Some(at)).collect();
        if moved.is_empty() {
            return;
        }
        match commit(consumer, &self.shared.parts.topics.raw, &moved, CommitMode::Async) {
            Ok(()) => self.committed.extend(moved),
            Err(error) => debug!(%error, "positions can't be committed now"),
        }
    }
}

/// Lets the group call. Records are none: the partitions are paused.
fn look(consumer: &BaseConsumer<Context>) {
    if let Some(Err(error)) = consumer.poll(LOOK) {
        warn!(%error, "the group is disturbed");
    }
}

fn commit(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    resumes: &[(Lane, Resume)],
    mode: CommitMode,
) -> KafkaResult<()> {
    let mut offsets = TopicPartitionList::new();
    for (lane, resume) in resumes {
        let mut place = offsets.add_partition(topic, partition(*lane));
        place.set_offset(Offset::Offset(i64::try_from(resume.raw).unwrap_or(i64::MAX)))?;
        place.set_metadata(metadata(resume));
    }
    consumer.commit(&offsets, mode)
}

/// What is kept beside a committed offset: `1 REPAIR CLAIM`.
fn metadata(resume: &Resume) -> String {
    let claim = resume.claim.map_or_else(|| "-".to_owned(), |claim| claim.to_string());
    format!("1 {} {claim}", resume.verified)
}

fn resume_of(offset: i64, metadata: &str) -> Option<Resume> {
    let mut words = metadata.split(' ');
    let ("1", verified, claim) = (words.next()?, words.next()?, words.next()?) else { return None };
    let claim = match claim {
        "-" => None,
        claim => Some(claim.parse().ok()?),
    };
    Some(Resume { raw: u64::try_from(offset).ok()?, verified: verified.parse().ok()?, claim })
}

/// What the group calls, on the member's thread.
struct Context {
    shared: Arc<Shared>,
    leave: CancellationToken,
    desert: CancellationToken,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        quiet::told(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let lanes: Vec<Lane> = partitions
            .elements()
            .iter()
            .filter_map(|place| lane_of(place.partition(), self.shared.parts.lanes))
            .collect();
        self.shared.parts.metrics.rebalances.inc();
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, &lanes, partitions),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, &lanes, partitions),
            other => {
                error!(code = other as i32, "the group can't be made out");
                self.shared.lose(&lanes);
                consumer.incremental_unassign(partitions)
            }
        };
        if let Err(error) = done {
            error!(%error, "the group's word can't be followed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            self.shared.parts.metrics.commit_failures.inc();
            debug!(%error, "positions were not committed");
        }
    }
}

impl Context {
    fn assign(
        &self,
        consumer: &BaseConsumer<Context>,
        lanes: &[Lane],
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        consumer.incremental_assign(partitions)?;
        if lanes.is_empty() {
            return Ok(());
        }
        consumer.pause(partitions)?;
        let lane_numbers: Vec<u32> = lanes.iter().map(|lane| lane.0).collect();
        info!(lanes = ?lane_numbers, "the group has given lanes");
        // Until it is known where they go on, nobody judges them.
        while let Err(error) = self.find_places(consumer, partitions) {
            warn!(%error, "where the lanes go on is not known yet");
            if self.leave.is_cancelled() || self.desert.is_cancelled() {
                break;
            }
            thread::sleep(AGAIN_AFTER);
        }
        Ok(())
    }

    fn find_places(&self, consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let committed = consumer.committed_offsets(partitions.clone(), CALL)?;
        let mut resumes = Vec::new();
        for place in committed.elements() {
            let Some(lane) = lane_of(place.partition(), self.shared.parts.lanes) else { continue };
            place.error()?;
            let offset = place.offset().to_raw().filter(|offset| *offset >= 0);
            let resume = match offset.and_then(|offset| resume_of(offset, place.metadata())) {
                Some(resume) => resume,
                None => self.beginning(consumer, lane)?,
            };
            resumes.push((lane, resume));
        }
        resumes.into_iter().for_each(|(lane, resume)| self.shared.given(lane, resume));
        Ok(())
    }

    /// Where a lane begins that nobody has ever committed.
    fn beginning(&self, consumer: &BaseConsumer<Context>, lane: Lane) -> KafkaResult<Resume> {
        let topics = &self.shared.parts.topics;
        let (raw, _) = ends(consumer, &topics.raw, partition(lane), CALL)?;
        let (verified, _) = ends(consumer, &topics.verified, partition(lane), CALL)?;
        Ok(Resume { raw: u64::try_from(raw).unwrap_or_default(), verified, claim: None })
    }

    fn revoke(
        &self,
        consumer: &BaseConsumer<Context>,
        lanes: &[Lane],
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let lane_numbers: Vec<u32> = lanes.iter().map(|lane| lane.0).collect();
        if self.desert.is_cancelled() {
            return consumer.incremental_unassign(partitions);
        }
        if consumer.assignment_lost() {
            warn!(lanes = ?lane_numbers, "the group has given lanes to others without asking");
            self.shared.lose(lanes);
        } else {
            info!(lanes = ?lane_numbers, "the group wants lanes back");
            let resumes = self.shared.give_back(lanes);
            if !resumes.is_empty()
                && let Err(error) = commit(consumer, &self.shared.parts.topics.raw, &resumes, CommitMode::Sync)
            {
                // The next owner begins where the last commit says, and finds out the rest.
                warn!(%error, "the last positions were not committed");
            }
        }
        consumer.incremental_unassign(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_read_again() {
        for claim in [None, Some(0), Some(77)] {
            let resume = Resume { raw: 9, verified: 5, claim };
            assert_eq!(resume_of(9, &metadata(&resume)), Some(resume));
        }
        for bad in ["", "1", "1 5", "2 5 6", "1 x 6", "1 5 y"] {
            assert_eq!(resume_of(9, bad), None, "{bad}");
        }
    }
}
