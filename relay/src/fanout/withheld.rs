//! Accounts of which nothing is served: those that we have taken down.
//!
//! Owns the set, which follows the log: an event says whether its account was taken down after it. What must hold: the
//! set is that of the log's end as the hub knows it; when it changes, so does its generation, and nothing that was
//! encoded under an earlier one is served any more. Of an account in the set one event is served: its takedown's own.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::{
    log::{EventLog, Published, ReadError},
    repos::Repos,
    seq::Seq,
};

/// What is read at once to bring the set up to the log's end.
const PIECE_BYTES: usize = 1 << 20;

/// The set, shared by all who encode.
pub struct Withheld {
    repos: Arc<dyn Repos>,
    log: Arc<dyn EventLog>,
    accounts: RwLock<Accounts>,
    /// Moves under the lock, and can be looked at without.
    generation: AtomicU64,
}

/// By account, the takedown's own event.
type Accounts = HashMap<u64, Seq>;

/// The set while it stands still.
pub struct Filter<'a> {
    accounts: RwLockReadGuard<'a, Accounts>,
    generation: u64,
}

impl Withheld {
    /// The set as of the log's end, and where that is.
    pub async fn load(repos: Arc<dyn Repos>, log: Arc<dyn EventLog>) -> Result<(Withheld, Seq), ReadError> {
        let withheld = Withheld { repos, log, accounts: RwLock::default(), generation: AtomicU64::new(0) };
        let end = withheld.reload().await?;
        Ok((withheld, end))
    }

    /// Makes the set anew, where events were missed. Gives the last seq that is in it.
    pub async fn reload(&self) -> Result<Seq, ReadError> {
        loop {
            let takedowns = self.repos.takedowns().await?;
            let window = *self.log.window().borrow();
            let accounts = takedowns.accounts.iter().map(|takedown| (takedown.account, takedown.seq)).collect();
            let mut seen = takedowns.as_of.max(Seq(window.first.0.saturating_sub(1)));
            self.change(|set| *set = accounts);
            loop {
                match self.log.read(seen, PIECE_BYTES).await {
                    Ok(events) => {
                        let Some(last) = events.last() else { return Ok(seen) };
                        seen = last.seq;
                        self.fold(&events);
                    }
                    // The window has overtaken us: Repos knows more by now.
                    Err(ReadError::Outdated { .. }) => break,
                    Err(error @ ReadError::Store(_)) => return Err(error),
                }
            }
        }
    }

    /// Takes in what the next events say. Gives whether the set has changed.
    pub fn fold(&self, events: &[Published]) -> bool {
        if self.filter().agrees_with(events) {
            return false;
        }
        self.change(|set| {
            for event in events {
                if event.taken_down {
                    set.entry(event.account).or_insert(event.seq);
                } else {
                    set.remove(&event.account);
                }
            }
        });
        true
    }

    /// Which state of the set this is.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The set, for as long as it is borrowed. Not to be kept over an await.
    pub fn filter(&self) -> Filter<'_> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        Filter { generation: self.generation(), accounts }
    }

    fn change(&self, change: impl FnOnce(&mut Accounts)) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut accounts);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Filter<'_> {
    /// Whether an event may be served.
    pub fn serves(&self, event: &Published) -> bool {
        self.serves_event(event.account, event.seq)
    }

    /// As [`Filter::serves`], of an event of which this is known.
    pub fn serves_event(&self, account: u64, seq: Seq) -> bool {
        self.accounts.is_empty() || self.accounts.get(&account).is_none_or(|takedown| *takedown == seq)
    }

    /// How many accounts are withheld.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Which state of the set this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether these events change nothing.
    fn agrees_with(&self, events: &[Published]) -> bool {
        if self.accounts.is_empty() {
            return events.iter().all(|event| !event.taken_down);
        }
        events.iter().all(|event| event.taken_down == self.accounts.contains_key(&event.account))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use storage::{conformance::sample, memory, repos::LocalStatus};

    use super::*;

    fn published(seq: u64, account: u64, taken_down: bool) -> Published {
        Published { seq: Seq(seq), account, taken_down, frame: Bytes::new() }
    }

    /// A set with nothing in it.
    pub(crate) fn nothing() -> Withheld {
        let stores = memory::open();
        Withheld { repos: stores.repos, log: stores.log, accounts: RwLock::default(), generation: AtomicU64::new(0) }
    }

    #[test]
    fn only_the_takedowns_own_event_is_served() {
        let withheld = nothing();
        assert!(!withheld.fold(&[published(1, 7, false), published(2, 8, false)]));
        assert_eq!(withheld.generation(), 0);

        assert!(withheld.fold(&[published(3, 7, false), published(4, 7, true), published(5, 8, false)]));
        assert!(!withheld.fold(&[published(6, 7, true), published(7, 8, false)]), "the host's word changes nothing");
        assert_eq!(withheld.generation(), 1);
        let filter = withheld.filter();
        let served: Vec<u64> =
            (1..9).filter(|seq| filter.serves(&published(*seq, if *seq == 5 { 8 } else { 7 }, true))).collect();
        assert_eq!(served, [4, 5]);
        drop(filter);

        assert!(withheld.fold(&[published(8, 7, false)]));
        assert!(withheld.filter().is_empty() && withheld.filter().serves(&published(1, 7, false)));
        assert!(withheld.fold(&[published(9, 7, true), published(10, 7, false), published(11, 7, true)]));
        assert!(!withheld.filter().serves(&published(9, 7, true)) && withheld.filter().serves(&published(11, 7, true)));
    }

    #[tokio::test]
    async fn it_is_loaded_as_of_the_logs_end() {
        let stores = memory::open();
        let mut events: Vec<_> = (0..9).map(|number| sample::accepted(number % 3, number, 200)).collect();
        for event in &mut events[4..] {
            // Account 1 from its second event on, account 2 from its third.
            if event.did == sample::did(1) || event.state.upstream_seq == 8 {
                event.state.local = LocalStatus::TakenDown;
            }
        }
        stores.log.append(events).await.unwrap();
        let (withheld, end) = Withheld::load(stores.repos.clone(), stores.log.clone()).await.unwrap();
        assert_eq!((end, withheld.filter().len()), (Seq(9), 2));
        let all = stores.log.read(Seq(0), 1 << 20).await.unwrap();
        let served: Vec<u64> =
            all.iter().filter(|event| withheld.filter().serves(event)).map(|event| event.seq.0).collect();
        assert_eq!(served, [1, 4, 5, 7, 9]);
    }
}
