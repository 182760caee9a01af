//! One segment: a file of groups, named by its first seq.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use storage::seq::Seq;

use super::{
    index::{Index, Summary},
    record::SegmentHeader,
    scan::{Scan, scan},
};
use crate::directory::{sync_dir, with_suffix};

/// A segment that is known to be good up to its extent.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    extent: Mutex<Extent>,
    /// What readers need; loaded when it is first read, dropped when others were read since.
    reading: Mutex<Option<Arc<Reading>>>,
}

/// How far a segment goes. Everything within is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The last event; the seq before the first where there is none.
    pub(crate) last: Seq,
    /// Past the last group.
    pub(crate) end: u64,
    pub(crate) first_at_micros: Option<u64>,
    pub(crate) last_at_micros: Option<u64>,
}

/// A segment's file, open, with its index.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) file: File,
    pub(crate) index: RwLock<Index>,
}

impl Segment {
    /// The file of the segment that begins with `first`.
    pub(crate) fn path(dir: &Path, first: Seq) -> PathBuf {
        dir.join(format!("{:020}.seg", first.0))
    }

    /// The first seq that a file's name says, if it is a segment's.
    pub(crate) fn first_of(path: &Path) -> Option<Seq> {
        let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
        (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit()))
            .then(|| digits.parse().ok().map(Seq))
            .flatten()
            .filter(|first| *first > Seq(0))
    }

    /// Makes a segment's file, empty but for its header. It has its name only when it is whole and durable.
    pub(crate) fn create(dir: &Path, header: SegmentHeader) -> io::Result<Segment> {
        let path = Segment::path(dir, header.first);
        let new = with_suffix(&path, ".new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_dir(dir)?;
        let extent = Extent {
            last: Seq(header.first.0 - 1),
            end: SegmentHeader::BYTES as u64,
            first_at_micros: None,
            last_at_micros: None,
        };
        Ok(Segment::open(path, header, extent, Some(Reading { file, index: RwLock::default() })))
    }

    /// A segment that was found good.
    pub(crate) fn open(path: PathBuf, header: SegmentHeader, extent: Extent, reading: Option<Reading>) -> Segment {
        let reading = Mutex::new(reading.map(Arc::new));
        Segment { path, header, extent: Mutex::new(extent), reading }
    }

    pub(crate) fn extent(&self) -> Extent {
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the end, after more was made durable.
    pub(crate) fn extend(&self, extent: Extent) {
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner) = extent;
    }

    /// Whether it holds no event.
    pub(crate) fn is_empty(&self) -> bool {
        self.extent().last < self.header.first
    }

    /// The open file and its index. Blocks where it must be opened.
    pub(crate) fn reading(&self) -> io::Result<Arc<Reading>> {
        let mut slot = self.slot();
        if let Some(reading) = &*slot {
            return Ok(Arc::clone(reading));
        }
        let file = File::open(&self.path)?;
        let extent = self.extent();
        let index = match read_index(&self.path, &self.header, extent.end) {
            Some((_, index)) => index,
            None => scan(&read_up_to(&file, extent.end)?, &self.header).index,
        };
        let reading = Arc::new(Reading { file, index: RwLock::new(index) });
        *slot = Some(Arc::clone(&reading));
        Ok(reading)
    }

    /// Closes the file until it is read again.
    pub(crate) fn forget_reading(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Reading>>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the index beside it. Only a help, so not synced.
    pub(crate) fn write_index(&self) -> io::Result<()> {
        let extent = self.extent();
        let summary = Summary {
            salt: self.header.salt,
            first: self.header.first,
            last: extent.last,
            end: extent.end,
            first_at_micros: extent.first_at_micros,
            last_at_micros: extent.last_at_micros,
        };
        let reading = self.reading()?;
        let index = reading.index.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.with_extension("idx");
        let new = with_suffix(&path, ".new");
        fs::write(&new, summary.encode_with(&index))?;
        fs::rename(new, path)
    }

    /// Deletes it and its index; readers that have it open may finish.
    pub(crate) fn delete(&self) -> io::Result<()> {
        match fs::remove_file(self.path.with_extension("idx")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::remove_file(&self.path)?;
        // Before the next is deleted: a hole in the window would look like damage.
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}

impl Extent {
    pub(crate) fn of(scan: &Scan) -> Extent {
        Extent {
            last: scan.last,
            end: scan.end,
            first_at_micros: scan.first_at_micros,
            last_at_micros: scan.last_at_micros,
        }
    }

    pub(crate) fn summarized(summary: &Summary) -> Extent {
        Extent {
            last: summary.last,
            end: summary.end,
            first_at_micros: summary.first_at_micros,
            last_at_micros: summary.last_at_micros,
        }
    }
}

/// The sidecar of a segment, where it is one, whole, and of this very segment.
pub(crate) fn read_index(path: &Path, header: &SegmentHeader, end: u64) -> Option<(Summary, Index)> {
    let bytes = fs::read(path.with_extension("idx")).ok()?;
    Summary::decode_with_index(&bytes).filter(|(summary, _)| fits(summary, header, end))
}

/// The sidecar's summary alone.
pub(crate) fn read_summary(path: &Path, header: &SegmentHeader, end: u64) -> Option<Summary> {
    let mut bytes = [0; Summary::BYTES];
    File::open(path.with_extension("idx")).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    Summary::decode(&bytes).filter(|summary| fits(summary, header, end))
}

fn fits(summary: &Summary, header: &SegmentHeader, end: u64) -> bool {
    summary.salt == header.salt && summary.first == header.first && summary.end == end
}

/// The first `end` bytes of a file.
pub(crate) fn read_up_to(file: &File, end: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(end).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
