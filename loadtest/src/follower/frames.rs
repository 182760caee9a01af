//! WebSocket frames as a server sends them, out of a stream of bytes. Pure.
//!
//! Written for the tests alone, so that the relay's own decoder is not what judges the relay's encoder. A relay sends
//! every message as one frame: fragments are an error here.

use std::ops::Range;

use bytes::{Buf, BytesMut};

/// The largest payload that is taken.
const PAYLOAD_BYTES_MAX: u64 = 8 << 20;

/// Bytes that have come, and where in them the next frame begins.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

/// A whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: Opcode,
    /// Reserved bit 1: the payload is compressed.
    pub compressed: bool,
    /// What it holds.
    pub payload: BytesMut,
}

/// The frame types that a server sends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A whole binary message.
    Binary,
    /// The end, with a code.
    Close,
    /// To be answered.
    Ping,
    /// An answer.
    Pong,
}

/// A header that no relay should send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame begins with {0:02x} {1:02x}")]
pub struct BadHeader(u8, u8);

impl Frames {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there.
    pub fn take(&mut self) -> Result<Option<Frame>, BadHeader> {
        let &[first, second, ref rest @ ..] = &self.buffer[..] else { return Ok(None) };
        let bad = BadHeader(first, second);
        let opcode = match first & 0x8f {
            0x82 => Opcode::Binary,
            0x88 => Opcode::Close,
            0x89 => Opcode::Ping,
            0x8a => Opcode::Pong,
            _ => return Err(bad),
        };
        let compressed = first & 0x40 != 0;
        if first & 0x30 != 0 || second & 0x80 != 0 || (compressed && opcode != Opcode::Binary) {
            return Err(bad);
        }
        let (header_bytes, len) = match second {
            126 => match rest.first_chunk() {
                Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(len) => (10, u64::from_be_bytes(*len)),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        if len > PAYLOAD_BYTES_MAX {
            return Err(bad);
        }
        let payload: Range<usize> = header_bytes..header_bytes + len as usize;
        if self.buffer.len() < payload.end {
            return Ok(None);
        }
        self.buffer.advance(payload.start);
        Ok(Some(Frame { opcode, compressed, payload: self.buffer.split_to(payload.len()) }))
    }

    /// Bytes of a frame that is not whole; once no more can come, what was torn off.
    pub fn partial_bytes(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frames: &mut Frames) -> Vec<(Opcode, usize)> {
        std::iter::from_fn(|| frames.take().unwrap()).map(|frame| (frame.opcode, frame.payload.len())).collect()
    }

    #[test]
    fn frames_come_out_whole_wherever_the_stream_is_cut() {
        let mut stream = vec![0x82, 3, 1, 2, 3, 0x89, 0, 0x82, 126, 1, 0];
        stream.extend([7; 256]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend([8; 65_536]);
        let expected = [(Opcode::Binary, 3), (Opcode::Ping, 0), (Opcode::Binary, 256), (Opcode::Binary, 65_536)];
        for cut in (0..300).chain([stream.len() - 1, stream.len()]) {
            let mut frames = Frames::default();
            frames.push(&stream[..cut]);
            let mut got = all(&mut frames);
            frames.push(&stream[cut..]);
            got.extend(all(&mut frames));
            assert_eq!((got.as_slice(), frames.partial_bytes()), (&expected[..], 0), "cut at {cut}");
        }
    }

    #[test]
    fn what_a_relay_must_not_send_is_an_error() {
        for (header, what) in [
            ([0x02, 1], "a fragment"),
            ([0x80, 1], "a continuation"),
            ([0x81, 1], "text"),
            ([0x82, 0x81], "masked"),
            ([0x92, 1], "a reserved bit"),
            ([0xc9, 0], "a compressed ping"),
            ([0x83, 0], "an unknown opcode"),
        ] {
            let mut frames = Frames::default();
            frames.push(&header);
            assert_eq!(frames.take(), Err(BadHeader(header[0], header[1])), "{what}");
        }
        let mut frames = Frames::default();
        frames.push(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert!(frames.take().is_err(), "too large");
    }
}
