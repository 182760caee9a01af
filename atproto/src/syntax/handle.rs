use std::fmt;

use super::{SyntaxError, is_label};

/// A handle: a DNS name of at least two labels, such as `alice.example.com`; compared in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(Box<str>);

impl Handle {
    /// Parses and keeps the text.
    pub fn parse(text: &str) -> Result<Handle, SyntaxError> {
        Self::check(text)?;
        Ok(Handle(Box::from(text)))
    }

    /// Checks the grammar without making a value.
    pub fn check(text: &str) -> Result<(), SyntaxError> {
        let invalid = |why| Err(SyntaxError { what: "handle", why });
        if text.len() > 253 {
            return invalid("longer than 253 bytes");
        }
        if !text.contains('.') {
            return invalid("fewer than two labels");
        }
        if !text.split('.').all(is_label) {
            return invalid("a label that is not 1 to 63 letters, digits and inner hyphens");
        }
        match text.rsplit('.').next().and_then(|label| label.bytes().next()) {
            Some(first) if first.is_ascii_alphabetic() => Ok(()),
            _ => invalid("a last label that does not begin with a letter"),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
