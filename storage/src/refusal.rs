//! Why an input was refused: the closed set of reasons, and the counts by host.
//!
//! The word of a reason is the same in the metric's label, the log's field, the admin JSON and the test fixtures. Where
//! several apply, the one that stands first in the protocol's table of checks is given.

/// A named reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The frame is over 5 MiB.
    FrameTooLarge,
    /// The header is not readable CBOR.
    BadHeader,
    /// The payload is not one canonical map, or a field is missing or of the wrong type.
    BadPayload,
    /// The sender's seq does not rise.
    SeqNotRising,
    /// The directory says there is no such identity, or it is tombstoned.
    IdentityNotFound,
    /// The DID document has no usable signing key.
    NoSigningKey,
    /// The DID document names no host.
    NoPds,
    /// The host is not the account's.
    WrongHost,
    /// The account is not active.
    AccountInactive,
    /// `blocks` is over 2,000,000 bytes (10,000 of a `#sync`).
    BlocksTooLarge,
    /// More than 200 ops.
    TooManyOps,
    /// A record is over 1 MiB.
    RecordTooLarge,
    /// `tooBig` is set.
    TooBig,
    /// `rebase` is set.
    Rebase,
    /// The rev is not a TID.
    BadRev,
    /// The rev is older than the last.
    StaleRev,
    /// The rev is more than 5 minutes in the future.
    FutureRev,
    /// The CAR can't be read.
    BadCar,
    /// A block's bytes do not hash to its CID.
    WrongBlockHash,
    /// The CAR's root is not the event's commit, or its block is missing.
    RootMismatch,
    /// The commit block is not a commit of version 3.
    BadCommit,
    /// The commit is of another DID.
    CommitDidMismatch,
    /// The commit's rev is not the event's.
    CommitRevMismatch,
    /// The signature has a high S.
    HighS,
    /// The signature is not the account's key's.
    BadSignature,
    /// A path is not `collection/rkey`.
    BadPath,
    /// An op's cid or prev does not fit its action.
    BadOp,
    /// A record's block is missing.
    MissingRecord,
    /// An MST node that is needed is missing.
    MissingMstBlock,
    /// A node breaks the MST's rules or limits.
    BadMst,
    /// An op is not what the tree says.
    OpMismatch,
    /// `prevData` is missing though the repo has a past, or the ops do not lead back to it.
    PrevDataMismatch,
    /// A `#sync`'s rev is older than the last.
    SyncRollback,
}

impl Reason {
    /// All of them, in the order of the protocol's table.
    pub const ALL: [Reason; 33] = {
        use Reason::*;
        [
            FrameTooLarge,
            BadHeader,
            BadPayload,
            SeqNotRising,
            IdentityNotFound,
            NoSigningKey,
            NoPds,
            WrongHost,
            AccountInactive,
            BlocksTooLarge,
            TooManyOps,
            RecordTooLarge,
            TooBig,
            Rebase,
            BadRev,
            StaleRev,
            FutureRev,
            BadCar,
            WrongBlockHash,
            RootMismatch,
            BadCommit,
            CommitDidMismatch,
            CommitRevMismatch,
            HighS,
            BadSignature,
            BadPath,
            BadOp,
            MissingRecord,
            MissingMstBlock,
            BadMst,
            OpMismatch,
            PrevDataMismatch,
            SyncRollback,
        ]
    };

    /// The word: `bad_signature`, …
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}
