use std::fmt;

use super::SyntaxError;

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
        let _ = text;
        todo!()
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
