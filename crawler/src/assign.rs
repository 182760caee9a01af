//! Which hosts are ours. Pure.

use std::collections::BTreeSet;

use atproto::syntax::HostName;
use storage::hosts::{Change, Nudge, Shard, Shards};

/// The shares of the hosts that this process reads.
#[derive(Clone, Debug)]
pub struct Ours {
    shards: Shards,
    given: BTreeSet<Shard>,
}

/// What changes that came together ask for; in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The policy is to be read anew.
    pub policy: bool,
    /// Their hosts are to be let go.
    pub gone: BTreeSet<Shard>,
    /// Their hosts are to be read.
    pub given: BTreeSet<Shard>,
    /// Their hosts' cursors are to be saved again.
    pub renewed: BTreeSet<Shard>,
    /// Their rows are to be looked at.
    pub hosts: BTreeSet<HostName>,
}

impl Ours {
    /// Nothing yet.
    pub fn new(shards: Shards) -> Ours {
        Ours { shards, given: BTreeSet::new() }
    }

    /// The share that a host is of.
    pub fn shard_of(&self, host: &HostName) -> Shard {
        self.shards.of(host)
    }

    /// Whether a host is to be read here.
    pub fn covers(&self, host: &HostName) -> bool {
        self.given.contains(&self.shard_of(host))
    }

    /// Takes changes in their order. A share that was given and is gone again is only let go.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) -> Steps {
        let mut steps = Steps::default();
        for change in changes {
            match change {
                Change::Given(shard) => {
                    if self.given.insert(shard) {
                        steps.given.insert(shard);
                    }
                }
                Change::Gone(shard) => {
                    self.given.remove(&shard);
                    steps.given.remove(&shard);
                    steps.renewed.remove(&shard);
                    steps.gone.insert(shard);
                }
                Change::Renewed(shard) => {
                    if self.given.contains(&shard) {
                        steps.renewed.insert(shard);
                    }
                }
                Change::Nudged(Nudge::Host(name)) => {
                    steps.hosts.insert(name);
                }
                Change::Nudged(Nudge::Policy) => steps.policy = true,
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_share_is_ours_from_given_to_gone() {
        let mut ours = Ours::new(Shards(NonZeroU32::new(4).unwrap()));
        let host = HostName::parse("pds.example.com").unwrap();
        let shard = ours.shard_of(&host);
        let other = Shard((shard.0 + 1) % 4);
        assert!(!ours.covers(&host));
        let steps = ours.take([Change::Given(other), Change::Given(shard), Change::Given(shard)]);
        assert_eq!(steps, Steps { given: [other, shard].into(), ..Steps::default() });
        assert!(ours.covers(&host));
        let nudges = [Change::Nudged(Nudge::Host(host.clone())), Change::Nudged(Nudge::Policy)];
        let steps = ours.take(nudges.iter().cloned().chain(nudges.clone()));
        assert_eq!(steps, Steps { policy: true, hosts: [host.clone()].into(), ..Steps::default() });
        let steps = ours.take([Change::Renewed(shard)]);
        assert_eq!(steps, Steps { renewed: [shard].into(), ..Steps::default() });
        let steps = ours.take([Change::Renewed(shard), Change::Gone(shard), Change::Renewed(shard)]);
        assert_eq!(steps, Steps { gone: [shard].into(), ..Steps::default() });
        assert!(!ours.covers(&host));
        let steps = ours.take([Change::Given(shard), Change::Gone(shard)]);
        assert_eq!(steps, Steps { gone: [shard].into(), ..Steps::default() }, "it is released, and never read");
        assert!(!ours.covers(&host));
    }
}
