use std::{fmt, sync::Arc};

use super::SyntaxError;
use crate::crypto::sha256;

/// A decentralized identifier, such as `did:plc:ewvi7nxzyoun6zhxrhs64oiz`: at most 2,048 bytes of ASCII. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Did(Arc<str>);

const DID_BYTES_MAX: usize = 2_048;

impl Did {
    /// Parses any DID the specification's generic grammar allows, whatever its method.
    pub fn parse(text: &str) -> Result<Did, SyntaxError> {
        Self::check(text)?;
        Ok(Did(Arc::from(text)))
    }

    /// Checks the grammar without making a value.
    pub fn check(text: &str) -> Result<(), SyntaxError> {
        let invalid = |why| Err(SyntaxError { what: "DID", why });
        if text.len() > DID_BYTES_MAX {
            return invalid("longer than 2,048 bytes");
        }
        let Some((method, id)) = text.strip_prefix("did:").and_then(|rest| rest.split_once(':')) else {
            return invalid("not did:METHOD:ID");
        };
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_lowercase()) {
            return invalid("a method that is not lower-case letters");
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'%' | b'-')) {
            return invalid("a character that is not allowed");
        }
        match id.bytes().last() {
            None => invalid("an empty id"),
            Some(b':' | b'%') => invalid("an id that ends in ':' or '%'"),
            Some(_) => Ok(()),
        }
    }

    /// The whole identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The method's name: `plc`, `web`, …
    pub fn method(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// The first 8 bytes of the SHA-256 of the identifier, big-endian. A DID's lane is this modulo the lane count;
    /// frozen, because lanes are on disk and in topics.
    pub fn lane_hash(text: &str) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = sha256(text.as_bytes());
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
