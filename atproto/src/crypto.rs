//! Keys and signatures: secp256k1 ("K-256") and P-256, ECDSA over SHA-256, low-S only (specification: Cryptography).
//!
//! Verifying takes libsecp256k1 and aws-lc-rs, the fastest measured; signing takes k256 and p256, which in tests are
//! also the second opinion.

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
};
use k256::ecdsa::signature::hazmat::PrehashSigner;
use sha2::block_api::compress256;

/// The SHA-256 of `bytes`.
///
/// By the block function: most of what is hashed is a block or a few (keys, tree nodes), and the buffer that the
/// crate's own hasher keeps for bytes yet to come costs such as much again as the hash.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut state = SHA256_START;
    let (blocks, rest) = bytes.as_chunks::<SHA256_BLOCK_BYTES>();
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    // What is left, a one bit, zeros, and at the end of a block the length in bits.
    let mut last = [[0; SHA256_BLOCK_BYTES]; 2];
    let used = if rest.len() < SHA256_BLOCK_BYTES - 8 { 1 } else { 2 };
    let padded = last[..used].as_flattened_mut();
    padded[..rest.len()].copy_from_slice(rest);
    padded[rest.len()] = 0x80;
    let length_at = padded.len() - 8;
    padded[length_at..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    compress256(&mut state, &last[..used]);

    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

/// The two curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1.
    K256,
    /// NIST P-256.
    P256,
}

impl Curve {
    /// What stands before a key's point in a Multikey: the unsigned varints of secp256k1-pub and p256-pub.
    fn multicodec(self) -> [u8; 2] {
        match self {
            Curve::K256 => [0xe7, 0x01],
            Curve::P256 => [0x80, 0x24],
        }
    }

    fn order(self) -> &'static [u8; 32] {
        match self {
            Curve::K256 => &K256_ORDER,
            Curve::P256 => &P256_ORDER,
        }
    }

    /// The largest S that is not high.
    fn half_order(self) -> &'static [u8; 32] {
        match self {
            Curve::K256 => &K256_HALF_ORDER,
            Curve::P256 => &P256_HALF_ORDER,
        }
    }
}

/// A key that verifies, parsed once.
#[derive(Clone)]
pub struct PublicKey {
    curve: Curve,
    point: [u8; POINT_BYTES],
    verifier: Verifier,
}

#[derive(Clone)]
enum Verifier {
    K256(secp256k1::PublicKey),
    P256(ParsedPublicKey),
}

/// Text that is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable public key: {why}")]
pub struct KeyError {
    /// What is wrong.
    pub why: &'static str,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 64 bytes, or a part out of range.
    #[error("malformed signature")]
    Malformed,
    /// The malleable half.
    #[error("signature with a high S")]
    HighS,
    /// It is not this key's over these bytes.
    #[error("signature does not verify")]
    Mismatch,
}

const SHA256_BLOCK_BYTES: usize = 64;
/// FIPS 180-4, section 5.3.3.
#[rustfmt::skip]
const SHA256_START: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

const POINT_BYTES: usize = 33;
const UNCOMPRESSED_POINT_BYTES: usize = 65;
/// Longer than any key's text; base58 takes time quadratic in its length.
const KEY_TEXT_BYTES_MAX: usize = 128;

impl PublicKey {
    /// From `did:key:z…`.
    pub fn from_did_key(text: &str) -> Result<PublicKey, KeyError> {
        PublicKey::from_multikey(text.strip_prefix("did:key:").ok_or(KeyError { why: "not a did:key" })?)
    }

    /// From a Multikey's `publicKeyMultibase`: `z`, base58btc, multicodec prefix, compressed point.
    pub fn from_multikey(text: &str) -> Result<PublicKey, KeyError> {
        let bytes = base58(text)?;
        let (codec, point) = bytes.split_first_chunk().ok_or(KeyError { why: "cut short" })?;
        let curve = [Curve::K256, Curve::P256].into_iter().find(|curve| curve.multicodec() == *codec);
        PublicKey::from_bytes(curve.ok_or(KeyError { why: "a kind of key other than K-256 and P-256" })?, point)
    }

    /// From the older form of DID documents: the curve stands in the method's type, the point has no prefix and may be
    /// uncompressed.
    pub fn from_legacy_multibase(curve: Curve, text: &str) -> Result<PublicKey, KeyError> {
        let point = base58(text)?;
        match <&[u8; UNCOMPRESSED_POINT_BYTES]>::try_from(point.as_slice()) {
            Ok([0x04, ..]) => PublicKey::from_point(curve, &point),
            Ok(_) => Err(KeyError { why: "not a point in SEC 1's form" }),
            Err(_) => PublicKey::from_bytes(curve, &point),
        }
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// As `did:key:z…`.
    pub fn to_did_key(&self) -> String {
        let multikey = [&self.curve.multicodec()[..], &self.point].concat();
        format!("did:key:z{}", bs58::encode(multikey).into_string())
    }

    /// The compressed point, 33 bytes.
    pub fn to_bytes(&self) -> [u8; POINT_BYTES] {
        self.point
    }

    /// From [`PublicKey::to_bytes`].
    pub fn from_bytes(curve: Curve, bytes: &[u8]) -> Result<PublicKey, KeyError> {
        match <&[u8; POINT_BYTES]>::try_from(bytes) {
            Ok([0x02 | 0x03, ..]) => PublicKey::from_point(curve, bytes),
            _ => Err(KeyError { why: "not a compressed point" }),
        }
    }

    /// Verifies a 64-byte compact signature of `message`'s SHA-256. Always refuses a high S.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        self.verify_digest(&sha256(message), signature)
    }

    /// Verifies a 64-byte compact signature of a SHA-256. Always refuses a high S.
    pub fn verify_digest(&self, digest: &[u8; 32], signature: &[u8]) -> Result<(), SignatureError> {
        check_form(self.curve, signature)?;
        match &self.verifier {
            Verifier::K256(key) => {
                let signature =
                    secp256k1::ecdsa::Signature::from_compact(signature).map_err(|_| SignatureError::Malformed)?;
                let message = secp256k1::Message::from_digest(*digest);
                secp256k1::ecdsa::verify(&signature, message, key).map_err(|_| SignatureError::Mismatch)
            }
            Verifier::P256(key) => {
                let digest = digest::Digest::import_less_safe(digest, &digest::SHA256).expect("a SHA-256 has 32 bytes");
                key.verify_digest_sig(&digest, signature).map_err(|_| SignatureError::Mismatch)
            }
        }
    }

    /// From a point whose length and first byte have been checked, compressed or not. Checks that it is on the curve.
    fn from_point(curve: Curve, point: &[u8]) -> Result<PublicKey, KeyError> {
        let off_curve = KeyError { why: "a point that is not on the curve" };
        let verifier = match curve {
            Curve::K256 => secp256k1::PublicKey::from_slice(point).map(Verifier::K256).map_err(|_| off_curve)?,
            Curve::P256 => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map(Verifier::P256).map_err(|_| off_curve)?
            }
        };
        Ok(PublicKey { curve, point: compressed(point), verifier })
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        (self.curve, self.point) == (other.curve, other.point)
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_did_key())
    }
}

/// A key that signs: for simulated accounts and tests.
#[derive(Clone)]
pub struct SigningKey {
    signer: Signer,
}

#[derive(Clone)]
enum Signer {
    K256(k256::ecdsa::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl SigningKey {
    /// From 32 secret bytes; an error where they are zero or not below the curve's order.
    pub fn from_bytes(curve: Curve, secret: &[u8; 32]) -> Result<SigningKey, KeyError> {
        let out_of_range = KeyError { why: "a secret that is zero or not below the order" };
        let signer = match curve {
            Curve::K256 => k256::ecdsa::SigningKey::from_slice(secret).map(Signer::K256),
            Curve::P256 => p256::ecdsa::SigningKey::from_slice(secret).map(Signer::P256),
        };
        Ok(SigningKey { signer: signer.map_err(|_| out_of_range)? })
    }

    /// Signs `message`'s SHA-256 (RFC 6979, low S).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        const WHY: &str = "a SHA-256 is long enough to be signed";
        let digest = sha256(message);
        match &self.signer {
            Signer::K256(key) => {
                let signature: k256::ecdsa::Signature = key.sign_prehash(&digest).expect(WHY);
                signature.normalize_s().to_bytes().into()
            }
            Signer::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).expect(WHY);
                signature.normalize_s().to_bytes().into()
            }
        }
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        let (curve, point) = match &self.signer {
            Signer::K256(key) => (Curve::K256, key.verifying_key().to_sec1_bytes()),
            Signer::P256(key) => (Curve::P256, key.verifying_key().to_sec1_bytes()),
        };
        PublicKey::from_point(curve, &point).expect("a secret's public half is on the curve")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret of {:?}", self.public_key())
    }
}

/// Checks that a signature is 64 bytes, both halves at least 1 and below the order, the second not high.
fn check_form(curve: Curve, signature: &[u8]) -> Result<(), SignatureError> {
    let Ok(signature) = <&[u8; 64]>::try_from(signature) else { return Err(SignatureError::Malformed) };
    let (r, s) = signature.split_at(32);
    // Big-endian numbers of one length compare as their bytes.
    let in_range = |scalar: &[u8]| scalar < &curve.order()[..] && scalar.iter().any(|byte| *byte != 0);
    if !in_range(r) || !in_range(s) {
        return Err(SignatureError::Malformed);
    }
    if s > &curve.half_order()[..] {
        return Err(SignatureError::HighS);
    }
    Ok(())
}

fn base58(multibase: &str) -> Result<Vec<u8>, KeyError> {
    if multibase.len() > KEY_TEXT_BYTES_MAX {
        return Err(KeyError { why: "longer than any key" });
    }
    let text = multibase.strip_prefix('z').ok_or(KeyError { why: "not base58btc, which begins with z" })?;
    bs58::decode(text).into_vec().map_err(|_| KeyError { why: "not base58btc" })
}

/// The compressed form of a point on the curve: its x, and whether its y is odd.
fn compressed(point: &[u8]) -> [u8; POINT_BYTES] {
    let mut compressed = [0; POINT_BYTES];
    compressed.copy_from_slice(&point[..POINT_BYTES]);
    if let [0x04, .., last] = point {
        compressed[0] = 0x02 | (last & 1);
    }
    compressed
}

#[rustfmt::skip]
const K256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];
#[rustfmt::skip]
const K256_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];
#[rustfmt::skip]
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
#[rustfmt::skip]
const P256_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_whole_hasher_at_every_length() {
        let bytes: Vec<u8> = (0..=300u32).map(|n| (n * 7) as u8).collect();
        for len in 0..bytes.len() {
            let whole: [u8; 32] = Sha256::digest(&bytes[..len]).into();
            assert_eq!(sha256(&bytes[..len]), whole, "{len} bytes");
        }
    }

    #[test]
    fn half_orders_are_half_the_orders() {
        for curve in [Curve::K256, Curve::P256] {
            // Both orders are odd, so twice the half and one more is the order.
            let mut carry = 1;
            let mut doubled = [0; 32];
            for (i, byte) in curve.half_order().iter().enumerate().rev() {
                let sum = u16::from(*byte) * 2 + carry;
                doubled[i] = sum as u8;
                carry = sum >> 8;
            }
            assert_eq!(&doubled, curve.order());
        }
    }
}
