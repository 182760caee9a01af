//! What must hold of any bytes, one function for each fuzz target: nothing panics, and what is accepted holds together.
//! The stable tests include this file and run it over the seeds, over noise and over damaged recordings.

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
