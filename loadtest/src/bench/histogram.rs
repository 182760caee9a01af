//! Times in microseconds, counted in buckets that are at most 3 % wide: bounded memory however many there are.

/// A count of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

/// Buckets in each doubling, as a power of two.
const BITS: u32 = 5;

impl Histogram {
    /// Counts one time.
    pub fn record(&mut self, micros: u64) {
        let bucket = bucket_of(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The time that `share` of all don't exceed, rounded up by 3 % at most; zero where nothing was counted.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let found = self.cumulated().find(|(_, so_far)| *so_far >= rank);
        found.map_or(0, |(upper, _)| upper.min(self.max))
    }

    /// Each bucket that holds something: the longest time that falls into it, and how many don't exceed that.
    pub fn cumulated(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut so_far = 0;
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(bucket, count)| {
            so_far += count;
            (upper_of(bucket), so_far)
        })
    }
}

/// Below two doublings of [`BITS`] each value has a bucket of its own; above, each doubling has as many.
fn bucket_of(micros: u64) -> usize {
    let doublings = (u64::BITS - micros.leading_zeros()).saturating_sub(BITS + 1);
    ((u64::from(doublings) << BITS) + (micros >> doublings)) as usize
}

/// The largest value of a bucket.
fn upper_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket >> BITS).saturating_sub(1);
    let lower = (bucket - (doublings << BITS)) << doublings;
    lower + ((1 << doublings) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_on_each_other_and_are_narrow() {
        let mut values: Vec<u64> = (0..4_096).collect();
        values.extend((12..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, (1 << bit) * 3 / 2]));
        values.sort_unstable();
        for value in values {
            let bucket = bucket_of(value);
            let upper = upper_of(bucket);
            assert!(upper >= value, "{value} is above its bucket's {upper}");
            assert!((upper - value) as f64 <= value as f64 * 0.032, "{value} {upper}");
            assert_eq!(bucket_of(upper), bucket);
            assert_eq!(bucket_of(upper + 1), bucket + 1);
        }
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max(), histogram.count()), (0, 0, 0));
        (1..=10_000).for_each(|micros| histogram.record(micros));
        for (share, exact) in [(0.0, 1.0), (0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = histogram.quantile(share) as f64;
            assert!(found >= exact && found <= exact * 1.032, "{share}: {found} for {exact}");
        }
        assert_eq!(histogram.max(), 10_000);
    }

    #[test]
    fn a_sum_holds_both() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        a.record(5);
        b.record(7_000);
        a.add(&b);
        assert_eq!((a.count(), a.max(), a.quantile(0.5)), (2, 7_000, 5));
        b.add(&Histogram::default());
        assert_eq!(b.count(), 1);
    }
}
