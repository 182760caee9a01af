//! Repos: DID → what is known of the account and its repo.

use async_trait::async_trait;
use atproto::{
    cid::Cid,
    syntax::{Did, HostName, Tid},
};

use crate::error::Error;

/// The state of one repo after its last accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoState {
    /// The host whose event made this state.
    pub host: HostName,
    /// That host's epoch (counts resets of its seq).
    pub host_epoch: u32,
    /// The host's seq of that event. An event of the same host and epoch with this seq or a lower one is a repeat.
    pub upstream_seq: u64,
    /// The repo's head; `None` until a commit or `#sync` was accepted.
    pub head: Option<Head>,
    /// The status at the host.
    pub upstream: AccountStatus,
    /// Whether we have taken the account down ourselves; wins over `upstream`.
    pub taken_down: bool,
}

/// The last commit of a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its rev.
    pub rev: Tid,
    /// The commit block.
    pub commit: Cid,
    /// The MST's root.
    pub data: Cid,
}

/// An account's status (protocol, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountStatus {
    /// Content may be served.
    Active,
    /// Taken down by the host.
    Takendown,
    /// Suspended for a time.
    Suspended,
    /// Gone for good; also a tombstoned DID.
    Deleted,
    /// Switched off by its owner.
    Deactivated,
    /// The host's view is behind; with whether content may be served.
    Desynchronized {
        /// Whether content may be served.
        active: bool,
    },
    /// Over a limit; with whether content may be served.
    Throttled {
        /// Whether content may be served.
        active: bool,
    },
    /// Inactive for a reason we do not know.
    Inactive,
}

impl RepoState {
    /// What we tell others: our takedown first, then the host's status.
    pub fn status(&self) -> AccountStatus {
        if self.taken_down { AccountStatus::Takendown } else { self.upstream }
    }
}

impl AccountStatus {
    /// From an `#account` event's fields. An unknown status keeps its `active` alone.
    pub fn from_event(active: bool, status: Option<&str>) -> AccountStatus {
        let _ = (active, status);
        todo!()
    }

    /// Whether content may be served.
    pub fn is_active(self) -> bool {
        todo!()
    }

    /// The lexicon's word; `None` for active and for inactive without a known reason.
    pub fn as_str(self) -> Option<&'static str> {
        todo!()
    }
}

/// A view of the log: written only by [`crate::log::EventLog::append`] and by repair.
#[async_trait]
pub trait Repos: Send + Sync {
    /// A repo's state as of every append that has been answered.
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error>;

    /// Repos in the DIDs' byte order, after `after`, at most `limit`. Repos that change meanwhile appear once.
    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error>;

    /// How many repos have this host in their state.
    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error>;

    /// How many repos there are.
    async fn count(&self) -> Result<u64, Error>;
}
