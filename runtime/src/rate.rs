//! How many in a second, for people: the mean over the last few whole seconds.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The whole seconds that are looked at.
const SECONDS: usize = 5;

/// A meter.
#[derive(Debug, Default)]
pub struct Rate {
    slots: Mutex<Slots>,
}

impl Rate {
    /// `count` more have come.
    pub fn add(&self, count: u64) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now(), count);
    }

    /// How many come in a second.
    pub fn per_second(&self) -> f64 {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).per_second(Instant::now())
    }
}

/// Counts by second; the newest second is still filling.
#[derive(Debug, Default)]
struct Slots {
    start: Option<Instant>,
    /// Which second since `start` the newest slot is.
    second: u64,
    counts: [u64; SECONDS + 1],
}

impl Slots {
    fn add(&mut self, now: Instant, count: u64) {
        self.turn(now);
        self.counts[0] += count;
    }

    fn per_second(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let whole = (self.second as usize).min(SECONDS);
        if whole == 0 {
            return self.counts[0] as f64;
        }
        self.counts[1..=whole].iter().sum::<u64>() as f64 / whole as f64
    }

    /// Moves the slots on to the second of `now`.
    fn turn(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let second = now.saturating_duration_since(start).as_secs();
        let passed = second.saturating_sub(self.second).min(SECONDS as u64 + 1) as usize;
        self.counts.rotate_right(passed);
        self.counts[..passed].fill(0);
        self.second = self.second.max(second);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_mean_of_whole_seconds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut slots = Slots::default();
        slots.add(at(0), 10);
        assert_eq!(slots.per_second(at(500)), 10.0, "within the first second");
        slots.add(at(1100), 30);
        assert_eq!(slots.per_second(at(1900)), 10.0, "the second under way does not count");
        assert_eq!(slots.per_second(at(2000)), 20.0);
        assert_eq!(slots.per_second(at(5000)), 8.0);
        assert_eq!(slots.per_second(at(6000)), 6.0);
        assert_eq!(slots.per_second(at(60_000)), 0.0);
    }
}
