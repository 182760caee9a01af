//! Lanes: accounts are spread over a fixed number of ordered queues.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use atproto::syntax::Did;
use tokio::sync::Notify;

use crate::error::Error;

/// One lane, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u32);

/// How many lanes there are; fixed when the data is made and checked at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCount(pub NonZeroU32);

impl LaneCount {
    /// The lane of a DID: the first 8 bytes of its SHA-256, big-endian, modulo the number of lanes.
    pub fn lane_of(self, did: &Did) -> Lane {
        let lane = Did::lane_hash(did.as_str()) % u64::from(self.0.get());
        Lane(u32::try_from(lane).expect("a remainder of a u32"))
    }

    /// All lanes.
    pub fn all(self) -> impl Iterator<Item = Lane> {
        (0..self.0.get()).map(Lane)
    }
}

/// A lane that this process is to judge from now on, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is ours: what came before us is known, and pulling gives what is to be judged.
    Given(Lane),
    /// It is to be another's: what is under way is to end, and then [`Assignment::released`] to be called. The other
    /// waits for it, within limits.
    Gone(Lane),
}

/// Which lanes this process judges.
///
/// ```text
///   Given(lane) ──▶ pull, append, cover … ──▶ Gone(lane) ──▶ last appends, last cover ──▶ released(lane)
///                                        └──▶ ended by itself ([`Error::Fenced`]) ────────▶ released(lane) ─▶ perhaps Given again
/// ```
#[async_trait]
pub trait Assignment: Send + Sync {
    /// The next change. A lane that was given is not given again before it was released. One caller. Cancel-safe.
    async fn next(&self) -> Result<Change, Error>;

    /// Nothing of this lane is under way in this process any more.
    async fn released(&self, lane: Lane);
}

/// All lanes, for as long as somebody judges them: the assignment where one process does it all.
#[derive(Debug)]
pub struct AllLanes {
    free: Mutex<VecDeque<Lane>>,
    freed: Notify,
}

impl AllLanes {
    /// All lanes, free.
    pub fn new(lanes: LaneCount) -> AllLanes {
        AllLanes { free: Mutex::new(lanes.all().collect()), freed: Notify::new() }
    }

    fn free(&self) -> MutexGuard<'_, VecDeque<Lane>> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Assignment for AllLanes {
    async fn next(&self) -> Result<Change, Error> {
        loop {
            if let Some(lane) = self.free().pop_front() {
                return Ok(Change::Given(lane));
            }
            self.freed.notified().await;
        }
    }

    async fn released(&self, lane: Lane) {
        self.free().push_back(lane);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_lanes_are_given_once_until_they_are_released() {
        let lanes = AllLanes::new(LaneCount(NonZeroU32::new(3).unwrap()));
        for lane in 0..3 {
            assert_eq!(lanes.next().await.unwrap(), Change::Given(Lane(lane)));
        }
        let waits = tokio::select! {
            biased;
            _ = lanes.next() => false,
            () = lanes.released(Lane(1)) => true,
        };
        assert!(waits);
        assert_eq!(lanes.next().await.unwrap(), Change::Given(Lane(1)));
    }
}
