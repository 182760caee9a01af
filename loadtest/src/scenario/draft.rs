//! A `#commit` and a `#sync` in parts, each of which can be spoilt before it is encoded.

use std::collections::BTreeMap;

use atproto::{
    car,
    cbor::Writer,
    cid::Cid,
    commit::Commit,
    crypto::SigningKey,
    event::{Action, CommitEvent, Event, RepoOp, SyncEvent},
    mst::Tree,
    syntax::{Did, Tid},
};

/// A `#commit` in parts.
#[derive(Clone)]
pub struct Draft {
    /// The event's DID.
    pub repo: String,
    /// The event's rev.
    pub rev: String,
    /// The rev before.
    pub since: Option<String>,
    /// The event's commit.
    pub commit: Cid,
    /// `tooBig`.
    pub too_big: bool,
    /// `rebase`.
    pub rebase: bool,
    /// The ops.
    pub steps: Vec<Step>,
    /// The tree's root before.
    pub prev_data: Option<Cid>,
    /// The tree's root after.
    pub data: Cid,
    /// The CAR's root.
    pub root: Cid,
    /// The block that `commit` and `root` name.
    pub commit_block: Vec<u8>,
    /// The tree's nodes, the root first.
    pub nodes: Vec<(Cid, Vec<u8>)>,
    /// The records' blocks.
    pub records: Vec<(Cid, Vec<u8>)>,
    /// Blocks that nothing refers to.
    pub extra: Vec<(Cid, Vec<u8>)>,
    /// These bytes instead of a CAR of the parts.
    pub car: Option<Vec<u8>>,
    /// What the repo is after it.
    pub(super) after: (Tree, BTreeMap<String, Cid>),
}

/// An op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it says it does.
    pub action: Action,
    /// Where.
    pub path: String,
    /// The record after.
    pub cid: Option<Cid>,
    /// The record before.
    pub prev: Option<Cid>,
}

/// A `#sync` in parts.
#[derive(Clone)]
pub struct SyncDraft {
    /// The event's DID.
    pub did: String,
    /// The event's rev.
    pub rev: String,
    /// The tree's root.
    pub data: Cid,
    /// The CAR's root.
    pub root: Cid,
    /// The block that `root` names.
    pub commit_block: Vec<u8>,
    /// Blocks that should not be there.
    pub extra: Vec<(Cid, Vec<u8>)>,
}

impl Draft {
    /// Signs what the parts say, as `did`.
    pub fn sign(&mut self, did: &Did, key: &SigningKey) {
        self.put_commit(signed(did.as_str(), &self.rev, self.data, key));
    }

    /// Takes another block for the commit.
    pub fn put_commit(&mut self, block: Vec<u8>) {
        self.commit = Cid::of_cbor(&block);
        self.root = self.commit;
        self.commit_block = block;
    }

    /// Another rev, in the event and the commit.
    pub fn put_rev(&mut self, rev: String, did: &Did, key: &SigningKey) {
        self.rev = rev;
        self.sign(did, key);
    }

    /// Another tree, its root the first of `nodes`.
    pub fn put_tree(&mut self, nodes: Vec<(Cid, Vec<u8>)>, did: &Did, key: &SigningKey) {
        self.data = nodes.first().map_or(self.data, |(cid, _)| *cid);
        self.nodes = nodes;
        self.sign(did, key);
    }

    /// All nodes of the tree after it, not only those that are needed.
    pub fn put_all_nodes(&mut self) {
        self.nodes = self.after.0.blocks();
    }

    /// The CAR of the parts.
    pub fn car(&self) -> Vec<u8> {
        let commit = std::iter::once((self.root, &self.commit_block[..]));
        let blocks = self.nodes.iter().chain(&self.records).chain(&self.extra);
        car::write(self.root, commit.chain(blocks.map(|(cid, block)| (*cid, &block[..]))))
    }

    /// The frame.
    pub fn encode(&self, seq: u64, time: &str) -> Vec<u8> {
        let blocks = self.car.clone().unwrap_or_else(|| self.car());
        let ops = self.steps.iter();
        Event::Commit(CommitEvent {
            seq,
            repo: &self.repo,
            time,
            rev: &self.rev,
            since: self.since.as_deref(),
            commit: self.commit,
            too_big: self.too_big,
            rebase: self.rebase,
            blocks: &blocks,
            ops: ops.map(|op| RepoOp { action: op.action, path: &op.path, cid: op.cid, prev: op.prev }).collect(),
            prev_data: self.prev_data,
        })
        .encode()
    }
}

impl SyncDraft {
    /// A good one.
    pub fn new(did: &Did, rev: Tid, data: Cid, key: &SigningKey) -> SyncDraft {
        let rev = rev.to_string();
        let block = signed(did.as_str(), &rev, data, key);
        SyncDraft {
            did: did.to_string(),
            rev,
            data,
            root: Cid::of_cbor(&block),
            commit_block: block,
            extra: Vec::new(),
        }
    }

    /// Takes another block for the commit.
    pub fn put_commit(&mut self, block: Vec<u8>) {
        self.root = Cid::of_cbor(&block);
        self.commit_block = block;
    }

    /// The frame.
    pub fn encode(&self, seq: u64, time: &str) -> Vec<u8> {
        let commit = std::iter::once((self.root, &self.commit_block[..]));
        let blocks = car::write(self.root, commit.chain(self.extra.iter().map(|(cid, block)| (*cid, &block[..]))));
        Event::Sync(SyncEvent { seq, did: &self.did, time, rev: &self.rev, blocks: &blocks }).encode()
    }
}

/// A signed commit block with any text for a rev.
pub(super) fn signed(did: &str, rev: &str, data: Cid, key: &SigningKey) -> Vec<u8> {
    signed_with(did, rev, data, key, &[])
}

/// As [`signed`], with one more entry whose key and value are these bytes; the key must be longer than `version`.
pub(super) fn signed_with(did: &str, rev: &str, data: Cid, key: &SigningKey, entry: &[u8]) -> Vec<u8> {
    let block = |sig: Option<&[u8]>| {
        let mut block = Writer::new();
        block.map(5 + usize::from(sig.is_some()) + usize::from(!entry.is_empty()));
        for (name, text) in [("did", did), ("rev", rev)] {
            block.text(name);
            block.text(text);
        }
        if let Some(sig) = sig {
            block.text("sig");
            block.bytes(sig);
        }
        block.text("data");
        block.cid(&data);
        block.text("prev");
        block.null();
        block.text("version");
        block.unsigned(3);
        let mut block = block.into_bytes();
        block.extend_from_slice(entry);
        block
    };
    let sig = key.sign(&block(None));
    block(Some(&sig))
}

/// A commit block with another signature, which `change` makes of the one it has.
pub(super) fn with_signature(block: &[u8], change: impl FnOnce([u8; 64]) -> [u8; 64]) -> Vec<u8> {
    let commit = Commit::parse(block).expect("a draft's own commit can be read");
    let sig: [u8; 64] = commit.sig.try_into().expect("a draft's own signature has 64 bytes");
    let at = block.windows(64).position(|window| window == sig).expect("the signature stands in its block");
    let mut out = block.to_vec();
    out[at..at + 64].copy_from_slice(&change(sig));
    out
}
