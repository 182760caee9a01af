//! A token bucket that slows its caller down and never refuses. Pure.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// Lets `burst` pass at once and `per_second` in the long run. It keeps one instant: when all that was taken so far
/// will have been paid for.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: Duration,
    paid_at: Option<Instant>,
}

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

    /// Takes `n` tokens, going into debt where there are too few, and says how long to wait until the debt is paid.
    pub fn take(&mut self, now: Instant, n: u32) -> Wait {
        let paid_at =
            self.paid_at.map_or(now, |at| at.max(now)) + Duration::from_secs_f64(f64::from(n) / self.per_second);
        self.paid_at = Some(paid_at);
        match paid_at.duration_since(now).checked_sub(self.burst) {
            None | Some(Duration::ZERO) => Wait::None,
            Some(wait) => Wait::For(wait),
        }
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
