//! A repo as its host holds it: the tree, the list of its records, and its head.
//!
//! What must hold: each change's ops, blocks and `prevData` are exactly what a reader needs to invert it; revs rise.

use std::sync::Arc;

use atproto::{
    car,
    cid::Cid,
    commit,
    crypto::SigningKey,
    event::{Action, CommitEvent, RepoOp, SyncEvent},
    mst::{MstError, Op, Tree},
    syntax::{Did, Tid},
};

/// One account's records. Of a record only its path and CID are kept, so that many repos fit in memory.
pub(super) struct Repo {
    did: Did,
    tree: Tree,
    records: Vec<Held>,
    head: Option<Arc<Head>>,
}

/// A record that the repo holds.
pub(super) struct Held {
    pub(super) path: Box<str>,
    pub(super) cid: Cid,
}

/// The newest commit.
pub(super) struct Head {
    pub(super) rev: Tid,
    pub(super) commit: Cid,
    block: Vec<u8>,
}

/// A change to make. Records are named by their place in [`Repo::records`].
pub(super) enum Write {
    Create { path: String, record: Vec<u8> },
    Update { index: usize, record: Vec<u8> },
    Delete { index: usize },
}

/// A commit, ready to be announced.
pub(super) struct Change {
    did: Did,
    rev: Tid,
    since: Option<Tid>,
    commit: Cid,
    prev_data: Option<Cid>,
    car: Vec<u8>,
    ops: Vec<Changed>,
}

struct Changed {
    action: Action,
    path: Box<str>,
    cid: Option<Cid>,
    prev: Option<Cid>,
}

impl Repo {
    pub(super) fn new(did: Did) -> Repo {
        Repo { did, tree: Tree::empty(), records: Vec::new(), head: None }
    }

    pub(super) fn records(&self) -> &[Held] {
        &self.records
    }

    pub(super) fn head(&self) -> Option<Arc<Head>> {
        self.head.clone()
    }

    /// Puts a record in without announcing it, as history from before the simulation.
    pub(super) fn preload(&mut self, path: String, cid: Cid) -> Result<(), MstError> {
        self.tree.insert(path.as_bytes(), cid)?;
        self.records.push(Held { path: path.into(), cid });
        Ok(())
    }

    /// Makes a commit. The writes must name different records; `rev` must be above the last.
    pub(super) fn commit(&mut self, writes: Vec<Write>, rev: Tid, key: &SigningKey) -> Result<Change, MstError> {
        let mut ops = Vec::with_capacity(writes.len());
        let mut record_blocks = Vec::new();
        let mut removed = Vec::new();
        for write in writes {
            match write {
                Write::Create { path, record } => {
                    let (path, cid): (Box<str>, _) = (path.into(), Cid::of_cbor(&record));
                    self.records.push(Held { path: path.clone(), cid });
                    ops.push(Changed { action: Action::Create, path, cid: Some(cid), prev: None });
                    record_blocks.push((cid, record));
                }
                Write::Update { index, record } => {
                    let (held, cid) = (&mut self.records[index], Cid::of_cbor(&record));
                    let prev = std::mem::replace(&mut held.cid, cid);
                    let path = held.path.clone();
                    ops.push(Changed { action: Action::Update, path, cid: Some(cid), prev: Some(prev) });
                    record_blocks.push((cid, record));
                }
                Write::Delete { index } => {
                    let Held { path, cid } = &self.records[index];
                    ops.push(Changed { action: Action::Delete, path: path.clone(), cid: None, prev: Some(*cid) });
                    removed.push(index);
                }
            }
        }
        // Only now, so that the writes' indices stay what they were; from the back, so that a removal moves no record
        // that is still to go.
        removed.sort_unstable();
        for index in removed.into_iter().rev() {
            self.records.swap_remove(index);
        }

        let tree_ops: Vec<Op<'_>> = ops.iter().map(|op| Op { path: &op.path, prev: op.prev, cid: op.cid }).collect();
        let applied = self.tree.apply(&tree_ops)?;
        let (since, prev_data) = match &self.head {
            Some(head) => (Some(head.rev), Some(applied.prev_data)),
            None => (None, None),
        };
        let block = commit::sign(&self.did, rev, applied.data, key);
        let commit = Cid::of_cbor(&block);
        let car = car::write(
            commit,
            std::iter::once((commit, &block[..]))
                .chain(applied.blocks.iter().map(|(cid, block)| (*cid, &block[..])))
                .chain(record_blocks.iter().map(|(cid, block)| (*cid, &block[..]))),
        );
        self.head = Some(Arc::new(Head { rev, commit, block }));
        Ok(Change { did: self.did.clone(), rev, since, commit, prev_data, car, ops })
    }

    /// Signs the present state anew, as a host does after a change of keys or on taking over a repo. Nothing but a
    /// `#sync` announces it.
    pub(super) fn resign(&mut self, rev: Tid, key: &SigningKey) {
        let data = self.tree.root();
        let block = commit::sign(&self.did, rev, data, key);
        self.head = Some(Arc::new(Head { rev, commit: Cid::of_cbor(&block), block }));
    }
}

impl Head {
    /// The `#sync` frame that says where the repo stands.
    pub(super) fn encode_sync(&self, did: &Did, seq: u64, time: &str) -> Vec<u8> {
        let car = car::write(self.commit, [(self.commit, &self.block[..])]);
        let rev = self.rev.to_string();
        atproto::event::Event::Sync(SyncEvent { seq, did: did.as_str(), time, rev: &rev, blocks: &car }).encode()
    }
}

impl Change {
    /// The `#commit` frame.
    pub(super) fn encode(&self, seq: u64, time: &str) -> Vec<u8> {
        let (rev, since) = (self.rev.to_string(), self.since.map(|since| since.to_string()));
        let ops = self
            .ops
            .iter()
            .map(|op| RepoOp { action: op.action, path: &op.path, cid: op.cid, prev: op.prev })
            .collect();
        atproto::event::Event::Commit(CommitEvent {
            seq,
            repo: self.did.as_str(),
            time,
            rev: &rev,
            since: since.as_deref(),
            commit: self.commit,
            too_big: false,
            rebase: false,
            blocks: &self.car,
            ops,
            prev_data: self.prev_data,
        })
        .encode()
    }
}
