//! The wall clock, as a value that tests can set.
//!
//! For time stamps that leave the process. Waiting and measuring use [`tokio::time::Instant`] instead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the time. Cheap to clone; clones of a manual clock share its hands.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands at `start_micros` until it is advanced.
    pub fn manual(start_micros: u64) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicU64::new(start_micros))))
    }

    /// Microseconds since the Unix epoch.
    pub fn now_micros(&self) -> u64 {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
                let now = SystemTime::now();
                // A machine set before 1970 reads as 1970: every use of a time stamp survives that.
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }
            Source::Manual(micros) => micros.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock forward. The machine's clock can't be moved: there it does nothing.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) = &self.0 {
            micros.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual(5);
        let clone = clock.clone();
        assert_eq!(clone.now_micros(), 5);
        clock.advance(Duration::from_millis(2));
        assert_eq!(clone.now_micros(), 2_005);
    }

    #[test]
    fn the_system_clock_is_past_2024() {
        assert!(Clock::system().now_micros() > 1_704_067_200_000_000);
    }
}
