//! Hosts: what is known of each PDS, and how far we have read it.

use async_trait::async_trait;
use atproto::syntax::HostName;

use crate::error::Error;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it listens.
    pub name: HostName,
    /// How it is, in the lexicon's words.
    pub status: HostStatus,
    /// How far we have read it.
    pub cursor: HostCursor,
    /// When it was first known, microseconds since the Unix epoch.
    pub added_at_micros: u64,
}

/// A host's status (`com.atproto.sync.defs#hostStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostStatus {
    /// Being read.
    Active,
    /// Not being read; nothing is wrong.
    Idle,
    /// Can't be reached; tried again for ever.
    Offline,
    /// Read slower than it sends.
    Throttled,
    /// Not read, by an operator's word.
    Banned,
}

impl HostStatus {
    /// The lexicon's word.
    pub fn as_str(self) -> &'static str {
        match self {
            HostStatus::Active => "active",
            HostStatus::Idle => "idle",
            HostStatus::Offline => "offline",
            HostStatus::Throttled => "throttled",
            HostStatus::Banned => "banned",
        }
    }
}

/// How far a host has been read: all its events up to `seq` within `epoch` are judged, and durable where accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCursor {
    /// Counts resets of the host's seq, from 0.
    pub epoch: u32,
    /// The host's seq; `None` before the first connection.
    pub seq: Option<u64>,
}

/// The hosts' rows. A host's row and its cursor are written apart, so that neither overwrites the other.
#[async_trait]
pub trait Hosts: Send + Sync {
    /// One host.
    async fn get(&self, name: &HostName) -> Result<Option<Host>, Error>;

    /// Hosts in their names' byte order, after `after`, at most `limit`.
    async fn list(&self, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error>;

    /// Adds a host, or does nothing where it is known. Durable when answered. Gives whether it was added.
    async fn add(&self, host: &Host) -> Result<bool, Error>;

    /// Sets a known host's status. Durable when answered.
    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error>;

    /// Sets known hosts' cursors. May be lost in a crash back to an older value, never to a newer one: what is read
    /// again is known as a repeat.
    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error>;

    /// How many hosts there are.
    async fn count(&self) -> Result<u64, Error>;
}
