use std::fmt;

use super::{SyntaxError, is_label};

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
        let invalid = |why| Err(SyntaxError { what: "NSID", why });
        if text.len() > 253 + 1 + 63 {
            return invalid("longer than 317 bytes");
        }
        // By bytes: names are short, and what searches a text for a character takes longer to set up than to search them.
        let Some(last_dot) = text.bytes().rposition(|b| b == b'.') else {
            return invalid("fewer than three segments");
        };
        let (authority, name) = (&text.as_bytes()[..last_dot], &text[last_dot + 1..]);
        if !authority.contains(&b'.') {
            return invalid("fewer than three segments");
        }
        if !authority.split(|b| *b == b'.').all(is_label) {
            return invalid("a segment that is not 1 to 63 letters, digits and inner hyphens");
        }
        if !authority.first().is_some_and(u8::is_ascii_alphabetic) {
            return invalid("a first segment that does not begin with a letter");
        }
        if !(1..=63).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return invalid("a name that is not 1 to 63 letters and digits");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return invalid("a name that does not begin with a letter");
        }
        Ok(())
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
