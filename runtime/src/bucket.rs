//! A token bucket that slows its caller down and never refuses. Pure.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use tokio::time::Instant;

/// Lets `burst` pass at once and `per_second` in the long run. It keeps one instant: when all that was taken so far
/// will have been paid for.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: Duration,
    paid_at: Option<Instant>,
}

/// A debt is never larger than this, so that one enormous message is paid for some day.
const DEBT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What the caller does before it takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Goes on.
    None,
    /// Waits this long.
    For(Duration),
}

impl Wait {
    /// The wait, zero for none.
    pub fn duration(self) -> Duration {
        match self {
            Wait::None => Duration::ZERO,
            Wait::For(wait) => wait,
        }
    }
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> TokenBucket {
        let per_second = f64::from(per_second.get());
        TokenBucket { per_second, burst: Duration::from_secs_f64(f64::from(burst.get()) / per_second), paid_at: None }
    }

    /// A full bucket that lets `n` pass at once, and `n` in each `period` in the long run.
    pub fn over(n: NonZeroU64, period: Duration) -> TokenBucket {
        TokenBucket { per_second: n.get() as f64 / period.as_secs_f64(), burst: period, paid_at: None }
    }

    /// Takes `n` tokens, going into debt where there are too few, and says how long to wait until the debt is paid.
    pub fn take(&mut self, now: Instant, n: u32) -> Wait {
        let most = self.burst + DEBT_MAX;
        let cost = Duration::try_from_secs_f64(f64::from(n) / self.per_second).map_or(most, |cost| cost.min(most));
        let paid_at = (self.paid_at.map_or(now, |at| at.max(now)) + cost).min(now + most);
        self.paid_at = Some(paid_at);
        match paid_at.duration_since(now).checked_sub(self.burst) {
            None | Some(Duration::ZERO) => Wait::None,
            Some(wait) => Wait::For(wait),
        }
    }
}

impl TokenBucket {
    /// How long until it is full again if nothing more is taken.
    pub fn full_in(&self, now: Instant) -> Duration {
        self.paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32, burst: u32) -> TokenBucket {
        TokenBucket::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_burst_passes_then_each_waits_its_turn() {
        let mut bucket = bucket(10, 3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(bucket.take(now, 1), Wait::None);
        }
        assert_eq!(bucket.take(now, 1), Wait::For(Duration::from_millis(100)));
        assert_eq!(bucket.take(now, 1), Wait::For(Duration::from_millis(200)));
    }

    #[test]
    fn a_debt_is_paid_by_waiting_and_idle_time_fills_no_more_than_the_burst() {
        let mut bucket = bucket(10, 3);
        let now = Instant::now();
        assert_eq!(bucket.take(now, 23), Wait::For(Duration::from_secs(2)));
        let later = now + Duration::from_secs(2);
        assert_eq!(bucket.take(later, 1), Wait::For(Duration::from_millis(100)));
        let much_later = now + Duration::from_secs(3_600);
        assert_eq!(bucket.take(much_later, 3), Wait::None);
        assert_eq!(bucket.take(much_later, 1), Wait::For(Duration::from_millis(100)));
    }

    #[test]
    fn over_a_period() {
        let hour = Duration::from_secs(3_600);
        let mut bucket = TokenBucket::over(NonZeroU64::new(3_600).unwrap(), hour);
        let now = Instant::now();
        assert_eq!(bucket.take(now, 3_600), Wait::None);
        assert_eq!(bucket.full_in(now), hour);
        assert_eq!(bucket.take(now, 2), Wait::For(Duration::from_secs(2)));
        assert_eq!(bucket.full_in(now + hour), Duration::from_secs(2));
        assert_eq!(bucket.take(now, u32::MAX), Wait::For(DEBT_MAX));
        assert_eq!(bucket.take(now, u32::MAX), Wait::For(DEBT_MAX));
        let mut slow = TokenBucket::over(NonZeroU64::MIN, Duration::from_secs(86_400));
        assert_eq!(slow.take(now, u32::MAX), Wait::For(DEBT_MAX));
    }

    #[test]
    fn who_obeys_gets_the_rate() {
        let mut bucket = bucket(500, 50);
        let start = Instant::now();
        let mut now = start;
        for _ in 0..5_050 {
            now += bucket.take(now, 1).duration();
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(9_990) && took <= Duration::from_millis(10_010), "{took:?}");
    }
}
