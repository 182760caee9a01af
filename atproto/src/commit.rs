//! Signed commits, version 3 (specification: Repository, "Commit Objects").

use crate::{
    cbor::CborError,
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
    block: &'a [u8],
}

/// A block that is not a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Not canonical CBOR.
    #[error("unreadable commit")]
    Cbor(#[source] CborError),
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
        let _ = block;
        todo!()
    }

    /// The bytes that are signed: the block without `sig`, cut and joined, not encoded anew, so that unknown fields
    /// count.
    pub fn unsigned_bytes(&self) -> Vec<u8> {
        let _ = self.block;
        todo!()
    }

    /// Checks the signature.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(&self.unsigned_bytes(), self.sig)
    }
}

/// Makes a signed commit block.
pub fn sign(did: &Did, rev: Tid, data: Cid, key: &SigningKey) -> Vec<u8> {
    let _ = (did, rev, data, key);
    todo!()
}
