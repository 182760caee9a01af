//! Who an account is: its DID document, from the PLC directory or a `did:web` host, cached.
//!
//! [`Resolver`] is the handle that lanes hold; [`Directory`] makes the requests and runs once. A definite answer (a
//! document, 404, a tombstone) is told apart from none (no connection, a time-out, 429, 5xx): on none, a cached document
//! serves past its time, and who needs a newer one waits.
//!
//! What must hold: one request under way for an account, a bounded number overall and a second, for all who ask in turn;
//! a directory that is silent is only probed; keys are parsed once, when the document is read; an answer is never older
//! than asked for.

mod fetch;
mod gate;
mod lookups;
mod resolver;
mod row;
mod turns;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use atproto::{did_doc::DidDocument, syntax::HostName};
use url::Url;

pub(crate) use fetch::{Fetched, Method};
pub use resolver::{Closed, Directory, RefreshError, Resolver, build};

/// How identities are resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The PLC directory.
    pub plc_url: Url,
    /// Memory for cached identities.
    pub cache_bytes_max: u64,
    /// How long a document is taken as it is.
    pub found_for: Duration,
    /// How long a definite absence is.
    pub absent_for: Duration,
    /// How long a document past its time serves after the directory failed to answer, before it is asked again.
    pub stale_for: Duration,
    /// How long the directory's replicas may lag. A 404 is believed, and an announced change that does not show is
    /// looked for again, after this long.
    pub replica_lag: Duration,
    /// How long an account's own silence (`did:web`, or a directory that answers for others) holds its events: less than
    /// a lane may stand still.
    pub patience: Duration,
    /// Requests under way to the directory.
    pub concurrent_max: NonZeroUsize,
    /// Requests a second to the directory.
    pub per_second: NonZeroU32,
    /// Requests under way to `did:web` hosts.
    pub web_concurrent_max: NonZeroUsize,
    /// Requests a second to `did:web` hosts.
    pub web_per_second: NonZeroU32,
    /// Accounts that are looked up or wait for it at once. More than the lanes can park, so that nobody waits for
    /// others' lookups to end; it bounds memory should that ever be wrong.
    pub lookups_max: NonZeroUsize,
    /// How long a directory that answers slowly, or has many before us, is waited for where an older identity will do.
    pub stale_after: Duration,
    /// The time for one request.
    pub timeout: Duration,
    /// The longest wait between two tries of one account.
    pub retry_max: Duration,
}

impl Config {
    /// Defaults fit for a small machine: 64 MiB are some 100,000 accounts.
    pub fn new(plc_url: Url) -> Config {
        Config {
            plc_url,
            cache_bytes_max: 64 << 20,
            found_for: Duration::from_secs(24 * 60 * 60),
            absent_for: Duration::from_secs(2 * 60),
            stale_for: Duration::from_secs(30),
            replica_lag: Duration::from_secs(1),
            patience: Duration::from_secs(45),
            concurrent_max: NonZeroUsize::new(64).expect("64 is not 0"),
            per_second: NonZeroU32::new(200).expect("200 is not 0"),
            web_concurrent_max: NonZeroUsize::new(32).expect("32 is not 0"),
            web_per_second: NonZeroU32::new(100).expect("100 is not 0"),
            lookups_max: NonZeroUsize::new(262_144).expect("262144 is not 0"),
            stale_after: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            retry_max: Duration::from_secs(15),
        }
    }
}

/// What is known of who an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its document, its keys parsed; or why it certainly has none.
    pub known: Result<Arc<DidDocument>, Absence>,
    /// When the fetch that learnt this began, microseconds since the Unix epoch.
    pub fetched_at_micros: u64,
}

/// Why an account has no identity: a definite answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Absence {
    /// The directory does not know the DID.
    #[error("no such identity")]
    NotFound,
    /// It was ended by its owner.
    #[error("tombstoned")]
    Tombstoned,
    /// What is served for it is not a DID document of it.
    #[error("its document is not usable")]
    BadDocument,
    /// A method other than `plc` and `web`, or a `did:web` with a path or a forbidden host.
    #[error("its method is not supported")]
    Unsupported,
    /// Who has to answer for it did not for a long time, while the directory as a whole was well.
    #[error("its identity is not served")]
    Unanswered,
}

/// For whom an identity is wanted. Requests are made for all askers in turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A host that has sent events of the account.
    Host(HostName),
    /// An operator, or the resolver itself.
    Ourselves,
}

/// How new an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// What is cached, within its time; older where the directory does not answer.
    Any,
    /// The account announced a change at this time: fetched since then; older where the directory does not answer.
    Announced {
        /// Microseconds since the Unix epoch.
        at_micros: u64,
    },
    /// Fetched at or after this time, however long that takes. May lie a little in the future.
    Since {
        /// Microseconds since the Unix epoch.
        at_micros: u64,
    },
}

/// How the resolving goes, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Identities in memory.
    pub known: u64,
    /// Accounts that are being looked up or wait for it.
    pub waiting: u64,
    /// Requests under way to the directory.
    pub in_flight: u64,
    /// Requests to the directory in a second, over the last few.
    pub per_second: f64,
    /// What [`Config::per_second`] allows.
    pub per_second_max: u32,
    /// Times an identity was needed and was in memory.
    pub hits: u64,
    /// Times it was not.
    pub misses: u64,
    /// Whether the directory was silent when it was last asked.
    pub directory_is_silent: bool,
}
