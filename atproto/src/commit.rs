//! Signed commits, version 3 (specification: Repository, "Commit Objects").

use crate::{
    cbor::{CborError, Kind, Reader, Writer},
    cid::Cid,
    crypto::{PublicKey, SignatureError, SigningKey},
    syntax::{Did, Tid},
};

/// A commit block, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The account.
    pub did: &'a str,
    /// 3 (2 is of an older form).
    pub version: u64,
    /// The MST's root.
    pub data: Cid,
    /// Its rev; not checked to be a TID.
    pub rev: &'a str,
    /// Null in practice; the key must be there.
    pub prev: Option<Cid>,
    /// 64 bytes.
    pub sig: &'a [u8],
    unsigned: Unsigned<'a>,
}

/// The block around its `sig`: the number of other entries, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsigned<'a> {
    entries: usize,
    before_sig: &'a [u8],
    after_sig: &'a [u8],
}

const VERSION: u64 = 3;

/// A block that is not a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Not canonical CBOR.
    #[error("unreadable commit")]
    Cbor(#[from] CborError),
    /// A field is missing or of the wrong type.
    #[error("commit without a valid {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// Another version than 3.
    #[error("commit of version {version}")]
    Version {
        /// The number.
        version: u64,
    },
}

impl<'a> Commit<'a> {
    /// Decodes a block. Always checks canonical CBOR, all fields' types, version 3 and that `prev` is there. Does not
    /// check the signature.
    pub fn parse(block: &'a [u8]) -> Result<Commit<'a>, CommitError> {
        let (mut did, mut version, mut data, mut rev, mut prev, mut sig) = (None, None, None, None, None, None);
        let mut reader = Reader::new(block);
        let mut keys = reader.map()?;
        let (entries, first_entry_at) = (keys.left(), reader.offset());
        let mut sig_entry = 0..0;
        loop {
            let entry_at = reader.offset();
            let Some(key) = keys.next_key(&mut reader)? else { break };
            let kind = reader.peek()?;
            let field_of = |field, wanted| if kind == wanted { Ok(()) } else { Err(CommitError::Field { field }) };
            match key {
                "did" => {
                    field_of("did", Kind::Text)?;
                    did = Some(reader.text()?);
                }
                "rev" => {
                    field_of("rev", Kind::Text)?;
                    rev = Some(reader.text()?);
                }
                "sig" => {
                    field_of("sig", Kind::Bytes)?;
                    sig = Some(reader.bytes()?);
                    sig_entry = entry_at..reader.offset();
                }
                "data" => data = Some(cid(&mut reader, "data")?),
                "prev" if reader.null() => prev = Some(None),
                "prev" => prev = Some(Some(cid(&mut reader, "prev")?)),
                "version" => {
                    field_of("version", Kind::Unsigned)?;
                    version = Some(reader.unsigned()?);
                }
                _ => reader.skip()?,
            }
        }
        reader.finish()?;

        let missing = |field| CommitError::Field { field };
        let version = version.ok_or(missing("version"))?;
        if version != VERSION {
            return Err(CommitError::Version { version });
        }
        Ok(Commit {
            did: did.ok_or(missing("did"))?,
            version,
            data: data.ok_or(missing("data"))?,
            rev: rev.ok_or(missing("rev"))?,
            prev: prev.ok_or(missing("prev"))?,
            sig: sig.ok_or(missing("sig"))?,
            unsigned: Unsigned {
                entries: entries - 1,
                before_sig: &block[first_entry_at..sig_entry.start],
                after_sig: &block[sig_entry.end..],
            },
        })
    }

    /// The bytes that are signed: the block without `sig`, cut and joined, not encoded anew, so that unknown fields
    /// count.
    pub fn unsigned_bytes(&self) -> Vec<u8> {
        let Unsigned { entries, before_sig, after_sig } = self.unsigned;
        let mut unsigned = Writer::with_capacity(9 + before_sig.len() + after_sig.len());
        unsigned.map(entries);
        let mut unsigned = unsigned.into_bytes();
        unsigned.extend_from_slice(before_sig);
        unsigned.extend_from_slice(after_sig);
        unsigned
    }

    /// Checks the signature.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(&self.unsigned_bytes(), self.sig)
    }
}

/// Makes a signed commit block.
pub fn sign(did: &Did, rev: Tid, data: Cid, key: &SigningKey) -> Vec<u8> {
    let rev = rev.to_string();
    let sig = key.sign(&encode(did, &rev, &data, None));
    encode(did, &rev, &data, Some(&sig))
}

fn cid(reader: &mut Reader<'_>, field: &'static str) -> Result<Cid, CommitError> {
    if reader.peek()? != Kind::Link {
        return Err(CommitError::Field { field });
    }
    Cid::from_bytes(reader.link()?).map_err(|_| CommitError::Field { field })
}

fn encode(did: &Did, rev: &str, data: &Cid, sig: Option<&[u8]>) -> Vec<u8> {
    let mut block = Writer::with_capacity(256);
    block.map(5 + usize::from(sig.is_some()));
    block.text("did");
    block.text(did.as_str());
    block.text("rev");
    block.text(rev);
    if let Some(sig) = sig {
        block.text("sig");
        block.bytes(sig);
    }
    block.text("data");
    block.cid(data);
    block.text("prev");
    block.null();
    block.text("version");
    block.unsigned(VERSION);
    block.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Curve;

    #[test]
    fn what_is_signed_verifies_and_an_unknown_field_counts() {
        for curve in [Curve::K256, Curve::P256] {
            let key = SigningKey::from_bytes(curve, &[7; 32]).unwrap();
            let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
            let data = Cid::of_cbor(b"data");
            let block = sign(&did, Tid::from_micros(1_700_000_000_000_000, 5), data, &key);
            let commit = Commit::parse(&block).unwrap();
            assert_eq!((commit.did, commit.data, commit.prev, commit.version), (did.as_str(), data, None, 3));
            assert_eq!(commit.unsigned_bytes(), encode(&did, commit.rev, &data, None));
            assert_eq!(commit.verify(&key.public_key()), Ok(()));

            // One more entry, `"zzzzzzzz": 1`, last in order.
            let mut more = block.clone();
            more[0] += 1;
            more.extend_from_slice(b"\x68zzzzzzzz\x01");
            let commit = Commit::parse(&more).unwrap();
            assert_eq!(commit.verify(&key.public_key()), Err(SignatureError::Mismatch));
            let sig = key.sign(&commit.unsigned_bytes());
            let at = more.windows(64).position(|window| window == commit.sig).unwrap();
            more[at..at + 64].copy_from_slice(&sig);
            assert_eq!(Commit::parse(&more).unwrap().verify(&key.public_key()), Ok(()));
        }
    }
}
