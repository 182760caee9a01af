use std::collections::HashMap;

use atproto::syntax::Did;
use quick_cache::{Weighter, unsync::Cache};
use storage::repos::{AccountStatus, RepoState};

use super::Party;

/// What a remembered state costs beside its DID and host name.
const STATE_OVERHEAD_BYTES: usize = 256;

/// How many hosts' answers about accounts are remembered.
const STATUSES_MAX: usize = 1_024;

/// Repo states: those that must not be forgotten (the log does not hold them yet, or a parked frame will be judged by
/// them), and as many others as there is room for. A lane is its repos' only writer, so what it remembers is true,
/// a repo's absence included.
pub(super) struct States {
    held: HashMap<Did, Held>,
    remembered: Cache<Did, Option<RepoState>, ByBytes>,
}

struct Held {
    state: Option<RepoState>,
    holds: usize,
}

#[derive(Clone)]
struct ByBytes;

/// What hosts said of accounts that were not active, so that a host that goes on sending their events is not asked each
/// time. Other answers are not kept: the account's next event makes them known.
pub(super) struct Statuses {
    kept_micros: u64,
    said: Cache<Party, (Option<AccountStatus>, u64)>,
}

// === impl States ===

impl States {
    pub(super) fn new(bytes_max: u64) -> States {
        let items = usize::try_from(bytes_max).unwrap_or(usize::MAX) / (STATE_OVERHEAD_BYTES + 64);
        States { held: HashMap::new(), remembered: Cache::with_weighter(items.max(16), bytes_max, ByBytes) }
    }

    /// The state of a repo, if it is known here: `Some(None)` is a repo that does not exist.
    pub(super) fn get(&self, did: &Did) -> Option<Option<&RepoState>> {
        if let Some(held) = self.held.get(did) {
            return Some(held.state.as_ref());
        }
        self.remembered.get(did).map(Option::as_ref)
    }

    /// Keeps a known state until [`States::release`]. Gives whether it is known.
    pub(super) fn hold(&mut self, did: &Did) -> bool {
        if let Some(held) = self.held.get_mut(did) {
            held.holds += 1;
            return true;
        }
        let Some((did, state)) = self.remembered.remove(did) else { return false };
        self.held.insert(did, Held { state, holds: 1 });
        true
    }

    /// Keeps what the store says, for `holds` holders. Only where nothing is known: what is known is newer.
    pub(super) fn learn(&mut self, did: &Did, state: Option<RepoState>, holds: usize) {
        self.held.insert(did.clone(), Held { state, holds });
    }

    /// Sets the state after an accepted event and holds it.
    pub(super) fn set(&mut self, did: &Did, state: RepoState) {
        let holds = match self.held.get_mut(did) {
            Some(held) => {
                held.state = Some(state);
                held.holds += 1;
                return;
            }
            None => 1,
        };
        self.remembered.remove(did);
        self.held.insert(did.clone(), Held { state: Some(state), holds });
    }

    /// Ends one hold.
    pub(super) fn release(&mut self, did: &Did) {
        let Some(held) = self.held.get_mut(did) else { return };
        held.holds -= 1;
        if held.holds == 0
            && let Some((did, held)) = self.held.remove_entry(did)
        {
            self.remembered.insert(did, held.state);
        }
    }
}

#[cfg(test)]
impl States {
    /// How many states must not be forgotten.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

impl Weighter<Did, Option<RepoState>> for ByBytes {
    fn weight(&self, did: &Did, state: &Option<RepoState>) -> u64 {
        let host = state.as_ref().map_or(0, |state| state.host.as_str().len());
        (STATE_OVERHEAD_BYTES + did.as_str().len() + host) as u64
    }
}

// === impl Statuses ===

impl Statuses {
    pub(super) fn new(kept_micros: u64) -> Statuses {
        Statuses { kept_micros, said: Cache::new(STATUSES_MAX) }
    }

    pub(super) fn note(&mut self, party: &Party, status: Option<AccountStatus>, now_micros: u64) {
        if status.is_some_and(AccountStatus::is_active) {
            self.said.remove(party);
        } else {
            self.said.insert(party.clone(), (status, now_micros));
        }
    }

    /// What the host said not long ago.
    pub(super) fn recent(&self, party: &Party, now_micros: u64) -> Option<Option<AccountStatus>> {
        let &(status, at) = self.said.get(party)?;
        (now_micros.saturating_sub(at) < self.kept_micros).then_some(status)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use atproto::syntax::HostName;
    use storage::repos::LocalStatus;

    use super::*;

    fn state(host: &str) -> RepoState {
        RepoState {
            host: HostName::parse(host).unwrap(),
            host_epoch: 0,
            upstream_seq: 1,
            head: None,
            upstream: AccountStatus::Active,
            local: LocalStatus::None,
        }
    }

    #[test]
    fn what_several_hold_stays_until_the_last_lets_go() {
        let did = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let mut states = States::new(0);
        assert!(!states.hold(&did));
        states.learn(&did, None, 1);
        assert!(states.hold(&did));
        states.set(&did, state("a.io"));
        for _ in 0..2 {
            states.release(&did);
            assert_eq!(states.get(&did), Some(Some(&state("a.io"))));
        }
        states.release(&did);
        assert_eq!((states.get(&did), states.held()), (None, 0));
    }
}
