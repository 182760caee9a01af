//! Whether the other end of a connection is still there. Pure.
//!
//! A host that says nothing for days is healthy as long as it answers pings. Whatever bytes come count as an answer: a
//! host busy sending need not hurry with its pong.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two pings, at least; half as long again at most.
    pub ping_interval: Duration,
    /// For any byte after a ping.
    pub pong_within: Duration,
    /// For the end of a message that has begun.
    pub message_within: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            ping_interval: Duration::from_secs(20),
            pong_within: Duration::from_secs(20),
            message_within: Duration::from_secs(120),
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The end: no answer to the ping.
    NoPong,
    /// The end: a message was begun and not finished.
    Stalled,
}

/// Keeps the deadlines of one connection.
#[derive(Clone, Debug)]
pub struct Keepalive {
    patience: Patience,
    ping_at: Instant,
    pong_by: Option<Instant>,
    message_by: Option<Instant>,
}

impl Keepalive {
    /// For a connection opened now.
    pub fn new(now: Instant, patience: Patience, rng: &mut impl Rng) -> Keepalive {
        let mut keepalive = Keepalive { patience, ping_at: now, pong_by: None, message_by: None };
        keepalive.plan_ping(now, rng);
        keepalive
    }

    /// Bytes came, and were dealt with by `now`: time in which we did not read is not held against the host. `finished`
    /// tells whether they ended a message, `between` whether they ended with one.
    pub fn heard(&mut self, now: Instant, finished: bool, between: bool) {
        self.pong_by = None;
        self.message_by = match self.message_by {
            _ if between => None,
            Some(by) if !finished => Some(by),
            Some(_) | None => Some(now + self.patience.message_within),
        };
    }

    /// When to ask what is due.
    pub fn next(&self) -> Instant {
        [self.pong_by, self.message_by].into_iter().flatten().fold(self.ping_at, Instant::min)
    }

    /// What is due now. A ping that is due counts as sent.
    pub fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Due {
        if self.pong_by.is_some_and(|by| now >= by) {
            return Due::NoPong;
        }
        if self.message_by.is_some_and(|by| now >= by) {
            return Due::Stalled;
        }
        if now < self.ping_at {
            return Due::Nothing;
        }
        self.plan_ping(now, rng);
        self.pong_by = self.pong_by.or(Some(now + self.patience.pong_within));
        Due::Ping
    }

    /// Whether something is to be said now to a host that is not being read: it is over its rate, or there is no room
    /// for what it sends. Its answers can't be seen meanwhile, so nothing is expected of it.
    pub fn due_unread(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        self.pong_by = self.pong_by.map(|by| by.max(now + self.patience.pong_within));
        self.message_by = self.message_by.map(|by| by.max(now + self.patience.message_within));
        let due = now >= self.ping_at;
        if due {
            self.plan_ping(now, rng);
        }
        due
    }

    /// The host is read again after it was not for a while, which is not held against it.
    pub fn read_again(&mut self, now: Instant) {
        self.pong_by = self.pong_by.map(|_| now + self.patience.pong_within);
        self.message_by = self.message_by.map(|_| now + self.patience.message_within);
    }

    fn plan_ping(&mut self, now: Instant, rng: &mut impl Rng) {
        self.ping_at = now + self.patience.ping_interval.mul_f64(rng.random_range(1.0..=1.5));
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const PATIENCE: Patience = Patience {
        ping_interval: Duration::from_secs(20),
        pong_within: Duration::from_secs(20),
        message_within: Duration::from_secs(120),
    };

    fn fresh() -> (Keepalive, Instant, SmallRng) {
        let mut rng = SmallRng::seed_from_u64(1);
        let now = Instant::now();
        (Keepalive::new(now, PATIENCE, &mut rng), now, rng)
    }

    #[test]
    fn a_silent_host_that_answers_pings_stays() {
        let (mut keepalive, mut now, mut rng) = fresh();
        for _ in 0..1_000 {
            let next = keepalive.next();
            assert!((20.0..=30.0).contains(&(next - now).as_secs_f64()));
            now = next;
            assert_eq!(keepalive.due(now, &mut rng), Due::Ping);
            assert_eq!(keepalive.next(), now + Duration::from_secs(20), "the pong's deadline");
            keepalive.heard(now + Duration::from_secs(1), false, true);
        }
    }

    #[test]
    fn one_that_does_not_is_ended() {
        let (mut keepalive, _, mut rng) = fresh();
        let asked = keepalive.next();
        assert_eq!(keepalive.due(asked, &mut rng), Due::Ping);
        assert_eq!(keepalive.due(asked + Duration::from_secs(19), &mut rng), Due::Nothing);
        assert_eq!(keepalive.due(asked + Duration::from_secs(20), &mut rng), Due::NoPong);
    }

    #[test]
    fn time_in_which_the_host_was_not_read_is_not_held_against_it() {
        let (mut keepalive, start, mut rng) = fresh();
        let asked = keepalive.next();
        assert_eq!(keepalive.due(asked, &mut rng), Due::Ping);
        keepalive.heard(asked, false, false);
        let mut now = start;
        for _ in 0..100 {
            let next = keepalive.next();
            assert!(next > now, "no loop without a wait");
            now = next;
            keepalive.due_unread(now, &mut rng);
        }
        assert!(now > start + Duration::from_secs(1_000));
        keepalive.read_again(now);
        assert!(!matches!(keepalive.due(now, &mut rng), Due::NoPong | Due::Stalled));
        assert_eq!(keepalive.due(now + Duration::from_secs(121), &mut rng), Due::Stalled);
    }

    #[test]
    fn a_message_that_trickles_is_ended_and_a_stream_of_messages_is_not() {
        let (mut keepalive, start, mut rng) = fresh();
        let mut at = |keepalive: &mut Keepalive, s: u64, finished| {
            let now = start + Duration::from_secs(s);
            keepalive.heard(now, finished, false);
            keepalive.due(now, &mut rng)
        };
        for s in (0..300).step_by(10) {
            assert!(!matches!(at(&mut keepalive, s, true), Due::Stalled | Due::NoPong), "busy at {s}");
        }
        for s in (300..410).step_by(10) {
            assert!(!matches!(at(&mut keepalive, s, false), Due::Stalled | Due::NoPong), "patient at {s}");
        }
        assert_eq!(at(&mut keepalive, 410, false), Due::Stalled);
    }
}
