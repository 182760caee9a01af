//! The file of limits: read at the start, and again when it changes or on SIGHUP.
//!
//! What must hold: a file that can't be used never changes the rules in force, and never goes unsaid.

pub mod check;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use storage::limits::{Rules, RulesError};

pub use self::watch::{Metrics, Status, Watch};

/// A file larger than this holds no rules that anybody wrote.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file of limits can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is too long.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// What is written in it is wrong.
    #[error("{} {source}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        source: RulesError,
    },
}

/// Reads and parses a file of limits. Blocks.
pub fn read(path: &Path) -> Result<Rules, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    Rules::parse(&text).map_err(|source| Error::Rules { path: path.to_owned(), source })
}
