//! What a network would say, without the network: no sockets, and no time but that of the story.
//!
//! The same [`Config`] tells the same story again, to the byte.

use std::{sync::Arc, time::Duration};

use atproto::{
    crypto::PublicKey,
    mst::MstError,
    syntax::{Did, HostName},
};
use bytes::Bytes;
use runtime::clock::Clock;

use super::{Config, Error, account::Account, directory::Directory, directory::Form, host::Host, world::World};

/// A network whose events are taken from its hosts as they are made.
pub(crate) struct Story {
    world: World,
    hosts: Vec<Arc<Host>>,
    clock: Clock,
}

/// Who takes part.
pub(crate) struct Person<'a> {
    pub(crate) did: &'a Did,
    pub(crate) handle: &'a str,
    pub(crate) host: usize,
    pub(crate) key: PublicKey,
    pub(crate) form: Form,
}

/// 2026-01-01, when every story begins. Revs may lie in the past, never in the future.
const BEGIN_MICROS: u64 = 1_767_225_600_000_000;
/// Between two events.
const STEP: Duration = Duration::from_millis(1);

impl Story {
    /// Makes all accounts; nothing has happened.
    pub(crate) fn new(config: &Config) -> Result<Story, Error> {
        let clock = Clock::manual(BEGIN_MICROS);
        let host = |number: usize| {
            let name = HostName::parse(&format!("host{number}.test")).map_err(Error::Name)?;
            Ok(Arc::new(Host::new(name, usize::MAX, 1_000 * number as u64, clock.clone())))
        };
        let hosts: Vec<Arc<Host>> = (0..config.hosts).map(host).collect::<Result<_, Error>>()?;
        let world = World::new(config, hosts.clone(), Arc::new(Directory::default()), clock.clone());
        Ok(Story { world: world.map_err(Error::Repo)?, hosts, clock })
    }

    /// Everybody, the most active first.
    pub(crate) fn people(&self) -> impl ExactSizeIterator<Item = Person<'_>> {
        self.world.accounts().iter().map(|Account { did, handle, host, key, form, .. }| Person {
            did,
            handle,
            host: *host,
            key: key.public_key(),
            form: *form,
        })
    }

    /// The events of an account's creation, if they have not been.
    pub(crate) fn announce(&mut self, account: usize) -> Result<(), MstError> {
        self.clock.advance(STEP);
        self.world.announce(account)
    }

    /// The next thing that happens.
    pub(crate) fn step(&mut self) -> Result<(), MstError> {
        self.clock.advance(STEP);
        self.world.step()
    }

    /// What a host has sent since it was asked last: seqs and frames.
    pub(crate) fn take(&self, host: usize) -> Vec<(u64, Bytes)> {
        self.hosts[host].outbox.drain()
    }
}
