//! How often somebody may be wrong about the password. Pure.
//!
//! Each address has a few failures at once and some a minute; past them its requests are not looked at, right or wrong,
//! so that guessing gets no faster by asking more. The number of addresses remembered is bounded.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use runtime::networks::party;
use tokio::time::Instant;

/// Failures an address may have at once.
const BURST: u32 = 10;

/// The time in which one failure is forgotten.
const FORGIVEN_IN: Duration = Duration::from_secs(6);

/// Addresses remembered.
const ADDRESSES_MAX: usize = 4_096;

/// Who was wrong, and until when that counts.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When all failures of an address will be forgotten.
    clean_at: HashMap<IpAddr, Instant>,
}

impl Attempts {
    /// How long an address has to wait before it is listened to.
    pub(super) fn wait(&self, now: Instant, address: IpAddr) -> Option<Duration> {
        let debt = self.clean_at.get(&party(address))?.duration_since(now);
        // Room for one more failure is enough.
        debt.checked_sub(FORGIVEN_IN * (BURST - 1)).filter(|wait| !wait.is_zero())
    }

    /// Remembers a failure.
    pub(super) fn failed(&mut self, now: Instant, address: IpAddr) {
        let address = party(address);
        if !self.clean_at.contains_key(&address) && self.clean_at.len() >= ADDRESSES_MAX {
            self.forget(now);
        }
        let clean_at = self.clean_at.entry(address).or_insert(now);
        *clean_at = (*clean_at).max(now) + FORGIVEN_IN;
    }

    /// Makes room: forgets who is clean, or else who is nearest to it.
    fn forget(&mut self, now: Instant) {
        self.clean_at.retain(|_, clean_at| *clean_at > now);
        if self.clean_at.len() >= ADDRESSES_MAX
            && let Some(address) = self.clean_at.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
        {
            self.clean_at.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_and_then_one_in_six_seconds() {
        let mut attempts = Attempts::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        let now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(attempts.wait(now, address), None);
            attempts.failed(now, address);
        }
        assert_eq!(attempts.wait(now, address), Some(FORGIVEN_IN));
        assert_eq!(attempts.wait(now, IpAddr::from([192, 0, 2, 2])), None);
        let later = now + FORGIVEN_IN;
        assert_eq!(attempts.wait(later, address), None);
        attempts.failed(later, address);
        assert_eq!(attempts.wait(later, address), Some(FORGIVEN_IN));
    }

    #[test]
    fn one_network_is_one_address() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..u16::try_from(BURST).unwrap() {
            attempts.failed(now, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
        }
        assert!(attempts.wait(now, IpAddr::from([0x2001, 0xdb8, 0, 0, 9, 9, 9, 9])).is_some());
        assert!(attempts.wait(now, IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0])).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_worst_stay() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        let worst = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..BURST {
            attempts.failed(now, worst);
        }
        for n in 0..2 * ADDRESSES_MAX as u32 {
            attempts.failed(now, IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        }
        assert_eq!(attempts.clean_at.len(), ADDRESSES_MAX);
        assert!(attempts.wait(now, worst).is_some());
    }
}
