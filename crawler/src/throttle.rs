//! How fast a host is read: its limits as buckets. Pure.
//!
//! Nothing is ever refused here: what is over a rate is read later.

use std::time::Duration;

use runtime::bucket::{TokenBucket, Wait};
use storage::limits::HostLimits;
use tokio::time::Instant;

/// Over which time the limits of a second are kept, so that a short burst is no fault.
const BURST: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A limit on a host's stream. A closed set: the word of the admin API and the host's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Messages a second.
    EventsPerSecond,
    /// Messages an hour.
    EventsPerHour,
    /// Messages a day.
    EventsPerDay,
    /// Bytes a second.
    BytesPerSecond,
}

impl Rate {
    /// The word, as in the file of limits.
    pub fn as_str(self) -> &'static str {
        match self {
            Rate::EventsPerSecond => "events_per_second",
            Rate::EventsPerHour => "events_per_hour",
            Rate::EventsPerDay => "events_per_day",
            Rate::BytesPerSecond => "bytes_per_second",
        }
    }
}

/// A host is over a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The rate: of several, the one that holds it longest.
    pub by: Rate,
    /// What that rate is.
    pub limit: u64,
    /// When the next message is taken.
    pub until: Instant,
    /// When the whole allowance is there again if the host sends nothing until then.
    pub restored_at: Instant,
}

/// What a host has used of its limits.
#[derive(Clone, Debug)]
pub struct Throttle {
    limits: HostLimits,
    buckets: [Option<(u64, TokenBucket)>; 4],
}

const RATES: [Rate; 4] = [Rate::EventsPerSecond, Rate::EventsPerHour, Rate::EventsPerDay, Rate::BytesPerSecond];

impl Throttle {
    /// Nothing is used yet.
    pub fn new(limits: HostLimits) -> Throttle {
        Throttle { limits, buckets: RATES.map(|rate| bucket(&limits, rate)) }
    }

    /// Other limits from now on. What has been used of a limit that stays is not forgotten.
    pub fn set(&mut self, limits: HostLimits) {
        for (at, rate) in RATES.into_iter().enumerate() {
            if limit(&limits, rate) != limit(&self.limits, rate) {
                self.buckets[at] = bucket(&limits, rate);
            }
        }
        self.limits = limits;
    }

    /// Counts a message, and says how long to wait before it is taken.
    pub fn take(&mut self, now: Instant, bytes: u32) -> Option<Held> {
        let mut held: Option<Held> = None;
        for (rate, bucket) in RATES.into_iter().zip(&mut self.buckets) {
            let Some((limit, bucket)) = bucket else { continue };
            let tokens = match rate {
                Rate::EventsPerSecond | Rate::EventsPerHour | Rate::EventsPerDay => 1,
                Rate::BytesPerSecond => bytes,
            };
            let Wait::For(wait) = bucket.take(now, tokens) else { continue };
            let until = now + wait;
            if held.is_none_or(|held| until > held.until) {
                held = Some(Held { by: rate, limit: *limit, until, restored_at: now + bucket.full_in(now) });
            }
        }
        held
    }
}

fn limit(limits: &HostLimits, rate: Rate) -> Option<std::num::NonZeroU64> {
    match rate {
        Rate::EventsPerSecond => limits.events_per_second,
        Rate::EventsPerHour => limits.events_per_hour,
        Rate::EventsPerDay => limits.events_per_day,
        Rate::BytesPerSecond => limits.bytes_per_second,
    }
}

fn bucket(limits: &HostLimits, rate: Rate) -> Option<(u64, TokenBucket)> {
    let limit = limit(limits, rate)?;
    let bucket = match rate {
        Rate::EventsPerSecond | Rate::BytesPerSecond => {
            TokenBucket::over(limit.saturating_mul(std::num::NonZeroU64::new(10).expect("10 is not 0")), BURST)
        }
        Rate::EventsPerHour => TokenBucket::over(limit, HOUR),
        Rate::EventsPerDay => TokenBucket::over(limit, DAY),
    };
    Some((limit.get(), bucket))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn limits(second: u64, hour: u64, day: u64, bytes: u64) -> HostLimits {
        let [second, hour, day, bytes] = [second, hour, day, bytes].map(NonZeroU64::new);
        HostLimits {
            events_per_second: second,
            events_per_hour: hour,
            events_per_day: day,
            bytes_per_second: bytes,
            accounts_max: None,
        }
    }

    /// Takes messages as they are allowed, and tells how many went by in a time, and what held the last.
    fn run(throttle: &mut Throttle, start: Instant, during: Duration, bytes: u32) -> (u64, Option<Rate>) {
        let (mut now, mut taken, mut by) = (start, 0, None);
        loop {
            if let Some(held) = throttle.take(now, bytes) {
                assert!(held.until > now && held.restored_at >= held.until);
                now = held.until;
                by = Some(held.by);
            }
            if now > start + during {
                return (taken, by);
            }
            taken += 1;
            if taken > 1_000_000 {
                return (taken, by);
            }
        }
    }

    #[test]
    fn each_limit_holds_and_says_so() {
        let start = Instant::now();
        for (of, during, bytes, expected, by) in [
            (limits(50, 0, 0, 0), Duration::from_secs(100), 100, 50 * 110, Some(Rate::EventsPerSecond)),
            (limits(50, 600, 0, 0), HOUR, 100, 1_200, Some(Rate::EventsPerHour)),
            (limits(50, 600, 1_000, 0), DAY, 100, 2_000, Some(Rate::EventsPerDay)),
            (limits(50, 0, 0, 1_000), Duration::from_secs(90), 500, 200, Some(Rate::BytesPerSecond)),
        ] {
            let (taken, held_by) = run(&mut Throttle::new(of), start, during, bytes);
            assert!(taken.abs_diff(expected) <= 2, "{of:?}: {taken}");
            assert_eq!(held_by, by, "{of:?}");
        }
        assert_eq!(run(&mut Throttle::new(HostLimits::UNLIMITED), start, DAY, u32::MAX), (1_000_001, None));
    }

    #[test]
    fn a_change_forgets_only_what_it_changes() {
        let start = Instant::now();
        let mut throttle = Throttle::new(limits(1, 100, 0, 0));
        run(&mut throttle, start, Duration::from_secs(60), 1);
        throttle.set(limits(1_000, 100, 0, 0));
        // 70 of the 100 are used.
        let (taken, by) = run(&mut throttle, start + Duration::from_secs(60), Duration::from_secs(5), 1);
        assert!((30..=33).contains(&taken), "{taken}");
        assert_eq!(by, Some(Rate::EventsPerHour));
        throttle.set(HostLimits::UNLIMITED);
        assert_eq!(throttle.take(start, 1), None);
    }
}
