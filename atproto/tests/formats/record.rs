use std::thread;

use atproto::{
    car::Car,
    cbor::Writer,
    cid::Cid,
    commit::Commit,
    event::{self, Event},
    frame,
    mst::{Op, invert},
    record,
};

use crate::recorded_frames;

#[test]
fn every_recorded_record_passes() {
    let mut records = 0;
    for (name, bytes) in recorded_frames() {
        let Ok(Event::Commit(commit)) = event::parse(&bytes) else { continue };
        let Ok(car) = Car::parse(commit.blocks) else { continue };
        for cid in commit.ops.iter().filter_map(|op| op.cid) {
            if let Some(block) = car.get(&cid) {
                assert_eq!(record::check(block), Ok(()), "{name} {cid}");
                records += 1;
            }
        }
    }
    assert!(records > 100, "{records}");
}

#[test]
fn forms() {
    let table: [(&[u8], Option<&str>); 14] = [
        (b"\xa0", None),
        (b"\xa1\x61a\xf6", None),
        // A float; a number of more than 53 bits; bytes; a link of another codec and hash.
        (b"\xa1\x61a\xfb\x3f\xf8\0\0\0\0\0\0", None),
        (b"\xa1\x61a\x1b\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\xa1\x61a\x43abc", None),
        (b"\xa1\x61a\xd8\x2a\x49\0\x01\x70\x1e\x04abcd", None),
        (b"", Some("cut short")),
        (b"\x80", Some("a record that is not a map")),
        (b"\x01", Some("a record that is not a map")),
        (b"\xa0\xa0", Some("trailing bytes")),
        (b"\xa1\x61a", Some("cut short")),
        (b"\xa1\x01\x01", Some("a map key that is not text")),
        (b"\xbf\x61a\x01\xff", Some("an indefinite length")),
        (b"\xa1\x61a\xc1\x01", Some("a tag other than 42")),
    ];
    for (block, why) in table {
        assert_eq!(record::check(block).err().map(|error| error.why), why, "{block:x?}");
    }
}

#[test]
fn links_are_of_any_kind_but_not_endless() {
    let link = |digest: usize| {
        let cid = [&[0, 1, 0x55, 0, digest as u8][..], &vec![7; digest]].concat();
        let mut block = Writer::new();
        block.map(1);
        block.text("a");
        let mut block = block.into_bytes();
        block.extend_from_slice(&[0xd8, 0x2a, 0x58, cid.len() as u8]);
        [block, cid].concat()
    };
    assert_eq!(record::check(&link(96)), Ok(()));
    assert_eq!(record::check(&link(97)).unwrap_err().why, "a CID that is too long");
}

/// What goes in deep is refused where it gets too deep, by readers that run on the smallest of stacks.
#[test]
fn depth_bombs_cost_nothing() {
    const LEVELS: usize = 1_600_000;
    let arrays = vec![0x81; LEVELS];
    let maps = b"\xa1\x61a".repeat(LEVELS / 3);
    let links = b"\xd8\x2a".repeat(LEVELS / 2);
    let wide = [&b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..], &arrays].concat();
    let header = |kind: &str| {
        let mut header = Writer::new();
        header.map(2);
        header.text("t");
        header.text(kind);
        header.text("op");
        header.integer(1);
        header.into_bytes()
    };
    let small_stack = thread::Builder::new().stack_size(128 << 10);
    let judge = move || {
        for bomb in [arrays, maps, links, wide] {
            assert!(frame::parse(&bomb).is_err(), "as a header");
            let in_header = [&b"\xa1\x61a"[..], &bomb].concat();
            assert!(frame::parse(&in_header).is_err(), "in a header");
            for kind in ["#commit", "#sync", "#identity", "#account", "#info"] {
                for payload in [bomb.clone(), [&b"\xa1\x61a"[..], &bomb].concat()] {
                    let frame = [header(kind), payload].concat();
                    assert!(event::route(&frame).is_err() && event::parse(&frame).is_err(), "{kind}");
                }
            }
            let in_map = [&b"\xa1\x61a"[..], &bomb].concat();
            for block in [&bomb, &in_map] {
                assert!(Commit::parse(block).is_err());
                assert!(record::check(block).is_err());
                let (cid, car) = car_of(block);
                let op = Op { path: "a.b.c/d", prev: None, cid: Some(cid) };
                assert!(invert(cid, &Car::parse(&car).unwrap(), &[op]).is_err());
            }
        }
    };
    small_stack.spawn(judge).unwrap().join().unwrap();
}

fn car_of(block: &[u8]) -> (Cid, Vec<u8>) {
    let cid = Cid::of_cbor(block);
    (cid, atproto::car::write(cid, [(cid, block)]))
}
