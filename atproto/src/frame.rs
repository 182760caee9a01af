//! Stream frames: one WebSocket message is two DAG-CBOR maps, a header and a payload (specification: Event Stream).

use std::ops::Range;

use crate::cbor::{self, CborError, Kind, Reader, Writer};

/// The largest frame the stream may carry, in bytes (5 MiB).
pub const FRAME_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A frame whose header has been read; the payload's form is not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `op: 1`: a message of kind `t`, with its `#`.
    Message {
        /// `#commit`, `#sync`, …
        kind: &'a str,
        /// The payload map.
        body: &'a [u8],
    },
    /// `op: -1`: the server says why it will close.
    Error {
        /// Short name: `FutureCursor`, …
        error: &'a str,
        /// For people.
        message: Option<&'a str>,
    },
    /// Another `op`: to be ignored.
    UnknownOp(i64),
}

/// A frame that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes is over the limit")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The header is not CBOR, or lacks `op`, or `t` of a message.
    #[error("unreadable header")]
    Header(#[source] CborError),
    /// The payload is not one canonical CBOR map.
    #[error("unreadable payload")]
    Body(#[source] CborError),
}

/// Where the payload's `seq` stands in a frame, so that it can be exchanged without decoding the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqSlot {
    /// Offset of the integer's first byte in the frame.
    pub start: u32,
    /// Offset past its last byte.
    pub end: u32,
}

impl SeqSlot {
    /// Its place in the frame.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Reads the header. Always checks the size and the header; does not check the payload of a message.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (header, mut reader) = read_header(frame)?;
    match header {
        Header::Message { kind } => Ok(Frame::Message { kind, body: reader.rest() }),
        Header::Error => {
            let ErrorBody { error, message } = read_error(&mut reader).map_err(FrameError::Body)?;
            Ok(Frame::Error { error, message })
        }
        Header::UnknownOp(op) => Ok(Frame::UnknownOp(op)),
    }
}

/// Appends `frame` to `out` with its seq replaced; see [`Renumbered`].
pub fn write_with_seq(out: &mut Vec<u8>, frame: &[u8], slot: SeqSlot, seq: u64) {
    let renumbered = Renumbered::new(frame, slot, seq);
    out.reserve(renumbered.len());
    renumbered.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
}

/// A frame with its seq replaced and every other byte as it was, unknown fields included; in pieces, so that nothing is
/// copied before it is written.
#[derive(Clone, Copy, Debug)]
pub struct Renumbered<'a> {
    before: &'a [u8],
    seq: ([u8; 9], usize),
    after: &'a [u8],
}

impl<'a> Renumbered<'a> {
    /// The slot must be the frame's own ([`crate::event::Route::seq_slot`]).
    pub fn new(frame: &'a [u8], slot: SeqSlot, seq: u64) -> Renumbered<'a> {
        let (before, after) = (&frame[..slot.range().start], &frame[slot.range().end..]);
        Renumbered { before, seq: cbor::unsigned_bytes(seq), after }
    }

    /// What the frame consists of, one after the other.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [self.before, &self.seq.0[..self.seq.1], self.after]
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.before.len() + self.seq.1 + self.after.len()
    }
}

/// An error frame: `{op: -1}`, `{error, message?}`.
pub fn encode_error(error: &str, message: Option<&str>) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.map(1);
    frame.text("op");
    frame.integer(OP_ERROR);
    frame.map(1 + usize::from(message.is_some()));
    frame.text("error");
    frame.text(error);
    if let Some(message) = message {
        frame.text("message");
        frame.text(message);
    }
    frame.into_bytes()
}

const OP_MESSAGE: i64 = 1;
const OP_ERROR: i64 = -1;

/// What a header says of the payload.
pub(crate) enum Header<'a> {
    Message { kind: &'a str },
    Error,
    UnknownOp(i64),
}

/// Reads the header, and gives a reader that stands before the payload.
pub(crate) fn read_header(frame: &[u8]) -> Result<(Header<'_>, Reader<'_>), FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: frame.len() });
    }
    let mut reader = Reader::new(frame);
    let header = header(&mut reader).map_err(FrameError::Header)?;
    Ok((header, reader))
}

fn header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, CborError> {
    let (mut op, mut kind) = (None, None);
    let mut keys = reader.map()?;
    while let Some(key) = keys.next_key(reader)? {
        match key {
            "op" => op = Some(reader.integer()?),
            "t" => kind = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    match op.ok_or(reader.error("a header without op"))? {
        OP_MESSAGE => Ok(Header::Message { kind: kind.ok_or(reader.error("a message's header without t"))? }),
        OP_ERROR => Ok(Header::Error),
        other => Ok(Header::UnknownOp(other)),
    }
}

/// The header of a message.
pub(crate) fn write_header(frame: &mut Writer, kind: &str) {
    frame.map(2);
    frame.text("t");
    frame.text(kind);
    frame.text("op");
    frame.integer(OP_MESSAGE);
}

/// An error frame's payload.
pub(crate) struct ErrorBody<'a> {
    pub(crate) error: &'a str,
    pub(crate) message: Option<&'a str>,
}

/// Reads an error frame's payload. Takes a message of another type than text for none: the name says enough.
pub(crate) fn read_error<'a>(reader: &mut Reader<'a>) -> Result<ErrorBody<'a>, CborError> {
    let (mut error, mut message) = (None, None);
    let mut keys = reader.map()?;
    while let Some(key) = keys.next_key(reader)? {
        match key {
            "error" => error = Some(reader.text()?),
            "message" if reader.peek()? == Kind::Text => message = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    reader.finish()?;
    Ok(ErrorBody { error: error.ok_or(reader.error("an error without a name"))?, message })
}
