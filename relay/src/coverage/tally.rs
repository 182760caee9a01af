//! How a peer's hosts compare with ours. Pure.

use atproto::syntax::HostName;
use storage::hosts::HostStatus;

/// Hosts that are named, those with most accounts.
const NAMES_MAX: usize = 100;

/// What came of one look through all of a peer's hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The peer's active hosts.
    pub hosts: u64,
    /// Of them, those that we don't know or don't read.
    pub missing: u64,
    /// Accounts on the peer's active hosts, as the peer counts them.
    pub accounts_there: u64,
    /// Accounts on the same hosts, as we count them; `None` before each was counted once.
    pub accounts_here: Option<u64>,
    names: Vec<MissingHost>,
}

/// A host that the peer reads and we don't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHost {
    /// The host.
    pub name: HostName,
    /// Its accounts, as the peer counts them.
    pub accounts: u64,
    /// How it is here; `None` where it is not known.
    pub here: Option<HostStatus>,
}

impl Tally {
    /// One more of the peer's active hosts: how many accounts it has there, and how it is here, if it is known.
    pub fn add(&mut self, name: HostName, there: u64, status: Option<HostStatus>) {
        self.hosts += 1;
        self.accounts_there = self.accounts_there.saturating_add(there);
        let is_read = match status {
            Some(HostStatus::Active | HostStatus::Throttled) => true,
            Some(HostStatus::Idle | HostStatus::Offline | HostStatus::Banned) | None => false,
        };
        if is_read {
            return;
        }
        self.missing += 1;
        self.names.push(MissingHost { name, accounts: there, here: status });
        if self.names.len() >= 2 * NAMES_MAX {
            self.names = self.names();
        }
    }

    /// Some of the hosts that are missing, those with most accounts first.
    pub fn names(&self) -> Vec<MissingHost> {
        let mut names = self.names.clone();
        names.sort_by(|a, b| b.accounts.cmp(&a.accounts).then_with(|| a.name.cmp(&b.name)));
        names.truncate(NAMES_MAX);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn what_is_not_read_is_missing() {
        let mut tally = Tally::default();
        for (name, there, status) in [
            ("a.test", 10, Some(HostStatus::Active)),
            ("b.test", 20, Some(HostStatus::Throttled)),
            ("c.test", 5, Some(HostStatus::Offline)),
            ("d.test", 7, None),
            ("e.test", 5, Some(HostStatus::Banned)),
            ("f.test", 0, Some(HostStatus::Idle)),
        ] {
            tally.add(host(name), there, status);
        }
        assert_eq!((tally.hosts, tally.missing, tally.accounts_there), (6, 4, 47));
        let names: Vec<_> = tally.names().into_iter().map(|it| (it.name.to_string(), it.here)).collect();
        assert_eq!(
            names,
            [
                ("d.test".to_owned(), None),
                ("c.test".to_owned(), Some(HostStatus::Offline)),
                ("e.test".to_owned(), Some(HostStatus::Banned)),
                ("f.test".to_owned(), Some(HostStatus::Idle)),
            ]
        );
    }

    #[test]
    fn of_many_the_largest_are_named_and_lies_do_not_overflow() {
        let mut tally = Tally::default();
        for n in 0..1_000 {
            tally.add(host(&format!("h{n}.test")), n, None);
        }
        tally.add(host("liar.test"), u64::MAX, None);
        assert_eq!((tally.missing, tally.accounts_there), (1_001, u64::MAX));
        let names = tally.names();
        assert_eq!((names.len(), names[0].accounts, names[99].accounts), (100, u64::MAX, 901));
        assert!(tally.names.len() < 2 * NAMES_MAX);
    }
}
