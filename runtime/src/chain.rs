//! An error and its causes in one line, as logs and answers show them.

use std::{error::Error, fmt};

/// Displays an error, then each of its causes after a colon. Errors of this project tell only their own part and leave
/// the rest to `source`.
#[derive(Debug)]
pub struct Chain<'a, E: ?Sized>(pub &'a E);

impl<E: Error + ?Sized> fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to open the door")]
    struct Door(#[source] Lock);

    #[derive(Debug, thiserror::Error)]
    #[error("the lock is stuck")]
    struct Lock(#[source] io::Error);

    #[test]
    fn causes_follow_in_their_order() {
        let door = Door(Lock(io::Error::other("rust")));
        assert_eq!(Chain(&door).to_string(), "failed to open the door: the lock is stuck: rust");
        let error: &dyn Error = &door.0.0;
        assert_eq!(Chain(error).to_string(), "rust");
    }
}
