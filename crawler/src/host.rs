//! The life of one host. Pure.
//!
//! ```text
//!            Tick, when due           Opened
//!   Waiting ───────────────▶ Opening ────────▶ Reading
//!      ▲  ▲                     │                 │
//!      │  └──────── Ended ──────┴─────────────────┘        (waits by back-off, for ever)
//!      │
//!   Unbanned                   Banned: from everywhere
//!      └────────── Banned ◀───────────────
//! ```
//!
//! There is no dead end: from every state but Banned time alone leads to another try, and an operator leads out of
//! Banned.

use std::time::Duration;

use rand::Rng;
use runtime::backoff::Backoff;
use storage::hosts::HostStatus;
use tokio::time::Instant;

/// How a host is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The wait after a first failure.
    pub backoff_base: Duration,
    /// The longest wait.
    pub backoff_cap: Duration,
    /// A connection that lasted this long shows that the host works: the back-off begins anew. One that ends sooner
    /// counts as a failure, so that a host that accepts and drops is not tried in a loop.
    pub healthy_after: Duration,
    /// Somebody's wish to have the host read now (requestCrawl) does not bring two tries closer together than this.
    pub nudge_gap: Duration,
    /// How long a host counts as throttled after it was last slowed.
    pub throttled_for: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(300),
            healthy_after: Duration::from_secs(60),
            nudge_gap: Duration::from_secs(10),
            throttled_for: Duration::from_secs(5),
        }
    }
}

/// Why a try or a connection ended. A closed set: the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It can't be reached: no address, no connection, no TLS, or an address that the policy forbids.
    Unreachable,
    /// It answered the handshake with something else than a WebSocket, a redirect included.
    Refused,
    /// It closed the connection.
    Closed,
    /// The connection broke.
    Broken,
    /// It did not answer a ping, or never finished a message.
    Silent,
    /// It broke the WebSocket protocol.
    Protocol,
    /// It said `ConsumerTooSlow`.
    TooSlow,
    /// It said `FutureCursor`: it counts anew.
    Reset,
    /// It sent another error frame.
    ErrorFrame,
    /// Our own intake failed.
    Intake,
}

impl End {
    /// All of them.
    pub const ALL: [End; 10] = [
        End::Unreachable,
        End::Refused,
        End::Closed,
        End::Broken,
        End::Silent,
        End::Protocol,
        End::TooSlow,
        End::Reset,
        End::ErrorFrame,
        End::Intake,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Unreachable => "unreachable",
            End::Refused => "refused",
            End::Closed => "closed",
            End::Broken => "broken",
            End::Silent => "silent",
            End::Protocol => "protocol",
            End::TooSlow => "too_slow",
            End::Reset => "reset",
            End::ErrorFrame => "error_frame",
            End::Intake => "intake",
        }
    }
}

/// What happens to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// Somebody wishes it to be read.
    Nudged,
    /// The handshake is done.
    Opened,
    /// It sends more than its rate allows and is being slowed.
    Slowed,
    /// The try or the connection has ended.
    Ended {
        /// Why.
        end: End,
        /// How long the host asks to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// An operator's word.
    Banned,
    /// An operator takes it back.
    Unbanned,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until this moment; then `Tick`.
    Wait(Instant),
    /// Open a connection; then `Opened` or `Ended`.
    Open,
    /// Read the open connection until `Ended`.
    Read,
    /// Nothing, and keep no connection, until an operator's word.
    Rest,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Machine {
    timing: Timing,
    state: State,
    backoff: Backoff,
    last_try: Option<Instant>,
    opened_ever: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { until: Instant },
    Opening,
    Reading { since: Instant, slowed_at: Option<Instant> },
    Banned,
}

/// After this many failures in a row a host that once worked is called offline.
const OFFLINE_AFTER_FAILURES: u32 = 3;

impl Machine {
    /// A host that is due now, unless it is banned.
    pub fn new(timing: Timing, banned: bool, now: Instant) -> Machine {
        Machine {
            timing,
            state: if banned { State::Banned } else { State::Waiting { until: now } },
            backoff: Backoff::new(timing.backoff_base, timing.backoff_cap),
            last_try: None,
            opened_ever: false,
        }
    }

    /// Takes an input and says what to do. An input that does not concern the present state changes nothing.
    pub fn step(&mut self, now: Instant, input: Input, rng: &mut impl Rng) -> Action {
        self.state = match (self.state, input) {
            (State::Waiting { until }, Input::Tick) if now >= until => {
                self.last_try = Some(now);
                State::Opening
            }
            (State::Waiting { until }, Input::Nudged) => {
                let soonest = self.last_try.map_or(now, |last| last + self.timing.nudge_gap);
                State::Waiting { until: until.min(soonest.max(now)) }
            }
            (State::Opening, Input::Opened) => {
                self.opened_ever = true;
                State::Reading { since: now, slowed_at: None }
            }
            (State::Reading { since, .. }, Input::Slowed) => State::Reading { since, slowed_at: Some(now) },
            (State::Opening, Input::Ended { retry_after, .. }) => self.wait(now, retry_after, rng),
            (State::Reading { since, .. }, Input::Ended { retry_after, .. }) => {
                if now.duration_since(since) >= self.timing.healthy_after {
                    self.backoff.reset();
                }
                self.wait(now, retry_after, rng)
            }
            (State::Waiting { .. } | State::Opening | State::Reading { .. }, Input::Banned) => State::Banned,
            (State::Banned, Input::Unbanned) => {
                self.backoff.reset();
                State::Waiting { until: now }
            }
            (state @ State::Waiting { .. }, Input::Tick | Input::Opened | Input::Slowed | Input::Ended { .. })
            | (state @ State::Waiting { .. }, Input::Unbanned)
            | (state @ State::Opening, Input::Tick | Input::Nudged | Input::Slowed | Input::Unbanned)
            | (state @ State::Reading { .. }, Input::Tick | Input::Nudged | Input::Opened | Input::Unbanned)
            | (
                state @ State::Banned,
                Input::Tick | Input::Nudged | Input::Opened | Input::Slowed | Input::Ended { .. } | Input::Banned,
            ) => state,
        };
        match self.state {
            State::Waiting { until } => Action::Wait(until),
            State::Opening => Action::Open,
            State::Reading { .. } => Action::Read,
            State::Banned => Action::Rest,
        }
    }

    /// The host's status, in the lexicon's words.
    pub fn status(&self, now: Instant) -> HostStatus {
        match self.state {
            State::Reading { slowed_at: Some(at), .. } if now.duration_since(at) < self.timing.throttled_for => {
                HostStatus::Throttled
            }
            State::Reading { .. } => HostStatus::Active,
            State::Waiting { .. } | State::Opening => {
                let failures = self.backoff.failures();
                let offline = failures >= OFFLINE_AFTER_FAILURES || (failures > 0 && !self.opened_ever);
                if offline { HostStatus::Offline } else { HostStatus::Idle }
            }
            State::Banned => HostStatus::Banned,
        }
    }

    /// Since when it is being read.
    pub fn reading_since(&self) -> Option<Instant> {
        match self.state {
            State::Reading { since, .. } => Some(since),
            State::Waiting { .. } | State::Opening | State::Banned => None,
        }
    }

    /// When it will be tried again, where that is what it waits for.
    pub fn next_try(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Opening | State::Reading { .. } | State::Banned => None,
        }
    }

    fn wait(&mut self, now: Instant, retry_after: Option<Duration>, rng: &mut impl Rng) -> State {
        // A host's wish is heard, but not one to be left alone for days.
        let asked = retry_after.unwrap_or_default().min(self.timing.backoff_cap);
        State::Waiting { until: now + self.backoff.next(rng).max(asked) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const TIMING: Timing = Timing {
        backoff_base: Duration::from_secs(1),
        backoff_cap: Duration::from_secs(300),
        healthy_after: Duration::from_secs(60),
        nudge_gap: Duration::from_secs(10),
        throttled_for: Duration::from_secs(5),
    };

    fn ended(end: End) -> Input {
        Input::Ended { end, retry_after: None }
    }

    /// What a row of the tables expects.
    #[derive(Clone, Copy, Debug)]
    enum Expected {
        /// A wait between so many seconds from now.
        WaitS(f64, f64),
        Open,
        Read,
        Rest,
    }

    /// Runs a script of (seconds from the start, input, action, status).
    fn run(script: &[(f64, Input, Expected, HostStatus)]) {
        let start = Instant::now();
        let mut rng = SmallRng::seed_from_u64(3);
        let mut machine = Machine::new(TIMING, false, start);
        for (row, &(at_s, input, expected, status)) in script.iter().enumerate() {
            let now = start + Duration::from_secs_f64(at_s);
            let action = machine.step(now, input, &mut rng);
            let fits = match (action, expected) {
                (Action::Wait(until), Expected::WaitS(from, to)) => {
                    (from..=to).contains(&until.saturating_duration_since(now).as_secs_f64())
                }
                (Action::Open, Expected::Open) | (Action::Read, Expected::Read) | (Action::Rest, Expected::Rest) => {
                    true
                }
                (Action::Wait(_) | Action::Open | Action::Read | Action::Rest, _) => false,
            };
            assert!(fits, "row {row}: {input:?} gave {action:?}, not {expected:?}");
            assert_eq!(machine.status(now), status, "row {row}");
        }
    }

    use Expected::{Open, Read, Rest, WaitS};
    use HostStatus::{Active, Banned, Idle, Offline, Throttled};

    #[test]
    fn a_good_life() {
        run(&[
            (0.0, Input::Tick, Open, Idle),
            (0.1, Input::Opened, Read, Active),
            (1.0, Input::Slowed, Read, Throttled),
            (5.9, Input::Tick, Read, Throttled),
            (6.1, Input::Tick, Read, Active),
            (7.0, Input::Nudged, Read, Active),
            (100.0, ended(End::Closed), WaitS(0.5, 1.0), Idle),
            (100.1, Input::Tick, WaitS(0.3, 0.9), Idle),
            (101.0, Input::Tick, Open, Idle),
            (101.1, Input::Opened, Read, Active),
            (900.0, ended(End::Broken), WaitS(0.5, 1.0), Idle),
        ]);
    }

    #[test]
    fn accepts_and_drops() {
        run(&[
            (0.0, Input::Tick, Open, Idle),
            (0.0, Input::Opened, Read, Active),
            (0.0, ended(End::Closed), WaitS(0.5, 1.0), Idle),
            (1.0, Input::Tick, Open, Idle),
            (1.0, Input::Opened, Read, Active),
            (1.0, ended(End::Closed), WaitS(1.0, 2.0), Idle),
            (3.0, Input::Tick, Open, Idle),
            (3.0, Input::Opened, Read, Active),
            (3.0, ended(End::ErrorFrame), WaitS(2.0, 4.0), Offline),
            (7.0, Input::Tick, Open, Offline),
            (7.0, Input::Opened, Read, Active),
            (66.0, ended(End::TooSlow), WaitS(4.0, 8.0), Offline),
        ]);
    }

    #[test]
    fn never_reached_then_reached_then_nudged() {
        run(&[
            (0.0, Input::Tick, Open, Idle),
            (0.5, ended(End::Unreachable), WaitS(0.5, 1.0), Offline),
            (2.0, Input::Tick, Open, Offline),
            (
                2.5,
                Input::Ended { end: End::Refused, retry_after: Some(Duration::from_secs(120)) },
                WaitS(120.0, 120.0),
                Offline,
            ),
            (3.0, Input::Nudged, WaitS(9.0, 9.0), Offline),
            (11.9, Input::Tick, WaitS(0.0, 0.2), Offline),
            (12.0, Input::Tick, Open, Offline),
            (12.1, Input::Ended { end: End::Refused, retry_after: Some(Duration::MAX) }, WaitS(300.0, 300.0), Offline),
            (90.0, Input::Nudged, WaitS(0.0, 0.0), Offline),
            (90.0, Input::Tick, Open, Offline),
            (90.1, Input::Opened, Read, Active),
        ]);
    }

    #[test]
    fn banned_from_everywhere_and_back() {
        run(&[
            (0.0, Input::Banned, Rest, Banned),
            (1.0, Input::Tick, Rest, Banned),
            (1.0, Input::Nudged, Rest, Banned),
            (2.0, Input::Unbanned, WaitS(0.0, 0.0), Idle),
            (2.0, Input::Tick, Open, Idle),
            (2.0, Input::Banned, Rest, Banned),
            (2.5, ended(End::Unreachable), Rest, Banned),
            (2.6, Input::Opened, Rest, Banned),
            (3.0, Input::Unbanned, WaitS(0.0, 0.0), Idle),
            (3.0, Input::Tick, Open, Idle),
            (3.0, Input::Opened, Read, Active),
            (4.0, Input::Banned, Rest, Banned),
        ]);
    }

    #[test]
    fn a_failing_host_is_tried_for_ever_at_the_cap() {
        let mut now = Instant::now();
        let mut rng = SmallRng::seed_from_u64(5);
        let mut machine = Machine::new(TIMING, false, now);
        for _ in 0..100 {
            assert_eq!(machine.step(now, Input::Tick, &mut rng), Action::Open);
            let Action::Wait(until) = machine.step(now, ended(End::Unreachable), &mut rng) else { panic!("no wait") };
            now = until;
        }
        assert_eq!(machine.status(now), Offline);
        let last = machine.step(now, Input::Tick, &mut rng);
        assert_eq!(last, Action::Open);
        let Action::Wait(until) = machine.step(now, ended(End::Unreachable), &mut rng) else { panic!("no wait") };
        assert!((150.0..=300.0).contains(&(until - now).as_secs_f64()));
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            4 => Just(Input::Tick),
            1 => Just(Input::Nudged),
            2 => Just(Input::Opened),
            1 => Just(Input::Slowed),
            2 => (0usize..End::ALL.len(), prop::option::of(0u64..1_000)).prop_map(|(end, retry_s)| Input::Ended {
                end: End::ALL[end],
                retry_after: retry_s.map(Duration::from_secs),
            }),
            1 => Just(Input::Banned),
            1 => Just(Input::Unbanned),
        ]
    }

    proptest! {
        /// After anything at all: unbanned and given time, the host is tried within the cap; and two tries are never
        /// closer than half the base.
        #[test]
        fn no_dead_end_and_no_hot_loop(inputs in prop::collection::vec((any_input(), 0u64..2_000), 0..60), seed: u64) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let mut machine = Machine::new(TIMING, false, now);
            let (mut was, mut failed_at) = (Action::Wait(now), None);
            for (input, after_ms) in inputs {
                now += Duration::from_millis(after_ms);
                let action = machine.step(now, input, &mut rng);
                if action == Action::Open && was != Action::Open
                    && let Some(failed_at) = failed_at
                {
                    prop_assert!(now.duration_since(failed_at) >= TIMING.backoff_base / 2);
                }
                failed_at = match (was, action, input) {
                    (Action::Open | Action::Read, Action::Wait(_), _) => Some(now),
                    (_, _, Input::Unbanned | Input::Nudged) => None,
                    _ => failed_at,
                };
                was = action;
            }
            match machine.step(now, Input::Tick, &mut rng) {
                Action::Rest => {
                    let wait = machine.step(now, Input::Unbanned, &mut rng);
                    prop_assert_eq!(wait, Action::Wait(now));
                }
                Action::Open | Action::Read => {
                    machine.step(now, ended(End::Broken), &mut rng);
                }
                Action::Wait(_) => {}
            }
            now += TIMING.backoff_cap;
            prop_assert_eq!(machine.step(now, Input::Tick, &mut rng), Action::Open);
        }
    }
}
