//! How often a host's word has identities fetched anew. One for all lanes. Pure.

use atproto::syntax::HostName;
use quick_cache::unsync::Cache;

/// Hosts whose allowances are remembered.
const HOSTS_MAX: usize = 4_096;

/// How often identities are fetched anew on a host's word. Anybody can send events of anybody's accounts, and each that
/// does not fit may mean that its account has moved; but a host that is wrong again and again is not worth the
/// directory's time. A fetch that proves the host right costs it nothing.
pub(crate) struct Refreshes {
    burst: u32,
    one_every_micros: u64,
    hosts: Cache<HostName, Allowance>,
}

#[derive(Clone, Copy)]
struct Allowance {
    left: u32,
    /// Since when the next one is being earned.
    since_micros: u64,
}

// === impl Refreshes ===

impl Refreshes {
    pub(crate) fn new(burst: u32, one_every_micros: u64) -> Refreshes {
        Refreshes { burst, one_every_micros: one_every_micros.max(1), hosts: Cache::new(HOSTS_MAX) }
    }

    /// Takes one, if the host has one left.
    pub(crate) fn take(&mut self, host: &HostName, now_micros: u64) -> bool {
        let full = Allowance { left: self.burst, since_micros: now_micros };
        let mut allowance = self.hosts.get(host).copied().unwrap_or(full);
        let earned = now_micros.saturating_sub(allowance.since_micros) / self.one_every_micros;
        allowance.since_micros += earned * self.one_every_micros;
        let left = u64::from(allowance.left) + earned;
        allowance = match u32::try_from(left) {
            Ok(left) if left < self.burst => Allowance { left, ..allowance },
            Ok(_) | Err(_) => full,
        };
        let granted = allowance.left > 0;
        allowance.left -= u32::from(granted);
        self.hosts.insert(host.clone(), allowance);
        granted
    }

    /// The host was right.
    pub(crate) fn give_back(&mut self, host: &HostName) {
        if let Some(mut allowance) = self.hosts.get_mut(host) {
            allowance.left = (allowance.left + 1).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_at_a_time_and_what_was_right_is_free() {
        let (one, other) = (HostName::parse("a.example.com").unwrap(), HostName::parse("b.example.com").unwrap());
        let mut refreshes = Refreshes::new(3, 1_000);
        let granted: Vec<bool> = (0..5).map(|_| refreshes.take(&one, 10_000)).collect();
        assert_eq!(granted, [true, true, true, false, false]);
        assert!(refreshes.take(&other, 10_000));
        assert!(!refreshes.take(&one, 10_999));
        assert!(refreshes.take(&one, 11_500));
        assert!(!refreshes.take(&one, 11_999));
        refreshes.give_back(&one);
        assert!(refreshes.take(&one, 11_999));
        assert!(refreshes.take(&one, 12_000), "earning went on from 11,000");
        let granted: Vec<bool> = (0..4).map(|_| refreshes.take(&one, 1_000_000)).collect();
        assert_eq!(granted, [true, true, true, false], "never more than the burst");
        for _ in 0..9 {
            refreshes.give_back(&one);
        }
        let granted = (0..9).filter(|_| refreshes.take(&one, 1_000_000)).count();
        assert_eq!(granted, 3);
    }
}
