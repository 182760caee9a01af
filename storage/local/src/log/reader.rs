//! Reads of events that are no longer in memory: large pieces, every checksum verified.
//!
//! A piece is given as it was read, in one buffer; events are places in it. A record's head, DID and state stand before
//! its frame and are read by then: that is the room that a [`Block`] promises.

use std::{ops::Range, os::unix::fs::FileExt, sync::PoisonError};

use storage::{
    buffers::{Buffer, Buffers},
    error::Error,
    log::{Block, Placed},
    repos::RepoState,
    seq::Seq,
};

use super::{
    index::SPACING_BYTES,
    record::{GroupHeader, RECORD_HEAD_BYTES, Record, is_group, record_len},
    segment::Segment,
    segments::Segments,
};

/// The least that is read at once.
const PIECE_BYTES_MIN: u64 = 128 << 10;
/// The most, unless one record is larger.
const PIECE_BYTES_MAX: u64 = 8 << 20;

const _: () = assert!(RECORD_HEAD_BYTES >= Block::ROOM_BYTES, "a record leaves a block's room before its frame");

/// A stretch of a segment.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    pub(crate) buffer: Buffer,
    /// What was made of its records.
    pub(crate) found: Vec<T>,
    /// How many bytes were read from the file for it.
    pub(crate) read_bytes: u64,
}

/// The events after `after`, from one segment: at least one, unless there is none. Gives how many bytes were read from
/// files, too. Blocks.
pub(crate) fn read_block(
    segments: &Segments,
    after: Seq,
    bytes_max: usize,
    buffers: &Buffers,
) -> Result<(Block, u64), Error> {
    let piece = read(segments, after, bytes_max, buffers, |record, frame| Placed {
        seq: record.seq,
        account: record.account,
        taken_down: RepoState::is_taken_down_in(record.state),
        frame,
    })?;
    Ok((Block { buffer: piece.buffer, events: piece.found }, piece.read_bytes))
}

/// What `make` makes of each event after `after` and its frame's place in the buffer: from one segment, about
/// `bytes_max` of frames, at least one event unless there is none. Blocks.
pub(crate) fn read<T>(
    segments: &Segments,
    after: Seq,
    bytes_max: usize,
    buffers: &Buffers,
    mut make: impl FnMut(&Record<'_>, Range<usize>) -> T,
) -> Result<Piece<T>, Error> {
    let Some(segment) = segments.holding(after) else {
        return Ok(Piece { buffer: Buffer::default(), found: Vec::new(), read_bytes: 0 });
    };
    // The end first: what is before it is durable, whatever the writer does meanwhile.
    let end = segment.extent().end;
    let failed = |source: std::io::Error| Error::Determinate { what: "read the log", source: source.into() };
    let reading = segments.read(&segment).map_err(failed)?;
    let next = after.next().max(segment.header.first);
    // Who reads on finds the very place; who begins reads from the entry of the index before it.
    let (mut offset, ahead_bytes) = match segments.place_after(&segment, after) {
        Some(offset) => (offset, 0),
        None => {
            let index = reading.index.read().unwrap_or_else(PoisonError::into_inner);
            (index.floor(next).ok_or_else(|| damaged(&segment, 0))?, SPACING_BYTES)
        }
    };
    let mut piece_bytes = (bytes_max as u64).saturating_add(ahead_bytes).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    let mut read_bytes = 0;
    loop {
        let mut buffer = buffers.take(usize::try_from(piece_bytes.min(end - offset)).expect("some MiB"));
        reading.file.read_exact_at(&mut buffer, offset).map_err(failed)?;
        read_bytes += buffer.len() as u64;
        let Parsed { found, last, stop } = parse(&segment, offset, &buffer, next, bytes_max, &mut make)?;
        if !found.is_empty() {
            segments.note_place(&segment, last, offset + stop.at as u64);
            return Ok(Piece { buffer, found, read_bytes });
        }
        if offset + buffer.len() as u64 == end {
            // The segment was said to hold the event: a length that leads past its end is not what was written.
            return Err(damaged(&segment, offset + stop.at as u64));
        }
        // Skipped a stretch before the first wanted, or met a record longer than the piece.
        offset += stop.at as u64;
        piece_bytes = (stop.needs as u64).max(PIECE_BYTES_MIN);
    }
}

struct Parsed<T> {
    found: Vec<T>,
    /// The seq of the last one found.
    last: Seq,
    stop: Stop,
}

/// Where parsing stopped: at a record or header that needs this many bytes.
struct Stop {
    at: usize,
    needs: usize,
}

fn parse<T>(
    segment: &Segment,
    offset: u64,
    piece: &[u8],
    next: Seq,
    bytes_max: usize,
    make: &mut impl FnMut(&Record<'_>, Range<usize>) -> T,
) -> Result<Parsed<T>, Error> {
    let (mut found, mut last, mut bytes, mut at) = (Vec::new(), next, 0, 0);
    let needs = loop {
        let rest = &piece[at..];
        if rest.is_empty() {
            break 0;
        }
        if rest.len() < RECORD_HEAD_BYTES {
            break GroupHeader::BYTES;
        }
        if is_group(rest) {
            if rest.len() < GroupHeader::BYTES {
                break GroupHeader::BYTES;
            }
            GroupHeader::decode(rest, segment.header.salt).ok_or_else(|| damaged(segment, offset + at as u64))?;
            at += GroupHeader::BYTES;
            continue;
        }
        let len = record_len(rest).ok_or_else(|| damaged(segment, offset + at as u64))?;
        if rest.len() < len {
            break len;
        }
        if !found.is_empty() && bytes >= bytes_max {
            break 0;
        }
        let record =
            Record::decode(&rest[..len], segment.header.salt).ok_or_else(|| damaged(segment, offset + at as u64))?;
        at += len;
        if record.seq >= next {
            bytes += record.frame.len();
            last = record.seq;
            found.push(make(&record, at - record.frame.len()..at));
        }
    };
    Ok(Parsed { found, last, stop: Stop { at, needs } })
}

fn damaged(segment: &Segment, offset: u64) -> Error {
    let file = segment.path.display();
    Error::Damaged { what: format!("{file} at byte {offset}; `mainstem repair` tells what is lost, and mends it") }
}
