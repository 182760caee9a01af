//! When the next request to one kind of place may leave. Pure.
//!
//! What must hold: never more than so many under way and so many a second; nobody is asked who said when to come back; and
//! a directory that answers nobody is only probed, so that it is not run down when it comes back, and nobody waits for a
//! time-out of his own to learn that it is down.

use std::{num::NonZeroU32, time::Duration};

use atproto::syntax::Did;
use runtime::bucket::TokenBucket;
use tokio::time::Instant;

use super::{lookups::Flight, turns::Turns};

/// So many accounts after each other for which no answer came, and the directory is taken to be silent.
const SILENCES_MAX: u32 = 5;

/// Requests under way to a silent directory.
const PROBES_MAX: usize = 2;

/// Bounds of one gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) concurrent_max: usize,
    pub(super) per_second: NonZeroU32,
    /// How often it is probed when it is silent; `None` where one's silence says nothing of others.
    pub(super) probe_every: Option<Duration>,
}

/// What may leave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This, now.
    Leave(Flight),
    /// Something, at this time and not before.
    At(Instant),
    /// Nothing is ready, or all room is taken.
    None,
}

pub(super) struct Gate {
    limits: Limits,
    pub(super) turns: Turns,
    bucket: TokenBucket,
    flying: usize,
    /// By the rate, or by a word of who is asked.
    not_before: Option<Instant>,
    /// While it is silent.
    probe_not_before: Option<Instant>,
    silences: u32,
    last_silent: Option<Did>,
    /// When the last answered request began.
    answered_at_micros: u64,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(limits: Limits) -> Gate {
        // A tenth of a second's requests may leave together: enough to keep the rate on a coarse timer.
        let burst = NonZeroU32::new(limits.per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
        Gate {
            bucket: TokenBucket::new(limits.per_second, burst),
            limits,
            turns: Turns::default(),
            flying: 0,
            not_before: None,
            probe_not_before: None,
            silences: 0,
            last_silent: None,
            answered_at_micros: 0,
        }
    }

    /// Requests under way.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// Whether nobody gets an answer.
    pub(super) fn is_silent(&self) -> bool {
        self.limits.probe_every.is_some() && self.silences >= SILENCES_MAX
    }

    /// See [`Limits`] and the module's documentation.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let room =
            if self.is_silent() { PROBES_MAX.min(self.limits.concurrent_max) } else { self.limits.concurrent_max };
        if self.flying >= room || self.turns.is_empty() {
            return Next::None;
        }
        if let Some(at) = self.not_before.max(self.probe_not_before).filter(|at| *at > now) {
            return Next::At(at);
        }
        let Some(flight) = self.turns.pop() else { return Next::None };
        self.flying += 1;
        let wait = self.bucket.take(now, 1).duration();
        self.not_before = self.not_before.max(Some(now + wait));
        self.probe_not_before = self.limits.probe_every.filter(|_| self.is_silent()).map(|every| now + every);
        Next::Leave(flight)
    }

    /// A request was answered. Gives whether that ends a silence.
    pub(super) fn answered(&mut self, began_at_micros: u64) -> bool {
        self.flying = self.flying.saturating_sub(1);
        self.answered_at_micros = self.answered_at_micros.max(began_at_micros);
        self.last_silent = None;
        let was_silent = self.is_silent();
        self.silences = 0;
        self.probe_not_before = None;
        was_silent
    }

    /// One was not, and nobody is to come back before the end of `pause`. Gives whether the silence begins with it.
    pub(super) fn silent(&mut self, did: &Did, now: Instant, pause: Option<Duration>) -> bool {
        self.flying = self.flying.saturating_sub(1);
        if let Some(pause) = pause {
            self.not_before = self.not_before.max(Some(now + pause));
        }
        let was_silent = self.is_silent();
        // One account alone may be the cause of its silence.
        if self.last_silent.as_ref() != Some(did) {
            self.silences = self.silences.saturating_add(1);
            self.last_silent = Some(did.clone());
        }
        self.is_silent() && !was_silent
    }

    /// When the last answered request began, microseconds since the Unix epoch.
    pub(super) fn answered_at_micros(&self) -> u64 {
        self.answered_at_micros
    }
}

#[cfg(test)]
mod tests {
    use super::super::Asker;
    use super::*;

    fn flight(n: u32) -> Flight {
        Flight { did: did(n), not_before_micros: 0, is_retry: false }
    }

    fn did(n: u32) -> Did {
        Did::parse(&format!("did:web:{n}.example.com")).unwrap()
    }

    fn gate(concurrent_max: usize, per_second: u32, ready: u32) -> Gate {
        let per_second = NonZeroU32::new(per_second).unwrap();
        let probe_every = Some(Duration::from_millis(500));
        let mut gate = Gate::new(Limits { concurrent_max, per_second, probe_every });
        for n in 0..ready {
            gate.turns.push(flight(n), vec![Asker::Ourselves]);
        }
        gate
    }

    #[test]
    fn so_many_leave_at_once_and_so_many_a_second() {
        let mut gate = gate(100, 50, 1_000);
        let start = Instant::now();
        let mut now = start;
        let mut left = 0;
        while now < start + Duration::from_secs(10) {
            match gate.next(now) {
                Next::Leave(_) => {
                    left += 1;
                    gate.answered(0);
                }
                Next::At(at) => now = at,
                Next::None => panic!("there is room"),
            }
        }
        assert!((500..=506).contains(&left), "{left}");
        let under_way = (0..2_000).filter(|_| {
            now += Duration::from_secs(1);
            matches!(gate.next(now), Next::Leave(_))
        });
        assert_eq!(under_way.count(), 100, "and none of them came back");
    }

    #[test]
    fn a_silent_directory_is_probed_and_comes_back_at_once() {
        let mut gate = gate(100, 1_000, 1_000);
        let mut now = Instant::now();
        let mut told = 0;
        for n in 0..5 {
            assert!(!gate.is_silent());
            assert!(matches!(gate.next(now), Next::Leave(_)));
            told += u32::from(gate.silent(&did(n), now, None));
            told += u32::from(gate.silent(&did(n), now, None));
        }
        assert!(gate.is_silent());
        assert_eq!(told, 1, "five accounts, and it is said once");
        now += Duration::from_secs(1);
        assert!(matches!(gate.next(now), Next::Leave(_)));
        assert_eq!(gate.next(now), Next::At(now + Duration::from_millis(500)));
        now += Duration::from_millis(500);
        assert!(matches!(gate.next(now), Next::Leave(_)));
        now += Duration::from_secs(9);
        assert_eq!(gate.next(now), Next::None, "two probes and no more");
        assert!(gate.answered(7));
        assert!(!gate.is_silent());
        assert!((0..50).all(|_| matches!(gate.next(now), Next::Leave(_))));
        assert!(!gate.answered(8));
        assert_eq!(gate.answered_at_micros(), 8);
    }

    #[test]
    fn who_says_when_to_come_back_is_obeyed() {
        let mut gate = gate(100, 1_000, 10);
        let now = Instant::now();
        assert!(matches!(gate.next(now), Next::Leave(_)));
        gate.silent(&did(0), now, Some(Duration::from_secs(7)));
        gate.silent(&did(1), now, Some(Duration::from_secs(3)));
        assert_eq!(gate.next(now), Next::At(now + Duration::from_secs(7)));
        assert!(matches!(gate.next(now + Duration::from_secs(7)), Next::Leave(_)));
    }
}
