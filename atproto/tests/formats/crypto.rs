//! The signature and did:key suites, and other implementations of both curves.

use atproto::crypto::{Curve, PublicKey, SignatureError, SigningKey, sha256};
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use proptest::prelude::*;

use crate::{base64, read_json};

#[test]
fn signature_suite() {
    let fixtures = read_json("crypto/signature-fixtures.json");
    let fixtures = fixtures.as_array().unwrap();
    assert!(fixtures.len() >= 6);
    for fixture in fixtures {
        let comment = fixture["comment"].as_str().unwrap();
        let key = PublicKey::from_did_key(fixture["publicKeyDid"].as_str().unwrap()).unwrap();
        let curve = match fixture["algorithm"].as_str().unwrap() {
            "ES256K" => Curve::K256,
            "ES256" => Curve::P256,
            other => panic!("{other}"),
        };
        assert_eq!(key.curve(), curve);
        // The suite's multibase has no multicodec prefix: the older form.
        assert_eq!(
            PublicKey::from_legacy_multibase(curve, fixture["publicKeyMultibase"].as_str().unwrap()).unwrap(),
            key
        );

        let tags: Vec<&str> = fixture["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        let expected = match tags[..] {
            [] => Ok(()),
            ["high-s"] => Err(SignatureError::HighS),
            ["der-encoded"] => Err(SignatureError::Malformed),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(fixture["validSignature"].as_bool().unwrap(), expected.is_ok());
        let (message, signature) = (base64(&fixture["messageBase64"]), base64(&fixture["signatureBase64"]));
        assert_eq!(key.verify(&message, &signature), expected, "{comment}");
        assert_eq!(key.verify_digest(&sha256(&message), &signature), expected, "{comment}");
    }
}

#[test]
fn did_key_suites() {
    for fixture in read_json("crypto/w3c_didkey_K256.json").as_array().unwrap() {
        let secret = hex::decode(fixture["privateKeyBytesHex"].as_str().unwrap()).unwrap();
        check_did_key(Curve::K256, &secret, fixture["publicDidKey"].as_str().unwrap());
    }
    for fixture in read_json("crypto/w3c_didkey_P256.json").as_array().unwrap() {
        let secret = bs58::decode(fixture["privateKeyBytesBase58"].as_str().unwrap()).into_vec().unwrap();
        check_did_key(Curve::P256, &secret, fixture["publicDidKey"].as_str().unwrap());
    }
}

fn check_did_key(curve: Curve, secret: &[u8], did_key: &str) {
    let key = SigningKey::from_bytes(curve, secret.try_into().unwrap()).unwrap().public_key();
    assert_eq!(key.to_did_key(), did_key);
    assert_eq!(PublicKey::from_did_key(did_key).unwrap(), key);
    assert_eq!(PublicKey::from_bytes(curve, &key.to_bytes()).unwrap(), key);
}

#[test]
fn text_that_is_no_key() {
    let good = "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
    assert!(PublicKey::from_did_key(good).is_ok());
    let multibase = |bytes: &[u8]| format!("did:key:z{}", bs58::encode(bytes).into_string());
    let point = PublicKey::from_did_key(good).unwrap().to_bytes();
    let cases = [
        String::new(),
        "did:key:".to_owned(),
        "did:key:z".to_owned(),
        good.replace("did:key:", ""),
        good.replace(":z", ":m"),
        good.replace('Q', "0"),
        good[..good.len() - 1].to_owned(),
        format!("{good}1"),
        multibase(&[&[0xed, 0x01], &point[..]].concat()),
        multibase(&[&[0xe7, 0x01, 0x04], &point[1..]].concat()),
        multibase(&[&[0xe7, 0x01, 0x05], &point[1..]].concat()),
        multibase(&[&[0xe7, 0x01, 0x02], &[0xff; 32][..]].concat()),
        multibase(&[&[0x80, 0x24, 0x02], &[0xff; 32][..]].concat()),
        multibase(&[&[0xe7, 0x01], &point[..], &[0]].concat()),
        format!("did:key:z{}", "1".repeat(1_000_000)),
    ];
    for text in cases {
        assert!(PublicKey::from_did_key(&text).is_err(), "{text}");
    }
    for curve in [Curve::K256, Curve::P256] {
        assert!(SigningKey::from_bytes(curve, &[0; 32]).is_err());
        assert!(SigningKey::from_bytes(curve, &[0xff; 32]).is_err());
    }
}

#[test]
fn uncompressed_and_compressed_points_are_one_key() {
    for curve in [Curve::K256, Curve::P256] {
        for byte in 1..20 {
            let (compressed, uncompressed) = match curve {
                Curve::K256 => {
                    let key = *k256::ecdsa::SigningKey::from_slice(&[byte; 32]).unwrap().verifying_key();
                    (key.to_sec1_point(true).as_bytes().to_vec(), key.to_sec1_point(false).as_bytes().to_vec())
                }
                Curve::P256 => {
                    let key = *p256::ecdsa::SigningKey::from_slice(&[byte; 32]).unwrap().verifying_key();
                    (key.to_sec1_point(true).as_bytes().to_vec(), key.to_sec1_point(false).as_bytes().to_vec())
                }
            };
            let text = |point: &[u8]| format!("z{}", bs58::encode(point).into_string());
            let key = PublicKey::from_legacy_multibase(curve, &text(&uncompressed)).unwrap();
            assert_eq!(key, PublicKey::from_legacy_multibase(curve, &text(&compressed)).unwrap());
            assert_eq!(key.to_bytes()[..], compressed[..]);
            let mut off_curve = uncompressed.to_vec();
            off_curve[64] ^= 1;
            assert!(PublicKey::from_legacy_multibase(curve, &text(&off_curve)).is_err());
            // The hybrid form, which some libraries take.
            let mut hybrid = uncompressed.to_vec();
            hybrid[0] = 0x06 | (hybrid[64] & 1);
            assert!(PublicKey::from_legacy_multibase(curve, &text(&hybrid)).is_err());
        }
    }
}

proptest! {
    /// Whatever happens to a signature, we and RustCrypto's curves agree on it, but for the high S, which we refuse.
    #[test]
    fn agrees_with_other_implementations(
        secret in any::<[u8; 32]>(),
        message in any::<Vec<u8>>(),
        curve in prop_oneof![Just(Curve::K256), Just(Curve::P256)],
        flip in proptest::option::of((0_usize..64, 0_u8..8)),
        negate in any::<bool>(),
    ) {
        let Ok(key) = SigningKey::from_bytes(curve, &secret) else { return Ok(()) };
        let public = key.public_key();
        let mut signature = key.sign(&message);
        prop_assert_eq!(public.verify(&message, &signature), Ok(()));
        if negate {
            negate_s(curve, &mut signature);
            prop_assert_eq!(public.verify(&message, &signature), Err(SignatureError::HighS));
        }
        if let Some((byte, bit)) = flip {
            signature[byte] ^= 1 << bit;
        }
        let (theirs, high) = other_opinion(curve, &public.to_bytes(), &sha256(&message), &signature);
        let expected = match (theirs, high) {
            (None, _) => Err(SignatureError::Malformed),
            (Some(_), true) => Err(SignatureError::HighS),
            (Some(true), false) => Ok(()),
            (Some(false), false) => Err(SignatureError::Mismatch),
        };
        prop_assert_eq!(public.verify(&message, &signature), expected);
        let mut other = message.clone();
        other.push(0);
        prop_assert!(public.verify(&other, &signature).is_err());
    }

    #[test]
    fn signatures_of_any_bytes(signature in proptest::collection::vec(any::<u8>(), 0..80), secret in 1_u8..) {
        for curve in [Curve::K256, Curve::P256] {
            let key = SigningKey::from_bytes(curve, &[secret & 0x7f | 1; 32]).unwrap().public_key();
            prop_assert!(key.verify(b"message", &signature).is_err());
        }
    }
}

#[test]
fn parts_out_of_range_are_malformed() {
    let k256_order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let p256_order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    for (curve, order) in [(Curve::K256, k256_order), (Curve::P256, p256_order)] {
        let key = SigningKey::from_bytes(curve, &[9; 32]).unwrap();
        let good = key.sign(b"message");
        for bad_part in [&[0; 32][..], &order, &[0xff; 32]] {
            for at in [0, 32] {
                let mut signature = good;
                signature[at..at + 32].copy_from_slice(bad_part);
                assert_eq!(key.public_key().verify(b"message", &signature), Err(SignatureError::Malformed));
            }
        }
        for len in [0, 63, 65, 128] {
            assert_eq!(key.public_key().verify(b"message", &vec![1; len]), Err(SignatureError::Malformed));
        }
    }
}

/// What k256 or p256 says: `None` where it can't read the signature; and whether its S is high.
fn other_opinion(curve: Curve, point: &[u8], digest: &[u8], signature: &[u8]) -> (Option<bool>, bool) {
    match curve {
        Curve::K256 => {
            let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            let Ok(signature) = k256::ecdsa::Signature::from_slice(signature) else { return (None, false) };
            let high = signature.normalize_s() != signature;
            (Some(key.verify_prehash(digest, &signature.normalize_s()).is_ok()), high)
        }
        Curve::P256 => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else { return (None, false) };
            let high = signature.normalize_s() != signature;
            (Some(key.verify_prehash(digest, &signature).is_ok()), high)
        }
    }
}

/// Replaces S by the order minus S: the same signature's other form.
fn negate_s(curve: Curve, signature: &mut [u8; 64]) {
    match curve {
        Curve::K256 => {
            let (r, s) = k256::ecdsa::Signature::from_slice(signature).unwrap().split_scalars();
            *signature = k256::ecdsa::Signature::from_scalars(r, -s).unwrap().to_bytes().into();
        }
        Curve::P256 => {
            let (r, s) = p256::ecdsa::Signature::from_slice(signature).unwrap().split_scalars();
            *signature = p256::ecdsa::Signature::from_scalars(r, -s).unwrap().to_bytes().into();
        }
    }
}
