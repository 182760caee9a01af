//! What makes an event the same on two streams. Pure.
//!
//! Relays give events seqs of their own, and some write frames anew: fields that nobody knows are gone then, and keys may
//! stand in another order. None has reason to change what an event says. So an event is known by fields, not by bytes: a
//! commit by account and rev; the others, of which an account may have several with one rev or none, by account, time
//! and rev. What else it says must agree; a commit's time, which is informal, does not count.

use atproto::{
    crypto::sha256,
    event::{self, CommitEvent, Event, EventError, Kind, RepoOp, Routed},
};

/// What an event is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key([u8; 16]);

/// An event, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint<'a> {
    /// What it is known by.
    pub key: Key,
    /// Its kind.
    pub kind: Kind,
    /// Whose it is.
    pub did: &'a str,
    /// Its rev, or its time where it has none; cut to a length that any honest one has.
    pub version: &'a str,
    /// What it says.
    pub content: Content,
}

/// Digests of what an event says, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content([u64; PARTS_MAX]);

/// What a message of a stream is.
#[derive(Debug)]
pub enum Message<'a> {
    /// An event: its seq, and what is compared, where all its fields can be read.
    Event {
        /// The relay's seq.
        seq: u64,
        /// What is compared.
        fingerprint: Result<Fingerprint<'a>, EventError>,
    },
    /// `#info`, by its name.
    Info(&'a str),
    /// An error frame, by its name.
    Error(&'a str),
    /// Of a kind that nobody knows yet.
    Unknown {
        /// Its seq, if it has one.
        seq: Option<u64>,
    },
    /// Not a message.
    Unreadable(EventError),
}

const PARTS_MAX: usize = 4;

/// A rev has 13 characters, a time some 30.
const VERSION_BYTES_MAX: usize = 64;

impl<'a> Message<'a> {
    /// Reads a frame.
    pub fn read(frame: &'a [u8]) -> Message<'a> {
        match event::route(frame) {
            Ok(Routed::Event(route)) => {
                Message::Event { seq: route.seq, fingerprint: event::parse(frame).map(|event| Fingerprint::of(&event)) }
            }
            Ok(Routed::Info { name, .. }) => Message::Info(name),
            Ok(Routed::Error { error, .. }) => Message::Error(error),
            Ok(Routed::Unknown { seq }) => Message::Unknown { seq },
            Err(error) => Message::Unreadable(error),
        }
    }
}

impl<'a> Fingerprint<'a> {
    /// Of an event.
    pub fn of(event: &Event<'a>) -> Fingerprint<'a> {
        let (kind, did, version, key, parts) = match event {
            Event::Commit(commit) => {
                let parts =
                    [digest(&[&commit.commit.to_bytes()]), digest(&[commit.blocks]), ops(&commit.ops), links(commit)];
                (Kind::Commit, commit.repo, commit.rev, [commit.rev, ""], parts)
            }
            Event::Sync(sync) => {
                (Kind::Sync, sync.did, sync.rev, [sync.rev, sync.time], [digest(&[sync.blocks]), 0, 0, 0])
            }
            Event::Identity(identity) => {
                let handle = optional(identity.handle.map(str::as_bytes));
                (Kind::Identity, identity.did, identity.time, ["", identity.time], [handle, 0, 0, 0])
            }
            Event::Account(account) => {
                let status = digest(&[&[u8::from(account.active)], account.status.unwrap_or_default().as_bytes()]);
                (Kind::Account, account.did, account.time, ["", account.time], [status, 0, 0, 0])
            }
        };
        let [rev, time] = key;
        let key = long_digest(&[kind.as_str(), did, rev, time].map(str::as_bytes));
        let mut first = [0; 16];
        first.copy_from_slice(&key[..16]);
        let content = Content(parts);
        Fingerprint { key: Key(first), kind, did, version: cut(version), content }
    }
}

impl Content {
    /// What an event of this kind says otherwise than another one.
    pub fn differing(&self, kind: Kind, other: &Content) -> Vec<&'static str> {
        let names: &[&str] = match kind {
            Kind::Commit => &["commit", "blocks", "ops", "since or prevData"],
            Kind::Sync => &["blocks"],
            Kind::Identity => &["handle"],
            Kind::Account => &["active or status"],
        };
        let differs = self.0.iter().zip(&other.0).map(|(one, other)| one != other);
        names.iter().zip(differs).filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
    }
}

/// What was before a commit, and what its flags are.
fn links(commit: &CommitEvent<'_>) -> u64 {
    let prev_data = commit.prev_data.map(|cid| cid.to_bytes());
    let flags = [u8::from(commit.too_big), u8::from(commit.rebase)];
    let since = optional(commit.since.map(str::as_bytes)).to_be_bytes();
    digest(&[&since, &optional(prev_data.as_ref().map(AsRef::as_ref)).to_be_bytes(), &flags])
}

fn ops(ops: &[RepoOp<'_>]) -> u64 {
    let mut bytes = Vec::new();
    for op in ops {
        let cids = [&op.cid, &op.prev].map(|cid| cid.map(|cid| cid.to_bytes()));
        let [cid, prev] = cids.each_ref().map(|cid| optional(cid.as_ref().map(AsRef::as_ref)).to_be_bytes());
        bytes.extend(digest(&[op.action.as_str().as_bytes(), op.path.as_bytes(), &cid, &prev]).to_be_bytes());
    }
    digest(&[&bytes])
}

/// Nothing is another thing than an empty one.
fn optional(part: Option<&[u8]>) -> u64 {
    part.map_or(0, |part| digest(&[part]))
}

fn digest(parts: &[&[u8]]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&long_digest(parts)[..8]);
    u64::from_be_bytes(first)
}

/// Of all parts, each with its length before it, so that no two lists of parts are the same bytes.
fn long_digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(VERSION_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use atproto::{
        cid::Cid,
        event::{AccountEvent, Action, IdentityEvent, SyncEvent},
    };

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn commit() -> CommitEvent<'static> {
        CommitEvent {
            seq: 1,
            repo: DID,
            time: "2026-01-02T03:04:05Z",
            rev: "3l3qo2vutsw2c",
            since: Some("3l3qo2vuowo2b"),
            commit: Cid::of_cbor(b"commit"),
            too_big: false,
            rebase: false,
            blocks: b"blocks",
            ops: vec![RepoOp { action: Action::Create, path: "a.b.c/1", cid: Some(Cid::of_cbor(b"r")), prev: None }],
            prev_data: Some(Cid::of_cbor(b"before")),
        }
    }

    fn fingerprint(commit: CommitEvent<'_>) -> Fingerprint<'_> {
        Fingerprint::of(&Event::Commit(commit))
    }

    #[test]
    fn a_commit_is_known_by_account_and_rev_whatever_its_seq_and_time() {
        let one = fingerprint(commit());
        assert_eq!(one, fingerprint(CommitEvent { seq: 77, time: "later", ..commit() }));
        assert_eq!((one.did, one.version), (DID, "3l3qo2vutsw2c"));
        for other in [
            CommitEvent { rev: "3l3qo2vutsw2d", ..commit() },
            CommitEvent { repo: "did:plc:44ybard66vv44zksje25o7dz", ..commit() },
        ] {
            assert_ne!(one.key, fingerprint(other).key);
        }
    }

    #[test]
    fn what_a_commit_says_otherwise_is_named() {
        let one = fingerprint(commit());
        let op = commit().ops[0].clone();
        for (other, named) in [
            (CommitEvent { commit: Cid::of_cbor(b"other"), ..commit() }, "commit"),
            (CommitEvent { blocks: b"other", ..commit() }, "blocks"),
            (CommitEvent { ops: vec![], ..commit() }, "ops"),
            (CommitEvent { ops: vec![RepoOp { prev: op.cid, ..op.clone() }], ..commit() }, "ops"),
            (CommitEvent { since: None, ..commit() }, "since or prevData"),
            (CommitEvent { since: Some(""), ..commit() }, "since or prevData"),
            (CommitEvent { prev_data: None, ..commit() }, "since or prevData"),
        ] {
            let other = fingerprint(other);
            assert_eq!(one.key, other.key);
            assert_eq!(one.content.differing(Kind::Commit, &other.content), [named]);
        }
        let other = fingerprint(CommitEvent { blocks: b"", since: None, ..commit() });
        assert_eq!(one.content.differing(Kind::Commit, &other.content), ["blocks", "since or prevData"]);
    }

    #[test]
    fn others_are_known_by_account_and_time() {
        let sync = |rev, time| Fingerprint::of(&Event::Sync(SyncEvent { seq: 1, did: DID, time, rev, blocks: b"b" }));
        assert_ne!(sync("1", "a").key, sync("1", "b").key, "a host says the same rev again");
        assert_ne!(sync("1", "a").key, sync("2", "a").key);
        let identity =
            |time, handle| Fingerprint::of(&Event::Identity(IdentityEvent { seq: 1, did: DID, time, handle }));
        let (with, without) = (identity("a", Some("h.test")), identity("a", None));
        assert_eq!(with.key, without.key);
        assert_eq!(with.content.differing(Kind::Identity, &without.content), ["handle"]);
        let account = |time, active| {
            let event = AccountEvent { seq: 1, did: DID, time, active, status: None };
            Fingerprint::of(&Event::Account(event))
        };
        assert_ne!(account("a", true).key, identity("a", None).key, "another kind");
        assert_ne!(account("a", true).key, account("b", true).key);
        assert_eq!(
            account("a", true).content.differing(Kind::Account, &account("a", false).content),
            ["active or status"]
        );
    }

    #[test]
    fn messages_are_told_apart_and_long_versions_cut() {
        let time = "é".repeat(100);
        let event = IdentityEvent { seq: 7, did: DID, time: &time, handle: None };
        let frame = Event::Identity(event).encode();
        let Message::Event { seq: 7, fingerprint: Ok(read) } = Message::read(&frame) else { panic!("an event") };
        assert_eq!(read.version.len(), 64);
        let error = atproto::frame::encode_error("FutureCursor", None);
        assert!(matches!(Message::read(&error), Message::Error("FutureCursor")));
        let info = event::encode_info("OutdatedCursor", None);
        assert!(matches!(Message::read(&info), Message::Info("OutdatedCursor")));
        assert!(matches!(Message::read(b"\xff"), Message::Unreadable(_)));
    }
}
