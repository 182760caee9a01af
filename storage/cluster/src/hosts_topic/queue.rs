//! What the crawler has not heard yet. Bounded: a share has few changes at a time, and of nudges what is too much is
//! left out, since rows are looked at anyway.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use storage::hosts::{Change, Nudge};
use tokio::sync::Notify;

/// Nudges kept at most.
const NUDGES_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    changes: VecDeque<Change>,
    nudges: HashSet<Nudge>,
}

impl Queue {
    pub(super) fn push(&self, change: Change) {
        self.waiting().changes.push_back(change);
        self.more.notify_one();
    }

    /// Gives whether there is room for it. Two of the same are one.
    pub(super) fn nudge(&self, nudge: Nudge) -> bool {
        let mut waiting = self.waiting();
        if waiting.nudges.len() >= NUDGES_MAX && !waiting.nudges.contains(&nudge) {
            return false;
        }
        waiting.nudges.insert(nudge);
        self.more.notify_one();
        true
    }

    /// The next change, shares' before nudges. One caller. Cancel-safe.
    pub(super) async fn next(&self) -> Change {
        loop {
            if let Some(change) = self.pop() {
                return change;
            }
            self.more.notified().await;
        }
    }

    fn pop(&self) -> Option<Change> {
        let mut waiting = self.waiting();
        if let Some(change) = waiting.changes.pop_front() {
            return Some(change);
        }
        let nudge = waiting.nudges.iter().next().cloned()?;
        waiting.nudges.remove(&nudge);
        Some(Change::Nudged(nudge))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use atproto::syntax::HostName;
    use storage::hosts::Shard;

    use super::*;

    #[tokio::test]
    async fn shares_come_first_and_nudges_once() {
        let queue = Queue::default();
        let host = |number| Nudge::Host(HostName::parse(&format!("h{number}.example")).unwrap());
        assert!(queue.nudge(host(0)) && queue.nudge(host(0)));
        queue.push(Change::Given(Shard(1)));
        queue.push(Change::Gone(Shard(1)));
        assert_eq!(queue.next().await, Change::Given(Shard(1)));
        assert_eq!(queue.next().await, Change::Gone(Shard(1)));
        assert_eq!(queue.next().await, Change::Nudged(host(0)));
        assert!((0..NUDGES_MAX).all(|number| queue.nudge(host(number))));
        assert!(!queue.nudge(Nudge::Policy), "there is no room");
        assert!(queue.nudge(host(1)), "it is there already");
    }
}
