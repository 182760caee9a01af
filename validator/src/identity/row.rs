//! What is kept of an identity in [`storage::identities`], in a form whose bytes are frozen.
//!
//! ```text
//!   u8 version = 1 │ u64 fetched at, µs, big-endian │ u8 what
//!     0, 1, 2   a document: without a key, with one of K-256, of P-256
//!               │ 33 bytes point, if any │ u16 length, host name (0: none) │ u16 length, handle (0: none)
//!     3         a tombstone: nothing follows
//! ```
//!
//! Other absences are not kept: they end too soon to be worth it.

use std::{str, sync::Arc};

use atproto::{
    crypto::{Curve, PublicKey},
    did_doc::DidDocument,
    syntax::{Did, HostName},
};

use super::{Absence, Identity};

const VERSION: u8 = 1;
const POINT_BYTES: usize = 33;
const TOMBSTONE: u8 = 3;

/// The bytes to keep, where it is worth keeping.
pub(super) fn encode(identity: &Identity) -> Option<Vec<u8>> {
    let mut out = vec![VERSION];
    out.extend(identity.fetched_at_micros.to_be_bytes());
    let document = match &identity.known {
        Ok(document) => document,
        Err(Absence::Tombstoned) => {
            out.push(TOMBSTONE);
            return Some(out);
        }
        Err(Absence::NotFound | Absence::BadDocument | Absence::Unsupported | Absence::Unanswered) => return None,
    };
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
    Some(out)
}

/// What was kept; `None` where it can't be read, which is as if it had never been kept.
pub(super) fn decode(did: &Did, bytes: &[u8]) -> Option<Identity> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    let (fetched_at, rest) = rest.split_first_chunk::<8>()?;
    let fetched_at_micros = u64::from_be_bytes(*fetched_at);
    let (&curve, mut rest) = rest.split_first()?;
    let curve = match curve {
        0 => None,
        1 => Some(Curve::K256),
        2 => Some(Curve::P256),
        TOMBSTONE if rest.is_empty() => return Some(Identity { known: Err(Absence::Tombstoned), fetched_at_micros }),
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
    rest.is_empty().then(|| Identity { known: Ok(Arc::new(document)), fetched_at_micros })
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

    fn found(document: DidDocument, fetched_at_micros: u64) -> Identity {
        Identity { known: Ok(Arc::new(document)), fetched_at_micros }
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
            let identity = found(document, 1_767_225_600_000_000);
            assert_eq!(decode(&did(), &encode(&identity).unwrap()), Some(identity));
        }
        for absence in
            [Absence::NotFound, Absence::Tombstoned, Absence::BadDocument, Absence::Unsupported, Absence::Unanswered]
        {
            let identity = Identity { known: Err(absence), fetched_at_micros: 7 };
            let kept = encode(&identity).map(|bytes| decode(&did(), &bytes));
            assert_eq!(kept, (absence == Absence::Tombstoned).then_some(Some(identity)));
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let bytes = encode(&found(documents()[1].clone(), 0x0102_0304_0506_0708)).unwrap();
        let expected =
            [&[1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 20][..], b"pds.example.com:8443", &[0, 17], b"alice.example.com"];
        assert_eq!(bytes, expected.concat());
        let gone = Identity { known: Err(Absence::Tombstoned), fetched_at_micros: 0x0102_0304_0506_0708 };
        assert_eq!(encode(&gone).unwrap(), [1, 1, 2, 3, 4, 5, 6, 7, 8, 3]);
    }

    #[test]
    fn damage_reads_as_nothing() {
        for document in documents() {
            let bytes = encode(&found(document, 5)).unwrap();
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
