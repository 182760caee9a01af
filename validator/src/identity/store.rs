//! The cache that outlives the process: documents by DID, in a form whose bytes are frozen.
//!
//! ```text
//!   u8 version = 1 │ u64 fetched at, µs, big-endian │ u8 curve (0 none, 1 K-256, 2 P-256) │ 33 bytes point, if any
//!   │ u16 length, host name (0: none) │ u16 length, handle (0: none)
//! ```

use std::{str, sync::Arc};

use async_trait::async_trait;
use atproto::{
    crypto::{Curve, PublicKey},
    did_doc::DidDocument,
    syntax::{Did, HostName},
};

use super::Identity;

const VERSION: u8 = 1;
const POINT_BYTES: usize = 33;

/// Where identities are kept across restarts. Losing any of them is harmless: they are fetched again.
#[async_trait]
pub trait Store: Send + Sync {
    /// The bytes that were put last for a DID.
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, storage::error::Error>;

    /// Keeps bytes for a DID. Need not be durable when answered.
    async fn put(&self, did: &Did, bytes: Vec<u8>) -> Result<(), storage::error::Error>;
}

/// The bytes to keep of a document.
pub(super) fn encode(document: &DidDocument, fetched_at_micros: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(fetched_at_micros.to_be_bytes());
    match &document.signing_key {
        None => out.push(0),
        Some(key) => {
            out.push(match key.curve() {
                Curve::K256 => 1,
                Curve::P256 => 2,
            });
            out.extend(key.to_bytes());
        }
    }
    put_text(&mut out, document.pds.as_ref().map_or("", HostName::as_str));
    put_text(&mut out, document.handle.as_deref().unwrap_or(""));
    out
}

/// What was kept; `None` where it can't be read, which is as if it had never been kept.
pub(super) fn decode(did: &Did, bytes: &[u8]) -> Option<Identity> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    let (fetched_at, rest) = rest.split_first_chunk::<8>()?;
    let (&curve, mut rest) = rest.split_first()?;
    let curve = match curve {
        0 => None,
        1 => Some(Curve::K256),
        2 => Some(Curve::P256),
        _ => return None,
    };
    let signing_key = match curve {
        None => None,
        Some(curve) => {
            let (point, after) = rest.split_at_checked(POINT_BYTES)?;
            rest = after;
            Some(PublicKey::from_bytes(curve, point).ok()?)
        }
    };
    let (pds, rest) = take_text(rest)?;
    let (handle, rest) = take_text(rest)?;
    let pds = if pds.is_empty() { None } else { Some(HostName::parse(pds).ok()?) };
    let handle = (!handle.is_empty()).then(|| handle.to_owned());
    let document = DidDocument { did: did.clone(), signing_key, pds, handle };
    rest.is_empty()
        .then(|| Identity { known: Ok(Arc::new(document)), fetched_at_micros: u64::from_be_bytes(*fetched_at) })
}

/// Text past 64 KiB can't come from a document within the size we read; should it, it is left out.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let (len, text) = u16::try_from(text.len()).map_or((0, ""), |len| (len, text));
    out.extend(len.to_be_bytes());
    out.extend(text.as_bytes());
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use atproto::crypto::SigningKey;

    use super::*;

    fn did() -> Did {
        Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap()
    }

    fn documents() -> Vec<DidDocument> {
        let keys = [None, Some(Curve::K256), Some(Curve::P256)];
        let mut documents = Vec::new();
        for curve in keys {
            for (pds, handle) in [(None, None), (Some("pds.example.com:8443"), Some("alice.example.com"))] {
                documents.push(DidDocument {
                    did: did(),
                    signing_key: curve.map(|curve| SigningKey::from_bytes(curve, &[7; 32]).unwrap().public_key()),
                    pds: pds.map(|pds| HostName::parse(pds).unwrap()),
                    handle: handle.map(str::to_owned),
                });
            }
        }
        documents
    }

    #[test]
    fn what_is_kept_comes_back() {
        for document in documents() {
            let bytes = encode(&document, 1_767_225_600_000_000);
            let identity = decode(&did(), &bytes).unwrap();
            assert_eq!(identity, Identity { known: Ok(Arc::new(document)), fetched_at_micros: 1_767_225_600_000_000 });
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let bytes = encode(&documents()[1], 0x0102_0304_0506_0708);
        let expected =
            [&[1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 20][..], b"pds.example.com:8443", &[0, 17], b"alice.example.com"];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn damage_reads_as_nothing() {
        for document in documents() {
            let bytes = encode(&document, 5);
            for len in 0..bytes.len() {
                assert_eq!(decode(&did(), &bytes[..len]), None);
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(decode(&did(), &longer), None);
            let mut newer = bytes;
            newer[0] = 2;
            assert_eq!(decode(&did(), &newer), None);
        }
    }
}
