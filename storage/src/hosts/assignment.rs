//! Who crawls which hosts, and how it hears that a host's row was changed by somebody else.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use atproto::syntax::{Did, HostName};

use crate::error::Error;

/// A share of the hosts, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u32);

/// How many shares there are; the same for all who crawl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(pub NonZeroU32);

impl Shards {
    /// The share of a host: the hash of lanes, of its name, modulo the number of shares.
    pub fn of(self, host: &HostName) -> Shard {
        let shard = Did::lane_hash(host.as_str()) % u64::from(self.0.get());
        Shard(u32::try_from(shard).expect("a remainder of a u32"))
    }

    /// All shares.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0.get()).map(Shard)
    }
}

/// What to look at again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Nudge {
    /// A host's row: it is new, or an operator has changed it.
    Host(HostName),
    /// What an operator has decided about hosts at large.
    Policy,
}

/// What a crawler is to do from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These hosts are ours: their rows say where to go on.
    Given(Shard),
    /// They are to be another's: reading ends, what is taken is saved, and then [`Assignment::released`] is called. The
    /// other waits for it, within limits.
    Gone(Shard),
    /// Another had taken them for its own meanwhile, and perhaps saved cursors of them: all of them are to be saved again.
    Renewed(Shard),
    /// Somebody has changed something, not necessarily of ours.
    Nudged(Nudge),
}

/// Which hosts this process crawls. Two may crawl a host for a while: what both bring is known as a repeat, and the
/// cursor that the earlier one saves is the one that does not count.
///
/// ```text
///   Given(shard) ──▶ read its hosts, save their cursors ──▶ Gone(shard) ──▶ last receipts, last save ──▶ released(shard)
/// ```
#[async_trait]
pub trait Assignment: Send + Sync {
    /// How many shares there are.
    fn shards(&self) -> Shards;

    /// Whether other processes crawl hosts, or change their rows.
    fn is_shared(&self) -> bool;

    /// The next change. A share that was given is not given again before it was released. One caller. Cancel-safe.
    async fn next(&self) -> Result<Change, Error>;

    /// Nothing of this share is read in this process any more, and its cursors are saved.
    async fn released(&self, shard: Shard);

    /// This process crawls nothing any more: all that it still had may be given to others at once.
    async fn leave(&self);

    /// Tells the others, after what it speaks of is written. One that is lost is made good by their looking at all rows
    /// now and then.
    async fn nudge(&self, nudge: Nudge) -> Result<(), Error>;
}

/// All hosts, for ever: the assignment where one process does it all, and nobody else is to be told.
#[derive(Debug, Default)]
pub struct AllHosts {
    given: AtomicBool,
}

#[async_trait]
impl Assignment for AllHosts {
    fn shards(&self) -> Shards {
        Shards(NonZeroU32::MIN)
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn next(&self) -> Result<Change, Error> {
        match self.given.swap(true, Ordering::Relaxed) {
            false => Ok(Change::Given(Shard(0))),
            true => std::future::pending().await,
        }
    }

    async fn released(&self, _: Shard) {}

    async fn leave(&self) {
        self.given.store(false, Ordering::Relaxed);
    }

    async fn nudge(&self, _: Nudge) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_shards() {
        let shards = Shards(NonZeroU32::new(16).unwrap());
        let of = |name| shards.of(&HostName::parse(name).unwrap()).0;
        assert_eq!([of("bsky.network"), of("pds.example.com"), of("localhost:2583")], [11, 11, 9]);
    }

    #[tokio::test]
    async fn all_hosts_are_given_once() {
        let hosts = AllHosts::default();
        assert_eq!(hosts.next().await.unwrap(), Change::Given(Shard(0)));
        let waits = tokio::select! {
            biased;
            _ = hosts.next() => false,
            () = std::future::ready(()) => true,
        };
        assert!(waits);
    }
}
