//! The states of the accounts that were busy last, of the lanes that this process owns.
//!
//! What must hold: of a lane there are states only while this process owns it, for nobody else writes them then; and
//! only who has written a state puts it here. A reader that missed must not: what it found may be older than what was
//! put meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use atproto::syntax::Did;
use quick_cache::{Weighter, sync::Cache};
use storage::{
    lane::{Lane, LaneCount},
    repos::RepoState,
};

/// Caches by lane, together bounded in bytes.
pub(super) struct Recent {
    lanes: LaneCount,
    /// Of each lane, were all of them ours.
    lane_bytes_max: u64,
    owned: RwLock<HashMap<Lane, Arc<States>>>,
}

/// Of one lane.
type States = Cache<Did, Written, Weight>;

/// A state and the timestamp of its cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) state: RepoState,
    pub(super) at: i64,
}

#[derive(Clone, Debug)]
struct Weight;

/// What an entry takes beside its strings: itself, its place in the cache's tables, two allocations.
const ENTRY_BYTES: usize = 2 * (size_of::<Did>() + size_of::<Written>()) + 64;

impl Weighter<Did, Written> for Weight {
    fn weight(&self, did: &Did, written: &Written) -> u64 {
        (ENTRY_BYTES + did.as_str().len() + written.state.host.as_str().len()) as u64
    }
}

impl Recent {
    pub(super) fn new(lanes: LaneCount, bytes_max: u64) -> Recent {
        Recent { lanes, lane_bytes_max: bytes_max / u64::from(lanes.0.get()), owned: RwLock::default() }
    }

    /// The lane is ours from now on: begins with nothing, also where it was ours before.
    pub(super) fn own(&self, lane: Lane) {
        let entries = usize::try_from(self.lane_bytes_max).unwrap_or(usize::MAX) / (ENTRY_BYTES + 64);
        let cache = States::with_weighter(entries, self.lane_bytes_max, Weight);
        self.owned.write().unwrap_or_else(PoisonError::into_inner).insert(lane, Arc::new(cache));
    }

    /// The lane may be somebody else's.
    pub(super) fn disown(&self, lane: Lane) {
        self.owned.write().unwrap_or_else(PoisonError::into_inner).remove(&lane);
    }

    pub(super) fn get(&self, did: &Did) -> Option<Written> {
        self.of(self.lanes.lane_of(did))?.get(did)
    }

    /// Where to put the states of a lane, for as long as it stays ours.
    pub(super) fn of(&self, lane: Lane) -> Option<LaneStates> {
        self.owned.read().unwrap_or_else(PoisonError::into_inner).get(&lane).cloned().map(LaneStates)
    }
}

/// A lane's states. What is put here after the lane was given away is seen by nobody, though it be ours again.
pub(super) struct LaneStates(Arc<States>);

impl LaneStates {
    pub(super) fn get(&self, did: &Did) -> Option<Written> {
        self.0.get(did)
    }

    /// Puts a state that is in the table.
    pub(super) fn put(&self, did: &Did, written: Written) {
        self.0.insert(did.clone(), written);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use storage::conformance::sample;

    use super::*;

    #[test]
    fn a_lane_that_is_given_away_is_forgotten() {
        let lanes = LaneCount(NonZeroU32::new(4).unwrap());
        let recent = Recent::new(lanes, 1 << 20);
        let (did, written) = (sample::did(1), Written { state: sample::state(sample::host(1), 1), at: 7 });
        let lane = lanes.lane_of(&did);
        assert!(recent.of(lane).is_none(), "not ours");
        recent.own(lane);
        let states = recent.of(lane).unwrap();
        states.put(&did, written.clone());
        assert_eq!(recent.get(&did), Some(written.clone()));
        recent.disown(lane);
        assert_eq!(recent.get(&did), None);
        recent.own(lane);
        states.put(&did, written.clone());
        assert_eq!(recent.get(&did), None, "somebody else may have written meanwhile");
    }
}
