//! Opens the segments: checks what can be checked, cuts a torn tail, and leaves the last one sealed and synced.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use storage::seq::Seq;

use super::{
    Salt,
    record::{FORMAT, GroupHeader, HeaderFlaw, SegmentHeader},
    scan::{Flaw, scan},
    segment::{Extent, Reading, Segment, read_summary, read_up_to},
    segments::Segments,
};
use crate::{config::Config, directory::sync_dir, error::OpenError};

/// What is known beside the log when it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) salt: Salt,
    /// Up to here Repos has seen the log, so up to here it was durable.
    pub(crate) durable: Seq,
    /// What a new log begins with.
    pub(crate) first: Seq,
    /// What an existing one is to go on with, where it was asked for.
    pub(crate) next: Option<Seq>,
}

/// Opens all segments, or makes the first. Blocks.
pub(crate) fn open(dir: &Path, known: Known, config: &Config) -> Result<Segments, OpenError> {
    fs::create_dir_all(dir).map_err(OpenError::io("make", dir))?;
    let paths = segment_paths(dir)?;
    let Some((last_path, full_paths)) = paths.split_last() else {
        if known.durable >= known.first {
            return Err(OpenError::damaged(format!(
                "{} has no segment, but the state store has seen events up to {}",
                dir.display(),
                known.durable
            )));
        }
        let header = header(known.salt, known.first, Seq(known.first.0 - 1), config);
        return Ok(Segments::new(vec![Arc::new(create(dir, header)?)]));
    };
    let last = open_last(last_path, known, config)?;
    let mut verify_bytes = config.verify_bytes_max.saturating_sub(last.extent().end);
    let mut segments = vec![Arc::new(last)];
    for path in full_paths.iter().rev() {
        let full = open_full(path, known.salt, &mut verify_bytes)?;
        let later = &segments[segments.len() - 1];
        if full.extent().last != later.header.after {
            return Err(OpenError::damaged(format!(
                "{} ends with {}, but {} comes after {}",
                path.display(),
                full.extent().last,
                later.path.display(),
                later.header.after
            )));
        }
        segments.push(Arc::new(full));
    }
    segments.reverse();
    let active = &segments[segments.len() - 1];
    let end = active.extent().last;
    if known.durable > end {
        return Err(OpenError::damaged(format!(
            "the log ends with {end}, but the state store has seen events up to {}",
            known.durable
        )));
    }
    match known.next {
        Some(asked) if asked < end.next() => return Err(OpenError::SeqStartUsed { asked, next: end.next() }),
        Some(asked) if asked > end.next() => {
            tracing::warn!(last = end.0, next = asked.0, "the log jumps");
            active.write_index().map_err(OpenError::io("write the index of", &active.path))?;
            segments.push(Arc::new(create(dir, header(known.salt, asked, end, config))?));
        }
        Some(_) | None => {}
    }
    Ok(Segments::new(segments))
}

fn header(salt: Salt, first: Seq, after: Seq, config: &Config) -> SegmentHeader {
    SegmentHeader { salt, first, after, created_at_micros: (config.now_micros)() }
}

/// Makes a segment that ends with a seal, so that others may follow it.
pub(crate) fn create(dir: &Path, header: SegmentHeader) -> Result<Segment, OpenError> {
    let segment = Segment::create(dir, header).map_err(OpenError::io("make a segment in", dir))?;
    let reading = segment.reading().map_err(OpenError::io("open", &segment.path))?;
    seal(&segment, &reading, header.created_at_micros).map_err(OpenError::io("seal", &segment.path))?;
    Ok(segment)
}

/// The segments' files, oldest first. Deletes what was never finished.
pub(crate) fn segment_paths(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let io = || OpenError::io("read", dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io())? {
        let path = entry.map_err(io())?.path();
        if Segment::first_of(&path).is_some() {
            paths.push(path);
        } else if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).map_err(OpenError::io("delete", &path))?;
        }
    }
    // Names have one length, so their order is the seqs'.
    paths.sort();
    Ok(paths)
}

/// Reads and checks a segment's header against its name and the directory.
pub(crate) fn read_header(path: &Path, file: &File, salt: Salt) -> Result<SegmentHeader, OpenError> {
    let mut bytes = [0; SegmentHeader::BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(OpenError::io("read", path)(error)),
        Ok(()) | Err(_) => {}
    }
    match SegmentHeader::decode(&bytes) {
        Ok(header) if header.salt == salt && Some(header.first) == Segment::first_of(path) => Ok(header),
        Ok(_) => Err(OpenError::damaged(format!("{} is not of this log, or has another's name", path.display()))),
        Err(HeaderFlaw::Newer { format }) => {
            Err(OpenError::NewerFormat { file: path.to_owned(), found: format, known: FORMAT })
        }
        Err(HeaderFlaw::Damaged) => Err(OpenError::damaged(format!("the header of {}", path.display()))),
    }
}

/// A segment that is full: its sidecar is believed, unless there is still budget to verify it whole.
fn open_full(path: &Path, salt: Salt, verify_bytes: &mut u64) -> Result<Segment, OpenError> {
    let file = File::open(path).map_err(OpenError::io("open", path))?;
    let header = read_header(path, &file, salt)?;
    let end = file.metadata().map_err(OpenError::io("read", path))?.len();
    if end > *verify_bytes
        && let Some(summary) = read_summary(path, &header, end)
    {
        *verify_bytes = 0;
        return Ok(Segment::open(path.to_owned(), header, Extent::summarized(&summary), None));
    }
    *verify_bytes = verify_bytes.saturating_sub(end);
    let scan = scan(&read_up_to(&file, end).map_err(OpenError::io("read", path))?, &header);
    if let Some(flaw) = &scan.flaw {
        return Err(flaw_error(path, flaw));
    }
    if !scan.sealed {
        return Err(OpenError::damaged(format!("{} ends too early, at byte {end}", path.display())));
    }
    let segment = Segment::open(path.to_owned(), header, Extent::of(&scan), None);
    if read_summary(path, &header, end).is_none() {
        segment.write_index().map_err(OpenError::io("write the index of", path))?;
    }
    Ok(segment)
}

/// The segment that is written: may have a torn tail.
fn open_last(path: &Path, known: Known, config: &Config) -> Result<Segment, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(OpenError::io("open", path))?;
    let header = read_header(path, &file, known.salt)?;
    let len = file.metadata().map_err(OpenError::io("read", path))?.len();
    let scan = scan(&read_up_to(&file, len).map_err(OpenError::io("read", path))?, &header);
    if let Some(flaw) = &scan.flaw {
        if flaw.proven || known.durable >= flaw.first {
            return Err(flaw_error(path, flaw));
        }
        tracing::warn!(
            file = %path.display(),
            from_byte = scan.end,
            bytes = len - scan.end,
            first_seq = flaw.first.0,
            last_seq = flaw.last.map(|last| last.0),
            "cut a tail that was never synced"
        );
        file.set_len(scan.end).map_err(OpenError::io("cut", path))?;
    }
    // What was written before a crash may be readable and not yet durable; it is served only after this.
    file.sync_all().map_err(OpenError::io("sync", path))?;
    sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(OpenError::io("sync the directory of", path))?;
    let extent = Extent::of(&scan);
    let segment =
        Segment::open(path.to_owned(), header, extent, Some(Reading { file, index: RwLock::new(scan.index) }));
    if !scan.sealed {
        let reading = segment.reading().map_err(OpenError::io("open", path))?;
        seal(&segment, &reading, (config.now_micros)()).map_err(OpenError::io("seal", path))?;
    }
    Ok(segment)
}

fn seal(segment: &Segment, reading: &Reading, at_micros: u64) -> io::Result<()> {
    let extent = segment.extent();
    let seal = GroupHeader::seal(extent.last.next(), at_micros).encode(segment.header.salt);
    reading.file.write_all_at(&seal, extent.end)?;
    reading.file.sync_data()?;
    segment.extend(Extent { end: extent.end + seal.len() as u64, ..extent });
    Ok(())
}

fn flaw_error(path: &Path, flaw: &Flaw) -> OpenError {
    let from = flaw.first;
    let until = flaw.last.map_or_else(|| "an unknown seq".to_owned(), |last| last.to_string());
    OpenError::damaged(format!("{} at byte {}, among the events {from} to {until}", path.display(), flaw.offset))
}
