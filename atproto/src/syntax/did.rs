use std::{fmt, sync::Arc};

use super::SyntaxError;

/// A decentralized identifier, such as `did:plc:ewvi7nxzyoun6zhxrhs64oiz`: at most 2,048 bytes of ASCII. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Did(Arc<str>);

impl Did {
    /// Parses any DID the specification's generic grammar allows, whatever its method.
    pub fn parse(text: &str) -> Result<Did, SyntaxError> {
        Self::check(text)?;
        Ok(Did(Arc::from(text)))
    }

    /// Checks the grammar without making a value.
    pub fn check(text: &str) -> Result<(), SyntaxError> {
        let _ = text;
        todo!()
    }

    /// The whole identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The method's name: `plc`, `web`, …
    pub fn method(&self) -> &str {
        todo!()
    }

    /// The first 8 bytes of the SHA-256 of the identifier, big-endian. A DID's lane is this modulo the lane count;
    /// frozen, because lanes are on disk and in topics.
    pub fn lane_hash(text: &str) -> u64 {
        let _ = text;
        todo!()
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
