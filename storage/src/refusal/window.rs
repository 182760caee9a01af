//! Counting over the last stretch of time, in few numbers.

/// Counts in `N` buckets of `BUCKET_SECONDS` each. What it answers covers the running bucket and the `N - 1` before it,
/// so up to one bucket less than the whole stretch, and never anything older than it.
///
/// Time is what the caller says. One that goes back counts into the newest bucket.
#[derive(Clone, Debug)]
pub(super) struct Window<const N: usize, const BUCKET_SECONDS: u64> {
    counts: [u32; N],
    /// Number of the newest bucket since the epoch; it stands at this modulo `N`.
    newest: u64,
}

/// The last hour, to within five minutes.
pub(super) type Hour = Window<12, 300>;

/// The last 24 hours, to within one.
pub(super) type Day = Window<24, 3_600>;

impl<const N: usize, const BUCKET_SECONDS: u64> Window<N, BUCKET_SECONDS> {
    pub(super) fn new(now_micros: u64) -> Self {
        Window { counts: [0; N], newest: bucket(now_micros, BUCKET_SECONDS) }
    }

    pub(super) fn add(&mut self, now_micros: u64) {
        let now = bucket(now_micros, BUCKET_SECONDS);
        if now > self.newest {
            // At most all of them, however long nothing was counted.
            let passed = now - self.newest;
            (0..passed.min(N as u64)).for_each(|ago| self.counts[slot::<N>(now - ago)] = 0);
            self.newest = now;
        }
        let count = &mut self.counts[slot::<N>(self.newest)];
        *count = count.saturating_add(1);
    }

    pub(super) fn sum(&self, now_micros: u64) -> u64 {
        let passed = bucket(now_micros, BUCKET_SECONDS).saturating_sub(self.newest);
        let left = (N as u64).saturating_sub(passed);
        // Before the epoch's first buckets there is nothing.
        let buckets = (0..left).filter_map(|ago| self.newest.checked_sub(ago));
        buckets.map(|bucket| u64::from(self.counts[slot::<N>(bucket)])).sum()
    }
}

fn bucket(now_micros: u64, bucket_seconds: u64) -> u64 {
    now_micros / (bucket_seconds * 1_000_000)
}

fn slot<const N: usize>(bucket: u64) -> usize {
    // Less than N.
    (bucket % N as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000_000;

    proptest! {
        /// Against a list of all times: what is younger than eleven buckets is counted, what is older than twelve is not.
        #[test]
        fn counts_what_is_within_the_stretch(steps in proptest::collection::vec(0u64..40 * MINUTE, 1..200)) {
            let mut hour = Hour::new(0);
            let (mut now, mut times) = (0, Vec::new());
            for step in steps {
                now += step;
                prop_assert_eq!(hour.sum(now), younger(&times, now));
                hour.add(now);
                times.push(now);
                prop_assert_eq!(hour.sum(now), younger(&times, now));
            }
            prop_assert_eq!(hour.sum(now + 60 * MINUTE), 0);
        }
    }

    fn younger(times: &[u64], now: u64) -> u64 {
        let from = (now / (5 * MINUTE) + 1).saturating_sub(12) * 5 * MINUTE;
        times.iter().filter(|&&time| time >= from).count() as u64
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut day = Day::new(100 * 60 * MINUTE);
        day.add(100 * 60 * MINUTE);
        day.add(40 * 60 * MINUTE);
        assert_eq!(day.sum(40 * 60 * MINUTE), 2);
        assert_eq!(day.sum(101 * 60 * MINUTE), 2);
        assert_eq!(day.sum(124 * 60 * MINUTE), 0);
    }
}
