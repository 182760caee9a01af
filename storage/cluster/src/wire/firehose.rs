//! A record of `firehose`: an event with its seq, as every fan-out node serves it.
//!
//! ```text
//!   0 version │ 1 flags │ 2 ·· │ 4 lane │ 8 seq │ 16 account │ 24 at │ 32 verified offset │ 40 claim │ 48 frame …
//! ```
//!
//! Numbers are little-endian; Kafka checks the bytes. What stands before the frame is more than the room that a
//! [`storage::log::Block`] promises. Where the event came from (lane, offset, claim) is there so that a sequencer's lost
//! state can be made anew from the records that it wrote.

use atproto::frame::Renumbered;
use storage::{lane::Lane, log::Block, seq::Seq};

use super::{Malformed, i64_at, u32_at, u64_at};

const VERSION: u8 = 1;
const TAKEN_DOWN: u8 = 1;

/// An event of the firehose, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    /// The finished frame, with its seq in it.
    pub(crate) frame: &'a [u8],
}

/// All but the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: Seq,
    /// [`atproto::syntax::Did::lane_hash`] of the account.
    pub(crate) account: u64,
    /// Whether we have taken the account down, by the state after the event.
    pub(crate) taken_down: bool,
    /// When its validator accepted it, microseconds since the Unix epoch.
    pub(crate) at_micros: u64,
    /// Which record of `verified` it is.
    pub(crate) origin: Origin,
}

/// A record's place in `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) lane: Lane,
    pub(crate) offset: i64,
    /// The claim that it was written under.
    pub(crate) claim: i64,
}

impl Head {
    pub(crate) const BYTES: usize = 48;

    /// Appends the record to `out`; the frame gets the head's seq.
    pub(crate) fn write(&self, out: &mut Vec<u8>, frame: &Renumbered<'_>) {
        out.reserve(Head::BYTES + frame.len());
        out.extend_from_slice(&self.encode());
        frame.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    fn encode(&self) -> [u8; Head::BYTES] {
        let mut bytes = [0; Head::BYTES];
        bytes[0] = VERSION;
        bytes[1] = if self.taken_down { TAKEN_DOWN } else { 0 };
        bytes[4..8].copy_from_slice(&self.origin.lane.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.account.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.at_micros.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.origin.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.origin.claim.to_le_bytes());
        bytes
    }
}

const _: () = assert!(Head::BYTES >= Block::ROOM_BYTES, "a record leaves a block's room before its frame");

impl<'a> Record<'a> {
    /// The record that is exactly these bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Record<'a>, Malformed> {
        let malformed = Malformed { what: "a record of firehose" };
        let (head, frame) = bytes.split_at_checked(Head::BYTES).ok_or(malformed)?;
        if head[0] != VERSION || head[1] > TAKEN_DOWN || frame.is_empty() {
            return Err(malformed);
        }
        let head = Head {
            seq: Seq(u64_at(head, 8)),
            account: u64_at(head, 16),
            taken_down: head[1] == TAKEN_DOWN,
            at_micros: u64_at(head, 24),
            origin: Origin { lane: Lane(u32_at(head, 4)), offset: i64_at(head, 32), claim: i64_at(head, 40) },
        };
        Ok(Record { head, frame })
    }
}

#[cfg(test)]
mod tests {
    use atproto::frame::SeqSlot;
    use proptest::prelude::*;

    use super::*;

    fn heads() -> impl Strategy<Value = Head> {
        (any::<(u64, u64, bool, u64)>(), any::<(u32, i64, i64)>()).prop_map(
            |((seq, account, taken_down, at_micros), (lane, offset, claim))| Head {
                seq: Seq(seq),
                account,
                taken_down,
                at_micros,
                origin: Origin { lane: Lane(lane), offset, claim },
            },
        )
    }

    proptest! {
        #[test]
        fn survives_its_encoding(head in heads(), before in ".{0,20}", after in ".{1,20}") {
            let frame = format!("{before}S{after}");
            let start = u32::try_from(before.len()).unwrap();
            let slot = SeqSlot { start, end: start + 1 };
            let mut bytes = Vec::new();
            head.write(&mut bytes, &Renumbered::new(frame.as_bytes(), slot, head.seq.0));
            let mut expected = Vec::new();
            atproto::frame::write_with_seq(&mut expected, frame.as_bytes(), slot, head.seq.0);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record { head, frame: &expected }));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn frozen_bytes() {
        let origin = Origin { lane: Lane(3), offset: 5, claim: 4 };
        let head = Head { seq: Seq(24), account: 7, taken_down: true, at_micros: 9, origin };
        let mut bytes = Vec::new();
        head.write(&mut bytes, &Renumbered::new(b"a.b", SeqSlot { start: 1, end: 2 }, 24));
        let numbers = [3, 24, 7, 9, 5, 4];
        let mut expected = vec![1, 1, 0, 0, numbers[0], 0, 0, 0];
        numbers[1..].iter().for_each(|number| expected.extend([*number, 0, 0, 0, 0, 0, 0, 0]));
        expected.extend([b'a', 0x18, 24, b'b']);
        assert_eq!(bytes, expected);
    }
}
