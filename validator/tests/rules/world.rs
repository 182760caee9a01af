//! An account with a past, and its next `#commit` or `#sync` in parts that a test can spoil one by one.

use std::collections::BTreeMap;

use atproto::{
    car,
    cbor::Writer,
    cid::Cid,
    commit,
    crypto::{Curve, SigningKey},
    did_doc::DidDocument,
    event::{Action, CommitEvent, Event, RepoOp, SyncEvent},
    mst::{Op, Tree},
    syntax::{Did, HostName, Tid},
};
use storage::{
    refusal::TEXT_BYTES_MAX,
    repos::{AccountStatus, Head, LocalStatus, RepoState},
};
use validator::{
    rules::{Context, Room, judge},
    verdict::{Reason, Verdict},
};

/// Now, in these tests.
pub(crate) const NOW_MICROS: u64 = 1_790_000_000_000_000;

/// What is known before an event, and how it is looked at.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) key: SigningKey,
    pub(crate) identity: DidDocument,
    pub(crate) state: Option<RepoState>,
    pub(crate) host: HostName,
    pub(crate) host_epoch: u32,
    pub(crate) upstream_seq: u64,
    pub(crate) identity_is_fresh: bool,
    pub(crate) status_is_fresh: bool,
    pub(crate) room: Room,
    pub(crate) tree: Tree,
    pub(crate) records: BTreeMap<String, Cid>,
}

/// A `#commit` in parts.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) repo: String,
    pub(crate) rev: String,
    pub(crate) since: Option<String>,
    pub(crate) commit: Cid,
    pub(crate) too_big: bool,
    pub(crate) rebase: bool,
    pub(crate) ops: Vec<Step>,
    pub(crate) prev_data: Option<Cid>,
    pub(crate) data: Cid,
    pub(crate) root: Cid,
    pub(crate) commit_block: Vec<u8>,
    pub(crate) nodes: Vec<(Cid, Vec<u8>)>,
    pub(crate) records: Vec<(Cid, Vec<u8>)>,
    /// Blocks that nothing refers to.
    pub(crate) extra: Vec<(Cid, Vec<u8>)>,
    /// Goes over the finished CAR.
    pub(crate) spoil_car: fn(Vec<u8>) -> Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) path: String,
    pub(crate) cid: Option<Cid>,
    pub(crate) prev: Option<Cid>,
}

/// A `#sync` in parts.
#[derive(Clone)]
pub(crate) struct Sync {
    pub(crate) did: String,
    pub(crate) rev: String,
    pub(crate) root: Cid,
    pub(crate) blocks: Vec<(Cid, Vec<u8>)>,
    pub(crate) spoil_car: fn(Vec<u8>) -> Vec<u8>,
}

/// A record of as many bytes as its text and eight more.
pub(crate) fn record(text: &str) -> (Cid, Vec<u8>) {
    let mut block = Writer::new();
    block.map(1);
    block.text("a");
    block.text(text);
    let block = block.into_bytes();
    (Cid::of_cbor(&block), block)
}

pub(crate) fn rev(micros: u64) -> Tid {
    Tid::from_micros(micros, 7)
}

impl World {
    /// An account with forty records and a last commit one hour ago.
    pub(crate) fn new(curve: Curve) -> World {
        let key = SigningKey::from_bytes(curve, &[9; 32]).unwrap();
        let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        let host = HostName::parse("pds.example.com").unwrap();
        let mut tree = Tree::empty();
        let mut records = BTreeMap::new();
        for number in 0..40 {
            let path = format!("app.bsky.feed.post/3k{number:011}");
            let (cid, _) = record(&path);
            tree.insert(path.as_bytes(), cid).unwrap();
            records.insert(path, cid);
        }
        let head =
            Head { rev: rev(NOW_MICROS - 3_600_000_000), commit: Cid::of_cbor(b"the last commit"), data: tree.root() };
        let state = RepoState {
            host: host.clone(),
            host_epoch: 3,
            upstream_seq: 100,
            head: Some(head),
            upstream: AccountStatus::Active,
            local: LocalStatus::None,
        };
        let identity = DidDocument { did, signing_key: Some(key.public_key()), pds: Some(host.clone()), handle: None };
        World {
            key,
            identity,
            state: Some(state),
            host,
            host_epoch: 3,
            upstream_seq: 101,
            identity_is_fresh: true,
            status_is_fresh: true,
            room: Room::Free,
            tree,
            records,
        }
    }

    pub(crate) fn state_mut(&mut self) -> &mut RepoState {
        self.state.as_mut().unwrap()
    }

    pub(crate) fn head(&self) -> Head {
        self.state.as_ref().unwrap().head.unwrap()
    }

    /// The account's path number `n`.
    pub(crate) fn path(&self, n: usize) -> String {
        self.records.keys().nth(n).unwrap().clone()
    }

    /// A good commit a minute ago that creates, updates and deletes.
    pub(crate) fn commit(&self) -> Commit {
        self.commit_of(&[
            ("app.bsky.feed.post/3zzzzzzzzzzzz", Some("new")),
            ("app.bsky.actor.profile/self", Some("me")),
            (&self.path(11), Some("other")),
            (&self.path(20), None),
        ])
    }

    /// A good commit: each path is given its record, or loses it.
    pub(crate) fn commit_of(&self, writes: &[(&str, Option<&str>)]) -> Commit {
        let writes = writes.iter().map(|(path, text)| (*path, text.map(|text| record(text).1)));
        self.commit_of_blocks(writes.collect())
    }

    /// The same of records' blocks, good or not.
    pub(crate) fn commit_of_blocks(&self, writes: Vec<(&str, Option<Vec<u8>>)>) -> Commit {
        let mut records = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        for (path, block) in writes {
            let cid = block.map(|block| {
                let cid = Cid::of_cbor(&block);
                records.push((cid, block));
                cid
            });
            let before = self.records.get(path).copied();
            let earlier = steps.iter().rev().find(|step| step.path == path).map(|step| step.cid.is_some());
            let action = match (cid, earlier.unwrap_or(before.is_some())) {
                (Some(_), false) => Action::Create,
                (Some(_), true) => Action::Update,
                (None, _) => Action::Delete,
            };
            // As the reference host does: the record from before the commit, whatever the step.
            steps.push(Step { action, path: path.to_owned(), cid, prev: before });
        }
        let ops: Vec<Op<'_>> =
            steps.iter().map(|step| Op { path: &step.path, prev: step.prev, cid: step.cid }).collect();
        let applied = self.tree.clone().apply(&ops).unwrap();
        let head = self.state.as_ref().and_then(|state| state.head);
        let mut commit = Commit {
            repo: self.identity.did.as_str().to_owned(),
            rev: rev(NOW_MICROS - 60_000_000).to_string(),
            since: head.map(|head| head.rev.to_string()),
            commit: applied.data,
            too_big: false,
            rebase: false,
            ops: steps,
            prev_data: Some(applied.prev_data),
            data: applied.data,
            root: applied.data,
            commit_block: Vec::new(),
            nodes: applied.blocks,
            records,
            extra: Vec::new(),
            spoil_car: |car| car,
        };
        commit.sign(self);
        commit
    }

    /// A good sync a minute ago.
    pub(crate) fn sync(&self) -> Sync {
        let rev = rev(NOW_MICROS - 60_000_000);
        let block = commit::sign(&self.identity.did, rev, self.head().data, &self.key);
        let root = Cid::of_cbor(&block);
        Sync {
            did: self.identity.did.as_str().to_owned(),
            rev: rev.to_string(),
            root,
            blocks: vec![(root, block)],
            spoil_car: |car| car,
        }
    }

    pub(crate) fn judge(&self, event: &Event<'_>) -> Verdict {
        let context = Context {
            host: &self.host,
            host_epoch: self.host_epoch,
            upstream_seq: self.upstream_seq,
            now_micros: NOW_MICROS,
            state: self.state.as_ref(),
            identity: &self.identity,
            identity_fetched_at_micros: NOW_MICROS - 61_000_000,
            identity_is_fresh: self.identity_is_fresh,
            status_is_fresh: self.status_is_fresh,
            room: self.room,
        };
        judge(event, &context)
    }

    pub(crate) fn judge_commit(&self, commit: &Commit) -> Verdict {
        let blocks = commit.car();
        let ops = commit.ops.iter();
        self.judge(&Event::Commit(CommitEvent {
            seq: self.upstream_seq,
            repo: &commit.repo,
            time: "2026-09-21T14:13:20.000Z",
            rev: &commit.rev,
            since: commit.since.as_deref(),
            commit: commit.commit,
            too_big: commit.too_big,
            rebase: commit.rebase,
            blocks: &blocks,
            ops: ops.map(|op| RepoOp { action: op.action, path: &op.path, cid: op.cid, prev: op.prev }).collect(),
            prev_data: commit.prev_data,
        }))
    }

    pub(crate) fn judge_sync(&self, sync: &Sync) -> Verdict {
        let blocks = (sync.spoil_car)(car_of(sync.root, &sync.blocks));
        self.judge(&Event::Sync(SyncEvent {
            seq: self.upstream_seq,
            did: &sync.did,
            time: "2026-09-21T14:13:20.000Z",
            rev: &sync.rev,
            blocks: &blocks,
        }))
    }

    /// The state after an event with this head.
    pub(crate) fn state_with(&self, head: Head) -> RepoState {
        RepoState {
            host: self.host.clone(),
            host_epoch: self.host_epoch,
            upstream_seq: self.upstream_seq,
            head: Some(head),
            upstream: AccountStatus::Active,
            local: LocalStatus::None,
        }
    }
}

impl Commit {
    /// Makes the commit block anew from `data` and `rev`, and names it everywhere.
    pub(crate) fn sign(&mut self, world: &World) {
        let rev = Tid::parse(&self.rev).unwrap();
        self.put_commit_block(commit::sign(&world.identity.did, rev, self.data, &world.key));
    }

    /// Puts another block in the commit's place and names it everywhere.
    pub(crate) fn put_commit_block(&mut self, block: Vec<u8>) {
        self.commit = Cid::of_cbor(&block);
        self.root = self.commit;
        self.commit_block = block;
    }

    pub(crate) fn set_rev(&mut self, micros: u64, world: &World) {
        self.rev = rev(micros).to_string();
        self.sign(world);
    }

    pub(crate) fn head(&self) -> Head {
        Head { rev: Tid::parse(&self.rev).unwrap(), commit: self.commit, data: self.data }
    }

    fn car(&self) -> Vec<u8> {
        let commit = (Cid::of_cbor(&self.commit_block), self.commit_block.clone());
        let blocks: Vec<(Cid, Vec<u8>)> = [&[commit], &self.nodes[..], &self.records[..], &self.extra[..]].concat();
        (self.spoil_car)(car_of(self.root, &blocks))
    }
}

fn car_of(root: Cid, blocks: &[(Cid, Vec<u8>)]) -> Vec<u8> {
    car::write(root, blocks.iter().map(|(cid, block)| (*cid, block.as_slice())))
}

/// The commit block with the other of the two S that verify.
pub(crate) fn with_high_s(block: &[u8], curve: Curve) -> Vec<u8> {
    let order = match curve {
        Curve::K256 => "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        Curve::P256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    };
    let at = block.windows(6).position(|window| window == b"\x63sig\x58\x40").unwrap() + 6 + 32;
    let mut spoilt = block.to_vec();
    let mut borrow = 0;
    for byte in (0..32).rev() {
        let of_order = i32::from(u8::from_str_radix(&order[byte * 2..byte * 2 + 2], 16).unwrap());
        let difference = of_order - i32::from(block[at + byte]) - borrow;
        borrow = i32::from(difference < 0);
        spoilt[at + byte] = difference.rem_euclid(256) as u8;
    }
    spoilt
}

/// That it is refused for good, for this reason, and says what came and what was expected.
pub(crate) fn assert_refused(verdict: &Verdict, reason: Reason, what: &str) {
    let Verdict::Refuse(refusal) = verdict else { panic!("{what}: {verdict:?}") };
    assert_eq!(refusal.reason, reason, "{what}: {refusal}");
    assert!(!refusal.came.is_empty() && !refusal.expected.is_empty(), "{what}: {refusal}");
    for text in [&refusal.came, &refusal.expected] {
        assert!(text.len() <= TEXT_BYTES_MAX, "{what}: {} bytes: {text}", text.len());
    }
}
