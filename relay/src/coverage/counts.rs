//! How many accounts our hosts have, counted little by little: in a cluster a count reads as many rows as it gives. Pure.

use std::collections::HashMap;

use atproto::syntax::HostName;

/// The last counts of some hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    round: u64,
    hosts: HashMap<HostName, Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    accounts: u64,
    /// When it was counted; 0 for never.
    round: u64,
}

impl Counts {
    /// Begins a round with these hosts, and forgets others. Gives them in the order in which they are to be counted: those
    /// that never were, then those whose count is oldest.
    pub fn begin(&mut self, hosts: impl IntoIterator<Item = HostName>) -> Vec<HostName> {
        self.round += 1;
        let of_before = std::mem::take(&mut self.hosts);
        let known = |name: HostName| {
            let count = of_before.get(&name).copied().unwrap_or_default();
            (name, count)
        };
        self.hosts = hosts.into_iter().map(known).collect();
        let mut due: Vec<(u64, &HostName)> = self.hosts.iter().map(|(name, count)| (count.round, name)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// A host was counted.
    pub fn counted(&mut self, name: HostName, accounts: u64) {
        self.hosts.insert(name, Count { accounts, round: self.round });
    }

    /// The accounts of all hosts, each as it was counted last; `None` before each was counted once.
    pub fn sum(&self) -> Option<u64> {
        let each = self.hosts.values().map(|count| (count.round > 0).then_some(count.accounts));
        each.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_are_renewed_first() {
        let host = |name: &str| HostName::parse(name).unwrap();
        let begin = |counts: &mut Counts, names: &[&str]| -> Vec<String> {
            counts.begin(names.iter().map(|name| host(name))).iter().map(ToString::to_string).collect()
        };
        let mut counts = Counts::default();
        assert_eq!(counts.sum(), Some(0), "none of none");
        assert_eq!(begin(&mut counts, &["c.test", "a.test", "b.test"]), ["a.test", "b.test", "c.test"]);
        counts.counted(host("a.test"), 10);
        assert_eq!(counts.sum(), None);
        assert_eq!(begin(&mut counts, &["c.test", "a.test", "b.test"]), ["b.test", "c.test", "a.test"]);
        counts.counted(host("b.test"), 5);
        counts.counted(host("c.test"), 1);
        assert_eq!(counts.sum(), Some(16));
        assert_eq!(begin(&mut counts, &["d.test", "a.test", "c.test"]), ["d.test", "a.test", "c.test"]);
        assert_eq!(counts.sum(), None, "one is new");
        counts.counted(host("d.test"), 100);
        assert_eq!(counts.sum(), Some(111), "one is gone");
    }
}
