//! Whether lanes move: an Intake that looks on while frames pass through it to another.
//!
//! A lane that holds frames and is done with none for a long time stands still, whatever the cause: a judge that hangs, a
//! directory of identities that gives no answer, a full disk. Readiness says so.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use storage::{
    error::Error,
    intake::{Command, Intake, Position, RawFrame, Taken},
    lane::{Lane, LaneCount},
};
use tokio::time::Instant;

/// A lane that holds frames and was done with none for this long stands still. Longer than one account's silent identity
/// may hold it up.
const STILL: Duration = Duration::from_secs(60);

/// An Intake that knows which of its lanes stand still.
pub struct WatchedIntake {
    inner: Arc<dyn Intake>,
    lanes: Box<[Mutex<Progress>]>,
}

impl WatchedIntake {
    /// Looks on from now on; the lanes must be empty.
    pub fn new(inner: Arc<dyn Intake>) -> WatchedIntake {
        let lanes = inner.lanes().all().map(|_| Mutex::default()).collect();
        WatchedIntake { inner, lanes }
    }

    /// How many lanes stand still.
    pub fn standing_still(&self) -> usize {
        let now = Instant::now();
        self.lanes.iter().filter(|lane| lock(lane).stands_still(now)).count()
    }

    fn with(&self, lane: Lane, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.lanes.get(lane.0 as usize) {
            change(&mut lock(progress));
        }
    }
}

#[async_trait]
impl Intake for WatchedIntake {
    fn lanes(&self) -> LaneCount {
        self.inner.lanes()
    }

    async fn push(&self, frame: RawFrame) -> Result<(), Error> {
        let lane = self.lanes().lane_of(&frame.did);
        self.inner.push(frame).await?;
        self.with(lane, |progress| progress.pushed(Instant::now()));
        Ok(())
    }

    async fn push_command(&self, command: Command) -> Result<(), Error> {
        let lane = self.lanes().lane_of(&command.did);
        self.inner.push_command(command).await?;
        self.with(lane, |progress| progress.pushed(Instant::now()));
        Ok(())
    }

    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error> {
        let taken = self.inner.pull(lane, bytes_max).await?;
        if let Some(first) = taken.first() {
            self.with(lane, |progress| progress.pulled(first.position));
        }
        Ok(taken)
    }

    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error> {
        self.inner.cover(lane, position).await?;
        self.with(lane, |progress| progress.covered(position, Instant::now()));
        Ok(())
    }

    async fn settle(&self, lane: Lane, positions: &[Position]) -> Result<(), Error> {
        self.inner.settle(lane, positions).await?;
        self.with(lane, |progress| progress.settled(Instant::now()));
        Ok(())
    }

    fn bytes_held(&self) -> u64 {
        self.inner.bytes_held()
    }
}

/// One lane: how many frames went in and how many are done with.
#[derive(Debug, Default)]
struct Progress {
    /// The position of the first frame.
    base: Option<Position>,
    pushed: u64,
    covered: u64,
    /// When it was last done with something, or was empty and got a frame.
    moved: Option<Instant>,
}

impl Progress {
    fn pushed(&mut self, now: Instant) {
        // A frame may be covered before its push has returned, so that `covered` is ahead for a moment.
        if self.pushed <= self.covered {
            self.moved = Some(now);
        }
        self.pushed += 1;
    }

    fn pulled(&mut self, first: Position) {
        self.base.get_or_insert(first);
    }

    fn covered(&mut self, position: Position, now: Instant) {
        let base = self.base.unwrap_or(position);
        self.covered = self.covered.max((position.0 + 1).saturating_sub(base.0));
        self.moved = Some(now);
    }

    /// Frames after one that waits are done with.
    fn settled(&mut self, now: Instant) {
        self.moved = Some(now);
    }

    fn stands_still(&self, now: Instant) -> bool {
        let since = self.moved.map(|moved| now.saturating_duration_since(moved));
        self.pushed > self.covered && since.is_some_and(|since| since >= STILL)
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    // Counts are whole after every step, so a panic elsewhere leaves nothing to repair.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_stands_still_when_it_holds_frames_and_covers_none() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lane = Progress::default();
        assert!(!lane.stands_still(at(1000)), "it is empty");
        lane.pushed(at(1000));
        lane.pushed(at(1030));
        lane.pulled(Position(7));
        assert!(!lane.stands_still(at(1059)));
        assert!(lane.stands_still(at(1060)), "counted from the first frame");
        lane.covered(Position(7), at(1061));
        assert!(!lane.stands_still(at(1120)), "one is done with");
        assert!(lane.stands_still(at(1121)), "the other one is not");
        lane.settled(at(1122));
        assert!(!lane.stands_still(at(1181)), "it waits, and others flow on");
        lane.covered(Position(8), at(1130));
        assert!(!lane.stands_still(at(9999)), "it is empty");
        lane.covered(Position(9), at(2000));
        lane.pushed(at(2000));
        assert!(!lane.stands_still(at(9999)), "covered before its push returned");
        lane.pushed(at(3000));
        assert!(!lane.stands_still(at(3059)) && lane.stands_still(at(3060)));
    }
}
