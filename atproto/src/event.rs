//! The events of `com.atproto.sync.subscribeRepos`, borrowed from their frames.
//!
//! Parsing checks types, required keys and the DID's syntax. Whether an event is true is the validator's business.

use crate::{
    cid::Cid,
    frame::{FrameError, SeqSlot},
};

/// Kinds of events that carry a seq and a DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `#commit`
    Commit,
    /// `#sync`
    Sync,
    /// `#identity`
    Identity,
    /// `#account`
    Account,
}

impl Kind {
    /// The header's `t`, with its `#`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Commit => "#commit",
            Kind::Sync => "#sync",
            Kind::Identity => "#identity",
            Kind::Account => "#account",
        }
    }
}

/// What routing needs of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed<'a> {
    /// An event of an account.
    Event(Route<'a>),
    /// `#info`.
    Info {
        /// `OutdatedCursor`, …
        name: &'a str,
        /// For people.
        message: Option<&'a str>,
    },
    /// An error frame; the server closes after it.
    Error {
        /// `FutureCursor`, `ConsumerTooSlow`, …
        error: &'a str,
        /// For people.
        message: Option<&'a str>,
    },
    /// An unknown `op` or `t`: to be ignored. The seq if there is a readable one.
    Unknown {
        /// The payload's seq.
        seq: Option<u64>,
    },
}

/// Whose event it is and where its seq stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The kind.
    pub kind: Kind,
    /// The account: `repo` of a commit, `did` of the others. Syntax checked.
    pub did: &'a str,
    /// The sender's seq, 1 ≤ seq < 2^53.
    pub seq: u64,
    /// Where the seq stands.
    pub seq_slot: SeqSlot,
}

/// An event, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// `#commit`
    Commit(CommitEvent<'a>),
    /// `#sync`
    Sync(SyncEvent<'a>),
    /// `#identity`
    Identity(IdentityEvent<'a>),
    /// `#account`
    Account(AccountEvent<'a>),
}

/// `#commit`: a repo has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account's DID.
    pub repo: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The rev the commit claims; not checked to be a TID.
    pub rev: &'a str,
    /// The rev before; `None` for null. The key is required.
    pub since: Option<&'a str>,
    /// The commit block's CID.
    pub commit: Cid,
    /// Must be false today.
    pub too_big: bool,
    /// Must be false today.
    pub rebase: bool,
    /// A CAR.
    pub blocks: &'a [u8],
    /// What changed.
    pub ops: Vec<RepoOp<'a>>,
    /// The MST root before; absent on a repo's first commit.
    pub prev_data: Option<Cid>,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoOp<'a> {
    /// create, update or delete.
    pub action: Action,
    /// `collection/rkey`; not checked.
    pub path: &'a str,
    /// The new record; null on delete.
    pub cid: Option<Cid>,
    /// The record before; update and delete only.
    pub prev: Option<Cid>,
}

/// What an op does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A record that was not there.
    Create,
    /// A record that was there.
    Update,
    /// It is gone.
    Delete,
}

/// `#sync`: the repo's state, without what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The rev the commit claims; not checked.
    pub rev: &'a str,
    /// A CAR with the commit block.
    pub blocks: &'a [u8],
}

/// `#identity`: the DID document or handle may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The handle, unverified.
    pub handle: Option<&'a str>,
}

/// `#account`: the account's status at the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// Whether content may be served.
    pub active: bool,
    /// `takendown`, `suspended`, `deleted`, `deactivated`, `desynchronized`, `throttled`, or unknown.
    pub status: Option<&'a str>,
}

/// A payload that is not what its kind asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The frame itself can't be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A required key is missing.
    #[error("no {field}")]
    Missing {
        /// The key.
        field: &'static str,
    },
    /// A field has the wrong type or value.
    #[error("invalid {field}")]
    Invalid {
        /// The key.
        field: &'static str,
    },
}

/// Reads what routing needs, borrowing, in one pass over the payload's keys. Always checks that the frame is two
/// canonical maps, the DID's syntax and the seq's range. Does not check other fields.
pub fn route(frame: &[u8]) -> Result<Routed<'_>, EventError> {
    let _ = frame;
    todo!()
}

/// Decodes a frame that [`route`] said is an event; `kind` and bounds come from there.
pub fn parse(frame: &[u8]) -> Result<Event<'_>, EventError> {
    let _ = frame;
    todo!()
}

impl Event<'_> {
    /// The whole frame, header included, in canonical form.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
}

/// An `#info` frame.
pub fn encode_info(name: &str, message: Option<&str>) -> Vec<u8> {
    let _ = (name, message);
    todo!()
}
