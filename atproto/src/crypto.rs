//! Keys and signatures: secp256k1 ("K-256") and P-256, ECDSA over SHA-256, low-S only (specification: Cryptography).
//!
//! Verifying takes libsecp256k1 and aws-lc-rs, the fastest measured; signing takes k256 and p256, which in tests are
//! also the second opinion.

use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The two curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1.
    K256,
    /// NIST P-256.
    P256,
}

/// A key that verifies, parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    _private: (),
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

impl PublicKey {
    /// From `did:key:z…`.
    pub fn from_did_key(text: &str) -> Result<PublicKey, KeyError> {
        let _ = text;
        todo!()
    }

    /// From a Multikey's `publicKeyMultibase`: `z`, base58btc, multicodec prefix, compressed point.
    pub fn from_multikey(text: &str) -> Result<PublicKey, KeyError> {
        let _ = text;
        todo!()
    }

    /// From the older form of DID documents: the curve stands in the method's type, the point has no prefix and may be
    /// uncompressed.
    pub fn from_legacy_multibase(curve: Curve, text: &str) -> Result<PublicKey, KeyError> {
        let _ = (curve, text);
        todo!()
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        todo!()
    }

    /// As `did:key:z…`.
    pub fn to_did_key(&self) -> String {
        todo!()
    }

    /// The compressed point, 33 bytes.
    pub fn to_bytes(&self) -> [u8; 33] {
        todo!()
    }

    /// From [`PublicKey::to_bytes`].
    pub fn from_bytes(curve: Curve, bytes: &[u8]) -> Result<PublicKey, KeyError> {
        let _ = (curve, bytes);
        todo!()
    }

    /// Verifies a 64-byte compact signature of `message`'s SHA-256. Always refuses a high S.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let _ = (message, signature);
        todo!()
    }
}

/// A key that signs: for simulated accounts and tests.
#[derive(Clone)]
pub struct SigningKey {
    _private: (),
}

impl SigningKey {
    /// From 32 secret bytes; an error where they are zero or not below the curve's order.
    pub fn from_bytes(curve: Curve, secret: &[u8; 32]) -> Result<SigningKey, KeyError> {
        let _ = (curve, secret);
        todo!()
    }

    /// Signs `message`'s SHA-256 (RFC 6979, low S).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let _ = message;
        todo!()
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        todo!()
    }
}
