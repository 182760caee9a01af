//! Tells what is damaged in a data directory, what is lost by it, and mends it when told to.
//!
//! Mending keeps every whole record. A damaged segment is written anew, as one segment for each run of events without a
//! hole, and the damaged file is kept as `.damaged`. Seqs that were lost are never used again: the log goes on after the
//! last seq that anything in the directory knows of. Repos keeps what it knows; where it knows less than it must, it is
//! brought up from what the log has when the directory is opened next.

mod report;
mod salvage;

use std::{
    fs::{self, File},
    io::Write,
    iter,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use storage::seq::Seq;

pub use report::{Finding, Report, SeqRange};

use self::salvage::{Found, Hole, Salvage, salvage};
use crate::{
    directory::{Directory, Format, replace, sync_dir, with_suffix},
    error::OpenError,
    log::{
        Salt,
        open::segment_paths,
        record::{FORMAT, GroupHeader, GroupKind, HeaderFlaw, SegmentHeader},
        scan::scan,
        segment::Segment,
    },
    state::{Bounds, State},
};

/// What the state store may use while it is looked at.
const BOUNDS: Bounds =
    Bounds { recent_bytes: 0, overlay_bytes: 0, block_cache_bytes: 8 << 20, identities_max: 16_000_000 };
/// How many bytes of records go into one group of a segment that is written anew.
const GROUP_BYTES: usize = 1 << 20;

/// Reads the whole log and tells what is wrong. Changes nothing that was found. Blocks, and reads every byte.
pub fn inspect(dir: &Path) -> Result<Report, OpenError> {
    let directory = Directory::take_existing(dir)?;
    Ok(Examined::read(&directory)?.report())
}

/// As [`inspect`], and mends what it found, so that the directory can be opened.
pub fn mend(dir: &Path) -> Result<Report, OpenError> {
    let directory = Directory::take_existing(dir)?;
    let examined = Examined::read(&directory)?;
    let report = examined.report();
    if report.is_sound() {
        return Ok(report);
    }
    examined.mend(&directory)?;
    Ok(Report { mended: true, ..report })
}

/// A directory that was read.
struct Examined {
    /// `None` where it is missing or unreadable.
    format: Option<Format>,
    format_path: PathBuf,
    salt: Salt,
    segments: Vec<ExaminedSegment>,
    state: ExaminedState,
}

struct ExaminedSegment {
    path: PathBuf,
    /// Where it is damaged, one made from what is known.
    header: SegmentHeader,
    header_is_damaged: bool,
    /// How many events can be read, and the first of them.
    events: u64,
    first_read: Option<Seq>,
    /// The last event that can be read; the seq before the segment's first where there is none.
    last_read: Seq,
    /// No later seq was ever in it.
    last_known: Seq,
    holes: Vec<Hole>,
    bytes_len: u64,
    /// Where a tail begins that was never synced.
    torn_at: Option<u64>,
    /// Whether it ends as a segment that others follow must.
    sealed: bool,
}

enum ExaminedState {
    /// Up to here it has seen the log.
    Seen(Option<Seq>),
    Unreadable(String),
}

/// Asks the state store how far it has seen the log.
fn examine_state(dir: &Path) -> Result<ExaminedState, OpenError> {
    if !dir.is_dir() {
        // Opening would make one.
        return Ok(ExaminedState::Seen(None));
    }
    let state = match State::open(dir, BOUNDS) {
        Ok(state) => state,
        Err(fjall::Error::Locked) => return Err(OpenError::damaged("another process has the state store open")),
        Err(error) => return Ok(ExaminedState::Unreadable(error.to_string())),
    };
    let seen = state.watermark();
    state.close();
    Ok(seen.map_or_else(|error| ExaminedState::Unreadable(error.to_string()), ExaminedState::Seen))
}

impl ExaminedSegment {
    fn is_damaged(&self) -> bool {
        self.header_is_damaged || !self.holes.is_empty()
    }
}

impl Examined {
    fn read(directory: &Directory) -> Result<Examined, OpenError> {
        let format = match directory.format() {
            Ok(format) => format,
            Err(OpenError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let state = examine_state(&directory.state())?;
        let log = directory.log();
        let paths = if log.is_dir() { segment_paths(&log)? } else { Vec::new() };
        let salt = match format {
            Some(format) => format.salt(),
            None => any_salt(&paths)?,
        };
        let durable = match state {
            ExaminedState::Seen(Some(seen)) => seen,
            ExaminedState::Seen(None) | ExaminedState::Unreadable(_) => Seq(0),
        };
        let mut segments: Vec<ExaminedSegment> = Vec::with_capacity(paths.len());
        for (number, path) in paths.iter().enumerate() {
            let after = segments.last().map(|segment| segment.last_read);
            let is_last = number + 1 == paths.len();
            segments.push(read_segment(path, salt, after, is_last.then_some(durable))?);
        }
        Ok(Examined { format, format_path: directory.path().join("FORMAT"), salt, segments, state })
    }

    /// The last seq that anything here knows of.
    fn last_known(&self) -> Seq {
        let in_log = self.segments.last().map_or(Seq(0), |segment| segment.last_known.max(segment.last_read));
        match self.state {
            ExaminedState::Seen(Some(seen)) => in_log.max(seen),
            ExaminedState::Seen(None) | ExaminedState::Unreadable(_) => in_log,
        }
    }

    /// What Repos must at least have seen.
    fn needed_after(&self) -> Seq {
        self.segments.first().map_or(Seq(0), |segment| segment.header.after)
    }

    fn has_events(&self) -> bool {
        self.segments.iter().any(|segment| segment.events > 0)
    }

    fn report(&self) -> Report {
        let mut report = Report { segments: self.segments.len() as u64, ..Report::default() };
        if self.format.is_none() && !self.segments.is_empty() {
            report.findings.push(Finding::Format { file: self.format_path.clone() });
        }
        for (number, segment) in self.segments.iter().enumerate() {
            let next_after = self.segments.get(number + 1).map(|next| next.header.after);
            segment.report(next_after, &mut report);
        }
        let last = self.segments.last().map_or(Seq(0), |segment| segment.last_read);
        let last_found = report.lost().last().map_or(last, |lost| lost.last.max(last));
        if self.last_known() > last_found {
            let lost = SeqRange { first: last_found.next(), last: self.last_known() };
            report.findings.push(Finding::Missing { lost });
        }
        match &self.state {
            ExaminedState::Unreadable(why) => report.findings.push(Finding::ReposUnreadable { why: why.clone() }),
            ExaminedState::Seen(None) if self.has_events() => {
                report.findings.push(Finding::ReposBehind { seen: None, needed_after: self.needed_after() });
            }
            ExaminedState::Seen(Some(seen)) if *seen < self.needed_after() => {
                report.findings.push(Finding::ReposBehind { seen: Some(*seen), needed_after: self.needed_after() });
            }
            ExaminedState::Seen(_) => {}
        }
        report
    }

    fn mend(&self, directory: &Directory) -> Result<(), OpenError> {
        if self.format.is_none() {
            directory.set_format(&Format::new(None, Seq(1)).with_salt(self.salt))?;
        }
        self.mend_segments(&directory.log())?;
        self.mend_state(&directory.state())
    }

    fn mend_segments(&self, log: &Path) -> Result<(), OpenError> {
        let Some(newest) = self.segments.last() else {
            return match self.last_known() {
                Seq(0) => Ok(()),
                last => self.go_on_after(log, last, last),
            };
        };
        let must_jump = self.last_known() > newest.last_read;
        let mut before = self.needed_after();
        for (number, segment) in self.segments.iter().enumerate() {
            let is_newest = number + 1 == self.segments.len();
            let needs_end = !segment.sealed && (!is_newest || must_jump);
            if number > 0 && segment.header.first <= before {
                // Left by a mending that was cut short, and written again just now.
                continue;
            }
            if segment.is_damaged() || needs_end {
                before = segment.write_anew(log, before)?;
            } else {
                if segment.header.after != before && number > 0 {
                    rewrite_header(&segment.path, &SegmentHeader { after: before, ..segment.header })?;
                }
                before = segment.last_read;
            }
        }
        if must_jump || before < newest.last_read {
            self.go_on_after(log, before, self.last_known())?;
        }
        sync_dir(log).map_err(OpenError::io("sync", log))
    }

    /// An empty segment past everything that was ever used.
    fn go_on_after(&self, log: &Path, last: Seq, last_known: Seq) -> Result<(), OpenError> {
        fs::create_dir_all(log).map_err(OpenError::io("make", log))?;
        let created_at_micros = self.segments.last().map_or(0, |segment| segment.header.created_at_micros);
        let header = SegmentHeader { salt: self.salt, first: last_known.next(), after: last, created_at_micros };
        crate::log::open::create(log, header)?;
        Ok(())
    }

    fn mend_state(&self, dir: &Path) -> Result<(), OpenError> {
        let seen = match &self.state {
            ExaminedState::Seen(seen) => *seen,
            ExaminedState::Unreadable(_) => {
                if dir.exists() {
                    let aside = free_name(dir, ".damaged");
                    fs::rename(dir, &aside).map_err(OpenError::io("set aside", dir))?;
                }
                None
            }
        };
        if seen.is_none_or(|seen| seen < self.needed_after()) {
            let state = State::open(dir, BOUNDS).map_err(|source| OpenError::State { dir: dir.to_owned(), source })?;
            state.note(iter::empty(), self.needed_after())?;
            state.sync()?;
            state.close();
        }
        Ok(())
    }
}

impl ExaminedSegment {
    fn report(&self, next_after: Option<Seq>, report: &mut Report) {
        if self.header_is_damaged {
            report.findings.push(Finding::Header { file: self.path.clone() });
        }
        let mut last_known = self.last_read;
        for hole in &self.holes {
            let before = hole.before.or(next_after.map(Seq::next)).unwrap_or(self.last_known.next());
            let lost = SeqRange { first: hole.after.next(), last: Seq(before.0.saturating_sub(1)) };
            last_known = last_known.max(lost.last);
            report.findings.push(Finding::Bytes {
                file: self.path.clone(),
                offset: hole.bytes.start as u64,
                bytes: hole.bytes.len() as u64,
                lost: Some(lost).filter(|lost| lost.first <= lost.last),
            });
        }
        if let Some(offset) = self.torn_at {
            let bytes = self.bytes_len - offset;
            report.findings.push(Finding::TornTail { file: self.path.clone(), offset, bytes });
        }
        if let Some(next_after) = next_after
            && next_after > last_known
        {
            report.findings.push(Finding::Missing { lost: SeqRange { first: last_known.next(), last: next_after } });
        }
        report.events += self.events;
        if let Some(first) = self.first_read {
            let first = report.seqs.map_or(first, |seqs| seqs.first);
            report.seqs = Some(SeqRange { first, last: self.last_read });
        }
    }

    /// Writes what is whole of it as one segment for each run of events, keeps the file as it is under another name, and
    /// gives the last seq written. Cut short, it can be done again: the file keeps its name until all else is there.
    fn write_anew(&self, log: &Path, after: Seq) -> Result<Seq, OpenError> {
        let damaged = fs::read(&self.path).map_err(OpenError::io("read", &self.path))?;
        let salvage = self.header.salvage(&damaged, self.torn_at);
        let aside = free_name(&self.path, ".damaged");
        fs::hard_link(&self.path, &aside).map_err(OpenError::io("set aside", &self.path))?;
        let index = self.path.with_extension("idx");
        if index.exists() {
            fs::remove_file(&index).map_err(OpenError::io("delete", &index))?;
        }
        let mut last = after;
        let mut segments = Vec::new();
        for run in runs(&salvage.records) {
            let header = SegmentHeader { first: run[0].seq, after: last, ..self.header };
            last = run[run.len() - 1].seq;
            segments.push((header, run));
        }
        for (header, run) in segments.iter().rev() {
            write_run(log, *header, &damaged, run)?;
        }
        if segments.first().is_none_or(|(header, _)| header.first != self.header.first) {
            fs::remove_file(&self.path).map_err(OpenError::io("set aside", &self.path))?;
        }
        Ok(last)
    }
}

impl SegmentHeader {
    /// All whole records of the segment, but for a tail that was never synced.
    fn salvage(&self, bytes: &[u8], torn_at: Option<u64>) -> Salvage {
        let end = torn_at.map_or(bytes.len(), |at| usize::try_from(at).expect("within the file"));
        salvage(&bytes[..end], self.salt, Seq(self.first.0 - 1), self.created_at_micros)
    }
}

/// Reads one segment; `durable` is given for the last one, which may have a torn tail.
fn read_segment(
    path: &Path,
    salt: Salt,
    last_before: Option<Seq>,
    durable: Option<Seq>,
) -> Result<ExaminedSegment, OpenError> {
    let bytes = fs::read(path).map_err(OpenError::io("read", path))?;
    let named = Segment::first_of(path).expect("only segments are listed");
    let (header, header_is_damaged) = match SegmentHeader::decode(&bytes) {
        Ok(header) if header.first == named && header.salt == salt => (header, false),
        Err(HeaderFlaw::Newer { format }) => {
            return Err(OpenError::NewerFormat { file: path.to_owned(), found: format, known: FORMAT });
        }
        Ok(_) | Err(HeaderFlaw::Damaged) => {
            let after = last_before.unwrap_or(Seq(named.0 - 1));
            (SegmentHeader { salt, first: named, after, created_at_micros: 0 }, true)
        }
    };
    let scanned = scan(&bytes, &header);
    let torn_at = match (&scanned.flaw, durable) {
        (Some(flaw), Some(durable)) if !flaw.proven && flaw.first > durable => Some(scanned.end),
        (Some(_) | None, _) => None,
    };
    let salvage = header.salvage(&bytes, torn_at);
    // Only what is told and mended is kept: a log may have more records than there is memory.
    Ok(ExaminedSegment {
        path: path.to_owned(),
        header,
        header_is_damaged,
        events: salvage.records.len() as u64,
        first_read: salvage.records.first().map(|found| found.seq),
        last_read: salvage.records.last().map_or(Seq(header.first.0 - 1), |found| found.seq),
        last_known: salvage.last_known,
        holes: salvage.holes,
        bytes_len: bytes.len() as u64,
        torn_at,
        sealed: scanned.sealed && scanned.flaw.is_none(),
    })
}

/// Writes a run of a damaged segment's records as a segment of its own.
fn write_run(log: &Path, header: SegmentHeader, damaged: &[u8], run: &[Found]) -> Result<(), OpenError> {
    let mut bytes = header.encode().to_vec();
    let mut rest = run;
    while let Some(head) = rest.first() {
        let mut body = Vec::new();
        let mut count = 0;
        for found in rest.iter().take_while(|found| found.at_micros == head.at_micros) {
            if body.len() >= GROUP_BYTES {
                break;
            }
            body.extend_from_slice(&damaged[found.bytes.clone()]);
            count += 1;
        }
        let group = GroupHeader {
            kind: GroupKind::Events,
            count: u32::try_from(count).expect("a MiB has fewer records"),
            body_bytes: body.len() as u64,
            first: head.seq,
            synced: Seq(head.seq.0 - 1),
            at_micros: head.at_micros,
        };
        bytes.extend(group.encode(header.salt));
        bytes.extend(body);
        rest = &rest[count..];
    }
    let last = &run[run.len() - 1];
    bytes.extend(GroupHeader::seal(last.seq.next(), last.at_micros).encode(header.salt));
    let path = Segment::path(log, header.first);
    replace(&path, &bytes).map_err(OpenError::io("write", &path))
}

/// Records without a hole between them, together.
fn runs(records: &[Found]) -> Vec<&[Found]> {
    records.chunk_by(|one, next| next.seq == one.seq.next()).collect()
}

/// The salt of the first segment whose header can be read.
fn any_salt(paths: &[PathBuf]) -> Result<Salt, OpenError> {
    for path in paths {
        let mut bytes = [0; SegmentHeader::BYTES];
        let file = File::open(path).map_err(OpenError::io("open", path))?;
        if file.read_exact_at(&mut bytes, 0).is_ok()
            && let Ok(header) = SegmentHeader::decode(&bytes)
        {
            return Ok(header.salt);
        }
    }
    Ok(Format::new(None, Seq(1)).salt())
}

fn rewrite_header(path: &Path, header: &SegmentHeader) -> Result<(), OpenError> {
    let rewrite = || {
        let mut file = File::options().write(true).open(path)?;
        file.write_all(&header.encode())?;
        file.sync_all()
    };
    rewrite().map_err(OpenError::io("write the header of", path))
}

/// A name that no file has.
fn free_name(path: &Path, suffix: &str) -> PathBuf {
    (0_u32..)
        .map(|number| with_suffix(path, &if number == 0 { suffix.to_owned() } else { format!("{suffix}-{number}") }))
        .find(|name| !name.exists())
        .expect("some name is free")
}
