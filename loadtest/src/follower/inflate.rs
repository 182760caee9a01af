//! Messages out of deflated payloads, each by itself (RFC 7692, without context takeover). Pure.
//!
//! Written for this program alone, as [`super::frames`] is: it is a relay's end of the extension that is judged here.

use flate2::{Decompress, FlushDecompress, Status};

/// What a deflated message leaves out at its end (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
const STEP_BYTES: usize = 16 << 10;

/// Inflates messages, one after the other.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
}

/// A message that no relay should send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is not deflate, or refers to a message before it.
    #[error("it does not inflate")]
    Corrupt,
    /// It is larger than any event.
    #[error("it inflates to more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater { stream: Decompress::new(false) }
    }
}

impl Inflater {
    /// The message of a compressed frame's payload.
    pub fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, BadMessage> {
        let whole = [payload, &TAIL].concat();
        let mut message = Vec::with_capacity(STEP_BYTES);
        // Nothing of an earlier message may be needed for this one.
        self.stream.reset(false);
        loop {
            let read = usize::try_from(self.stream.total_in()).map_err(|_| BadMessage::Corrupt)?;
            let status = self.stream.decompress_vec(&whole[read..], &mut message, FlushDecompress::Sync);
            match status {
                // A relay's message is one stream without an end; what came behind an end would be lost here.
                Ok(Status::StreamEnd) | Err(_) => return Err(BadMessage::Corrupt),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if message.len() > MESSAGE_BYTES_MAX {
                return Err(BadMessage::TooLarge);
            }
            if message.len() < message.capacity() {
                return match self.stream.total_in() == whole.len() as u64 {
                    true => Ok(message),
                    false => Err(BadMessage::Corrupt),
                };
            }
            message.reserve(STEP_BYTES.max(message.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::ws::Deflater;

    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let (mut inflater, mut deflated) = (Inflater::default(), Vec::new());
        for len in [100, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 2 * STEP_BYTES, 1_000_000] {
            let text = (0..).flat_map(|n| format!("event {n} of the log, ").into_bytes());
            for message in [vec![b'a'; len], text.take(len).collect()] {
                assert!(Deflater::new(1).deflate(&message, &mut deflated));
                assert_eq!(inflater.inflate(&deflated).as_ref(), Ok(&message), "{len}");
            }
        }
    }

    #[test]
    fn what_a_relay_must_not_send_is_an_error() {
        let (mut inflater, mut deflated) = (Inflater::default(), Vec::new());
        assert_eq!(inflater.inflate(&[0xff; 20]), Err(BadMessage::Corrupt));
        assert!(Deflater::new(9).deflate(&vec![b'a'; MESSAGE_BYTES_MAX + 1], &mut deflated));
        assert_eq!(inflater.inflate(&deflated), Err(BadMessage::TooLarge));
        // A second message of a stream with context takeover: "the same again".
        let mut stream = flate2::Compress::new(flate2::Compression::fast(), false);
        let mut parts = Vec::new();
        for _ in 0..2 {
            let mut part = Vec::with_capacity(1_000);
            let message = b"that which we call a rose by any other name would smell as sweet";
            stream.compress_vec(message, &mut part, flate2::FlushCompress::Sync).unwrap();
            part.truncate(part.len() - TAIL.len());
            parts.push(part);
        }
        assert!(inflater.inflate(&parts[0]).is_ok());
        assert_eq!(inflater.inflate(&parts[1]), Err(BadMessage::Corrupt), "it needs the first");
    }
}
