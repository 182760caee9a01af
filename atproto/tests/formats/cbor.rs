//! Strict DAG-CBOR: what is refused, and agreement with `serde_ipld_dagcbor`.

use std::collections::BTreeMap;

use atproto::{
    cbor::{self, CborError, Limits, Reader, Writer},
    cid::{Cid, Codec},
};
use ipld_core::ipld::Ipld;
use proptest::prelude::*;
use serde_json::json;

use crate::{base64, read, read_json};

fn check(bytes: &[u8]) -> Result<(), CborError> {
    let rest = cbor::validate(bytes, &Limits::DEFAULT)?;
    if rest.is_empty() { Ok(()) } else { Err(CborError { at: bytes.len() - rest.len(), why: "trailing bytes" }) }
}

#[test]
fn canonical_items() {
    for hex in [
        "00",
        "17",
        "1818",
        "18ff",
        "190100",
        "19ffff",
        "1a00010000",
        "1affffffff",
        "1b0000000100000000",
        "1bffffffffffffffff",
        "20",
        "3818",
        "3bffffffffffffffff",
        "40",
        "4100",
        "60",
        "6161",
        "63e282ac",
        "80",
        "820102",
        "a0",
        "a1616100",
        "a2616100616200",
        "a2616200626161f6",
        "a2616200 626161f6",
        "f4",
        "f5",
        "f6",
        "fb3ff0000000000000",
        "fb8000000000000000",
        "d82a58250001711220 0000000000000000000000000000000000000000000000000000000000000000",
        "d82a450001550000",
        "d82a4a0001810 2b24003070707",
    ] {
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        assert_eq!(check(&bytes), Ok(()), "{hex}");
    }
}

#[test]
fn refused_items() {
    for (hex, why) in [
        ("", "cut short"),
        ("18", "cut short"),
        ("1817", "a number not in its shortest form"),
        ("1900ff", "a number not in its shortest form"),
        ("1a0000ffff", "a number not in its shortest form"),
        ("1b00000000ffffffff", "a number not in its shortest form"),
        ("3817", "a number not in its shortest form"),
        ("5801ff", "a number not in its shortest form"),
        ("780161", "a number not in its shortest form"),
        ("980100", "a number not in its shortest form"),
        ("b801616100", "a number not in its shortest form"),
        ("d9002a4100", "a number not in its shortest form"),
        ("1c", "a reserved length"),
        ("1f", "an indefinite length"),
        ("5f4100ff", "an indefinite length"),
        ("7f6161ff", "an indefinite length"),
        ("9f00ff", "an indefinite length"),
        ("bf616100ff", "an indefinite length"),
        ("ff", "a simple value that is not allowed"),
        ("f7", "a simple value that is not allowed"),
        ("e0", "a simple value that is not allowed"),
        ("f820", "a simple value that is not allowed"),
        ("f814", "a simple value that is not allowed"),
        ("f93c00", "a float of other than 64 bits"),
        ("fa3f800000", "a float of other than 64 bits"),
        ("fb7ff8000000000000", "a float that is no number"),
        ("fb7ff0000000000000", "a float that is no number"),
        ("fbfff0000000000000", "a float that is no number"),
        ("fb3ff00000000000", "cut short"),
        ("4100ff", "trailing bytes"),
        ("42ff", "cut short"),
        ("5bffffffffffffffff", "cut short"),
        ("62ff", "cut short"),
        ("61ff", "text that is not UTF-8"),
        ("63eda080", "text that is not UTF-8"),
        ("8201", "cut short"),
        ("9a0001ffff", "cut short"),
        ("9a00020001", "too many entries"),
        ("9bffffffffffffffff", "too many entries"),
        ("bb0000000100000000", "too many entries"),
        ("a16161", "cut short"),
        ("a10000", "a map key that is not text"),
        ("a1410000", "a map key that is not text"),
        ("a2616100616100", "map keys out of order"),
        ("a2616200616100", "map keys out of order"),
        ("a262616100616200", "map keys out of order"),
        ("a1616118", "cut short"),
        ("c0", "a tag other than 42"),
        ("d82b4100", "a tag other than 42"),
        ("d82a00", "not bytes"),
        ("d82a40", "tag 42 around what is not a CID"),
        ("d82a4100", "tag 42 around what is not a CID"),
        ("d82a4401550000", "tag 42 around what is not a CID"),
        ("d82a450001550001", "tag 42 around what is not a CID"),
        ("d82a46000155000000", "tag 42 around what is not a CID"),
        (
            "d82a5823001220 0000000000000000000000000000000000000000000000000000000000000000",
            "tag 42 around what is not a CID",
        ),
    ] {
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        assert_eq!(check(&bytes).map_err(|error| error.why), Err(why), "{hex}");
        // Nor in the middle of something else, where it is passed over.
        if why != "trailing bytes" {
            let inside = [&[0xa1, 0x61, b'a', 0x81], &bytes[..]].concat();
            let found = check(&inside).unwrap_err().why;
            assert!(found == why || found == "cut short", "{hex}: {found}");
        }
    }
}

#[test]
fn limits() {
    let nested = |levels: usize| [vec![0x81; levels], vec![0x00]].concat();
    assert_eq!(check(&nested(32)), Ok(()));
    assert_eq!(check(&nested(33)), Err(CborError { at: 32, why: "nested too deeply" }));
    assert!(check(&nested(5_000_000)).is_err());
    let maps = [b"\xa1\x61a".repeat(33), vec![0x00]].concat();
    assert_eq!(check(&maps).unwrap_err().why, "nested too deeply");
    // Siblings are not levels.
    let siblings = [vec![0x98, 100], [0x81, 0x00].repeat(100)].concat();
    assert_eq!(check(&siblings), Ok(()));
    let unlimited = Limits { nesting_max: usize::MAX, ..Limits::DEFAULT };
    assert!(cbor::validate(&nested(128), &unlimited).is_ok());
    assert!(cbor::validate(&nested(129), &unlimited).is_err());
    assert!(cbor::to_json(&nested(5_000_000)).is_err());

    let array = |entries: u32| [&[0x9a][..], &entries.to_be_bytes(), &vec![0x00; entries as usize]].concat();
    assert_eq!(check(&array(131_072)), Ok(()));
    assert_eq!(check(&array(131_073)).unwrap_err().why, "too many entries");

    let key = |len: u16| [&[0xa1, 0x79][..], &len.to_be_bytes(), &vec![b'k'; len as usize], &[0x00]].concat();
    assert_eq!(check(&key(8_192)), Ok(()));
    assert_eq!(check(&key(8_193)).unwrap_err().why, "a map key that is too long");
}

#[test]
fn each_method_reads_its_own_type_only() {
    type Read = fn(&mut Reader<'_>) -> Result<(), CborError>;
    let methods: [(&str, Read); 9] = [
        ("05", |reader| reader.unsigned().map(|value| assert_eq!(value, 5))),
        ("24", |reader| reader.integer().map(|value| assert!(value == -5 || value == 5))),
        ("6161", |reader| reader.text().map(|value| assert_eq!(value, "a"))),
        ("4161", |reader| reader.bytes().map(|value| assert_eq!(value, b"a"))),
        ("80", |reader| reader.array().map(|items| assert_eq!(items.left(), 0))),
        ("a0", |reader| reader.map().map(|keys| assert_eq!(keys.left(), 0))),
        ("f5", |reader| reader.bool().map(|value| assert!(value))),
        ("fb3ff0000000000000", |reader| reader.float().map(|value| assert_eq!(value, 1.0))),
        ("d82a450001550000", |reader| reader.link().map(|value| assert_eq!(value, [1, 0x55, 0, 0]))),
    ];
    for (i, (hex, _)) in methods.iter().enumerate() {
        let bytes = hex::decode(hex).unwrap();
        for (j, (_, read)) in methods.iter().enumerate() {
            let is_unsigned_as_integer = (i, j) == (0, 1);
            assert_eq!(read(&mut Reader::new(&bytes)).is_ok(), i == j || is_unsigned_as_integer, "{hex} by method {j}");
            assert!(read(&mut Reader::new(&[])).is_err());
        }
        assert!(!Reader::new(&bytes).null());
    }
    assert!(Reader::new(&[0xf6]).null());
    let other_codec = hex::decode("d82a450001550000").unwrap();
    assert_eq!(Reader::new(&other_codec).cid().unwrap_err().why, "a CID of a form that the protocol does not use");
    for (hex, value) in [
        ("1b7fffffffffffffff", Some(i64::MAX)),
        ("3b7fffffffffffffff", Some(i64::MIN)),
        ("1b8000000000000000", None),
        ("3b8000000000000000", None),
    ] {
        assert_eq!(Reader::new(&hex::decode(hex).unwrap()).integer().ok(), value, "{hex}");
    }
}

#[test]
fn data_model_suite() {
    let fixtures = read_json("data-model/data-model-fixtures.json");
    for fixture in fixtures.as_array().unwrap() {
        let bytes = base64(&fixture["cbor_base64"]);
        assert_eq!(cbor::to_json(&bytes).unwrap(), fixture["json"]);
        assert_eq!(fixture["cid"], Cid::of_cbor(&bytes).to_string());
    }
    let post = cbor::to_json(&read("data-model/feedpost_record.cbor")).unwrap();
    assert_eq!(post["$type"], "app.bsky.feed.post");
}

#[test]
fn json_of_all_kinds() {
    let bytes = hex::decode(
        "a9616100616220616341ff6164f56165f66166fb3ff80000000000006167d82a4500015500006168811bffffffffffffffff616900",
    )
    .unwrap();
    assert_eq!(
        cbor::to_json(&bytes).unwrap(),
        json!({
            "a": 0, "b": -1, "c": { "$bytes": "/w" }, "d": true, "e": null, "f": 1.5, "g": { "$link": "bafkqaaa" },
            "h": [u64::MAX], "i": 0,
        })
    );
    assert!(
        cbor::to_json(&hex::decode("3bffffffffffffffff").unwrap()).is_err(),
        "beyond what JSON's numbers hold here"
    );
    assert!(cbor::to_json(&[0x00, 0x00]).is_err());
}

// === Against serde_ipld_dagcbor ===

fn any_item() -> impl Strategy<Value = Ipld> {
    let link = (any::<[u8; 32]>(), prop_oneof![Just(Codec::Raw), Just(Codec::DagCbor)])
        .prop_map(|(digest, codec)| Ipld::Link(cid::Cid::try_from(&Cid { codec, digest }.to_bytes()[..]).unwrap()));
    let edge = prop_oneof![0_i128..70_000, Just(1 << 32), Just((1 << 32) - 1), Just(i128::from(u64::MAX))];
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        any::<i64>().prop_map(|value| Ipld::Integer(value.into())),
        (edge, any::<bool>()).prop_map(|(value, negative)| Ipld::Integer(if negative { -1 - value } else { value })),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Ipld::Float),
        ".{0,40}".prop_map(Ipld::String),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Ipld::Bytes),
        link,
    ];
    leaf.prop_recursive(5, 64, 10, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..30).prop_map(Ipld::List),
            proptest::collection::btree_map("[a-z]{0,30}|.{0,5}", inner, 0..30).prop_map(Ipld::Map),
        ]
    })
}

/// Writes what `serde_ipld_dagcbor` would, if both are right. Integers beyond 64 bits with a sign and floats are theirs
/// alone: no message of the protocol has them.
fn write(writer: &mut Writer, item: &Ipld) -> Option<()> {
    match item {
        Ipld::Null => writer.null(),
        Ipld::Bool(value) => writer.bool(*value),
        Ipld::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(value), _) => writer.unsigned(value),
            (Err(_), Ok(value)) => writer.integer(value),
            (Err(_), Err(_)) => return None,
        },
        Ipld::Float(_) => return None,
        Ipld::String(value) => writer.text(value),
        Ipld::Bytes(value) => writer.bytes(value),
        Ipld::Link(cid) => writer.cid(&Cid::from_bytes(&cid.to_bytes()).unwrap()),
        Ipld::List(items) => {
            writer.array(items.len());
            for item in items {
                write(writer, item)?;
            }
        }
        Ipld::Map(entries) => {
            writer.map(entries.len());
            let mut entries: Vec<(&String, &Ipld)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| (key.len(), *key));
            for (key, value) in entries {
                writer.text(key);
                write(writer, value)?;
            }
        }
    }
    Some(())
}

/// Reads an item as `serde_ipld_dagcbor` would.
fn read_item(reader: &mut Reader<'_>) -> Result<Ipld, CborError> {
    Ok(match reader.peek()? {
        cbor::Kind::Unsigned => Ipld::Integer(reader.unsigned()?.into()),
        cbor::Kind::Negative => Ipld::Integer(reader.integer()?.into()),
        cbor::Kind::Bytes => Ipld::Bytes(reader.bytes()?.to_vec()),
        cbor::Kind::Text => Ipld::String(reader.text()?.to_owned()),
        cbor::Kind::Array => {
            let mut items = reader.array()?;
            let mut list = Vec::new();
            while items.more(reader) {
                list.push(read_item(reader)?);
            }
            Ipld::List(list)
        }
        cbor::Kind::Map => {
            let mut keys = reader.map()?;
            let mut map = BTreeMap::new();
            while let Some(key) = keys.next_key(reader)? {
                map.insert(key.to_owned(), read_item(reader)?);
            }
            Ipld::Map(map)
        }
        cbor::Kind::Link => Ipld::Link(cid::Cid::try_from(reader.link()?).unwrap()),
        cbor::Kind::Bool => Ipld::Bool(reader.bool()?),
        cbor::Kind::Null => {
            assert!(reader.null());
            Ipld::Null
        }
        cbor::Kind::Float => Ipld::Float(reader.float()?),
    })
}

proptest! {
    #[test]
    fn both_write_and_read_the_same(item in any_item()) {
        let theirs = serde_ipld_dagcbor::to_vec(&item).unwrap();
        prop_assert_eq!(check(&theirs), Ok(()));
        let mut reader = Reader::new(&theirs);
        if let Ok(ours) = read_item(&mut reader) {
            prop_assert_eq!(reader.finish(), Ok(()));
            prop_assert_eq!(&ours, &item);
        } else {
            prop_assert!(write(&mut Writer::new(), &item).is_none(), "only numbers out of range can't be read");
        }
        let mut writer = Writer::new();
        if write(&mut writer, &item).is_some() {
            prop_assert_eq!(writer.into_bytes(), theirs);
        }
    }

    /// Whatever we accept is the one canonical form: theirs, decoded and written again, is the same bytes.
    #[test]
    fn what_is_accepted_is_canonical(item in any_item(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = serde_ipld_dagcbor::to_vec(&item).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if check(&bytes).is_ok() {
            let theirs: Ipld = serde_ipld_dagcbor::from_slice(&bytes).unwrap();
            prop_assert_eq!(serde_ipld_dagcbor::to_vec(&theirs).unwrap(), bytes);
        }
    }
}
