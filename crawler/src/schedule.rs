//! When connections may be opened, over all hosts. Pure.
//!
//! Each host waits by its own back-off (`host`); this spreads what is due at the same moment: all hosts at a start, or
//! thousands after a failure of the network here.

use std::num::NonZeroU32;

use runtime::bucket::TokenBucket;
use storage::hosts::{Host, HostStatus};
use tokio::time::Instant;

/// Gives out moments at which one connection may be opened.
#[derive(Clone, Debug)]
pub struct Pacer {
    bucket: TokenBucket,
}

impl Pacer {
    /// At most `per_second` in the long run, and as many at once.
    pub fn new(per_second: NonZeroU32) -> Pacer {
        Pacer { bucket: TokenBucket::new(per_second, per_second) }
    }

    /// The next moment that nobody else has; it belongs to the caller.
    pub fn slot(&mut self, now: Instant) -> Instant {
        now + self.bucket.take(now, 1).duration()
    }
}

/// Puts hosts in the order in which they are to be opened at a start: those that were being read first. Banned ones
/// are kept, to be shown.
pub(crate) fn in_order_of_need(hosts: &mut [Host]) {
    hosts.sort_by_key(|host| match host.status {
        HostStatus::Active | HostStatus::Throttled => 0,
        HostStatus::Idle => 1,
        HostStatus::Offline => 2,
        HostStatus::Banned => 3,
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thousand_hosts_at_once_are_spread() {
        let mut pacer = Pacer::new(NonZeroU32::new(50).unwrap());
        let now = Instant::now();
        let slots: Vec<Duration> = (0..1_000).map(|_| pacer.slot(now) - now).collect();
        assert!(slots.is_sorted());
        for (second, expected) in [(1, 100), (5, 300), (18, 950)] {
            let opened = slots.iter().filter(|&&slot| slot <= Duration::from_secs(second)).count();
            assert!(opened.abs_diff(expected) <= 1, "{opened} in {second} s");
        }
    }

    #[test]
    fn one_alone_need_not_wait() {
        let mut pacer = Pacer::new(NonZeroU32::MIN);
        let now = Instant::now();
        assert_eq!(pacer.slot(now), now);
        assert_eq!(pacer.slot(now), now + Duration::from_secs(1));
        let later = now + Duration::from_secs(60);
        assert_eq!(pacer.slot(later), later);
    }
}
