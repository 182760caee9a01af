//! Whatever the bytes, nothing panics, and what is accepted holds together.

use atproto::{
    car::Car,
    cbor::{self, Limits},
    cid::Cid,
    commit::Commit,
    crypto::PublicKey,
    did_doc::DidDocument,
    event::{self, Event, Routed},
    frame,
    syntax::{Datetime, Did, Handle, HostName, Nsid, RecordKey, RepoPath, Tid},
};
use proptest::prelude::*;

use crate::recorded_frames;

/// Everything that reads bytes or text, one after the other.
pub(crate) fn read_in_every_way(bytes: &[u8]) {
    let canonical = cbor::validate(bytes, &Limits::DEFAULT).is_ok_and(<[u8]>::is_empty);
    if cbor::to_json(bytes).is_ok() {
        assert!(canonical, "JSON of what is not canonical");
    }
    let _ = frame::parse(bytes);
    read_event(bytes);
    if let Ok(car) = Car::parse(bytes) {
        read_blocks(&car);
    }
    read_commit(bytes);
    let _ = Cid::from_bytes(bytes);
    let _ = DidDocument::parse(bytes, &Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap());

    let text = String::from_utf8_lossy(bytes);
    let _ = (Cid::parse(&text), Datetime::parse(&text), Did::parse(&text), Handle::parse(&text), Nsid::parse(&text));
    let _ = (
        RecordKey::parse(&text),
        RepoPath::parse(&text),
        PublicKey::from_did_key(&text),
        PublicKey::from_multikey(&text),
    );
    if let Ok(host) = HostName::parse(&text) {
        assert_eq!(HostName::parse(host.as_str()), Ok(host.clone()));
        let _ = (host.host(), host.port(), host.is_local());
    }
    if let Ok(tid) = Tid::parse(&text) {
        assert_eq!(tid.to_string(), text);
    }
}

fn read_event(bytes: &[u8]) {
    let routed = event::route(bytes);
    let Ok(event) = event::parse(bytes) else { return };
    let Ok(Routed::Event(route)) = routed else { panic!("an event without a route") };
    let mut same = Vec::new();
    frame::write_with_seq(&mut same, bytes, route.seq_slot, route.seq);
    assert!(same == bytes, "the slot is not the seq's");
    let encoded = event.encode();
    assert_eq!(event::parse(&encoded).as_ref(), Ok(&event), "an event is written as another");
    let blocks = match &event {
        Event::Commit(event) => event.blocks,
        Event::Sync(event) => event.blocks,
        Event::Identity(_) | Event::Account(_) => return,
    };
    if let Ok(car) = Car::parse(blocks) {
        read_blocks(&car);
    }
}

fn read_blocks(car: &Car<'_>) {
    for (cid, block) in car.blocks() {
        assert_eq!(car.get(&cid), Some(block));
        read_commit(block);
        let _ = cbor::to_json(block);
    }
}

fn read_commit(block: &[u8]) {
    if let Ok(commit) = Commit::parse(block) {
        let unsigned = commit.unsigned_bytes();
        assert_eq!(cbor::validate(&unsigned, &Limits::DEFAULT), Ok(&[][..]), "cutting out the sig leaves no map");
        assert!(Commit::parse(&unsigned).is_err(), "without sig it is no commit");
    }
}

/// A recorded frame or a block of one, each as likely.
fn recorded() -> impl Strategy<Value = Vec<u8>> {
    let mut samples = Vec::new();
    for (_, bytes) in recorded_frames() {
        if bytes.len() < 5_000 {
            if let Ok(Event::Commit(commit)) = event::parse(&bytes) {
                samples.push(commit.blocks.to_vec());
                samples.extend(Car::parse(commit.blocks).unwrap().blocks().map(|(_, block)| block.to_vec()));
            }
            samples.push(bytes);
        }
    }
    prop::sample::select(samples)
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Flip(u8),
    Insert(u8),
    Remove,
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Set),
        (0_u8..8).prop_map(Change::Flip),
        any::<u8>().prop_map(Change::Insert),
        Just(Change::Remove),
        Just(Change::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn any_text(text in ".{0,100}") {
        read_in_every_way(text.as_bytes());
    }

    #[test]
    fn damaged_recordings(
        recording in recorded(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), change()), 1..4),
    ) {
        let mut bytes = recording;
        for (at, change) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match change {
                Change::Set(byte) => bytes[at] = byte,
                Change::Flip(bit) => bytes[at] ^= 1 << bit,
                Change::Insert(byte) => bytes.insert(at, byte),
                Change::Remove => drop(bytes.remove(at)),
                Change::Cut => bytes.truncate(at),
            }
        }
        read_in_every_way(&bytes);
    }
}
