//! CIDs against the `cid` crate.

use atproto::cid::{Cid, Codec};
use proptest::prelude::*;

fn any_cid() -> impl Strategy<Value = Cid> {
    (any::<[u8; 32]>(), prop_oneof![Just(Codec::Raw), Just(Codec::DagCbor)])
        .prop_map(|(digest, codec)| Cid { codec, digest })
}

proptest! {
    #[test]
    fn text_and_bytes_agree(cid in any_cid()) {
        let theirs = cid::Cid::read_bytes(&cid.to_bytes()[..]).unwrap();
        prop_assert_eq!(theirs.version(), cid::Version::V1);
        prop_assert_eq!((theirs.codec(), theirs.hash().code(), theirs.hash().digest()), (cid.codec as u64, 0x12, &cid.digest[..]));
        prop_assert_eq!(theirs.to_string(), cid.to_string());
        prop_assert_eq!(Cid::parse(&cid.to_string()), Ok(cid));
        prop_assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
    }

    /// Damaged text is refused, or is another CID in its own right.
    #[test]
    fn damaged_text(cid in any_cid(), at in 0_usize..59, replacement in any::<char>()) {
        let mut text: Vec<char> = cid.to_string().chars().collect();
        text[at] = replacement;
        let text: String = text.into_iter().collect();
        if let Ok(parsed) = Cid::parse(&text) {
            prop_assert_eq!(parsed.to_string(), text.as_str());
            prop_assert!(text.parse::<cid::Cid>().is_ok());
        }
    }
}

#[test]
fn other_forms_are_refused() {
    let good = Cid::of_cbor(b"block");
    assert!(good.matches(b"block") && !good.matches(b"other"));
    let text = good.to_string();
    for bad in [
        "",
        "b",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "QmPZ9gcCEpqKTo6aq61g2nXGUhM4iCL3ewB6LDXZCtioEB",
        "zdj7WhuEjrB52m1BisYCtmjH1hSKa7yZ3jEZ9JcXaFRD51wVz",
        &text.to_uppercase(),
        &text[1..],
        &text[..58],
        &format!("{text}a"),
        &format!("{text}="),
        &format!("{}7", &text[..58]),
    ] {
        assert!(Cid::parse(bad).is_err(), "{bad}");
    }
    let bytes = good.to_bytes();
    assert!(Cid::from_bytes(&bytes[..35]).is_err());
    assert!(Cid::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    for (at, byte) in [(0, 0), (0, 2), (1, 0x70), (2, 0x13), (3, 0x1f)] {
        let mut bytes = bytes;
        bytes[at] = byte;
        assert!(Cid::from_bytes(&bytes).is_err());
    }
}
