//! Content identifiers as the protocol makes them: CIDv1, SHA-256, dag-cbor or raw (specification: Data Model, "link").
//!
//! A commit, an MST node or a record is always named by one of these, 36 bytes in binary. CIDs of other hashes may stand
//! inside records; those are checked for form by [`crate::cbor`] and never become a value here.

use std::{fmt, sync::LazyLock};

use data_encoding::{Encoding, Specification};

use crate::crypto::sha256;

/// What the named bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Codec {
    /// `0x55`: a blob.
    Raw = 0x55,
    /// `0x71`: a block of DAG-CBOR.
    DagCbor = 0x71,
}

/// A CIDv1 with a SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    /// What the bytes are.
    pub codec: Codec,
    /// Their SHA-256.
    pub digest: [u8; 32],
}

/// Bytes or text that are not a CIDv1 with SHA-256 and a known codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a CIDv1 of SHA-256 over dag-cbor or raw")]
pub struct CidError;

const VERSION: u8 = 1;
const SHA2_256: u8 = 0x12;
const DIGEST_BYTES: u8 = 32;

impl Cid {
    /// The number of bytes of the binary form.
    pub const BYTES: usize = 36;

    /// The CID of a block of DAG-CBOR: hashes it.
    pub fn of_cbor(block: &[u8]) -> Cid {
        Cid { codec: Codec::DagCbor, digest: sha256(block) }
    }

    /// The 36-byte binary form (without the zero byte that precedes it in CBOR).
    pub fn to_bytes(self) -> [u8; Cid::BYTES] {
        let mut bytes = [0; Cid::BYTES];
        bytes[..4].copy_from_slice(&[VERSION, self.codec as u8, SHA2_256, DIGEST_BYTES]);
        bytes[4..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads exactly the 36-byte binary form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Cid, CidError> {
        let Ok([version, codec, hash, len, digest @ ..]) = <&[u8; Cid::BYTES]>::try_from(bytes) else {
            return Err(CidError);
        };
        if *version != VERSION || *hash != SHA2_256 || *len != DIGEST_BYTES {
            return Err(CidError);
        }
        let codec = match *codec {
            0x55 => Codec::Raw,
            0x71 => Codec::DagCbor,
            _ => return Err(CidError),
        };
        Ok(Cid { codec, digest: *digest })
    }

    /// Reads the text form, base32 lower-case with its `b`.
    pub fn parse(text: &str) -> Result<Cid, CidError> {
        // 36 bytes are 58 characters; asking first keeps long text from being decoded.
        let body = text.strip_prefix('b').filter(|body| body.len() == 58).ok_or(CidError)?;
        let bytes = BASE32.decode(body.as_bytes()).map_err(|_| CidError)?;
        Cid::from_bytes(&bytes)
    }

    /// True if `bytes` hash to this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        sha256(bytes) == self.digest
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.to_bytes()))
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text form of any CIDv1's bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(1 + bytes.len().div_ceil(5) * 8);
    text.push('b');
    BASE32.encode_append(bytes, &mut text);
    text
}

/// The length of the CIDv1 of any codec and hash that `bytes` begin with, if they do.
pub(crate) fn form(bytes: &[u8]) -> Option<usize> {
    let (version, after_version) = varint(bytes)?;
    let (_codec, after_codec) = varint(after_version)?;
    let (_hash, after_hash) = varint(after_codec)?;
    let (digest_bytes, digest) = varint(after_hash)?;
    let digest_bytes = usize::try_from(digest_bytes).ok()?;
    if version != u64::from(VERSION) || digest_bytes > digest.len() {
        return None;
    }
    Some(bytes.len() - digest.len() + digest_bytes)
}

/// Reads an unsigned LEB128 number in its shortest form, at most 9 bytes (63 bits) as multiformats ask.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || i == 0;
            return shortest.then(|| (value, &bytes[i + 1..]));
        }
    }
    None
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut base32 = Specification::new();
    base32.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    base32.encoding().expect("32 distinct symbols are an encoding")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_shortest_and_bounded() {
        assert_eq!(varint(&[0, 9]), Some((0, &[9][..])));
        assert_eq!(varint(&[0x7f]), Some((127, &[][..])));
        assert_eq!(varint(&[0x80, 1]), Some((128, &[][..])));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), Some((u64::MAX >> 1, &[][..])));
        for bad in [&[][..], &[0x80], &[0x80, 0], &[0xff, 0x80, 0], &[0xff; 9], &[0xff; 20]] {
            assert_eq!(varint(bad), None, "{bad:x?}");
        }
    }

    #[test]
    fn form_takes_other_codecs_and_hashes() {
        assert_eq!(form(&[1, 0x70, 0, 3, 7, 7, 7, 99]), Some(7), "an identity hash");
        assert_eq!(form(&[1, 0x81, 0x02, 0xb2, 0x40, 1, 7]), Some(7), "long varints");
        assert_eq!(form(&[1, 0x70, 0, 3, 7, 7]), None, "a digest cut short");
        assert_eq!(form(&[0x12, 0x20]), None, "version 0");
    }
}
