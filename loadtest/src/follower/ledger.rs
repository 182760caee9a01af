//! What a follower has received, on the disk: for each event its seq and its frame's SHA-256, in the order in which they
//! came.
//!
//! The last entry is the cursor of the next connection, also after the follower itself was killed. Whatever came is
//! written down, a repeat too: who keeps a ledger does not judge it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use aws_lc_rs::digest::{SHA256, digest};

/// A ledger that is written to.
pub struct Ledger {
    file: File,
    /// Entries that are not in the file yet.
    pending: Vec<u8>,
    last_seq: Option<u64>,
}

/// An event that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The relay's seq.
    pub seq: u64,
    /// SHA-256 of the whole frame, its seq included.
    pub sha256: [u8; 32],
}

const ENTRY_BYTES: usize = 8 + 32;

impl Entry {
    /// The entry of a frame.
    pub fn of(seq: u64, frame: &[u8]) -> Entry {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, frame).as_ref());
        Entry { seq, sha256 }
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let (seq, sha256) = bytes.split_at(8);
        Entry {
            seq: u64::from_be_bytes(seq.try_into().expect("split there")),
            sha256: sha256.try_into().expect("split there"),
        }
    }
}

impl Ledger {
    /// Opens a ledger, or begins one. An entry that a kill has cut short is dropped: its event comes again.
    pub fn open(path: &Path) -> io::Result<Ledger> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let whole = file.metadata()?.len() / ENTRY_BYTES as u64 * ENTRY_BYTES as u64;
        file.set_len(whole)?;
        let last_seq = match whole.checked_sub(ENTRY_BYTES as u64) {
            Some(last) => {
                let mut entry = [0; ENTRY_BYTES];
                file.seek(SeekFrom::Start(last))?;
                file.read_exact(&mut entry)?;
                Some(Entry::read(&entry).seq)
            }
            None => None,
        };
        Ok(Ledger { file, pending: Vec::new(), last_seq })
    }

    /// The last event's seq.
    pub fn last_seq(&self) -> Option<u64> {
        self.last_seq
    }

    /// Takes note of an event; in the file after [`Ledger::flush`].
    pub fn add(&mut self, entry: Entry) {
        self.pending.extend_from_slice(&entry.seq.to_be_bytes());
        self.pending.extend_from_slice(&entry.sha256);
        self.last_seq = Some(entry.seq);
    }

    /// Writes what was added: from now on a kill does not lose it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// All whole entries of a ledger that may still be written to; none where there is no ledger yet.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(Entry::read).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How many whole entries a ledger has, and the last one's seq.
pub fn end(path: &Path) -> io::Result<(u64, Option<u64>)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, None)),
        Err(error) => return Err(error),
    };
    let entries = file.metadata()?.len() / ENTRY_BYTES as u64;
    if entries == 0 {
        return Ok((0, None));
    }
    let mut entry = [0; ENTRY_BYTES];
    file.seek(SeekFrom::Start((entries - 1) * ENTRY_BYTES as u64))?;
    file.read_exact(&mut entry)?;
    Ok((entries, Some(Entry::read(&entry).seq)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_goes_on_after_its_last_whole_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        assert_eq!((read(&path).unwrap(), end(&path).unwrap()), (vec![], (0, None)));
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.last_seq(), None);
        let entries = [Entry::of(5, b"five"), Entry::of(7, b"seven"), Entry::of(6, b"six")];
        entries.iter().for_each(|entry| ledger.add(*entry));
        assert_eq!(read(&path).unwrap(), [], "not flushed");
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), entries, "whatever came, as it came");
        drop(ledger);

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(end(&path).unwrap(), (2, Some(7)));
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.last_seq(), Some(7));
        ledger.add(entries[2]);
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), entries);
    }
}
