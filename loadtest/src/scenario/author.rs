//! An account that writes what it is told to, right or wrong.
//!
//! What must hold: a draft changes nothing; only [`Author::adopt`] makes it the repo's state, so that after something
//! wrong the account goes on from its last good commit.

use std::collections::BTreeMap;

use atproto::{
    cbor::Writer,
    cid::Cid,
    crypto::{Curve, SigningKey, sha256},
    event::Action,
    mst::{Op, Tree},
    syntax::{Did, Tid},
};
use runtime::clock::Clock;

use super::draft::{Draft, Step, SyncDraft};

/// An account with its key and its whole repo.
pub struct Author {
    /// Who it is.
    pub did: Did,
    /// What it signs with.
    pub key: SigningKey,
    /// The newest commit that was announced, or lost on the way.
    pub head: Option<Head>,
    /// What the repo holds.
    pub records: BTreeMap<String, Cid>,
    pub(super) tree: Tree,
    clock: Clock,
    last_micros: u64,
    written: u64,
}

/// A repo's newest commit.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its rev.
    pub rev: Tid,
    /// The commit block's CID.
    pub commit: Cid,
    /// The tree's root.
    pub data: Cid,
    /// The commit block.
    pub block: Vec<u8>,
}

/// Records that a repo has before its first commit here: enough for a tree of a few layers.
const RECORDS: usize = 24;

const CLOCK_ID: u16 = 17;

impl Author {
    /// The account that `label` names, always the same: nothing of it has been announced.
    pub fn new(label: &str, curve: Curve, clock: Clock) -> Author {
        Author::holding(label, curve, clock, (0..RECORDS).map(|number| format!("app.bsky.feed.post/3k{number:011}")))
    }

    /// As [`Author::new`], with records at these paths.
    pub fn holding(label: &str, curve: Curve, clock: Clock, paths: impl IntoIterator<Item = String>) -> Author {
        let did = did(label);
        let mut tree = Tree::empty();
        let mut records = BTreeMap::new();
        for path in paths {
            let cid = Cid::of_cbor(path.as_bytes());
            tree.insert(path.as_bytes(), cid).expect("a whole tree takes any path");
            records.insert(path, cid);
        }
        Author { did, key: key(label, curve), head: None, records, tree, clock, last_micros: 0, written: 0 }
    }

    /// A rev above all it has given, of now.
    pub fn next_rev(&mut self) -> Tid {
        self.last_micros = self.clock.now_micros().max(self.last_micros + 1);
        Tid::from_micros(self.last_micros, CLOCK_ID)
    }

    /// What the clock says, microseconds since the Unix epoch.
    pub fn now_micros(&self) -> u64 {
        self.clock.now_micros()
    }

    /// A path that nothing stands at.
    pub fn new_path(&mut self) -> String {
        self.written += 1;
        format!("app.bsky.feed.post/3m{:011}", self.written)
    }

    /// The path of the `n`th record.
    pub fn old_path(&self, n: usize) -> String {
        let path = self.records.keys().nth(n % self.records.len().max(1));
        path.cloned().expect("the repo holds records, and n is taken modulo their number")
    }

    /// A good commit that creates two records, updates one and deletes one, in this order.
    pub fn usual(&mut self) -> Draft {
        let (one, two) = (self.new_path(), self.new_path());
        let texts = [post(&format!("{one} of {}", self.did)), post(&two), post(&format!("{two} instead"))];
        let (changed, gone) = (self.old_path(3), self.old_path(9));
        let [first, second, third] = texts;
        self.draft(&[(&one, Some(first)), (&two, Some(second)), (&changed, Some(third)), (&gone, None)])
    }

    /// A good commit: each path is given a record, or loses it, step by step.
    pub fn draft(&mut self, writes: &[(&str, Option<Vec<u8>>)]) -> Draft {
        let rev = self.next_rev();
        let mut records = self.records.clone();
        let mut blocks = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        for (path, record) in writes {
            let cid = record.as_ref().map(|record| Cid::of_cbor(record));
            let action = match (cid, records.contains_key(*path)) {
                (Some(_), false) => Action::Create,
                (Some(_), true) => Action::Update,
                (None, _) => Action::Delete,
            };
            match cid {
                Some(cid) => records.insert((*path).to_owned(), cid),
                None => records.remove(*path),
            };
            blocks.extend(cid.zip(record.clone()));
            // As the reference host does it: the record from before the commit, whatever the step.
            steps.push(Step { action, path: (*path).to_owned(), cid, prev: self.records.get(*path).copied() });
        }
        let mut tree = self.tree.clone();
        let ops: Vec<Op<'_>> =
            steps.iter().map(|step| Op { path: &step.path, prev: step.prev, cid: step.cid }).collect();
        let applied = tree.apply(&ops).expect("a draft's writes fit the repo it is drawn up from");
        let mut draft = Draft {
            repo: self.did.to_string(),
            rev: rev.to_string(),
            since: self.head.as_ref().map(|head| head.rev.to_string()),
            commit: applied.data,
            too_big: false,
            rebase: false,
            steps,
            prev_data: self.head.as_ref().map(|head| head.data),
            data: applied.data,
            root: applied.data,
            commit_block: Vec::new(),
            nodes: applied.blocks,
            records: blocks,
            extra: Vec::new(),
            car: None,
            after: (tree, records),
        };
        draft.sign(&self.did.clone(), &self.key);
        draft
    }

    /// A good `#sync` of the present state, signed anew.
    pub fn sync(&mut self) -> SyncDraft {
        let rev = self.next_rev();
        let data = self.tree.root();
        SyncDraft::new(&self.did, rev, data, &self.key)
    }

    /// A `#sync` of the very commit that is the repo's head.
    pub fn sync_of_head(&self) -> SyncDraft {
        let head = self.head.as_ref().expect("what has been announced has a head");
        SyncDraft {
            did: self.did.to_string(),
            rev: head.rev.to_string(),
            data: head.data,
            root: head.commit,
            commit_block: head.block.clone(),
            extra: Vec::new(),
        }
    }

    /// A draft becomes the repo's state.
    pub fn adopt(&mut self, draft: &Draft) {
        let rev = Tid::parse(&draft.rev).expect("only what is right is adopted, and its rev is a TID");
        (self.tree, self.records) = draft.after.clone();
        self.head = Some(Head { rev, commit: draft.commit, data: draft.data, block: draft.commit_block.clone() });
    }

    /// A signed state becomes the repo's head; the tree is the same.
    pub fn adopt_sync(&mut self, sync: &SyncDraft) {
        let rev = Tid::parse(&sync.rev).expect("only what is right is adopted, and its rev is a TID");
        self.head = Some(Head { rev, commit: sync.root, data: sync.data, block: sync.commit_block.clone() });
    }
}

/// The account that `label` names.
pub(super) fn did(label: &str) -> Did {
    const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let id: String =
        sha256(label.as_bytes())[..24].iter().map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect();
    Did::parse(&format!("did:plc:{id}")).expect("24 characters of base32 make a did:plc")
}

/// The key that `label` names.
pub(super) fn key(label: &str, curve: Curve) -> SigningKey {
    let mut secret = sha256(format!("key of {label}").as_bytes());
    loop {
        match SigningKey::from_bytes(curve, &secret) {
            Ok(key) => return key,
            // Fewer than one in 2^32 is not a key of its curve.
            Err(_) => secret = sha256(&secret),
        }
    }
}

/// A post's bytes.
pub(super) fn post(text: &str) -> Vec<u8> {
    let mut record = Writer::new();
    record.map(3);
    record.text("text");
    record.text(text);
    record.text("$type");
    record.text("app.bsky.feed.post");
    record.text("createdAt");
    record.text("2026-09-21T14:13:20.000Z");
    record.into_bytes()
}
