//! How long frames took, from the host's send to the subscriber, in memory that doesn't grow.

use std::time::Duration;

/// Counts of latencies, each to within 1 in 64. Sums of two are the counts of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    counts: Vec<u64>,
    count: u64,
    max_micros: u64,
}

/// Between a power of two and the next there are so many steps.
const STEPS: u64 = 64;
/// Enough for more than a day; what takes longer is counted last.
const PLACES: u64 = STEPS * 32;

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: vec![0; PLACES as usize], count: 0, max_micros: 0 }
    }
}

impl Latencies {
    /// Takes note of one.
    pub fn record(&mut self, micros: u64) {
        self.counts[step(micros)] += 1;
        self.count += 1;
        self.max_micros = self.max_micros.max(micros);
    }

    /// Takes note of all that `other` has.
    pub fn add(&mut self, other: &Latencies) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.count += other.count;
        self.max_micros = self.max_micros.max(other.max_micros);
    }

    /// What has come since there was no more than `before`, which must have been this once. Its longest is known as
    /// quantiles are, unless it is the longest of all.
    pub fn since(&self, before: &Latencies) -> Latencies {
        let counts: Vec<u64> = self.counts.iter().zip(&before.counts).map(|(now, then)| now - then).collect();
        let longest = counts.iter().rposition(|count| *count > 0).map_or(0, last_of);
        Latencies { max_micros: longest.min(self.max_micros), count: self.count - before.count, counts }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What a `share` of them, 0 to 1, took at most: 0.5 is the median. Never too low, and too high by 1 in 64 at most.
    /// `None` where there are none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let micros = place.map_or(self.max_micros, last_of).min(self.max_micros);
        Some(Duration::from_micros(micros))
    }

    /// The longest; `None` where there are none.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_micros(self.max_micros))
    }

    /// Each latency that was told apart, and how many were not longer; the shortest first.
    pub fn cumulated(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut so_far = 0;
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(place, count)| {
            so_far += count;
            (Duration::from_micros(last_of(place).min(self.max_micros)), so_far)
        })
    }
}

/// Where a latency is counted: below [`STEPS`] each microsecond has its own place.
fn step(micros: u64) -> usize {
    let octave = u64::from(micros.max(STEPS).ilog2() - STEPS.ilog2());
    (octave * STEPS + (micros >> octave)).min(PLACES - 1) as usize
}

/// The longest latency that is counted in a place.
fn last_of(place: usize) -> u64 {
    let place = place as u64;
    let octave = (place / STEPS).saturating_sub(1);
    ((place - octave * STEPS + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_it_is_at_most_a_64th_too_high() {
        let near = |power: u32| [(1_u64 << power) - 1, 1 << power, (1 << power) + 1, 3 << (power - 1)];
        for micros in (0..10_000).chain((1..36).flat_map(near)) {
            let told = last_of(step(micros));
            assert!(told >= micros && told - micros <= micros / STEPS, "{micros} is told as {told}");
        }
        assert_eq!(step(u64::MAX), PLACES as usize - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let (mut early, mut late) = (Latencies::default(), Latencies::default());
        assert_eq!((early.quantile(0.5), early.max()), (None, None));
        (1..=500).for_each(|micros| early.record(micros * 10));
        (501..=1_000).for_each(|micros| late.record(micros * 10));
        early.add(&late);
        assert_eq!(early.count(), 1_000);
        assert_eq!(early.since(&Latencies::default()), early);
        let told = early.since(&late);
        assert_eq!((told.count(), told.max()), (500, Some(Duration::from_micros(5_055))));
        assert_eq!(early.max(), Some(Duration::from_millis(10)));
        assert_eq!(early.cumulated().last(), Some((Duration::from_millis(10), 1_000)));
        assert!(early.cumulated().is_sorted());
        for (share, micros) in [(0.0, 10_u64), (0.5, 5_000), (0.99, 9_900), (1.0, 10_000)] {
            let told = early.quantile(share).unwrap().as_micros() as u64;
            assert!(told >= micros && told - micros <= micros / STEPS, "{share} is told as {told}");
        }
    }
}
