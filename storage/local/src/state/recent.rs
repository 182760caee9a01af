//! The states of the accounts that were busy last, decoded: nearly every event asks for one of them.
//!
//! What must hold: only [`put`] fills it, after the state is in the database. A reader that missed must not: what it
//! found there may be older than what was put meanwhile.
//!
//! [`put`]: Recent::put

use atproto::syntax::Did;
use quick_cache::{Weighter, sync::Cache};
use storage::repos::RepoState;

/// A cache, bounded in bytes.
#[derive(Debug)]
pub(super) struct Recent(Cache<Did, RepoState, Weight>);

#[derive(Clone, Debug)]
struct Weight;

/// What an entry takes beside its strings: itself, its place in the cache's tables, two allocations.
const ENTRY_BYTES: usize = 2 * (size_of::<Did>() + size_of::<RepoState>()) + 64;

impl Weighter<Did, RepoState> for Weight {
    fn weight(&self, did: &Did, state: &RepoState) -> u64 {
        (ENTRY_BYTES + did.as_str().len() + state.host.as_str().len()) as u64
    }
}

impl Recent {
    pub(super) fn new(bytes_max: u64) -> Recent {
        let entries = usize::try_from(bytes_max).unwrap_or(usize::MAX) / (ENTRY_BYTES + 64);
        Recent(Cache::with_weighter(entries, bytes_max, Weight))
    }

    pub(super) fn get(&self, did: &Did) -> Option<RepoState> {
        self.0.get(did)
    }

    pub(super) fn put(&self, did: &Did, state: &RepoState) {
        self.0.insert(did.clone(), state.clone());
    }
}
