//! States that are in the log and not yet in the database.
//!
//! The log's writer puts the states of each group here and goes on; every so often all of them are written to the database
//! at once ([`super::State::settle`]). Few accounts make most events, so most states are overtaken here before they cost
//! anything. What must hold: whoever looks here first and then in the database sees every state that was noted; the states
//! of one generation are written all or none, with the seq that they go up to.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use atproto::syntax::Did;
use storage::{
    repos::{LocalStatus, RepoState},
    seq::Seq,
};

/// What a state is counted as beside its account's name: itself, its place in the table, its share of the host's name.
const ENTRY_BYTES: usize = 2 * (size_of::<Did>() + size_of::<Newest>()) + 48;

/// The states, in two generations.
#[derive(Debug, Default)]
pub(super) struct Overlay(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    /// Takes new states.
    young: Generation,
    /// Is being written to the database.
    old: Option<Arc<Generation>>,
}

/// States that are written together.
#[derive(Debug, Default)]
pub(super) struct Generation {
    pub(super) accounts: HashMap<Did, Newest>,
    /// The last event whose state is here or was written before; `None` where there is nothing to write.
    pub(super) through: Option<Seq>,
    bytes: usize,
}

/// An account's newest state, with what was on the way to it.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) state: RepoState,
    /// The first event of the takedown that the state is in; `None` where it is in none.
    pub(super) taken_down_at: Option<Seq>,
    /// Whether one of the states that were noted was in no takedown: then [`Newest::taken_down_at`] begins a new one,
    /// whatever was before.
    pub(super) was_free: bool,
}

impl Newest {
    fn new(seq: Seq, state: RepoState) -> Newest {
        let taken_down = state.local == LocalStatus::TakenDown;
        Newest { state, taken_down_at: taken_down.then_some(seq), was_free: !taken_down }
    }

    fn overtake(&mut self, seq: Seq, state: RepoState) {
        match state.local {
            LocalStatus::TakenDown => {
                self.taken_down_at.get_or_insert(seq);
            }
            LocalStatus::None | LocalStatus::Throttled => {
                self.taken_down_at = None;
                self.was_free = true;
            }
        }
        self.state = state;
    }
}

impl Overlay {
    /// Takes states in the order of their seqs, all up to the event `through`; gives the bytes that are held.
    pub(super) fn note(&self, states: impl Iterator<Item = (Seq, Did, RepoState)>, through: Seq) -> usize {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let young = &mut generations.young;
        for (seq, did, state) in states {
            match young.accounts.get_mut(&did) {
                Some(newest) => newest.overtake(seq, state),
                None => {
                    young.bytes += ENTRY_BYTES + did.as_str().len();
                    young.accounts.insert(did, Newest::new(seq, state));
                }
            }
        }
        young.through = Some(through);
        young.bytes + generations.old.as_ref().map_or(0, |old| old.bytes)
    }

    /// An account's newest state, where it is here.
    pub(super) fn get(&self, did: &Did) -> Option<RepoState> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let old = || generations.old.as_ref().and_then(|old| old.accounts.get(did));
        generations.young.accounts.get(did).or_else(old).map(|newest| newest.state.clone())
    }

    /// The last event that was noted and is not written yet; `None` where all are.
    pub(super) fn through(&self) -> Option<Seq> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        generations.young.through.or(generations.old.as_ref().and_then(|old| old.through))
    }

    /// What is to be written next, if there is anything; it can still be read here. The same again until it is
    /// [forgotten](Overlay::forget).
    pub(super) fn retire(&self) -> Option<Arc<Generation>> {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if generations.old.is_none() && generations.young.through.is_some() {
            let room = generations.young.accounts.len();
            let young = Generation { accounts: HashMap::with_capacity(room), ..Generation::default() };
            generations.old = Some(Arc::new(std::mem::replace(&mut generations.young, young)));
        }
        generations.old.clone()
    }

    /// What was retired is in the database.
    pub(super) fn forget(&self) {
        let old = self.0.write().unwrap_or_else(PoisonError::into_inner).old.take();
        // Frees many strings: not under the lock.
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;

    fn states(events: &[(u64, u64, LocalStatus)]) -> impl Iterator<Item = (Seq, Did, RepoState)> {
        events.iter().map(|&(seq, account, local)| {
            let state = RepoState { local, ..sample::state(sample::host(1), seq) };
            (Seq(seq), sample::did(account), state)
        })
    }

    fn seen(overlay: &Overlay, account: u64) -> Option<u64> {
        overlay.get(&sample::did(account)).map(|state| state.upstream_seq)
    }

    #[test]
    fn a_state_is_seen_until_it_is_forgotten() {
        use LocalStatus::None as Free;
        let overlay = Overlay::default();
        assert!(overlay.retire().is_none());
        overlay.note(states(&[(1, 7, Free), (2, 8, Free), (3, 7, Free)]), Seq(3));
        assert_eq!((seen(&overlay, 7), seen(&overlay, 8), seen(&overlay, 9)), (Some(3), Some(2), None));
        let old = overlay.retire().unwrap();
        assert_eq!((old.accounts.len(), old.through), (2, Some(Seq(3))));
        overlay.note(states(&[(4, 7, Free)]), Seq(4));
        assert_eq!((seen(&overlay, 7), seen(&overlay, 8)), (Some(4), Some(2)));
        assert!(Arc::ptr_eq(&old, &overlay.retire().unwrap()), "the same until it is forgotten");
        assert_eq!(overlay.through(), Some(Seq(4)));
        overlay.forget();
        assert_eq!((seen(&overlay, 7), seen(&overlay, 8)), (Some(4), None));
        assert_eq!(overlay.retire().unwrap().through, Some(Seq(4)));
        overlay.forget();
        assert!(overlay.through().is_none() && overlay.retire().is_none());
    }

    #[test]
    fn knows_when_a_takedown_began() {
        use LocalStatus::{None as Free, TakenDown};
        for (events, expected) in [
            (&[(1, Free), (2, TakenDown), (3, TakenDown)][..], (Some(Seq(2)), true)),
            (&[(1, TakenDown), (2, TakenDown)], (Some(Seq(1)), false)),
            (&[(1, TakenDown), (2, Free), (3, TakenDown)], (Some(Seq(3)), true)),
            (&[(1, TakenDown), (2, Free)], (None, true)),
        ] {
            let overlay = Overlay::default();
            let events: Vec<_> = events.iter().map(|&(seq, local)| (seq, 7, local)).collect();
            overlay.note(states(&events), Seq(9));
            let newest = overlay.retire().unwrap().accounts[&sample::did(7)].clone();
            assert_eq!((newest.taken_down_at, newest.was_free), expected, "{events:?}");
        }
    }
}
