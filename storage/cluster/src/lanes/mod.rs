//! Who judges which lane: ownership by Kafka's consumer group on `raw`, made sure of by claims in `verified`.
//!
//! ```text
//!   group gives ─▶ taking: claim, recover ─▶ held ─▶ Given … Gone ─▶ released ─▶ committed ─▶ the group has it back
//!                                             └─ fenced: another has claimed it, or the group has lost us
//! ```
//!
//! The group alone would not do: who was cut off or stood still learns late that it was replaced. What counts is the
//! claim. What must hold:
//! 1. a lane is held only after our claim is in `verified` and all before it is in rows;
//! 2. a lane that the group wants back is given back when nothing of it is under way and its position is committed, or
//!    after [`RELEASE_WITHIN`]; the other lanes go on meanwhile;
//! 3. a lane that was lost or whose claim was overtaken is fenced at once.

pub(crate) mod held;
mod member;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use runtime::clock::Clock;
use storage::{
    error::Error,
    lane::{Assignment, Change, Lane, LaneCount},
    log::Accepted,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::held::Held;
pub(crate) use self::member::{JoinError, Member, Running, committed_resume};
use crate::{
    config::Limits,
    kafka::{producer::Producer, reader::Reader, topics::Topics},
    metrics::Metrics,
    rows::LaneRows,
    tail::Resume,
    verified,
};

/// How long the group waits for a lane that is under way here. Less than its patience with a member.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
/// How long a lane is left alone that could not be taken over.
const TAKE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the answers to commands of a lane that is given back may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// What lanes work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Parts {
    /// What all clients of Kafka have in common.
    pub(crate) settings: ClientConfig,
    /// The cluster's.
    pub(crate) name: String,
    pub(crate) lanes: LaneCount,
    pub(crate) topics: Topics,
    pub(crate) producer: Arc<Producer>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) rows: Arc<dyn LaneRows>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

/// The lanes that this process judges. See the module's documentation.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Change, Error>>>,
    /// Takes lanes over; ends with this value.
    _taking: JoinSet<()>,
}

/// What the group's thread, the takers and the judges share.
struct Shared {
    parts: Parts,
    /// What each lane is, for who waits to read it.
    held: Box<[watch::Sender<Option<Arc<Held>>>]>,
    ours: Mutex<HashMap<Lane, Tenure>>,
    /// Told when a lane was released.
    released: Condvar,
    changes: mpsc::UnboundedSender<Result<Change, Error>>,
    takes: mpsc::UnboundedSender<Take>,
}

/// A lane to be taken over.
struct Take {
    lane: Lane,
    resume: Resume,
    stop: CancellationToken,
    /// How long it is left alone before.
    after: Duration,
}

/// A lane that the group has given us, or that somebody here is not done with.
enum Tenure {
    /// It is being taken over.
    Taking(CancellationToken),
    /// It was given to its judge.
    Held {
        held: Arc<Held>,
        /// Whether the judge was told to end.
        leaving: bool,
        /// Where to go on, if the group has given it to us again meanwhile.
        again: Option<Resume>,
    },
    /// The judge is done with it, up to here.
    Released(Resume),
}

// === impl Lanes ===

impl Lanes {
    /// Nothing is ours before the [`Member`] has joined.
    pub(crate) fn new(parts: Parts) -> (Lanes, Member) {
        let (changes, changed) = mpsc::unbounded_channel();
        let (takes, mut taken) = mpsc::unbounded_channel();
        let held = parts.lanes.all().map(|_| watch::Sender::new(None)).collect();
        let (ours, released) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { parts, held, ours, released, changes, takes });
        let mut taking = JoinSet::new();
        let weak = Arc::downgrade(&shared);
        taking.spawn(async move {
            let mut takers = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = takers.join_next(), if !takers.is_empty() => {}
                    take = taken.recv() => {
                        let (Some(take), Some(shared)) = (take, weak.upgrade()) else { return };
                        takers.spawn(shared.take(take));
                    }
                }
            }
        });
        let member = Member::new(Arc::clone(&shared));
        (Lanes { shared, changes: tokio::sync::Mutex::new(changed), _taking: taking }, member)
    }

    /// The lane, once it is ours.
    pub(crate) async fn held(&self, lane: Lane) -> Result<Arc<Held>, Error> {
        let mut held = self.shared.slot(lane)?.subscribe();
        let held = held.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        held.clone().ok_or(Error::Closed)
    }

    /// The lane, if it is ours now.
    pub(crate) fn held_now(&self, lane: Lane) -> Option<Arc<Held>> {
        self.shared.slot(lane).ok()?.borrow().clone()
    }

    /// Appends a batch, each event to its account's lane; the lanes must be ours. Answers when the rows are in.
    pub(crate) async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        let mut by_lane: BTreeMap<u32, Vec<Accepted>> = BTreeMap::new();
        for event in batch {
            by_lane.entry(self.shared.parts.lanes.lane_of(&event.did).0).or_default().push(event);
        }
        let mut answers = Vec::new();
        // All in one poll: batches keep the order of the calls' first polls.
        for (lane, events) in by_lane {
            let held = self.held_now(Lane(lane)).ok_or(Error::Fenced { what: "append to the log" })?;
            answers.push(held.appender().append(events));
        }
        for answered in answers {
            verified::answer(answered).await?;
        }
        Ok(())
    }

    /// How many lanes are held, and how many are being taken over.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let ours = self.shared.ours();
        let taking = ours.values().filter(|tenure| matches!(tenure, Tenure::Taking(_))).count();
        let held = ours.values().filter(|tenure| matches!(tenure, Tenure::Held { .. })).count();
        (held, taking)
    }

    /// The topic of inputs, and of each lane that is held the position before which all is settled.
    pub(crate) fn covered(&self) -> (String, Vec<(Lane, u64)>) {
        let resumes = self.shared.resumes();
        let places = resumes.into_iter().map(|(lane, resume)| (lane, resume.raw)).collect();
        (self.shared.parts.topics.raw.clone(), places)
    }

    /// Fences all lanes. What is under way ends with [`Error::Fenced`].
    pub(crate) fn fence_all(&self) {
        let lanes: Vec<Lane> = self.shared.parts.lanes.all().collect();
        self.shared.lose(&lanes);
    }
}

#[async_trait]
impl Assignment for Lanes {
    async fn next(&self) -> Result<Change, Error> {
        self.changes.lock().await.recv().await.unwrap_or(Err(Error::Closed))
    }

    async fn released(&self, lane: Lane) {
        if let Some(held) = self.held_now(lane) {
            let flushed = tokio::time::timeout(FLUSH_WITHIN, held.flush()).await;
            if flushed.is_err() {
                warn!(lane = lane.0, "answers to commands are left to the lane's next owner");
            }
        }
        self.shared.release(lane);
    }
}

// === impl Shared ===

impl Shared {
    fn ours(&self) -> MutexGuard<'_, HashMap<Lane, Tenure>> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, lane: Lane) -> Result<&watch::Sender<Option<Arc<Held>>>, Error> {
        let no_such = || Error::Determinate { what: "find a lane", source: format!("there is no {}", lane.0).into() };
        self.held.get(lane.0 as usize).ok_or_else(no_such)
    }

    /// The group has given us a lane.
    fn given(&self, lane: Lane, resume: Resume) {
        let mut ours = self.ours();
        match ours.get_mut(&lane) {
            Some(Tenure::Held { again, .. }) => *again = Some(resume),
            Some(Tenure::Taking(_)) => {}
            Some(Tenure::Released(_)) | None => self.start(&mut ours, lane, resume, Duration::ZERO),
        }
    }

    /// A lane can't be taken over: whoever follows the lanes is told, and ends.
    fn refuse(&self, lane: Lane, verified_from: i64) {
        let (group, verified) = (group_of(&self.parts.name), &self.parts.topics.verified);
        let what = format!(
            "the group {group} has no position of lane {}, though {verified} begins at {verified_from} there: what was \
             judged can't be known (docs/cluster.md, Losing a topic)",
            lane.0
        );
        let _gone = self.changes.send(Err(Error::Damaged { what }));
    }

    fn start(&self, ours: &mut HashMap<Lane, Tenure>, lane: Lane, resume: Resume, after: Duration) {
        let stop = CancellationToken::new();
        ours.insert(lane, Tenure::Taking(stop.clone()));
        // The takers end when all does.
        let _ends = self.takes.send(Take { lane, resume, stop, after });
    }

    /// Takes a lane over, however often it fails, until it is not ours any more.
    async fn take(self: Arc<Self>, take: Take) {
        let Take { lane, resume, stop, after } = take;
        let held = stop.run_until_cancelled(async {
            tokio::time::sleep(after).await;
            loop {
                match Held::take(&self.parts, lane, resume).await {
                    Ok(held) => return Some(held),
                    Err(error @ (Error::Damaged { .. } | Error::Closed)) => {
                        let _gone = self.changes.send(Err(error));
                        return None;
                    }
                    Err(error) if self.parts.producer.ended().is_cancelled() => {
                        let _gone = self.changes.send(Err(error));
                        return None;
                    }
                    Err(error) => {
                        warn!(
                            lane = lane.0,
                            error = &error as &dyn std::error::Error,
                            "a lane can't be taken over yet"
                        );
                        tokio::time::sleep(TAKE_AGAIN_AFTER).await;
                    }
                }
            }
        });
        let Some(Some(held)) = held.await else { return };
        let held = Arc::new(held);
        let mut ours = self.ours();
        if stop.is_cancelled() {
            return;
        }
        ours.insert(lane, Tenure::Held { held: Arc::clone(&held), leaving: false, again: None });
        if let Ok(slot) = self.slot(lane) {
            slot.send_replace(Some(held));
        }
        self.measure(&ours);
        let _gone = self.changes.send(Ok(Change::Given(lane)));
    }

    /// The group wants these lanes back: asks for their end, waits for it, and gives where their next owners go on.
    fn give_back(&self, lanes: &[Lane]) -> Vec<(Lane, Resume)> {
        let until = Instant::now() + RELEASE_WITHIN;
        let mut ours = self.ours();
        for lane in lanes {
            match ours.get_mut(lane) {
                Some(Tenure::Taking(stop)) => {
                    stop.cancel();
                    ours.remove(lane);
                }
                Some(Tenure::Held { leaving, again, .. }) => {
                    *again = None;
                    if !std::mem::replace(leaving, true) {
                        let _gone = self.changes.send(Ok(Change::Gone(*lane)));
                    }
                }
                Some(Tenure::Released(_)) | None => {}
            }
        }
        let is_held =
            |ours: &HashMap<Lane, Tenure>| lanes.iter().any(|lane| matches!(ours.get(lane), Some(Tenure::Held { .. })));
        while is_held(&ours) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!("lanes are given back though they are under way");
                break;
            }
            ours = self.released.wait_timeout(ours, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let resumes = lanes.iter().filter_map(|lane| match ours.get(lane) {
            Some(Tenure::Released(resume)) => Some((*lane, *resume)),
            Some(Tenure::Held { held, .. }) => {
                // What it still appends may count, and what it covers does: until its successor claims the lane.
                held.appender().fence();
                None
            }
            Some(Tenure::Taking(_)) | None => None,
        });
        let resumes: Vec<_> = resumes.collect();
        for (lane, _) in &resumes {
            ours.remove(lane);
        }
        resumes
    }

    /// The group has given these lanes to others: what is under way does not count.
    fn lose(&self, lanes: &[Lane]) {
        let mut ours = self.ours();
        for lane in lanes {
            match ours.get_mut(lane) {
                Some(Tenure::Taking(stop)) => {
                    stop.cancel();
                    ours.remove(lane);
                }
                Some(Tenure::Held { held, leaving, again }) => {
                    *again = None;
                    held.appender().fence();
                    self.parts.metrics.lost.inc();
                    if !std::mem::replace(leaving, true) {
                        let _gone = self.changes.send(Ok(Change::Gone(*lane)));
                    }
                }
                Some(Tenure::Released(_)) => {
                    ours.remove(lane);
                }
                None => {}
            }
        }
    }

    /// Nothing of the lane is under way any more.
    fn release(&self, lane: Lane) {
        let mut ours = self.ours();
        let Some(Tenure::Held { held, leaving, again }) = ours.remove(&lane) else { return };
        let resume = held.appender().resume();
        let was_fenced = held.appender().fenced().is_cancelled();
        if let Ok(slot) = self.slot(lane) {
            slot.send_replace(None);
        }
        // Its reading ends here, before a next one begins.
        drop(held);
        match again {
            Some(again) => self.start(&mut ours, lane, again, Duration::ZERO),
            // Overtaken though the group has it for ours: who has overtaken us is gone, or will be.
            None if was_fenced && !leaving => self.start(&mut ours, lane, resume, TAKE_AGAIN_AFTER),
            None if was_fenced => {}
            // Its judge has ended, or was told to.
            None => {
                ours.insert(lane, Tenure::Released(resume));
            }
        }
        self.measure(&ours);
        self.released.notify_all();
    }

    /// Where each lane stands.
    fn resumes(&self) -> Vec<(Lane, Resume)> {
        let ours = self.ours();
        let held = ours.iter().filter_map(|(lane, tenure)| match tenure {
            Tenure::Held { held, .. } if !held.appender().fenced().is_cancelled() => {
                Some((*lane, held.appender().resume()))
            }
            Tenure::Held { .. } | Tenure::Taking(_) | Tenure::Released(_) => None,
        });
        held.collect()
    }

    fn measure(&self, ours: &HashMap<Lane, Tenure>) {
        let held = ours.values().filter(|tenure| matches!(tenure, Tenure::Held { .. })).count();
        self.parts.metrics.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

/// The group of those who judge a cluster's lanes.
pub(crate) fn group_of(name: &str) -> String {
    format!("{name}.validators")
}

/// As partitions are counted.
fn lane_of(partition: i32, lanes: LaneCount) -> Option<Lane> {
    let count: NonZeroU32 = lanes.0;
    u32::try_from(partition).ok().filter(|lane| *lane < count.get()).map(Lane)
}
