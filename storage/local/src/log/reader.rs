//! Reads of events that are no longer in memory: large pieces, every checksum verified.

use std::{os::unix::fs::FileExt, sync::PoisonError};

use bytes::Bytes;
use storage::{error::Error, log::Published, seq::Seq};

use super::{
    index::SPACING_BYTES,
    record::{GroupHeader, RECORD_HEAD_BYTES, Record, is_group, record_len},
    segment::Segment,
    segments::Segments,
};
use crate::state::value;

/// The least that is read at once.
const PIECE_BYTES_MIN: u64 = 128 << 10;
/// The most, unless one record is larger.
const PIECE_BYTES_MAX: u64 = 8 << 20;

/// An event with what Repos needs of it.
pub(crate) struct Stored {
    pub(crate) published: Published,
    /// The DID's bytes.
    pub(crate) did: Bytes,
    /// The state's.
    pub(crate) state: Bytes,
}

/// The events after `after`, from one segment: at least one, unless there is none. Blocks.
pub(crate) fn read(segments: &Segments, after: Seq, bytes_max: usize) -> Result<Vec<Stored>, Error> {
    let Some(segment) = segments.holding(after) else { return Ok(Vec::new()) };
    // The end first: what is before it is durable, whatever the writer does meanwhile.
    let end = segment.extent().end;
    let failed = |source: std::io::Error| Error::Determinate { what: "read the log", source: source.into() };
    let reading = segments.read(&segment).map_err(failed)?;
    let next = after.next().max(segment.header.first);
    let mut offset = {
        let index = reading.index.read().unwrap_or_else(PoisonError::into_inner);
        index.floor(next).ok_or_else(|| damaged(&segment, 0))?
    };
    let mut piece_bytes = (bytes_max as u64 + SPACING_BYTES).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    loop {
        let mut piece = vec![0; usize::try_from(piece_bytes.min(end - offset)).expect("some MiB")];
        reading.file.read_exact_at(&mut piece, offset).map_err(failed)?;
        let piece = Bytes::from(piece);
        let (found, stop) = parse(&segment, offset, &piece, next, bytes_max)?;
        if !found.is_empty() {
            return Ok(found);
        }
        if offset + piece.len() as u64 == end {
            // The segment was said to hold the event: a length that leads past its end is not what was written.
            return Err(damaged(&segment, offset + stop.at as u64));
        }
        // Skipped a stretch before the first wanted, or met a record longer than the piece.
        offset += stop.at as u64;
        piece_bytes = (stop.needs as u64).max(PIECE_BYTES_MIN);
    }
}

/// Where parsing stopped: at a record or header that needs this many bytes.
struct Stop {
    at: usize,
    needs: usize,
}

fn parse(
    segment: &Segment,
    offset: u64,
    piece: &Bytes,
    next: Seq,
    bytes_max: usize,
) -> Result<(Vec<Stored>, Stop), Error> {
    let (mut found, mut bytes, mut at) = (Vec::new(), 0, 0);
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
        if record.seq >= next {
            bytes += record.frame.len();
            found.push(Stored {
                published: Published {
                    seq: record.seq,
                    account: record.account,
                    taken_down: value::is_taken_down(record.state),
                    frame: piece.slice_ref(record.frame),
                },
                did: piece.slice_ref(record.did),
                state: piece.slice_ref(record.state),
            });
        }
        at += len;
    };
    Ok((found, Stop { at, needs }))
}

fn damaged(segment: &Segment, offset: u64) -> Error {
    let file = segment.path.display();
    Error::Damaged { what: format!("{file} at byte {offset}; `mainstem repair` tells what is lost, and mends it") }
}
