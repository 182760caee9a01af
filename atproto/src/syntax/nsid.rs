use std::fmt;

use super::SyntaxError;

/// A namespaced identifier, such as `app.bsky.feed.post`: the collection part of a record path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nsid(Box<str>);

impl Nsid {
    /// Parses and keeps the text.
    pub fn parse(text: &str) -> Result<Nsid, SyntaxError> {
        Self::check(text)?;
        Ok(Nsid(Box::from(text)))
    }

    /// Checks the grammar without making a value.
    pub fn check(text: &str) -> Result<(), SyntaxError> {
        let _ = text;
        todo!()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
