//! CAR files, well and badly made.

use atproto::{
    car::{self, Car, CarError},
    cid::{Cid, Codec},
};

fn block(text: &str) -> (Cid, &[u8]) {
    (Cid::of_cbor(text.as_bytes()), text.as_bytes())
}

/// A CAR of one root and no block, to be appended to.
fn empty(root: Cid) -> Vec<u8> {
    car::write(root, [])
}

fn section(name: &[u8], data: &[u8]) -> Vec<u8> {
    assert!(name.len() + data.len() < 0x80);
    [&[(name.len() + data.len()) as u8], name, data].concat()
}

#[test]
fn blocks_are_found_and_kept_in_order() {
    let texts: Vec<String> = (0..300).map(|i| format!("block {i}")).collect();
    let blocks: Vec<(Cid, &[u8])> = texts.iter().map(|text| block(text)).collect();
    let bytes = car::write(blocks[7].0, blocks.iter().copied());
    let car = Car::parse(&bytes).unwrap();
    assert_eq!(car.root(), blocks[7].0);
    assert_eq!(car.blocks().collect::<Vec<_>>(), blocks);
    for (cid, data) in &blocks {
        assert_eq!(car.get(cid), Some(*data));
    }
    assert_eq!(car.get(&Cid::of_cbor(b"none")), None);
    assert_eq!(car.get(&Cid { codec: Codec::Raw, ..blocks[0].0 }), None, "the codec is part of the name");
    assert!(!car.is_empty());
}

#[test]
fn repeated_blocks_are_kept_once() {
    let [a, b, c] = [block("a"), block("b"), block("c")];
    let bytes = car::write(a.0, [b, a, b, c, a, b]);
    let car = Car::parse(&bytes).unwrap();
    assert_eq!(car.blocks().collect::<Vec<_>>(), [b, a, c]);
    assert_eq!([a, b, c].map(|(cid, _)| car.get(&cid)), [a, b, c].map(|(_, data)| Some(data)));
}

#[test]
fn no_block_at_all() {
    let bytes = empty(Cid::of_cbor(b"root"));
    let car = Car::parse(&bytes).unwrap();
    assert!(car.is_empty() && car.get(&car.root()).is_none());
}

#[test]
fn other_kinds_of_cid_are_skipped() {
    let mut bytes = empty(Cid::of_cbor(b"root"));
    bytes.extend(section(&[1, 0x70, 0x12, 0x20], &[7; 40]));
    bytes.extend(section(&[1, 0x71, 0xb2, 0x40, 1], &[7; 40]));
    bytes.extend(section(&[0x12, 0x20], &[7; 40]));
    let known = block("known");
    bytes.extend(section(&known.0.to_bytes(), known.1));
    let car = Car::parse(&bytes).unwrap();
    assert_eq!(car.blocks().collect::<Vec<_>>(), [known]);
}

#[test]
fn badly_made() {
    let root = Cid::of_cbor(b"root");
    let good = car::write(root, [block("a"), block("b")]);
    for end in 0..good.len() {
        let whole_blocks = [empty(root).len(), car::write(root, [block("a")]).len()];
        assert_eq!(Car::parse(&good[..end]).is_ok(), whole_blocks.contains(&end), "cut at {end}");
    }
    let wrong = Cid::of_cbor(b"a");
    let bytes = car::write(root, [(wrong, &b"b"[..])]);
    assert_eq!(Car::parse(&bytes).unwrap_err(), CarError::WrongHash { cid: wrong });

    let malformed = |bytes: &[u8]| matches!(Car::parse(bytes), Err(CarError::Malformed { .. }));
    let with = |more: &[u8]| [&empty(root)[..], more].concat();
    assert!(malformed(&with(&[0])), "an empty section has no CID");
    assert!(malformed(&with(&section(&[9, 9], b"data"))));
    assert!(malformed(&with(&[0xff; 12])), "an endless length");
    assert!(malformed(&with(&[0x80, 0x00])), "a length that could be shorter");
    assert!(malformed(&with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])), "a length beyond the end");
    // Version 2, and roots that are no array.
    let header = empty(root);
    let version_2 = [&header[..header.len() - 1], &[2]].concat();
    assert!(malformed(&version_2));
    assert!(malformed(b"\x0b\xa1\x65roots\xf6"));
}

#[test]
fn roots_that_are_no_use() {
    let header = |roots: &[u8]| {
        let header = [b"\xa2\x65roots", roots, b"\x67version\x01"].concat();
        [&[header.len() as u8][..], &header].concat()
    };
    assert_eq!(Car::parse(&header(&[0x80])).unwrap_err(), CarError::NoRoot);
    let dag_pb = [&[0x81, 0xd8, 0x2a, 0x58, 0x25, 0, 1, 0x70, 0x12, 0x20][..], &[7; 32]].concat();
    assert_eq!(Car::parse(&header(&dag_pb)).unwrap_err(), CarError::NoRoot);
}
