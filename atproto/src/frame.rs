//! Stream frames: one WebSocket message is two DAG-CBOR maps, a header and a payload (specification: Event Stream).

use crate::cbor::CborError;

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

/// Reads the header. Always checks the size and the header; does not check the payload of a message.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let _ = frame;
    todo!()
}

/// Appends `frame` to `out` with its seq replaced and every other byte as it was, unknown fields included. The slot
/// must be the frame's own ([`crate::event::Route::seq_slot`]).
pub fn write_with_seq(out: &mut Vec<u8>, frame: &[u8], slot: SeqSlot, seq: u64) {
    let _ = (out, frame, slot, seq);
    todo!()
}

/// The length of what [`write_with_seq`] appends.
pub fn len_with_seq(frame_bytes: usize, slot: SeqSlot, seq: u64) -> usize {
    let _ = (frame_bytes, slot, seq);
    todo!()
}

/// An error frame: `{op: -1}`, `{error, message?}`.
pub fn encode_error(error: &str, message: Option<&str>) -> Vec<u8> {
    let _ = (error, message);
    todo!()
}
