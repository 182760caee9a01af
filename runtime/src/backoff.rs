//! Back-off: how long to wait before trying again. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};

/// A schedule of waits that doubles from `base` to `cap`, each with jitter, so that what failed together does not come
/// back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// A schedule at its beginning. A `cap` below `base` counts as `base`.
    pub fn new(base: Duration, cap: Duration) -> Backoff {
        Backoff { base, cap: cap.max(base), failures: 0 }
    }

    /// Counts a failure and gives the wait after it: between half and all of `base * 2^(failures - 1)`, at most `cap`.
    /// Never below half of `base`, so that a loop around it can't run hot.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let full = self.base.saturating_mul(2u32.saturating_pow(self.failures.min(31))).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Failures since the beginning or the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Back to the beginning: it works again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_reset() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for full_s in [1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            let wait_s = backoff.next(&mut rng).as_secs_f64();
            assert!((full_s / 2.0..=full_s).contains(&wait_s), "{wait_s} of {full_s}");
        }
        assert_eq!(backoff.failures(), 6);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            (0..5).map(|_| backoff.next(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    proptest! {
        #[test]
        fn never_hot_never_over_the_cap(base_ms in 1u64..10_000, cap_ms in 0u64..1_000_000, seed: u64, tries in 1usize..80) {
            let base = Duration::from_millis(base_ms);
            let cap = Duration::from_millis(cap_ms).max(base);
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(base, cap);
            for _ in 0..tries {
                let wait = backoff.next(&mut rng);
                prop_assert!(wait >= base / 2 && wait <= cap);
            }
        }
    }
}
