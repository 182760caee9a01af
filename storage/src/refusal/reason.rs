//! The closed set of reasons.

use std::fmt;

/// Makes the enum, the list and the words out of one table, so that they can't drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// A named reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// How many there are.
            pub const COUNT: usize = [$($word),+].len();

            /// All of them, in the order of the protocol's table.
            pub const ALL: [Reason; Reason::COUNT] = [$(Reason::$name),+];

            /// The word: `bad_signature`, …
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $word,)+
                }
            }
        }
    };
}

reasons! {
    /// The frame is over 5 MiB.
    FrameTooLarge = "frame_too_large",
    /// The header is not readable CBOR.
    BadHeader = "bad_header",
    /// The payload is not one canonical map, or a field is missing or of the wrong type.
    BadPayload = "bad_payload",
    /// The sender's seq does not rise.
    SeqNotRising = "seq_not_rising",
    /// The directory says there is no such identity, or it is tombstoned.
    IdentityNotFound = "identity_not_found",
    /// Who answers for the account alone did not for a long time, or while too much of the account waited; no definite
    /// answer, so it is asked again soon.
    IdentityUnanswered = "identity_unanswered",
    /// The DID document has no usable signing key.
    NoSigningKey = "no_signing_key",
    /// The DID document names no host.
    NoPds = "no_pds",
    /// The host is not the account's.
    WrongHost = "wrong_host",
    /// The account is not active.
    AccountInactive = "account_inactive",
    /// The host has more accounts than we take of it, and this one is over the cap.
    AccountThrottled = "account_throttled",
    /// `blocks` is over 2,000,000 bytes (10,000 of a `#sync`).
    BlocksTooLarge = "blocks_too_large",
    /// More than 200 ops.
    TooManyOps = "too_many_ops",
    /// A record is over 1 MiB.
    RecordTooLarge = "record_too_large",
    /// `tooBig` is set.
    TooBig = "too_big",
    /// `rebase` is set.
    Rebase = "rebase",
    /// The rev is not a TID.
    BadRev = "bad_rev",
    /// The rev is older than the last, or the last one's but on another commit.
    StaleRev = "stale_rev",
    /// The rev is more than 5 minutes in the future.
    FutureRev = "future_rev",
    /// The CAR can't be read.
    BadCar = "bad_car",
    /// A block's bytes do not hash to its CID.
    WrongBlockHash = "wrong_block_hash",
    /// The CAR of a `#sync` holds more than the commit block.
    ExtraBlocks = "extra_blocks",
    /// The CAR's root is not the event's commit, or its block is missing.
    RootMismatch = "root_mismatch",
    /// The commit block is not a commit of version 3.
    BadCommit = "bad_commit",
    /// The commit is of another DID.
    CommitDidMismatch = "commit_did_mismatch",
    /// The commit's rev is not the event's.
    CommitRevMismatch = "commit_rev_mismatch",
    /// The signature has a high S.
    HighS = "high_s",
    /// The signature is not the account's key's.
    BadSignature = "bad_signature",
    /// A path is not `collection/rkey`.
    BadPath = "bad_path",
    /// An op's cid or prev does not fit its action.
    BadOp = "bad_op",
    /// A record's block is missing.
    MissingRecord = "missing_record",
    /// A record is not well-formed DAG-CBOR within the limits of nesting, containers and keys.
    BadRecord = "bad_record",
    /// An MST node that is needed is missing.
    MissingMstBlock = "missing_mst_block",
    /// A node breaks the MST's rules or limits.
    BadMst = "bad_mst",
    /// An op is not what the tree says.
    OpMismatch = "op_mismatch",
    /// `prevData` is missing though the repo has a past, or the ops do not lead back to it.
    PrevDataMismatch = "prev_data_mismatch",
    /// A `#sync`'s rev is older than the last.
    SyncRollback = "sync_rollback",
}

impl Reason {
    /// The reason with this word.
    pub fn parse(word: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_variants_in_snake_case_and_parse_back() {
        for reason in Reason::ALL {
            let mut snake = String::new();
            for c in format!("{reason:?}").chars() {
                if c.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            assert_eq!(reason.as_str(), snake);
            assert_eq!(Reason::parse(&snake), Some(reason));
            assert_eq!(Reason::ALL[reason as usize], reason);
        }
        assert_eq!(Reason::parse("no_such_reason"), None);
    }
}
