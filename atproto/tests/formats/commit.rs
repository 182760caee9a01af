//! Commit blocks that break the rules, one rule at a time, and where the signature may stand.

use std::collections::BTreeMap;

use atproto::{
    cid::Cid,
    commit::{self, Commit, CommitError},
    crypto::{Curve, SigningKey},
    syntax::{Did, Tid},
};
use ipld_core::ipld::Ipld;

type Map = BTreeMap<String, Ipld>;

fn key() -> SigningKey {
    SigningKey::from_bytes(Curve::P256, &[3; 32]).unwrap()
}

/// A good block's entries.
fn good() -> Map {
    let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
    let block = commit::sign(&did, Tid::from_micros(1_700_000_000_000_000, 1), Cid::of_cbor(b"data"), &key());
    serde_ipld_dagcbor::from_slice(&block).unwrap()
}

fn encode(entries: &Map) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(&Ipld::Map(entries.clone())).unwrap()
}

fn with(name: &str, value: Ipld) -> Vec<u8> {
    let mut entries = good();
    entries.insert(name.to_owned(), value);
    encode(&entries)
}

#[test]
fn fields() {
    assert_eq!(good().keys().collect::<Vec<_>>(), ["data", "did", "prev", "rev", "sig", "version"]);
    for name in good().keys() {
        let mut entries = good();
        entries.remove(name);
        let wanted = |error| matches!(error, CommitError::Field { field } if field == name);
        assert!(wanted(Commit::parse(&encode(&entries)).unwrap_err()), "without {name}");
        assert!(wanted(Commit::parse(&with(name, Ipld::Bool(true))).unwrap_err()), "{name} of another type");
    }
    let data = Ipld::Link(cid::Cid::try_from(&[1, 0x71, 0, 1, 7][..]).unwrap());
    assert_eq!(Commit::parse(&with("data", data)).unwrap_err(), CommitError::Field { field: "data" });
    assert_eq!(Commit::parse(&with("data", Ipld::Null)).unwrap_err(), CommitError::Field { field: "data" });
}

#[test]
fn prev_may_be_a_link() {
    let prev = Cid::of_cbor(b"prev");
    let block = with("prev", Ipld::Link(cid::Cid::try_from(&prev.to_bytes()[..]).unwrap()));
    assert_eq!(Commit::parse(&block).unwrap().prev, Some(prev));
}

#[test]
fn versions() {
    for version in [0, 1, 2, 4, u64::MAX] {
        let block = with("version", Ipld::Integer(version.into()));
        assert_eq!(Commit::parse(&block).unwrap_err(), CommitError::Version { version });
    }
    // Version 2 had other rules for `prev`: it is its version that is at fault.
    let mut entries = good();
    entries.remove("prev");
    entries.insert("version".to_owned(), Ipld::Integer(2));
    assert_eq!(Commit::parse(&encode(&entries)).unwrap_err(), CommitError::Version { version: 2 });
}

#[test]
fn blocks_that_are_not_one_canonical_map() {
    let block = encode(&good());
    assert!(Commit::parse(&block).is_ok());
    for end in 0..block.len() {
        assert!(matches!(Commit::parse(&block[..end]), Err(CommitError::Cbor(_))), "cut at {end}");
    }
    for bad in [[&block[..], &[0xf6]].concat(), vec![0x80], with("zzz", Ipld::Null)[1..].to_vec()] {
        assert!(matches!(Commit::parse(&bad), Err(CommitError::Cbor(_))));
    }
}

/// The signed bytes are what another implementation writes of the map without `sig`, wherever that stands and however
/// long the map's head is.
#[test]
fn the_signed_bytes_are_the_map_without_sig() {
    for more in [0, 1, 16, 17, 18, 19, 249, 250, 251] {
        for prefix in ["", "z"] {
            let mut entries = good();
            entries.extend((0..more).map(|i| (format!("{prefix}{i}"), Ipld::Integer(i))));
            let block = encode(&entries);
            entries.remove("sig");
            let unsigned = encode(&entries);
            let commit = Commit::parse(&block).unwrap();
            assert_eq!(commit.unsigned_bytes(), unsigned, "{more} more entries");

            let sig = key().sign(&unsigned);
            entries.insert("sig".to_owned(), Ipld::Bytes(sig.to_vec()));
            let block = encode(&entries);
            assert_eq!(Commit::parse(&block).unwrap().verify(&key().public_key()), Ok(()));
        }
    }
}
