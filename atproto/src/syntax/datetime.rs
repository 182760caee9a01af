use std::fmt;

use super::SyntaxError;

/// An RFC 3339 datetime as the Lexicon specification narrows it, such as `2026-11-22T08:53:09.160Z`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datetime(Box<str>);

impl Datetime {
    /// Parses and keeps the text.
    pub fn parse(text: &str) -> Result<Datetime, SyntaxError> {
        Self::check(text)?;
        Ok(Datetime(Box::from(text)))
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

impl fmt::Display for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
