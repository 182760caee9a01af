//! How many accounts each host has, for the caps on them.
//!
//! Owns the counts of the hosts that are in use, exact from the first look on: read from Repos once, then moved by the
//! lanes as they decide, before their decisions are durable. All lanes share it.
//!
//! Where several processes judge, each moves only what its own lanes decide: what is not in use is read anew every
//! [`COUNTED_ANEW`], so that a host gets more places than it should for no longer than that.
//!
//! What must hold: while a change is on its way into the log, its host's counts stay here (a [`Pin`] keeps them); so what
//! is not here has no change under way, and Repos counts it exactly. An account takes a place at its host unless it is
//! throttled; one that is deleted keeps its place, or a host could have us remember accounts without end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::syntax::HostName;
use storage::{
    error::Error,
    repos::{LocalStatus, RepoState, Repos},
};

/// Hosts whose counts are kept; past it, those without a change under way are forgotten.
const HOSTS_MAX: usize = 16_384;

/// How often [`Places::forget`] is to be called.
pub const COUNTED_ANEW: Duration = Duration::from_secs(60);

/// The most accounts of one host that are marked as throttled. Those beyond are refused as well, without a mark.
pub const MARKS_MAX: u64 = 1_000;

/// A host's accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many have a place.
    pub taken: u64,
    /// How many are marked as throttled.
    pub throttled: u64,
}

/// The counts of all hosts in use.
pub struct Places {
    hosts: Mutex<HashMap<HostName, Entry>>,
    hosts_max: usize,
    /// One is read from Repos at a time.
    loading: tokio::sync::Mutex<()>,
}

/// Keeps a host's counts from being forgotten until a change of them is durable.
#[derive(Clone, Debug)]
#[must_use]
pub struct Pin(Arc<()>);

/// What became of a change.
#[derive(Debug)]
pub enum Moved {
    /// It counts; to be kept until it is durable.
    Done([Option<Pin>; 2]),
    /// This host's counts must be loaded first.
    Unknown(HostName),
    /// The new host has no place left.
    Full,
}

#[derive(Debug)]
struct Entry {
    standing: Standing,
    pin: Pin,
}

impl Default for Places {
    fn default() -> Places {
        Places::new(HOSTS_MAX)
    }
}

impl Places {
    /// Knows nothing yet.
    pub fn new(hosts_max: usize) -> Places {
        Places { hosts: Mutex::default(), hosts_max, loading: tokio::sync::Mutex::default() }
    }

    /// A host's accounts, if they are known here.
    pub fn standing(&self, host: &HostName) -> Option<Standing> {
        self.hosts().get(host).map(|entry| entry.standing)
    }

    /// Counts an account's change of state. `taken_max` is how many places the host after it has; it matters only where
    /// the account takes one that it had not.
    pub fn change(&self, before: Option<&RepoState>, after: &RepoState, taken_max: Option<u64>) -> Moved {
        if before.is_some_and(|before| before.host == after.host && is_throttled(before) == is_throttled(after)) {
            return Moved::Done([None, None]);
        }
        let mut hosts = self.hosts();
        for state in before.into_iter().chain([after]) {
            if !hosts.contains_key(&state.host) {
                return Moved::Unknown(state.host.clone());
            }
        }
        let is_full = |entry: &Entry| !is_throttled(after) && taken_max.is_some_and(|max| entry.standing.taken >= max);
        if hosts.get(&after.host).is_some_and(is_full) {
            return Moved::Full;
        }
        let mut count = |state: &RepoState, by: i64| {
            let entry = hosts.get_mut(&state.host)?;
            let Standing { taken, throttled } = &mut entry.standing;
            let count = if is_throttled(state) { throttled } else { taken };
            *count = count.saturating_add_signed(by);
            Some(entry.pin.clone())
        };
        Moved::Done([before.and_then(|before| count(before, -1)), count(after, 1)])
    }

    /// Reads a host's counts, unless they are known.
    pub async fn load(&self, host: &HostName, repos: &dyn Repos) -> Result<(), Error> {
        let _turn = self.loading.lock().await;
        if self.hosts().contains_key(host) {
            return Ok(());
        }
        let (all, throttled) = (repos.count_by_host(host).await?, repos.count_throttled_by_host(host).await?);
        self.put(host, Standing { taken: all.saturating_sub(throttled), throttled });
        Ok(())
    }

    /// Takes in a host's counts as Repos has them. Only while they are not known.
    pub(crate) fn put(&self, host: &HostName, standing: Standing) {
        let mut hosts = self.hosts();
        if hosts.len() >= self.hosts_max {
            forget(&mut hosts);
        }
        hosts.entry(host.clone()).or_insert_with(|| Entry { standing, pin: Pin(Arc::default()) });
    }

    /// Forgets the counts that no change is under way of.
    pub fn forget(&self) {
        forget(&mut self.hosts());
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<HostName, Entry>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(hosts: &mut HashMap<HostName, Entry>) {
    hosts.retain(|_, entry| Arc::strong_count(&entry.pin.0) > 1);
}

fn is_throttled(state: &RepoState) -> bool {
    state.local == LocalStatus::Throttled
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;

    fn state(host: u64, local: LocalStatus) -> RepoState {
        RepoState { local, ..sample::state(sample::host(host), 1) }
    }

    #[test]
    fn accounts_come_move_and_are_throttled() {
        use LocalStatus::{None as Free, TakenDown, Throttled};
        let places = Places::default();
        let standing = |host| places.standing(&sample::host(host)).map(|now| (now.taken, now.throttled));
        assert!(matches!(places.change(None, &state(1, Free), None), Moved::Unknown(host) if host == sample::host(1)));
        places.put(&sample::host(1), Standing { taken: 4, throttled: 1 });
        assert!(matches!(places.change(None, &state(1, Free), Some(5)), Moved::Done([None, Some(_)])));
        assert!(matches!(places.change(None, &state(1, Free), Some(5)), Moved::Full));
        assert!(matches!(places.change(None, &state(1, Throttled), Some(5)), Moved::Done(_)));
        assert_eq!(standing(1), Some((5, 2)));

        let moved = places.change(Some(&state(1, Free)), &state(2, Free), None);
        assert!(matches!(moved, Moved::Unknown(host) if host == sample::host(2)));
        places.put(&sample::host(2), Standing::default());
        assert!(matches!(places.change(Some(&state(1, Free)), &state(2, Free), Some(0)), Moved::Full));
        let moved = places.change(Some(&state(1, Free)), &state(2, Throttled), Some(0));
        assert!(matches!(moved, Moved::Done([Some(_), Some(_)])));
        assert_eq!((standing(1), standing(2)), (Some((4, 2)), Some((0, 1))));

        // The place that was freed is there for one that was throttled; a takedown needs none.
        assert!(matches!(places.change(Some(&state(1, Throttled)), &state(1, Free), Some(5)), Moved::Done(_)));
        assert!(matches!(places.change(Some(&state(1, Throttled)), &state(1, Free), Some(5)), Moved::Full));
        assert!(matches!(places.change(Some(&state(1, Throttled)), &state(1, TakenDown), None), Moved::Done(_)));
        let nothing = places.change(Some(&state(1, TakenDown)), &state(1, Free), Some(0));
        assert!(matches!(nothing, Moved::Done([None, None])));
        assert_eq!(standing(1), Some((6, 0)));
    }

    #[test]
    fn what_has_a_change_under_way_is_not_forgotten() {
        let places = Places::new(2);
        for host in 1..=2 {
            places.put(&sample::host(host), Standing::default());
        }
        let under_way = places.change(None, &state(1, LocalStatus::None), None);
        places.put(&sample::host(3), Standing::default());
        let known = |host| places.standing(&sample::host(host)).is_some();
        assert_eq!([known(1), known(2), known(3)], [true, false, true]);
        drop(under_way);
        places.put(&sample::host(4), Standing::default());
        assert_eq!([known(1), known(3), known(4)], [false, false, true]);
        let under_way = places.change(None, &state(4, LocalStatus::None), None);
        places.forget();
        assert_eq!(places.standing(&sample::host(4)), Some(Standing { taken: 1, throttled: 0 }));
        drop(under_way);
        places.forget();
        assert!(!known(4));
    }
}
