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
        let invalid = |why| Err(SyntaxError { what: "record key", why });
        if !(1..=512).contains(&text.len()) {
            return invalid("not 1 to 512 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'~')) {
            return invalid("a character that is not allowed");
        }
        if matches!(text, "." | "..") {
            return invalid("a dot or two");
        }
        Ok(())
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
