//! The record of `sequencer-state`: all that a sequencer must know to go on. The last one counts; it is written in the
//! transaction that publishes the events it speaks of.
//!
//! ```text
//!   0 version │ 1 ··· │ 4 lanes │ 8 next seq │ 16 next offset, claim │ 32 next offset, claim │ …
//! ```
//!
//! Numbers are little-endian; a claim of -1 is none.

use storage::seq::Seq;

use super::{Malformed, i64_at, u32_at, u64_at};

/// The key of the one record: the topic is compacted.
pub(crate) const KEY: &[u8] = b"state";

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 16;
const LANE_BYTES: usize = 16;
const NO_CLAIM: i64 = -1;

/// What a sequencer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The seq of the next event.
    pub(crate) next_seq: Seq,
    /// One entry a lane.
    pub(crate) lanes: Vec<LaneState>,
}

/// How far a lane of `verified` has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneState {
    /// The offset of its next record.
    pub(crate) next_offset: i64,
    /// The offset of the latest claim before that.
    pub(crate) claim: Option<i64>,
}

impl State {
    /// The state before anything was read.
    pub(crate) fn start(next_seq: Seq, lanes: u32) -> State {
        State { next_seq, lanes: vec![LaneState::default(); lanes as usize] }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + LANE_BYTES * self.lanes.len());
        bytes.extend([VERSION, 0, 0, 0]);
        bytes.extend(u32::try_from(self.lanes.len()).expect("lanes are counted in 32 bits").to_le_bytes());
        bytes.extend(self.next_seq.0.to_le_bytes());
        for lane in &self.lanes {
            bytes.extend(lane.next_offset.to_le_bytes());
            bytes.extend(lane.claim.unwrap_or(NO_CLAIM).to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<State, Malformed> {
        let malformed = Malformed { what: "a record of sequencer-state" };
        let (head, lanes) = bytes.split_at_checked(HEAD_BYTES).ok_or(malformed)?;
        let count = u32_at(head, 4) as usize;
        if head[0] != VERSION || lanes.len() != count.saturating_mul(LANE_BYTES) {
            return Err(malformed);
        }
        let lane = |bytes: &[u8]| {
            let (next_offset, claim) = (i64_at(bytes, 0), i64_at(bytes, 8));
            let sound = next_offset >= 0 && (NO_CLAIM..next_offset).contains(&claim);
            sound.then_some(LaneState { next_offset, claim: (claim != NO_CLAIM).then_some(claim) })
        };
        let lanes = lanes.chunks_exact(LANE_BYTES).map(lane).collect::<Option<_>>().ok_or(malformed)?;
        Ok(State { next_seq: Seq(u64_at(head, 8)), lanes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = State> {
        let lane = (0..i64::MAX).prop_flat_map(|next_offset| {
            let claim =
                if next_offset == 0 { Just(None).boxed() } else { proptest::option::of(0..next_offset).boxed() };
            claim.prop_map(move |claim| LaneState { next_offset, claim })
        });
        (any::<u64>(), proptest::collection::vec(lane, 0..40))
            .prop_map(|(next_seq, lanes)| State { next_seq: Seq(next_seq), lanes })
    }

    proptest! {
        #[test]
        fn survives_its_encoding(state in states()) {
            prop_assert_eq!(State::decode(&state.encode()), Ok(state));
        }

        #[test]
        fn cut_bytes_are_no_state(state in states(), cut in 1_usize..16) {
            let bytes = state.encode();
            prop_assert!(State::decode(&bytes[..bytes.len() - cut]).is_err());
        }
    }

    #[test]
    fn frozen_bytes() {
        let lanes = vec![LaneState::default(), LaneState { next_offset: 9, claim: Some(2) }];
        let mut expected = vec![1, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0; 8]);
        expected.extend([0xff; 8]);
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(State { next_seq: Seq(7), lanes }.encode(), expected);
    }
}
