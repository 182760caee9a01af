//! The life of one host. Pure.
//!
//! ```text
//!            Tick, when due           Opened
//!   Waiting ───────────────▶ Opening ────────▶ Reading
//!      ▲  ▲                     │                 │
//!      │  ├──────── Ended ──────┴─────────────────┤        (waits by back-off, for ever)
//!      │  └──────── Restarted ────────────────────┘        (due at once)
//!      │
//!   Unbanned                   Banned: from everywhere
//!      └────────── Banned ◀───────────────
//! ```
//!
//! There is no dead end: from every state but Banned time alone leads to another try, and an operator leads out of
//! Banned. A host that fails is tried after waits that double up to a few minutes; one that has not worked for a day,
//! about every hour.

use std::time::Duration;

use rand::{Rng, RngExt};
use runtime::backoff::Backoff;
use storage::hosts::HostStatus;
use tokio::time::Instant;

/// How a host is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The wait after a first failure.
    pub backoff_base: Duration,
    /// The longest wait of a host that has worked within the last [`Timing::rarely_after`].
    pub backoff_cap: Duration,
    /// A host that has failed for this long is tried rarely.
    pub rarely_after: Duration,
    /// How often that is; each wait is up to a quarter shorter or longer.
    pub rarely_every: Duration,
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
            rarely_after: Duration::from_secs(24 * 3_600),
            rarely_every: Duration::from_secs(3_600),
            healthy_after: Duration::from_secs(60),
            nudge_gap: Duration::from_secs(10),
            throttled_for: Duration::from_secs(5),
        }
    }
}

/// Where a host is in its life, for people. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A connection is being made.
    Connecting,
    /// It is read.
    Active,
    /// It waits for its next try, and nothing much is wrong.
    Idle,
    /// It is read more slowly than it sends.
    Throttled,
    /// It fails time and again, and is tried ever more rarely, for ever.
    Offline,
    /// It is not read, by an operator's word.
    Banned,
}

impl Phase {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Connecting => "connecting",
            Phase::Active => "active",
            Phase::Idle => "idle",
            Phase::Throttled => "throttled",
            Phase::Offline => "offline",
            Phase::Banned => "banned",
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
    /// It sends more than its rate allows: nothing more is taken from it until then.
    Slowed {
        /// When the next message is taken.
        until: Instant,
    },
    /// It is to be read from another place at once: an operator's word.
    Restarted,
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
    /// The first of the failures since it last worked.
    failing_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { until: Instant },
    Opening,
    Reading { since: Instant, slowed_until: Option<Instant> },
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
            failing_since: None,
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
                State::Reading { since: now, slowed_until: None }
            }
            (State::Reading { since, .. }, Input::Slowed { until }) => {
                State::Reading { since, slowed_until: Some(until) }
            }
            (State::Waiting { .. } | State::Opening | State::Reading { .. }, Input::Restarted) => {
                State::Waiting { until: now }
            }
            (State::Opening, Input::Ended { retry_after, .. }) => self.wait(now, retry_after, rng),
            (State::Reading { since, .. }, Input::Ended { retry_after, .. }) => {
                if now.duration_since(since) >= self.timing.healthy_after {
                    self.backoff.reset();
                    self.failing_since = None;
                }
                self.wait(now, retry_after, rng)
            }
            (State::Waiting { .. } | State::Opening | State::Reading { .. }, Input::Banned) => State::Banned,
            (State::Banned, Input::Unbanned) => {
                self.backoff.reset();
                self.failing_since = None;
                State::Waiting { until: now }
            }
            (
                state @ State::Waiting { .. },
                Input::Tick | Input::Opened | Input::Slowed { .. } | Input::Ended { .. } | Input::Unbanned,
            )
            | (state @ State::Opening, Input::Tick | Input::Nudged | Input::Slowed { .. } | Input::Unbanned)
            | (state @ State::Reading { .. }, Input::Tick | Input::Nudged | Input::Opened | Input::Unbanned)
            | (
                state @ State::Banned,
                Input::Tick
                | Input::Nudged
                | Input::Opened
                | Input::Slowed { .. }
                | Input::Ended { .. }
                | Input::Restarted
                | Input::Banned,
            ) => state,
        };
        match self.state {
            State::Waiting { until } => Action::Wait(until),
            State::Opening => Action::Open,
            State::Reading { .. } => Action::Read,
            State::Banned => Action::Rest,
        }
    }

    /// Where it is in its life.
    pub fn phase(&self, now: Instant) -> Phase {
        match self.state {
            State::Reading { slowed_until: Some(until), .. } if now < until + self.timing.throttled_for => {
                Phase::Throttled
            }
            State::Reading { .. } => Phase::Active,
            State::Opening => Phase::Connecting,
            State::Waiting { .. } => self.unread(),
            State::Banned => Phase::Banned,
        }
    }

    /// The host's status, in the lexicon's words, which know no connecting.
    pub fn status(&self, now: Instant) -> HostStatus {
        let phase = match self.phase(now) {
            Phase::Connecting => self.unread(),
            phase => phase,
        };
        match phase {
            Phase::Active => HostStatus::Active,
            Phase::Throttled => HostStatus::Throttled,
            Phase::Offline => HostStatus::Offline,
            Phase::Banned => HostStatus::Banned,
            Phase::Idle | Phase::Connecting => HostStatus::Idle,
        }
    }

    /// Failures in a row, since it last worked.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    fn unread(&self) -> Phase {
        let failures = self.backoff.failures();
        let offline = failures >= OFFLINE_AFTER_FAILURES || (failures > 0 && !self.opened_ever);
        if offline { Phase::Offline } else { Phase::Idle }
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
        let timing = &self.timing;
        let failing_for = now.duration_since(*self.failing_since.get_or_insert(now));
        let backoff = self.backoff.next(rng);
        let wait = match failing_for < timing.rarely_after {
            true => backoff,
            false => backoff.max(timing.rarely_every.mul_f64(rng.random_range(0.75..=1.25))),
        };
        // A host's wish is heard, but not one to be left alone for days.
        let asked = retry_after.unwrap_or_default().min(timing.backoff_cap);
        State::Waiting { until: now + wait.max(asked) }
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
        rarely_after: Duration::from_secs(24 * 3_600),
        rarely_every: Duration::from_secs(3_600),
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
        run_from(Instant::now(), script);
    }

    fn run_from(start: Instant, script: &[(f64, Input, Expected, HostStatus)]) {
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
        let start = Instant::now();
        let until = |s| Input::Slowed { until: start + Duration::from_secs_f64(s) };
        run_from(
            start,
            &[
                (0.0, Input::Tick, Open, Idle),
                (0.1, Input::Opened, Read, Active),
                (1.0, until(3.0), Read, Throttled),
                (7.9, Input::Tick, Read, Throttled),
                (8.1, Input::Tick, Read, Active),
                (8.2, until(60.0), Read, Throttled),
                (64.9, Input::Nudged, Read, Throttled),
                (65.0, Input::Restarted, WaitS(0.0, 0.0), Idle),
                (65.0, Input::Tick, Open, Idle),
                (65.0, Input::Opened, Read, Active),
                (66.0, Input::Nudged, Read, Active),
                (200.0, ended(End::Closed), WaitS(0.5, 1.0), Idle),
                (200.1, Input::Tick, WaitS(0.3, 0.9), Idle),
                (201.0, Input::Tick, Open, Idle),
                (201.1, Input::Opened, Read, Active),
                (900.0, ended(End::Broken), WaitS(0.5, 1.0), Idle),
            ],
        );
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
    fn a_failing_host_is_tried_for_ever_every_few_minutes_then_every_hour_and_nudged_at_once() {
        let start = Instant::now();
        let mut now = start;
        let mut rng = SmallRng::seed_from_u64(5);
        let mut machine = Machine::new(TIMING, false, now);
        let mut fail = |machine: &mut Machine, now| {
            assert_eq!(machine.step(now, Input::Tick, &mut rng), Action::Open);
            assert_eq!(machine.phase(now), Phase::Connecting);
            let Action::Wait(until) = machine.step(now, ended(End::Unreachable), &mut rng) else { panic!("no wait") };
            (until, (until - now).as_secs_f64())
        };
        let mut tries = 0;
        while now < start + TIMING.rarely_after {
            let (until, wait) = fail(&mut machine, now);
            assert!((0.5..=300.0).contains(&wait), "{wait}");
            (now, tries) = (until, tries + 1);
        }
        assert!((288..600).contains(&tries), "{tries} in the first day");
        for _ in 0..1_000 {
            let (until, wait) = fail(&mut machine, now);
            assert!((2_700.0..=4_500.0).contains(&wait), "{wait}");
            assert_eq!(machine.phase(until), Phase::Offline);
            now = until;
        }
        let (_, _) = fail(&mut machine, now);
        now += TIMING.nudge_gap;
        let mut rng = SmallRng::seed_from_u64(6);
        assert_eq!(machine.step(now, Input::Nudged, &mut rng), Action::Wait(now));
        // It works for a while: all is forgotten.
        machine.step(now, Input::Tick, &mut rng);
        machine.step(now, Input::Opened, &mut rng);
        now += TIMING.healthy_after;
        let Action::Wait(until) = machine.step(now, ended(End::Closed), &mut rng) else { panic!("no wait") };
        assert!(until - now <= TIMING.backoff_base);
        assert_eq!(machine.phase(now), Phase::Idle);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            4 => Just(Input::Tick),
            1 => Just(Input::Nudged),
            2 => Just(Input::Opened),
            1 => (0u64..5_000).prop_map(|ms| Input::Slowed { until: Instant::now() + Duration::from_millis(ms) }),
            1 => Just(Input::Restarted),
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
                    (_, _, Input::Unbanned | Input::Nudged | Input::Restarted) => None,
                    (Action::Open | Action::Read, Action::Wait(_), _) => Some(now),
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
