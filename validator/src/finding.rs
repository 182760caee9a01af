//! What is said of each refused event: what was found, and what would have passed. A text for each reason that the rules
//! give, for the person who has to mend the host.
//!
//! Called on refusal only. Texts from the event are quoted and cut, since they are a stranger's.

use std::fmt;

use atproto::{
    car::CarError,
    cbor::{CborError, Limits},
    cid::Cid,
    commit::CommitError,
    crypto::{PublicKey, SignatureError},
    event::{Action, RepoOp},
    mst::MstError,
    record,
    syntax::{Did, HostName, SyntaxError, Tid},
};
use runtime::span::Span;
use storage::{
    refusal::{Reason, Refusal},
    repos::{AccountStatus, Head},
};

use crate::identity::Absence;

// === Rows 5 to 7: the account ===

pub(crate) fn no_signing_key(did: &Did, fetched: Fetched) -> Refusal {
    Refusal::new(
        Reason::NoSigningKey,
        format!("the document of {did}{fetched} has no usable verification method #atproto"),
        "a verification method whose id ends in #atproto, of type Multikey (K-256 or P-256), its controller the DID",
    )
}

pub(crate) fn no_pds(did: &Did, fetched: Fetched) -> Refusal {
    Refusal::new(
        Reason::NoPds,
        format!("the document of {did}{fetched} names no host"),
        "a service #atproto_pds of type AtprotoPersonalDataServer whose endpoint is https:// and a host, no path",
    )
}

pub(crate) fn wrong_host(host: &HostName, named: &HostName, fetched: Fetched) -> Refusal {
    Refusal::new(
        Reason::WrongHost,
        format!("an event from {host}"),
        format!("{named}, the host that the account's document names{fetched}"),
    )
}

pub(crate) fn no_identity(did: &str, absence: Absence) -> Refusal {
    let (reason, found) = match absence {
        Absence::NotFound => (Reason::IdentityNotFound, "does not exist: the directory knows no such DID"),
        Absence::Tombstoned => (Reason::IdentityNotFound, "is tombstoned"),
        Absence::BadDocument => (Reason::IdentityNotFound, "has a document that can't be used"),
        Absence::Unsupported => (Reason::IdentityNotFound, "is of a method that is not supported"),
        Absence::Unanswered => (
            Reason::IdentityUnanswered,
            "is not served: who has to answer for its document did not, for a long time or while too many events waited",
        ),
    };
    Refusal::new(
        reason,
        format!("{} {found}", Quoted(did)),
        "a did:plc that the directory knows, or a did:web (no path) that serves its document",
    )
}

pub(crate) fn inactive(status: AccountStatus) -> Refusal {
    Refusal::new(
        Reason::AccountInactive,
        format!("an event of an account that its host calls {}", status.as_str().unwrap_or("inactive")),
        "an #account event with active: true first, or getRepoStatus that says so",
    )
}

pub(crate) fn taken_down() -> Refusal {
    Refusal::new(
        Reason::AccountInactive,
        "an event of an account that this relay has taken down",
        "nothing until this relay's operator restores it",
    )
}

pub(crate) fn throttled(host: &HostName, accounts_max: u64) -> Refusal {
    Refusal::new(
        Reason::AccountThrottled,
        format!("an event of an account beyond the {accounts_max} that are relayed of {host}"),
        "a place for it: its next event is taken when this relay's operator raises the limit, or another account leaves",
    )
}

// === Row 8: sizes ===

pub(crate) fn blocks_too_large(bytes: usize, bytes_max: usize) -> Refusal {
    Refusal::new(Reason::BlocksTooLarge, format!("{bytes} bytes of blocks"), format!("at most {bytes_max}"))
}

pub(crate) fn too_many_ops(ops: usize, ops_max: usize) -> Refusal {
    Refusal::new(Reason::TooManyOps, format!("{ops} ops"), format!("at most {ops_max}"))
}

pub(crate) fn record_too_large(path: &str, bytes: usize, bytes_max: usize) -> Refusal {
    Refusal::new(Reason::RecordTooLarge, format!("a record of {bytes} bytes"), format!("at most {bytes_max}"))
        .at_path(path)
}

pub(crate) fn too_big() -> Refusal {
    Refusal::new(Reason::TooBig, "tooBig: true", "tooBig: false; a #sync for what does not fit a #commit")
}

pub(crate) fn rebase() -> Refusal {
    Refusal::new(Reason::Rebase, "rebase: true", "rebase: false; a #sync for a repo that begins anew")
}

// === Row 9: revs ===

pub(crate) fn bad_rev(rev: &str, error: &SyntaxError) -> Refusal {
    Refusal::new(
        Reason::BadRev,
        format!("rev {}, {}", Quoted(rev), error.why),
        "a TID: 13 characters of base32-sortable",
    )
}

pub(crate) fn stale_rev(rev: Tid, last: &Head) -> Refusal {
    if rev == last.rev {
        let expected = format!("the commit that we have for it, {}, or a higher rev", last.commit);
        return Refusal::new(Reason::StaleRev, format!("rev {rev}, the last one, on another commit"), expected);
    }
    let behind = Micros(last.rev.micros().saturating_sub(rev.micros()));
    let expected = format!("a rev above {}, the last one that we have", last.rev);
    Refusal::new(Reason::StaleRev, format!("rev {rev}, {behind} below"), expected)
}

pub(crate) fn future_rev(rev: Tid, now_micros: u64, ahead_micros_max: u64) -> Refusal {
    let ahead = Micros(rev.micros().saturating_sub(now_micros));
    Refusal::new(
        Reason::FutureRev,
        format!("rev {rev}, {ahead} ahead of our clock"),
        format!("a rev at most {} ahead", Micros(ahead_micros_max)),
    )
}

// === Rows 10 and 11: the signed commit ===

pub(crate) fn car(error: &CarError) -> Refusal {
    match error {
        CarError::Malformed { why } => {
            Refusal::new(Reason::BadCar, format!("blocks that are no CAR: {why}"), "a CAR of version 1")
        }
        CarError::NoRoot => {
            Refusal::new(Reason::RootMismatch, "a CAR without a usable root", "the commit's CID as root")
        }
        CarError::WrongHash { cid } => Refusal::new(
            Reason::WrongBlockHash,
            format!("block {cid} with other bytes"),
            "blocks whose SHA-256 is the one in their CID",
        ),
    }
}

pub(crate) fn other_root(root: Cid, commit: Cid) -> Refusal {
    Refusal::new(Reason::RootMismatch, format!("a CAR with root {root}"), format!("the event's commit, {commit}"))
}

pub(crate) fn root_without_block(root: Cid) -> Refusal {
    Refusal::new(
        Reason::RootMismatch,
        format!("a CAR without the block of its root {root}"),
        "the commit block in the CAR",
    )
}

pub(crate) fn extra_blocks(blocks: usize) -> Refusal {
    Refusal::new(Reason::ExtraBlocks, format!("{blocks} blocks"), "the commit block alone, in a #sync")
}

pub(crate) fn bad_commit(error: &CommitError) -> Refusal {
    let came = match error {
        CommitError::Cbor(source) => format!("{error}: {source}"),
        CommitError::Field { .. } | CommitError::Version { .. } => error.to_string(),
    };
    Refusal::new(
        Reason::BadCommit,
        came,
        "did, version 3, data, rev, prev (null, but there) and sig, in canonical DAG-CBOR",
    )
}

pub(crate) fn commit_did_mismatch(in_commit: &str, of_event: &str) -> Refusal {
    Refusal::new(
        Reason::CommitDidMismatch,
        format!("a commit of {}", Quoted(in_commit)),
        format!("{}, whom the event is of", Quoted(of_event)),
    )
}

pub(crate) fn commit_rev_mismatch(in_commit: &str, of_event: &str) -> Refusal {
    Refusal::new(
        Reason::CommitRevMismatch,
        format!("rev {} in the commit", Quoted(in_commit)),
        format!("the event's, {}", Quoted(of_event)),
    )
}

pub(crate) fn signature(error: SignatureError, key: &PublicKey, fetched: Fetched) -> Refusal {
    let key = key.to_did_key();
    match error {
        SignatureError::HighS => Refusal::new(
            Reason::HighS,
            "a signature with a high S",
            "the low-S form of the same signature: S replaced by the curve's order minus S",
        ),
        SignatureError::Malformed => Refusal::new(
            Reason::BadSignature,
            "a signature that is not 64 bytes of R and S in range",
            format!("R and S, 32 bytes each, by {key}"),
        ),
        SignatureError::Mismatch => Refusal::new(
            Reason::BadSignature,
            format!("a signature that is not of {key}"),
            format!("one by that key, the account's by its document{fetched}, over the commit without sig"),
        ),
    }
}

// === Row 12: ops and records ===

pub(crate) fn bad_path(path: &str, error: &SyntaxError) -> Refusal {
    Refusal::new(Reason::BadPath, error.to_string(), "COLLECTION/RKEY, an NSID and a record key").at_path(path)
}

pub(crate) fn bad_op(op: &RepoOp<'_>) -> Refusal {
    Refusal::new(
        Reason::BadOp,
        Described(op).to_string(),
        "create: cid, no prev; update: cid and prev; delete: prev, no cid; each on what the one before it left",
    )
    .at_path(op.path)
}

pub(crate) fn missing_record(path: &str, cid: Cid) -> Refusal {
    Refusal::new(Reason::MissingRecord, format!("blocks without {cid}"), "the record's block in the CAR").at_path(path)
}

pub(crate) fn bad_record(path: &str, cid: Cid, error: &CborError) -> Refusal {
    let Limits { nesting_max, entries_max, key_bytes_max } = record::LIMITS;
    Refusal::new(
        Reason::BadRecord,
        format!("record {cid} with {} at byte {}", error.why, error.at),
        format!(
            "a map in canonical DAG-CBOR, at most {nesting_max} levels, {entries_max} entries, keys of {key_bytes_max} bytes"
        ),
    )
    .at_path(path)
}

// === Row 13: the tree ===

pub(crate) fn tree(error: &MstError, ops: &[RepoOp<'_>]) -> Refusal {
    match error {
        MstError::MissingBlock { cid } => Refusal::new(
            Reason::MissingMstBlock,
            format!("blocks without MST node {cid}"),
            "every node on the way to each op's key and to the keys on both sides of it",
        ),
        MstError::Malformed { why } => Refusal::new(
            Reason::BadMst,
            format!("a node that breaks this rule: {why}"),
            "nodes in the one form that the tree has for its keys",
        ),
        MstError::Limit { why } => {
            Refusal::new(Reason::BadMst, format!("over a limit: {why}"), "a tree within the limits")
        }
        MstError::OpMismatch { path } => {
            let op = ops.iter().rev().find(|op| op.path == path);
            let came = op.map_or_else(|| "an op".to_owned(), |op| Described(op).to_string());
            Refusal::new(
                Reason::OpMismatch,
                format!("{came}, which the tree contradicts"),
                "a tree that has the created or updated record under its path, and a deleted one no more",
            )
            .at_path(path)
        }
    }
}

/// `leads_to` is the root that undoing the ops led to.
pub(crate) fn prev_data_mismatch(claimed: Option<Cid>, leads_to: Cid, last: Option<&Head>) -> Refusal {
    let Some(claimed) = claimed else {
        let expected = format!("{leads_to}, the root that undoing the ops leads to");
        return Refusal::new(Reason::PrevDataMismatch, "no prevData in a repo with a past", expected);
    };
    let hint = match last {
        Some(last) if last.data == claimed => "; prevData is the last root that we have, so an op is missing or wrong",
        Some(last) if last.data == leads_to => "; that is the last root that we have, so prevData is wrong",
        Some(_) | None => "",
    };
    Refusal::new(
        Reason::PrevDataMismatch,
        format!("prevData {claimed}"),
        format!("{leads_to}, to which undoing the ops leads{hint}"),
    )
}

// === #sync ===

pub(crate) fn sync_rollback(rev: Tid, last: &Head) -> Refusal {
    Refusal::new(
        Reason::SyncRollback,
        format!("a #sync to rev {rev}"),
        format!("{} or above, the last one that we have", last.rev),
    )
}

// === Helpers ===

/// When the document was fetched that an event is judged by; `None` where it is not from a directory.
#[derive(Clone, Copy)]
pub(crate) struct Fetched(pub(crate) Option<Micros>);

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(before) => write!(f, " (fetched {before} before)"),
            None => Ok(()),
        }
    }
}

/// Microseconds, for people.
#[derive(Clone, Copy)]
pub(crate) struct Micros(pub(crate) u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / 1_000_000 {
            0 => write!(f, "{} ms", self.0 / 1_000),
            seconds => Span(seconds).fmt(f),
        }
    }
}

/// A stranger's text: quoted, so that nothing in it looks like ours, and cut.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BYTES_MAX: usize = 96;
        write!(f, "{:?}", &self.0[..self.0.floor_char_boundary(BYTES_MAX)])
    }
}

/// An op without its path.
struct Described<'a>(&'a RepoOp<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepoOp { action, cid, prev, .. } = self.0;
        f.write_str(match action {
            Action::Create => "a create",
            Action::Update => "an update",
            Action::Delete => "a delete",
        })?;
        match cid {
            Some(cid) => write!(f, " with cid {cid}")?,
            None => f.write_str(" without cid")?,
        }
        match prev {
            Some(prev) => write!(f, " and prev {prev}"),
            None => f.write_str(" and no prev"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_name_their_two_largest_units() {
        let table = [
            (0, "0 ms"),
            (999_999, "999 ms"),
            (59_000_000, "59 s"),
            (301_000_000, "5 min 1 s"),
            (7_260_000_000, "2 h 1 min"),
            (176_400_000_000, "2 d 1 h"),
        ];
        for (micros, text) in table {
            assert_eq!(Micros(micros).to_string(), text);
        }
    }

    #[test]
    fn strangers_texts_are_quoted_and_cut() {
        assert_eq!(Quoted("a\"\n\u{202e}b").to_string(), "\"a\\\"\\n\\u{202e}b\"");
        assert_eq!(Quoted(&"é".repeat(100)).to_string(), format!("\"{}\"", "é".repeat(48)));
    }
}
