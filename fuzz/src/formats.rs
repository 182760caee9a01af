//! The formats: `atproto`'s tests run these over noise and damaged recordings too.

use std::collections::BTreeMap;

use atproto::{
    car::{self, Car},
    cbor::{self, Limits},
    cid::Cid,
    commit::Commit,
    crypto::PublicKey,
    did_doc::DidDocument,
    event::{self, Event, Routed},
    frame,
    mst::{self, Node, Op, Tree},
    record,
    syntax::{Datetime, Did, Handle, HostName, Nsid, RecordKey, RepoPath, Tid},
};

/// A stream frame.
pub fn frame(bytes: &[u8]) {
    let header = frame::parse(bytes);
    let routed = event::route(bytes);
    assert!(header.is_ok() || routed.is_err(), "a frame without a header has a route");
    let Ok(event) = event::parse(bytes) else { return };

    let Ok(Routed::Event(route)) = routed else { panic!("an event without a route") };
    let mut same = Vec::new();
    frame::write_with_seq(&mut same, bytes, route.seq_slot, route.seq);
    assert!(same == bytes, "the slot is not the seq's");

    let encoded = event.encode();
    assert_eq!(event::parse(&encoded).as_ref(), Ok(&event), "an event is written as another");
    assert!(encoded.len() <= bytes.len() + ADDED_BYTES_MAX * (1 + ops(&event)), "an event grows by being written");
    match &event {
        Event::Commit(event) => car(event.blocks),
        Event::Sync(event) => car(event.blocks),
        Event::Identity(_) | Event::Account(_) => {}
    }
}

/// What writing an event adds where the sender left it out: `blobs`, and each op's `cid`.
const ADDED_BYTES_MAX: usize = 16;

fn ops(event: &Event<'_>) -> usize {
    match event {
        Event::Commit(event) => event.ops.len(),
        Event::Sync(_) | Event::Identity(_) | Event::Account(_) => 0,
    }
}

/// An item of DAG-CBOR.
pub fn cbor(bytes: &[u8]) {
    let is_one_item = cbor::validate(bytes, &Limits::DEFAULT).is_ok_and(<[u8]>::is_empty);
    let json = cbor::to_json(bytes);
    assert!(is_one_item || json.is_err(), "JSON of what is not canonical");
    if is_one_item && !bytes.is_empty() {
        assert!(cbor::validate(&bytes[..bytes.len() - 1], &Limits::DEFAULT).is_err(), "a part of an item is an item");
    }
}

/// A CAR.
pub fn car(bytes: &[u8]) {
    let Ok(parsed) = Car::parse(bytes) else { return };
    for (cid, block) in parsed.blocks() {
        assert!(cid.matches(block));
        assert_eq!(parsed.get(&cid), Some(block));
        commit(block);
    }
    let written = car::write(parsed.root(), parsed.blocks());
    let again = Car::parse(&written).expect("what is written can be read");
    assert_eq!(again.root(), parsed.root());
    assert!(again.blocks().eq(parsed.blocks()), "blocks are lost by being written");
    // A tree of blocks that may well be a commit's or records'.
    let _ = Tree::load(parsed.root(), &parsed);
}

/// A commit block.
pub fn commit(bytes: &[u8]) {
    let Ok(commit) = Commit::parse(bytes) else { return };
    let unsigned = commit.unsigned_bytes();
    assert_eq!(cbor::validate(&unsigned, &Limits::DEFAULT), Ok(&[][..]), "cutting out the sig leaves no map");
    assert!(Commit::parse(&unsigned).is_err(), "without sig it is no commit");
    assert!(unsigned.len() < bytes.len());
}

/// A node of the tree.
pub fn mst(bytes: &[u8]) {
    let Ok(node) = Node::parse(bytes) else { return };
    assert!(node.encode() == bytes, "a node is written in another way");

    let root = Cid::of_cbor(bytes);
    let file = car::write(root, [(root, bytes)]);
    let blocks = Car::parse(&file).expect("what is written can be read");
    let Ok(mut tree) = Tree::load(root, &blocks) else { return };
    assert_eq!(tree.root(), root, "a tree changes by being loaded");
    for (key, value) in tree.records() {
        assert_eq!(tree.get(&key), Ok(Some(value)));
        if let Ok(path) = std::str::from_utf8(&key) {
            let _ = mst::invert(root, &blocks, &[Op { path, prev: None, cid: Some(value) }]);
        }
    }
}

/// A record.
pub fn record(bytes: &[u8]) {
    let is_one_map = bytes.first().is_some_and(|first| first >> 5 == 5)
        && cbor::validate(bytes, &Limits::DEFAULT).is_ok_and(<[u8]>::is_empty);
    assert_eq!(record::check(bytes).is_ok(), is_one_map, "a record is one canonical map");
}

/// A repo, a commit's ops on it, and lies about both: what undoing the ops gives is what a plain map says, or an error.
///
/// The bytes are a number of records and their keys, a number of ops, three bytes for each (key, value, lie), and which
/// block is lost.
pub fn invert(bytes: &[u8]) {
    let mut rest = bytes.iter().copied();
    let mut next = || rest.next().unwrap_or(0);
    let value = |byte: u8| Cid::of_cbor(&[byte]);

    let mut before = BTreeMap::new();
    for _ in 0..next() % 64 {
        before.insert(key(next()), value(0));
    }
    let mut after = before.clone();
    let (mut truth, mut claims) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..next() % 16 {
        let (path, made, lie) = (key(next()), next(), next());
        let (prev, cid) = (before.get(&path).copied(), (made % 3 > 0).then(|| value(made)));
        if (prev.is_none() && cid.is_none()) || truth.contains_key(&path) {
            continue;
        }
        match cid {
            Some(cid) => after.insert(path.clone(), cid),
            None => after.remove(&path),
        };
        truth.insert(path.clone(), (prev, cid));
        match lie % 16 {
            1 => drop(claims.insert(path, (Some(value(lie)), cid))),
            2 => drop(claims.insert(path, (prev, Some(value(lie))))),
            3 => drop(claims.insert(path, (None, cid))),
            4 => drop(claims.insert(key(lie), (prev, cid))),
            5 => {}
            _ => drop(claims.insert(path, (prev, cid))),
        }
    }
    claims.retain(|_, claim| *claim != (None, None));
    let ops = |of: &BTreeMap<String, (Option<Cid>, Option<Cid>)>| -> Vec<(String, Option<Cid>, Option<Cid>)> {
        of.iter().map(|(path, (prev, cid))| (path.clone(), *prev, *cid)).collect()
    };
    let (true_ops, claimed_ops) = (ops(&truth), ops(&claims));

    let applied = tree(&before).apply(&as_ops(&true_ops)).expect("the ops fit");
    assert_eq!(
        (applied.prev_data, applied.data),
        (tree(&before).root(), tree(&after).root()),
        "a tree of another shape"
    );
    let mut blocks = applied.blocks;
    let lost = usize::from(next());
    if lost > 0 && !blocks.is_empty() {
        let _ = blocks.remove(lost % blocks.len());
    }
    let is_honest = lost == 0 && truth == claims;
    let file = car::write(applied.data, blocks.iter().map(|(cid, block)| (*cid, block.as_slice())));
    let car = Car::parse(&file).expect("what is written can be read");
    let undone = mst::invert(applied.data, &car, &as_ops(&claimed_ops));

    // The same on a plain map.
    let mut model = after;
    let fits = claims.iter().all(|(path, (prev, cid))| {
        let fits = model.get(path) == cid.as_ref();
        match prev {
            Some(prev) => model.insert(path.clone(), *prev),
            None => model.remove(path),
        };
        fits
    });
    match undone {
        Ok(root) => {
            assert!(fits, "ops that the tree contradicts");
            assert_eq!(root, tree(&model).root(), "another root");
        }
        Err(error) => assert!(!is_honest, "a true commit is refused: {error}"),
    }
}

fn key(number: u8) -> String {
    format!("a.b.c/{number}")
}

fn tree(records: &BTreeMap<String, Cid>) -> Tree {
    let mut tree = Tree::empty();
    for (path, cid) in records {
        tree.insert(path.as_bytes(), *cid).expect("a whole tree takes every key");
    }
    tree
}

fn as_ops(ops: &[(String, Option<Cid>, Option<Cid>)]) -> Vec<Op<'_>> {
    ops.iter().map(|(path, prev, cid)| Op { path, prev: *prev, cid: *cid }).collect()
}

/// A DID document.
pub fn did_doc(bytes: &[u8]) {
    let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").expect("it is one");
    if let Ok(document) = DidDocument::parse(bytes, &did) {
        assert_eq!(document.did, did);
    }
}

/// Identifiers, keys and other short texts; a CID's bytes.
pub fn syntax(bytes: &[u8]) {
    if let Ok(cid) = Cid::from_bytes(bytes) {
        assert_eq!(cid.to_bytes(), bytes);
        assert_eq!(Cid::parse(&cid.to_string()), Ok(cid));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (Datetime::parse(text), Did::parse(text), Handle::parse(text), Nsid::parse(text), RecordKey::parse(text));
    if let Ok(cid) = Cid::parse(text) {
        assert_eq!(cid.to_string(), text);
    }
    if let Ok(tid) = Tid::parse(text) {
        assert_eq!(tid.to_string(), text);
    }
    if let Ok(path) = RepoPath::parse(text) {
        assert_eq!(format!("{}/{}", path.collection, path.rkey), text);
    }
    if let Ok(host) = HostName::parse(text) {
        assert_eq!(HostName::parse(host.as_str()), Ok(host.clone()));
        let _ = (host.host(), host.port(), host.is_local());
    }
    if let Ok(key) = PublicKey::from_did_key(text) {
        assert_eq!(key.to_did_key(), text);
        assert_eq!(PublicKey::from_bytes(key.curve(), &key.to_bytes()), Ok(key));
    }
    let _ = PublicKey::from_multikey(text);
}
