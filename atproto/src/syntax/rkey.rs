use std::fmt;

use super::SyntaxError;

/// A record key: 1 to 512 characters of `A-Za-z0-9.-_:~`, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey(Box<str>);

impl RecordKey {
    /// Parses and keeps the text.
    pub fn parse(text: &str) -> Result<RecordKey, SyntaxError> {
        Self::check(text)?;
        Ok(RecordKey(Box::from(text)))
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

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
