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
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use storage::seq::Seq;

pub use report::{Finding, Report, SeqRange};

use self::salvage::{Found, Salvage, salvage};
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
    state::{Memory, State},
};

/// What the state store may use while it is looked at.
const MEMORY: Memory = Memory { recent_bytes: 0, block_cache_bytes: 8 << 20 };
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
    salvage: Salvage,
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

impl ExaminedSegment {
    /// The last event that can be read; the seq before the first where there is none.
    fn last(&self) -> Seq {
        self.salvage.records.last().map_or(Seq(self.header.first.0 - 1), |found| found.seq)
    }

    fn is_damaged(&self) -> bool {
        self.header_is_damaged || !self.salvage.holes.is_empty()
    }
}

impl Examined {
    fn read(directory: &Directory) -> Result<Examined, OpenError> {
        let format = match directory.format() {
            Ok(format) => format,
            Err(OpenError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let state = match State::open(&directory.state(), MEMORY) {
            Ok(state) => {
                let seen = state.watermark();
                state.close();
                seen.map_or_else(|error| ExaminedState::Unreadable(error.to_string()), ExaminedState::Seen)
            }
            Err(fjall::Error::Locked) => return Err(OpenError::damaged("another process has the state store open")),
            Err(error) => ExaminedState::Unreadable(error.to_string()),
        };
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
            let after = segments.last().map(ExaminedSegment::last);
            let is_last = number + 1 == paths.len();
            segments.push(read_segment(path, salt, after, is_last.then_some(durable))?);
        }
        Ok(Examined { format, format_path: directory.path().join("FORMAT"), salt, segments, state })
    }

    /// The last seq that anything here knows of.
    fn last_known(&self) -> Seq {
        let in_log = self.segments.last().map_or(Seq(0), |segment| segment.salvage.last_known.max(segment.last()));
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
        self.segments.iter().any(|segment| !segment.salvage.records.is_empty())
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
        let last = self.segments.last().map_or(Seq(0), ExaminedSegment::last);
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
        let must_jump = self.last_known() > newest.last();
        let mut before = self.needed_after();
        for (number, segment) in self.segments.iter().enumerate() {
            let is_newest = number + 1 == self.segments.len();
            let needs_end = !segment.sealed && (!is_newest || must_jump);
            if segment.is_damaged() || needs_end {
                let damaged = fs::read(&segment.path).map_err(OpenError::io("read", &segment.path))?;
                set_aside(&segment.path)?;
                for run in runs(&segment.salvage.records) {
                    let header = SegmentHeader { first: run[0].seq, after: before, ..segment.header };
                    write_run(log, header, &damaged, run)?;
                    before = run[run.len() - 1].seq;
                }
            } else {
                if segment.header.after != before && number > 0 {
                    rewrite_header(&segment.path, &SegmentHeader { after: before, ..segment.header })?;
                }
                before = segment.last();
            }
        }
        if must_jump || before < newest.last() {
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
            let state = State::open(dir, MEMORY).map_err(|source| OpenError::State { dir: dir.to_owned(), source })?;
            state.apply(&[], self.needed_after())?;
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
        let mut last_known = self.last();
        for hole in &self.salvage.holes {
            let before = hole.before.or(next_after.map(Seq::next)).unwrap_or(self.salvage.last_known.next());
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
        report.events += self.salvage.records.len() as u64;
        if let Some(first) = self.salvage.records.first() {
            let first = report.seqs.map_or(first.seq, |seqs| seqs.first);
            report.seqs = Some(SeqRange { first, last: self.last() });
        }
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
            let after = last_before.unwrap_or(Seq(named.0.saturating_sub(1)));
            (SegmentHeader { salt, first: named, after, created_at_micros: 0 }, true)
        }
    };
    let bytes_len = bytes.len() as u64;
    let scanned = scan(&bytes, &header);
    let torn_at = match (&scanned.flaw, durable) {
        (Some(flaw), Some(durable)) if !flaw.proven && flaw.first > durable => Some(scanned.end),
        (Some(_) | None, _) => None,
    };
    let good = torn_at.map_or(bytes.len(), |at| usize::try_from(at).expect("within the file"));
    let salvage = salvage(&bytes[..good], salt, Seq(header.first.0.saturating_sub(1)), header.created_at_micros);
    let sealed = scanned.sealed && scanned.flaw.is_none();
    Ok(ExaminedSegment { path: path.to_owned(), header, header_is_damaged, salvage, bytes_len, torn_at, sealed })
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

/// Renames a damaged segment, and drops the index that no longer fits.
fn set_aside(path: &Path) -> Result<(), OpenError> {
    let index = path.with_extension("idx");
    if index.exists() {
        fs::remove_file(&index).map_err(OpenError::io("delete", &index))?;
    }
    fs::rename(path, free_name(path, ".damaged")).map_err(OpenError::io("set aside", path))
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
