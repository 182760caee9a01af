//! What happened to a follower, a line of JSON each, beside its ledger.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Note {
    /// No connection came about.
    Refused {
        /// Why.
        why: String,
    },
    /// A connection came about.
    Opened {
        /// With this cursor.
        cursor: Option<u64>,
        /// The relay agreed to compress messages.
        compressed: bool,
    },
    /// Its first compressed message came, and could be inflated.
    Inflated,
    /// It ended.
    Ended {
        /// How.
        ending: Ending,
        /// The last whole event so far; the next cursor.
        last_seq: Option<u64>,
        /// Bytes of a frame that was not whole, and was dropped.
        torn_bytes: usize,
    },
    /// The relay sent something that is no event.
    Said {
        /// Its name.
        #[serde(rename = "text")]
        what: String,
    },
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ending {
    /// The relay closed it, with a code.
    Closed {
        /// The code.
        code: Option<u16>,
    },
    /// The stream ended without a close.
    Eof,
    /// The kernel gave up on it.
    Broken {
        /// Why.
        why: String,
    },
    /// Nothing came for too long.
    Silence,
    /// The follower had enough.
    Left,
    /// The relay sent what it must not send.
    Protocol {
        /// What.
        why: String,
    },
}

/// A journal that is written to.
pub struct Journal {
    file: File,
}

impl Journal {
    /// Goes on with a journal, or begins one.
    pub fn open(path: &Path) -> io::Result<Journal> {
        Ok(Journal { file: OpenOptions::new().append(true).create(true).open(path)? })
    }

    /// Adds a line, with one write, so that a kill does not tear it.
    pub fn write(&mut self, note: &Note) -> io::Result<()> {
        let mut line = serde_json::to_string(note).map_err(io::Error::other)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())
    }
}

/// All of a journal that may still be written to; nothing where there is none yet.
pub fn read(path: &Path) -> io::Result<Vec<Note>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let endings = [
            Ending::Closed { code: Some(1001) },
            Ending::Eof,
            Ending::Broken { why: "connection reset".to_owned() },
            Ending::Silence,
            Ending::Left,
            Ending::Protocol { why: "?".to_owned() },
        ];
        let mut notes = vec![
            Note::Refused { why: "connection refused".to_owned() },
            Note::Opened { cursor: None, compressed: true },
            Note::Inflated,
            Note::Said { what: "OutdatedCursor".to_owned() },
        ];
        notes.extend(endings.map(|ending| Note::Ended { ending, last_seq: Some(7), torn_bytes: 3 }));
        assert_eq!(read(&path).unwrap(), []);
        for half in notes.chunks(4) {
            let mut journal = Journal::open(&path).unwrap();
            half.iter().for_each(|note| journal.write(note).unwrap());
        }
        assert_eq!(read(&path).unwrap(), notes);
    }
}
