//! What repair found, for a person and for tests.

use std::{fmt, path::PathBuf};

use storage::seq::Seq;

/// What is in a data directory, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many segments the log has.
    pub segments: u64,
    /// How many events can be read.
    pub events: u64,
    /// The first and the last of them.
    pub seqs: Option<SeqRange>,
    /// What is wrong, in the log's order.
    pub findings: Vec<Finding>,
    /// Whether what was found has been mended.
    pub mended: bool,
}

/// Seqs from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// `FORMAT` is missing or unreadable.
    Format {
        /// The file.
        file: PathBuf,
    },
    /// A segment's header is not what was written.
    Header {
        /// The file.
        file: PathBuf,
    },
    /// Bytes in a segment are not what was written.
    Bytes {
        /// The file.
        file: PathBuf,
        /// Where they begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
        /// The events that were in them; `None` where there was none.
        lost: Option<SeqRange>,
    },
    /// Events are missing between two segments, or at the log's end.
    Missing {
        /// The events.
        lost: SeqRange,
    },
    /// The last write did not end. Nobody has seen it; opening cuts it.
    TornTail {
        /// The file.
        file: PathBuf,
        /// Where it begins.
        offset: u64,
        /// How many bytes it is.
        bytes: u64,
    },
    /// The state store has not seen what was in the log before its window.
    ReposBehind {
        /// The last event it has seen; `None` where it is empty.
        seen: Option<Seq>,
        /// It needs all events after this one.
        needed_after: Seq,
    },
    /// The state store can't be opened.
    ReposUnreadable {
        /// Why.
        why: String,
    },
}

impl Report {
    /// Whether the log opens as it is.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(Finding::is_harmless)
    }

    /// The events that are lost.
    pub fn lost(&self) -> Vec<SeqRange> {
        self.findings.iter().filter_map(Finding::lost).collect()
    }
}

impl Finding {
    /// Whether opening copes with it alone.
    fn is_harmless(&self) -> bool {
        matches!(self, Finding::TornTail { .. })
    }

    /// The events that are lost by it.
    pub fn lost(&self) -> Option<SeqRange> {
        match self {
            Finding::Bytes { lost, .. } => *lost,
            Finding::Missing { lost } => Some(*lost),
            Finding::Format { .. }
            | Finding::Header { .. }
            | Finding::TornTail { .. }
            | Finding::ReposBehind { .. }
            | Finding::ReposUnreadable { .. } => None,
        }
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "event {}", self.first)
        } else {
            write!(f, "events {} to {}", self.first, self.last)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Format { file } => write!(f, "{}: missing or unreadable", file.display()),
            Finding::Header { file } => write!(f, "{}: damaged header, {} bytes at byte 0", file.display(), 64),
            Finding::Bytes { file, offset, bytes, lost } => {
                write!(f, "{}: {bytes} damaged bytes at byte {offset}: ", file.display())?;
                match lost {
                    Some(lost) => write!(f, "lost {lost}"),
                    None => f.write_str("no event is lost"),
                }
            }
            Finding::Missing { lost } => write!(f, "no file holds them: lost {lost}"),
            Finding::TornTail { file, offset, bytes } => {
                let file = file.display();
                write!(
                    f,
                    "{file}: {bytes} bytes at byte {offset} were never synced: nothing is lost, opening cuts them"
                )
            }
            Finding::ReposBehind { seen: None, needed_after } => {
                write!(f, "the state store is empty: what it knew of events up to {needed_after} is lost")
            }
            Finding::ReposBehind { seen: Some(seen), needed_after } => {
                write!(f, "the state store has seen events up to {seen} only, the log keeps those after {needed_after}")
            }
            Finding::ReposUnreadable { why } => {
                write!(f, "the state store can't be opened ({why}): hosts, takedowns and quiet accounts are lost")
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} segments with {} readable events", self.segments, self.events)?;
        if let Some(SeqRange { first, last }) = self.seqs {
            write!(f, ", {first} to {last}")?;
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        match (self.findings.is_empty(), self.is_sound(), self.mended) {
            (true, _, _) => f.write_str("\nnothing is damaged"),
            (false, true, _) => f.write_str("\nnothing is damaged: it can be opened"),
            (false, false, false) => f.write_str("\nit can't be opened before it is mended"),
            (false, false, true) => {
                f.write_str("\nmended: it can be opened; damaged files are kept beside the others, as .damaged")?;
                let last_read = self.seqs.map_or(Seq(0), |seqs| seqs.last);
                match self.lost().last() {
                    Some(lost) if lost.last > last_read => write!(
                        f,
                        "\nthe log's end is lost: it goes on after {}; if readers may have seen more than that, start \
                         once with a larger --seq-start",
                        lost.last
                    ),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }
}
