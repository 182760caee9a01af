//! Why a data directory can't be opened or mended.

use std::{io, path::PathBuf};

use storage::seq::Seq;

/// A directory that can't be opened, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{dir} is in use by process {pid}")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other process, as far as known.
        pid: String,
    },
    /// A newer program wrote it.
    #[error("{file} has format {found}, this program knows up to {known}: use the newer program")]
    NewerFormat {
        /// Which file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this program reads.
        known: u32,
    },
    /// It was made with another number of lanes.
    #[error("{dir} was made with {found} lanes, not {asked}: the number can't change")]
    Lanes {
        /// The directory.
        dir: PathBuf,
        /// What it was made with.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The asked start is among the seqs already used.
    #[error("the log's next seq is {next}, so it can't start at {asked}: seqs are never used twice")]
    SeqStartUsed {
        /// What was asked for.
        asked: Seq,
        /// The smallest that could be asked for.
        next: Seq,
    },
    /// A start that is no seq.
    #[error("{asked} is no seq to start with: seqs are 1 to 2^53 - 1")]
    SeqStartInvalid {
        /// What was asked for.
        asked: Seq,
    },
    /// Stored data is not what was written.
    #[error("stored data is damaged: {what}; `mainstem repair` tells what is lost, and mends it when told to")]
    Damaged {
        /// Which, and where.
        what: String,
    },
    /// The system said no.
    #[error("failed to {what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The store under Repos and Hosts said no.
    #[error("failed to open the state store in {dir}; where it stays so, `mainstem repair` can set it aside")]
    State {
        /// Its directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: fjall::Error,
    },
    /// A metric could not be registered.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
    /// Reading what was opened failed.
    #[error(transparent)]
    Store(#[from] storage::error::Error),
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { what, path, source }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> OpenError {
        OpenError::Damaged { what: what.into() }
    }
}
