//! Hosts: what is known of each PDS, how far we have read it, and what an operator has decided about them.

mod assignment;
mod cursor_bytes;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use atproto::syntax::{HostName, SyntaxError};
use serde::{Deserialize, Serialize};

use crate::{error::Error, limits};

pub use assignment::{AllHosts, Assignment, Change, Nudge, Shard, Shards};

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
    /// What else is kept of it.
    pub notes: Notes,
}

impl Host {
    /// A host that was never read.
    pub fn new(name: HostName, status: HostStatus, added_at_micros: u64) -> Host {
        Host { name, status, cursor: HostCursor::default(), added_at_micros, notes: Notes::default() }
    }
}

/// What is kept of a host beside how it is. Written rarely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Notes {
    /// Who made it known.
    pub added_by: AddedBy,
    /// The operator's exception from the rules of limits.
    pub limits: limits::Change,
    /// The last time that its reading did not go on from the cursor.
    pub last_reset: Option<Reset>,
    /// The operator's last request that it be read again.
    pub rewind: Option<Rewind>,
    /// When the last request was made that its crawler has heard, microseconds since the Unix epoch.
    pub rewound_at_micros: u64,
}

impl Order {
    /// Carries the order into a row's fields.
    pub fn apply(&self, status: &mut HostStatus, notes: &mut Notes) {
        match self {
            Order::Ban(true) => *status = HostStatus::Banned,
            Order::Ban(false) if *status == HostStatus::Banned => *status = HostStatus::Idle,
            Order::Ban(false) => {}
            Order::Limits(limits) => notes.limits = *limits,
            Order::Rewind(rewind) => notes.rewind = Some(*rewind),
        }
    }
}

impl Notes {
    /// A request that its crawler has not heard yet.
    pub fn pending_rewind(&self) -> Option<Rewind> {
        self.rewind.filter(|rewind| rewind.at_micros > self.rewound_at_micros)
    }

    /// These, with what an operator has ordered in `others`.
    pub fn with_orders_of(self, others: &Notes) -> Notes {
        Notes { limits: others.limits, rewind: others.rewind, ..self }
    }
}

/// An operator wants a host to be read again. Whoever crawls it does that once, or not at all where the host counts anew
/// since, or is not read as far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rewind {
    /// When it was asked for, microseconds since the Unix epoch; a later request replaces an earlier one.
    pub at_micros: u64,
    /// Where reading is to go on.
    pub to: HostCursor,
}

/// What an operator orders of a host. Each kind is kept by itself, apart from what its crawler writes: so no write of
/// another's changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Whether it is banned.
    Ban(bool),
    /// The exception from the rules of limits.
    Limits(limits::Change),
    /// That it be read again.
    Rewind(Rewind),
}

/// Who made a host known. What strangers ask for has a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddedBy {
    /// An operator, or another relay's list that the operator chose.
    #[default]
    Operator,
    /// Somebody who called requestCrawl.
    Request,
}

/// A host's reading went on from elsewhere than its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reset {
    /// Why.
    pub cause: ResetCause,
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
    /// How far it had been read.
    pub from: HostCursor,
    /// Where reading went on.
    pub to: HostCursor,
}

/// Why a host's reading did not go on from its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetCause {
    /// The host said that our cursor is in the future: it counts anew.
    FutureCursor,
    /// Its first event after a connection was below our cursor: it counts anew.
    SeqWentBack,
    /// An operator had it read again.
    Rewound,
}

impl ResetCause {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetCause::FutureCursor => "future_cursor",
            ResetCause::SeqWentBack => "seq_went_back",
            ResetCause::Rewound => "rewound",
        }
    }
}

/// A DNS name, with all names under it; or one IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a lower-case or upper-case name without a port. `*.` before it is allowed and means the same.
    pub fn parse(text: &str) -> Result<Domain, SyntaxError> {
        let host = HostName::parse(text.strip_prefix("*.").unwrap_or(text))?;
        match host.port() {
            Some(_) => Err(SyntaxError { what: "domain", why: "a name with a port" }),
            None => Ok(Domain(Arc::from(host.host()))),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a host is in this domain, whatever its port.
    pub fn covers(&self, host: &HostName) -> bool {
        match host.host().strip_suffix(&*self.0) {
            Some(under) => under.is_empty() || under.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
        Domain::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What an operator has decided about hosts at large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Policy {
    /// Domains of which no host is read, and since when, microseconds since the Unix epoch.
    pub domain_bans: BTreeMap<Domain, u64>,
    /// Who may ask to be crawled.
    pub crawl_requests: CrawlRequests,
}

impl Policy {
    /// The ban that covers a host, if one does.
    pub fn ban_over(&self, host: &HostName) -> Option<&Domain> {
        self.domain_bans.keys().find(|domain| domain.covers(host))
    }
}

/// How many hosts strangers may make known with requestCrawl. A host that is known already costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrawlRequests {
    /// Whether requests are heard at all.
    pub accepted: bool,
    /// New hosts in any 24 hours.
    pub new_hosts_per_day: u32,
    /// New hosts in any 24 hours under one registrable domain (`example.co.uk`) or IP address.
    pub new_hosts_per_day_and_domain: u32,
}

impl Default for CrawlRequests {
    fn default() -> CrawlRequests {
        CrawlRequests { accepted: true, new_hosts_per_day: 500, new_hosts_per_day_and_domain: 20 }
    }
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

    /// The status of that word.
    pub fn parse(word: &str) -> Option<HostStatus> {
        use HostStatus::{Active, Banned, Idle, Offline, Throttled};
        [Active, Idle, Offline, Throttled, Banned].into_iter().find(|status| status.as_str() == word)
    }
}

/// How far a host has been read: all its events up to `seq` within `epoch` are judged, and durable where accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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

    /// Sets a known host's status, as its crawler sees it. A host that is banned stays so. Durable when answered.
    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error>;

    /// Sets what its crawler notes of a known host; what an operator has ordered stays. Durable when answered, and with it
    /// all cursors that were saved before.
    async fn set_notes(&self, name: &HostName, notes: &Notes) -> Result<(), Error>;

    /// Keeps what an operator orders of a known host. Who is banned no longer is idle, until its crawler says more. Durable
    /// when answered.
    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error>;

    /// Sets cursors of known hosts that this process crawls; those that it does not crawl stay. May be lost in a crash back
    /// to an older value, never to a newer one: what is read again is known as a repeat.
    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error>;

    /// How many hosts there are.
    async fn count(&self) -> Result<u64, Error>;

    /// What an operator has decided; the default before the first decision.
    async fn policy(&self) -> Result<Policy, Error>;

    /// Sets what an operator has decided. Durable when answered.
    async fn set_policy(&self, policy: &Policy) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_covers_what_is_under_it() {
        for (domain, host, covers) in [
            ("example.com", "example.com", true),
            ("*.Example.com", "a.b.example.com:8443", true),
            ("example.com", "notexample.com", false),
            ("example.com", "example.com.evil.org", false),
            ("a.example.com", "example.com", false),
            ("127.0.0.1", "127.0.0.1:2583", true),
            ("[::1]", "[::1]:2583", true),
        ] {
            let covered = Domain::parse(domain).unwrap().covers(&HostName::parse(host).unwrap());
            assert_eq!(covered, covers, "{domain} over {host}");
        }
        for bad in ["example.com:80", "", "*", "a b"] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }
}
