//! How far a host has been read: the low-water mark of what is durably taken.
//!
//! [`LowWater`] is the pure part, [`Tally`] shares it with those who give receipts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use storage::intake::Receipts;
use tokio::sync::Notify;

/// The highest seq such that all that the host sent up to it is taken, while receipts come in any order.
///
/// ```text
///   sent:     4   7   8   9      (a host may leave gaps)
///   taken:    4       8   9
///   cursor:   4                  7 is still out; once it is taken, the cursor is 9
/// ```
#[derive(Clone, Debug, Default)]
pub struct LowWater {
    /// Sent on and not yet taken → the seq the host sent before it.
    outstanding: BTreeMap<u64, u64>,
    newest: Option<u64>,
    /// The one that may never have arrived.
    abandoned: Option<u64>,
}

impl LowWater {
    /// All up to `cursor` is taken; `None` where nothing was ever read.
    pub fn new(cursor: Option<u64>) -> LowWater {
        LowWater { newest: cursor, ..LowWater::default() }
    }

    /// The next event of the host has been handed on. Seqs rise; the caller has checked it.
    pub fn sent(&mut self, seq: u64) {
        // The first event of a host read from now on: what came before it is none of ours.
        let before = self.newest.unwrap_or(seq.saturating_sub(1));
        self.outstanding.insert(seq, before);
        self.newest = Some(seq);
    }

    /// The next event of the host needs no receipt: it is not for us.
    pub fn passed(&mut self, seq: u64) {
        self.newest = Some(seq);
    }

    /// This one is durably taken. A second receipt changes nothing.
    pub fn taken(&mut self, seq: u64) {
        self.outstanding.remove(&seq);
    }

    /// Handing this one on was broken off: it holds the mark, but nobody should wait for its receipt.
    pub fn abandoned(&mut self, seq: u64) {
        self.abandoned = Some(seq);
    }

    /// Whether no receipt is to be waited for.
    pub fn is_settled(&self) -> bool {
        self.outstanding.keys().all(|&seq| self.abandoned == Some(seq))
    }

    /// The mark; `None` before the first event of a host that was never read.
    pub fn cursor(&self) -> Option<u64> {
        self.outstanding.first_key_value().map(|(_, &before)| before).or(self.newest)
    }

    /// How many were handed on and are not taken.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }
}

/// A [`LowWater`] mark that receipts can be given to from anywhere. One for each connection, on which seqs rise; receipts
/// of an older one never move it.
#[derive(Debug)]
pub struct Tally {
    epoch: u32,
    mark: Mutex<LowWater>,
    fell: Notify,
}

impl Tally {
    /// For a host that has been read up to `cursor` within `epoch`.
    pub fn new(epoch: u32, cursor: Option<u64>) -> Tally {
        Tally { epoch, mark: Mutex::new(LowWater::new(cursor)), fell: Notify::new() }
    }

    /// The host's epoch that the seqs belong to.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// See [`LowWater::cursor`].
    pub fn cursor(&self) -> Option<u64> {
        self.mark().cursor()
    }

    /// See [`LowWater::outstanding`].
    pub fn outstanding(&self) -> usize {
        self.mark().outstanding()
    }

    /// See [`LowWater::passed`].
    pub fn passed(&self, seq: u64) {
        self.mark().passed(seq);
    }

    /// Waits until fewer than `limit` are outstanding. This bounds the mark's own memory, and how much is read again
    /// after a crash when one event is held up. Cancel-safe.
    pub async fn below(&self, limit: usize) {
        loop {
            let fell = self.fell.notified();
            if self.outstanding() < limit {
                return;
            }
            fell.await;
        }
    }

    /// Hands an event on: counts it as sent, and as abandoned if `handing` is dropped before it ends.
    pub async fn hand_on<T>(&self, seq: u64, handing: impl Future<Output = T>) -> T {
        struct Abandon<'a>(&'a Tally, u64);
        impl Drop for Abandon<'_> {
            fn drop(&mut self) {
                self.0.mark().abandoned(self.1);
                self.0.fell.notify_waiters();
            }
        }
        self.mark().sent(seq);
        let abandon = Abandon(self, seq);
        let result = handing.await;
        std::mem::forget(abandon);
        result
    }

    /// Waits until all receipts are in. Cancel-safe.
    pub async fn settled(&self) {
        loop {
            let fell = self.fell.notified();
            if self.mark().is_settled() {
                return;
            }
            fell.await;
        }
    }

    fn mark(&self) -> MutexGuard<'_, LowWater> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipts for Tally {
    fn taken(&self, upstream_seq: u64) {
        self.mark().taken(upstream_seq);
        self.fell.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mark_stays_below_the_oldest_that_is_not_taken() {
        let mut mark = LowWater::new(None);
        assert_eq!(mark.cursor(), None);
        for seq in [4, 7, 8, 9] {
            mark.sent(seq);
        }
        assert_eq!(mark.cursor(), Some(3), "live from the first: what came before is not ours");
        for (taken, cursor) in [(9, 3), (4, 4), (8, 4), (8, 4), (7, 9)] {
            mark.taken(taken);
            assert_eq!(mark.cursor(), Some(cursor), "after {taken}");
        }
        mark.passed(20);
        assert_eq!(mark.cursor(), Some(20));
        mark.sent(21);
        mark.passed(22);
        assert_eq!(mark.cursor(), Some(20));
        mark.taken(21);
        assert_eq!((mark.cursor(), mark.outstanding()), (Some(22), 0));
    }

    #[test]
    fn a_known_host_keeps_its_cursor_until_more_is_taken() {
        let mut mark = LowWater::new(Some(100));
        assert_eq!(mark.cursor(), Some(100));
        mark.sent(150);
        assert_eq!(mark.cursor(), Some(100));
        mark.taken(150);
        assert_eq!(mark.cursor(), Some(150));
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_from_a_receipt() {
        let tally = Arc::new(Tally::new(0, None));
        tally.hand_on(1, async {}).await;
        tally.hand_on(2, async {}).await;
        let (waiting, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(30), tally.below(2)), async {
            tokio::task::yield_now().await;
            tally.taken(1);
        });
        waiting.unwrap();
    }

    #[tokio::test]
    async fn what_was_broken_off_holds_the_mark_and_nobody_waits_for_it() {
        let tally = Tally::new(0, Some(4));
        tally.hand_on(5, async {}).await;
        assert!(tally.hand_on(6, std::future::pending::<()>()).now_or_never().is_none());
        assert!(tally.settled().now_or_never().is_none(), "5 is out");
        tally.taken(5);
        tally.settled().await;
        assert_eq!(tally.cursor(), Some(5));
        tally.taken(6);
        assert_eq!(tally.cursor(), Some(6), "it had arrived after all");
    }

    proptest! {
        /// Against a plain model: the mark is the last of the sent seqs before which all are taken.
        #[test]
        fn is_the_model(
            start in prop::option::of(0u64..50),
            steps in prop::collection::vec((1u64..4, prop::bool::weighted(0.8)), 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut mark = LowWater::new(start);
            let (mut sent, mut open): (Vec<u64>, BTreeSet<u64>) = (Vec::new(), BTreeSet::new());
            let mut seq = start.unwrap_or(10);
            for (gap, needs_receipt) in steps {
                seq += gap;
                sent.push(seq);
                if needs_receipt {
                    mark.sent(seq);
                    open.insert(seq);
                } else {
                    mark.passed(seq);
                }
            }
            let first = sent[0];
            let expected = |open: &BTreeSet<u64>, mark_was_sent_first: bool| {
                let oldest = open.first().copied().unwrap_or(u64::MAX);
                sent.iter().copied().filter(|&seq| seq < oldest).max().or(start).or(mark_was_sent_first.then(|| first - 1))
            };
            prop_assert_eq!(mark.cursor(), expected(&open, true));
            for index in order {
                if open.is_empty() {
                    break;
                }
                let taken = *index.get(&open.iter().copied().collect::<Vec<_>>());
                open.remove(&taken);
                mark.taken(taken);
                prop_assert_eq!(mark.cursor(), expected(&open, true));
                prop_assert_eq!(mark.outstanding(), open.len());
            }
        }
    }
}
