//! When a subscriber is too slow: when bytes wait for it and none leave for a time.
//!
//! Far behind is not slow: who makes progress is served for as long as the window holds what it wants. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Watches one subscriber's progress.
#[derive(Debug)]
pub struct Progress {
    stall_max: Duration,
    /// Since when bytes have waited without one of them leaving.
    waiting_since: Option<Instant>,
}

impl Progress {
    /// A subscriber with nothing waiting.
    pub fn new(stall_max: Duration) -> Progress {
        Progress { stall_max, waiting_since: None }
    }

    /// Bytes wait for it. Does not move the moment if some waited already.
    pub fn waits(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Bytes have left, and more are waiting or not.
    pub fn moved(&mut self, now: Instant, more: bool) {
        self.waiting_since = more.then_some(now);
    }

    /// When it will be too slow if nothing leaves; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.stall_max)
    }

    /// Whether it is too slow.
    pub fn is_slow(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_means_no_progress_while_bytes_wait() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(Duration::from_secs(60));
        assert!(!progress.is_slow(at(1000)), "nothing waits");
        progress.waits(at(1000));
        progress.waits(at(1050));
        assert!(!progress.is_slow(at(1059)));
        assert!(progress.is_slow(at(1060)), "counted from the first wait");
        progress.moved(at(1059), true);
        assert!(!progress.is_slow(at(1118)), "a trickle is progress");
        assert_eq!(progress.deadline(), Some(at(1119)));
        progress.moved(at(1060), false);
        assert!(!progress.is_slow(at(9999)), "all has left");
    }
}
