//! Repos: DID → what is known of the account and its repo.

mod state_bytes;

use async_trait::async_trait;
use atproto::{
    cid::Cid,
    syntax::{Did, HostName, Tid},
};

use crate::{error::Error, seq::Seq};

/// The state of one repo after its last accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoState {
    /// The host whose event made this state.
    pub host: HostName,
    /// That host's epoch (counts resets of its seq).
    pub host_epoch: u32,
    /// The host's seq of that event.
    pub upstream_seq: u64,
    /// The repo's head; `None` until a commit or `#sync` was accepted.
    pub head: Option<Head>,
    /// The status at the host.
    pub upstream: AccountStatus,
    /// What we have decided ourselves; wins over `upstream`.
    pub local: LocalStatus,
}

/// What we have decided about an account ourselves, whatever its host says. No host can lift it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalStatus {
    /// Nothing: the host's word counts.
    None,
    /// An operator has taken it down: nothing of it is served.
    TakenDown,
    /// It came when its host had as many accounts as it may have: its events are not taken until there is room.
    Throttled,
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
    /// Whether an event is a repeat: the same host sent it no later than the one that made this state. One of an earlier
    /// epoch is, whatever its seq: a crawler or a lane may read it again though the host has begun anew since.
    pub fn is_past(&self, host: &HostName, epoch: u32, seq: u64) -> bool {
        self.host == *host && (self.host_epoch, self.upstream_seq) >= (epoch, seq)
    }

    /// What we tell others: our own decision first, then the host's status.
    pub fn status(&self) -> AccountStatus {
        match self.local {
            LocalStatus::None => self.upstream,
            LocalStatus::TakenDown => AccountStatus::Takendown,
            LocalStatus::Throttled => AccountStatus::Throttled { active: false },
        }
    }
}

impl AccountStatus {
    /// From an `#account` event's fields. `active` decides: a status that says the account is gone does not count where
    /// it is true, and an unknown status keeps `active` alone.
    pub fn from_event(active: bool, status: Option<&str>) -> AccountStatus {
        match (active, status) {
            (_, Some("desynchronized")) => AccountStatus::Desynchronized { active },
            (_, Some("throttled")) => AccountStatus::Throttled { active },
            (true, _) => AccountStatus::Active,
            (false, Some("takendown")) => AccountStatus::Takendown,
            (false, Some("suspended")) => AccountStatus::Suspended,
            (false, Some("deleted")) => AccountStatus::Deleted,
            (false, Some("deactivated")) => AccountStatus::Deactivated,
            (false, _) => AccountStatus::Inactive,
        }
    }

    /// Whether content may be served.
    pub fn is_active(self) -> bool {
        match self {
            AccountStatus::Active => true,
            AccountStatus::Desynchronized { active } | AccountStatus::Throttled { active } => active,
            AccountStatus::Takendown
            | AccountStatus::Suspended
            | AccountStatus::Deleted
            | AccountStatus::Deactivated
            | AccountStatus::Inactive => false,
        }
    }

    /// The lexicon's word; `None` for active and for inactive without a known reason.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            AccountStatus::Active | AccountStatus::Inactive => None,
            AccountStatus::Takendown => Some("takendown"),
            AccountStatus::Suspended => Some("suspended"),
            AccountStatus::Deleted => Some("deleted"),
            AccountStatus::Deactivated => Some("deactivated"),
            AccountStatus::Desynchronized { .. } => Some("desynchronized"),
            AccountStatus::Throttled { .. } => Some("throttled"),
        }
    }
}

/// The accounts that we have taken down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takedowns {
    /// Each account once, in no particular order.
    pub accounts: Vec<Takedown>,
    /// What the log has done up to this seq is in it. Later events may be in it too: folding them in again changes nothing.
    pub as_of: Seq,
}

/// A takedown that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Takedown {
    /// [`Did::lane_hash`] of the account.
    pub account: u64,
    /// The `#account` event that says so: the one event of the account that may be served.
    pub seq: Seq,
}

/// A view of the log: written only by [`crate::log::EventLog::append`] and by repair.
#[async_trait]
pub trait Repos: Send + Sync {
    /// A repo's state as of every append that has been answered.
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error>;

    /// Repos after `after`, at most `limit`: none where there are no more. The order is one of all DIDs, known or not,
    /// that is the backend's own and never changes (byte order, or that of a hash), so that who goes on after the last
    /// DID of each page meets every repo once, those that change meanwhile too.
    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error>;

    /// How many repos have this host in their state.
    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error>;

    /// How many of those are [`LocalStatus::Throttled`].
    async fn count_throttled_by_host(&self, host: &HostName) -> Result<u64, Error>;

    /// The accounts that are [`LocalStatus::TakenDown`]. Costs what there are of them, not what there are of repos.
    async fn takedowns(&self) -> Result<Takedowns, Error>;

    /// How many repos there are.
    async fn count(&self) -> Result<u64, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_survive_the_event_they_are_told_in() {
        use AccountStatus::*;
        let all = [
            Active,
            Takendown,
            Suspended,
            Deleted,
            Deactivated,
            Desynchronized { active: true },
            Desynchronized { active: false },
            Throttled { active: true },
            Throttled { active: false },
            Inactive,
        ];
        for status in all {
            assert_eq!(AccountStatus::from_event(status.is_active(), status.as_str()), status);
        }
    }

    #[test]
    fn active_wins_over_a_status_that_contradicts_it() {
        assert_eq!(AccountStatus::from_event(true, Some("deleted")), AccountStatus::Active);
        assert_eq!(AccountStatus::from_event(true, Some("news")), AccountStatus::Active);
        assert_eq!(AccountStatus::from_event(false, Some("news")), AccountStatus::Inactive);
    }
}
