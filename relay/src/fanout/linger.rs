//! When the next chunk goes out: when it is full, or has lingered. Pure.
//!
//! Each chunk costs each subscriber a wake-up and a system call, whatever it holds. So a chunk follows another only after
//! a time that grows with the crowd; what comes after a pause goes at once, and what fills a chunk never waits.

use std::time::Duration;

use tokio::time::Instant;

/// Subscribers for whom nothing waits.
const FREE: u64 = 16;

/// What each further one adds: some ten microseconds of work a chunk are then a tenth of one processor.
const PER_SUBSCRIBER: Duration = Duration::from_micros(100);

/// Watches what has gone and says when the next chunk goes.
#[derive(Debug)]
pub struct Linger {
    max: Duration,
    chunk_bytes: usize,
    /// When the last chunk went.
    went: Option<Instant>,
    /// About the size of an event, from the chunks before.
    event_bytes: usize,
}

/// What to do with what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It goes.
    Now,
    /// It goes then, unless a chunk is full before.
    At(Instant),
    /// Nothing waits.
    Idle,
}

impl Linger {
    /// Nothing has gone yet. No chunk waits longer than `max`; one of `chunk_bytes` does not wait.
    pub fn new(max: Duration, chunk_bytes: usize) -> Linger {
        Linger { max, chunk_bytes, went: None, event_bytes: 0 }
    }

    /// A chunk of so many events, together so long, has gone.
    pub fn went(&mut self, now: Instant, events: usize, bytes: usize) {
        self.went = Some(now);
        if let Some(mean) = bytes.checked_div(events) {
            // Follows a change of what is usual within a few chunks, and no single one far.
            self.event_bytes = if self.event_bytes == 0 { mean } else { (3 * self.event_bytes + mean) / 4 };
        }
    }

    /// What to do while so many events wait for so many subscribers who are live: the others don't wake for a chunk.
    pub fn due(&self, now: Instant, waiting: u64, subscribers: u64) -> Due {
        if waiting == 0 {
            return Due::Idle;
        }
        let Some(went) = self.went else { return Due::Now };
        let waiting_bytes = waiting.saturating_mul(self.event_bytes as u64);
        let at = went + self.interval(subscribers);
        if at <= now || waiting_bytes >= self.chunk_bytes as u64 { Due::Now } else { Due::At(at) }
    }

    /// The time from chunk to chunk.
    fn interval(&self, subscribers: u64) -> Duration {
        let crowd = u32::try_from(subscribers.saturating_sub(FREE)).unwrap_or(u32::MAX);
        PER_SUBSCRIBER.saturating_mul(crowd).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(20);

    #[test]
    fn the_interval_grows_with_the_crowd() {
        let linger = Linger::new(MAX, 1000);
        for (subscribers, micros) in [(0, 0), (16, 0), (17, 100), (116, 10_000), (300, 20_000), (u64::MAX, 20_000)] {
            assert_eq!(linger.interval(subscribers), Duration::from_micros(micros), "{subscribers}");
        }
    }

    #[test]
    fn a_chunk_goes_when_it_is_full_or_has_lingered() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut linger = Linger::new(MAX, 1000);
        assert_eq!(linger.due(start, 0, 500), Due::Idle);
        assert_eq!(linger.due(start, 1, 500), Due::Now, "the first one has nothing to wait for");
        linger.went(start, 1, 100);
        // (milliseconds since the last, events waiting, subscribers, what to do)
        let table = [
            (0, 0, 500, Due::Idle),
            (0, 1, 500, Due::At(at(20))),
            (19, 9, 500, Due::At(at(20))),
            (0, 10, 500, Due::Now),
            (0, u64::MAX, 500, Due::Now),
            (20, 1, 500, Due::Now),
            (900, 1, 500, Due::Now),
            (900, 0, 500, Due::Idle),
            (0, 1, 16, Due::Now),
            (5, 1, 116, Due::At(at(10))),
            (10, 1, 116, Due::Now),
        ];
        for (millis, waiting, subscribers, due) in table {
            assert_eq!(linger.due(at(millis), waiting, subscribers), due, "{millis} ms, {waiting}, {subscribers}");
        }
    }

    #[test]
    fn what_is_full_follows_the_size_of_events() {
        let start = Instant::now();
        let mut linger = Linger::new(MAX, 10_000);
        linger.went(start, 10, 1_000);
        assert_eq!(linger.due(start, 99, 500), Due::At(start + MAX));
        assert_eq!(linger.due(start, 100, 500), Due::Now);
        for _ in 0..16 {
            linger.went(start, 10, 10_000);
        }
        assert_eq!(linger.due(start, 11, 500), Due::Now);
        assert_eq!(linger.due(start, 5, 500), Due::At(start + MAX));
    }
}
