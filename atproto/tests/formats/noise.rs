//! Whatever the bytes, nothing panics, and what is accepted holds together: what the fuzz targets check, on a stable
//! toolchain, over their seeds, noise and damaged recordings.

use std::{fs, path::Path};

use atproto::{
    car::Car,
    event::{self, Event},
};
use proptest::prelude::*;

use crate::recorded_frames;

#[path = "../../../fuzz/src/formats.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets reach them: there the file is a crate's root")]
mod checks;

type Check = fn(&[u8]);

const CHECKS: [(&str, Check); 9] = [
    ("car", checks::car),
    ("cbor", checks::cbor),
    ("commit", checks::commit),
    ("did_doc", checks::did_doc),
    ("frame", checks::frame),
    ("invert", checks::invert),
    ("mst", checks::mst),
    ("record", checks::record),
    ("syntax", checks::syntax),
];

fn check_in_every_way(bytes: &[u8]) {
    for (_, check) in CHECKS {
        check(bytes);
    }
}

#[test]
fn seeds_and_corpora_of_the_fuzz_targets() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, _) in CHECKS {
        let files = |of: &str| fs::read_dir(fuzz.join(of).join(name)).into_iter().flatten();
        assert!(files("seeds").next().is_some(), "no seeds for {name}");
        for file in files("seeds").chain(files("corpus")) {
            // An input that found a fault in one reader may find one in another.
            check_in_every_way(&fs::read(file.unwrap().path()).unwrap());
        }
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
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_in_every_way(&bytes);
    }

    #[test]
    fn any_text(text in ".{0,100}") {
        check_in_every_way(text.as_bytes());
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
        check_in_every_way(&bytes);
    }
}
