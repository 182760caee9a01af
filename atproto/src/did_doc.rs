//! DID documents, as far as a relay needs them (specification: DID, "Representation of AT Protocol in DID documents").

use crate::{
    crypto::PublicKey,
    syntax::{Did, HostName},
};

/// What a relay needs to know of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidDocument {
    /// Whose document it is.
    pub did: Did,
    /// The first method whose id ends in `#atproto`, if it can be used.
    pub signing_key: Option<PublicKey>,
    /// The host of the first service `#atproto_pds` of type AtprotoPersonalDataServer, if its endpoint is a plain origin.
    pub pds: Option<HostName>,
    /// The first `at://` of alsoKnownAs; not verified.
    pub handle: Option<String>,
}

/// A document that can't be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DidDocError {
    /// Not JSON, or not an object with an `id`.
    #[error("unreadable did document")]
    Unreadable,
    /// Another DID's document.
    #[error("did document is of {found}")]
    WrongDid {
        /// Its `id`, cut to 2,048 bytes.
        found: String,
    },
}

impl DidDocument {
    /// Reads a document and checks that it is `did`'s.
    pub fn parse(json: &[u8], did: &Did) -> Result<DidDocument, DidDocError> {
        let _ = (json, did);
        todo!()
    }
}
