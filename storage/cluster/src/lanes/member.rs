//! The lanes as the group on `raw` gives them: where they go on, and that their positions are committed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaResult,
    topic_partition_list::TopicPartitionListElem,
};
use storage::lane::Lane;
use tracing::{debug, warn};

use super::{Shared, group_of, lane_of};
pub(crate) use crate::kafka::group::{JoinError, Running};
use crate::{
    kafka::{
        client::{ends, partition},
        group::{Context, Group, Holder},
    },
    tail::Resume,
};

/// How often positions are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// How long one call to Kafka may take.
const CALL: Duration = Duration::from_secs(10);

/// A member that has not joined yet.
pub(crate) struct Member {
    shared: Arc<Shared>,
}

impl Member {
    pub(super) fn new(shared: Arc<Shared>) -> Member {
        Member { shared }
    }

    /// Joins the group, on a thread of its own.
    pub(crate) fn join(self) -> Result<Running, JoinError> {
        let parts = &self.shared.parts;
        let group =
            Group { client: &parts.settings, name: group_of(&parts.name), topic: &parts.topics.raw, thread: "lanes" };
        let commits = Mutex::new(Commits { at: Instant::now() + COMMIT_EVERY, last: HashMap::new() });
        group.join(Arc::new(LaneHolder { shared: Arc::clone(&self.shared), commits }))
    }
}

/// What the group calls.
struct LaneHolder {
    shared: Arc<Shared>,
    /// Of the member's thread alone.
    commits: Mutex<Commits>,
}

struct Commits {
    /// When to commit again.
    at: Instant,
    /// What was committed last.
    last: HashMap<Lane, Resume>,
}

impl Holder for LaneHolder {
    fn given(&self, member: &BaseConsumer<Context<LaneHolder>>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let committed = member.committed_offsets(partitions.clone(), CALL)?;
        let mut resumes = Vec::new();
        for place in committed.elements() {
            let Some(lane) = lane_of(place.partition(), self.shared.parts.lanes) else { continue };
            place.error()?;
            let resume = match committed_resume(&place) {
                Some(resume) => Some(resume),
                None => self.beginning(member, lane)?,
            };
            resumes.extend(resume.map(|resume| (lane, resume)));
        }
        resumes.into_iter().for_each(|(lane, resume)| self.shared.given(lane, resume));
        Ok(())
    }

    fn wanted_back(&self, member: &BaseConsumer<Context<LaneHolder>>, partitions: &[i32]) {
        let resumes = self.shared.give_back(&self.lanes(partitions));
        if !resumes.is_empty()
            && let Err(error) = commit(member, &self.shared.parts.topics.raw, &resumes, CommitMode::Sync)
        {
            // The next owner begins where the last commit says, and finds out the rest.
            warn!(%error, "the last positions were not committed");
        }
    }

    fn lost(&self, partitions: &[i32]) {
        self.shared.lose(&self.lanes(partitions));
    }

    fn round(&self, member: &BaseConsumer<Context<LaneHolder>>) {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() < commits.at {
            return;
        }
        commits.at = Instant::now() + COMMIT_EVERY;
        let resumes = self.shared.resumes();
        let moved: Vec<_> = resumes.into_iter().filter(|(lane, at)| commits.last.get(lane) != Some(at)).collect();
        if moved.is_empty() {
            return;
        }
        match commit(member, &self.shared.parts.topics.raw, &moved, CommitMode::Async) {
            Ok(()) => commits.last.extend(moved),
            Err(error) => debug!(%error, "positions can't be committed now"),
        }
    }

    fn rebalances(&self) {
        self.shared.parts.metrics.rebalances.inc();
    }

    fn committed(&self, result: KafkaResult<()>) {
        if let Err(error) = result {
            self.shared.parts.metrics.commit_failures.inc();
            debug!(%error, "positions were not committed");
        }
    }
}

impl LaneHolder {
    fn lanes(&self, partitions: &[i32]) -> Vec<Lane> {
        partitions.iter().filter_map(|partition| lane_of(*partition, self.shared.parts.lanes)).collect()
    }

    /// Where a lane begins of which nothing is committed. Nobody has judged it before, or all that was ever judged is
    /// still in `verified`, from its first record on, which is a claim. Else nobody can say what was judged: `None`.
    fn beginning(&self, member: &BaseConsumer<Context<LaneHolder>>, lane: Lane) -> KafkaResult<Option<Resume>> {
        let topics = &self.shared.parts.topics;
        let (raw, _) = ends(member, &topics.raw, partition(lane), CALL)?;
        let (verified, _) = ends(member, &topics.verified, partition(lane), CALL)?;
        if verified > 0 {
            self.shared.refuse(lane, verified);
            return Ok(None);
        }
        Ok(Some(Resume { raw: u64::try_from(raw).unwrap_or_default(), verified, claim: None }))
    }
}

fn commit(
    member: &BaseConsumer<Context<LaneHolder>>,
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
    member.commit(&offsets, mode)
}

/// What is kept beside a committed offset: `1 REPAIR CLAIM`.
fn metadata(resume: &Resume) -> String {
    let claim = resume.claim.map_or_else(|| "-".to_owned(), |claim| claim.to_string());
    format!("1 {} {claim}", resume.verified)
}

/// What is committed there; `None` where nothing is, or not by a lane's owner.
pub(crate) fn committed_resume(place: &TopicPartitionListElem<'_>) -> Option<Resume> {
    match place.offset() {
        Offset::Offset(offset) => resume_of(offset, place.metadata()),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    }
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
