//! A record of `verified`: an event that was judged good, or a claim to the lane.
//!
//! ```text
//!   claim  0 version │ 1 kind 0 │ 2 ······ │ 8 instance, 16 bytes
//!   event  0 version │ 1 kind 1 │ 2 flags │ 3 · │ 4 DID length u16 │ 6 state length u16 │ 8 claim │ 16 account │ 24 at
//!          │ 32 position │ 40 seq's start u32 │ 44 seq's end u32 │ 48 DID │ state │ frame
//! ```
//!
//! A claim's own offset is the number by which events name it. An event counts only if the claim that it names is the
//! latest before it in its partition.

use atproto::{frame::SeqSlot, syntax::Did};
use storage::{
    intake::Position,
    log::Accepted,
    repos::{LocalStatus, RepoState},
};

use super::{Malformed, i64_at, len_of, split, u16_at, u32_at, u64_at};

const VERSION: u8 = 1;
const CLAIM: u8 = 0;
const EVENT: u8 = 1;
const CLAIM_BYTES: usize = 24;
const EVENT_HEAD_BYTES: usize = 48;
const TAKEN_DOWN: u8 = 1;
const SETTLES: u8 = 2;
const COMMAND: u8 = 4;

/// What tells one process's claims from another's: random.
pub(crate) type Instance = [u8; 16];

/// A record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View<'a> {
    /// Who wrote it owns the lane from here on.
    Claim(Instance),
    /// An event.
    Event(EventView<'a>),
}

/// An event, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventView<'a> {
    /// The offset of the claim that it was written under.
    pub(crate) claim: i64,
    /// What of `raw` it settles.
    pub(crate) position: Option<Position>,
    /// Whether that is a command: those of the account before it are settled too, and may have left no record.
    pub(crate) command: bool,
    /// [`Did::lane_hash`] of the account.
    pub(crate) account: u64,
    /// Whether we have taken the account down, by the state after it.
    pub(crate) taken_down: bool,
    /// When it was accepted, microseconds since the Unix epoch.
    pub(crate) at_micros: u64,
    /// Where its seq stands in the frame.
    pub(crate) seq_slot: SeqSlot,
    /// The account, as text.
    pub(crate) did: &'a [u8],
    /// [`RepoState::encode`] of the state after it.
    pub(crate) state: &'a [u8],
    /// As its host sent it.
    pub(crate) frame: &'a [u8],
}

/// Appends the record of an event, which may be what a `command` came to.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Accepted, command: bool, claim: i64, at_micros: u64) {
    let mut state = Vec::new();
    event.state.encode(&mut state);
    let view = EventView {
        claim,
        position: event.position,
        command,
        account: Did::lane_hash(event.did.as_str()),
        taken_down: event.state.local == LocalStatus::TakenDown,
        at_micros,
        seq_slot: event.seq_slot,
        did: event.did.as_str().as_bytes(),
        state: &state,
        frame: &event.frame,
    };
    View::Event(view).write(out);
}

impl<'a> View<'a> {
    /// Appends the record.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            View::Claim(instance) => {
                out.extend([VERSION, CLAIM, 0, 0, 0, 0, 0, 0]);
                out.extend(instance);
            }
            View::Event(event) => {
                let EventView { claim, position, command, account, taken_down, at_micros, seq_slot, did, state, frame } =
                    *event;
                let flag = |holds, flag| if holds { flag } else { 0 };
                let settles = position.is_some();
                let flags = flag(taken_down, TAKEN_DOWN) | flag(settles, SETTLES) | flag(settles && command, COMMAND);
                out.reserve(EVENT_HEAD_BYTES + did.len() + state.len() + frame.len());
                out.extend([VERSION, EVENT, flags, 0]);
                out.extend(len_of(did));
                out.extend(len_of(state));
                out.extend(claim.to_le_bytes());
                out.extend(account.to_le_bytes());
                out.extend(at_micros.to_le_bytes());
                out.extend(position.map_or(0, |position| position.0).to_le_bytes());
                out.extend(seq_slot.start.to_le_bytes());
                out.extend(seq_slot.end.to_le_bytes());
                out.extend_from_slice(did);
                out.extend_from_slice(state);
                out.extend_from_slice(frame);
            }
        }
    }

    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// The record that is exactly these bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<View<'a>, Malformed> {
        let view = match bytes {
            [VERSION, CLAIM, ..] => {
                (bytes.len() == CLAIM_BYTES).then(|| bytes[8..].try_into().ok().map(View::Claim)).flatten()
            }
            [VERSION, EVENT, ..] => decode_event(bytes).map(View::Event),
            _ => None,
        };
        view.ok_or(Malformed { what: "a record of verified" })
    }
}

impl EventView<'_> {
    /// Whose state it made, and which.
    pub(crate) fn state(&self) -> Result<(Did, RepoState), Malformed> {
        let did = std::str::from_utf8(self.did).ok().and_then(|text| Did::parse(text).ok());
        let malformed = Malformed { what: "the state in a record of verified" };
        did.zip(RepoState::decode(self.state)).ok_or(malformed)
    }
}

fn decode_event(bytes: &[u8]) -> Option<EventView<'_>> {
    let (head, rest) = bytes.split_at_checked(EVENT_HEAD_BYTES)?;
    let (did, rest) = split(rest, u16_at(head, 4))?;
    let (state, frame) = split(rest, u16_at(head, 6))?;
    let seq_slot = SeqSlot { start: u32_at(head, 40), end: u32_at(head, 44) };
    let flags = head[2];
    let known = flags & !(TAKEN_DOWN | SETTLES | COMMAND) == 0 && flags & (SETTLES | COMMAND) != COMMAND;
    let sound = known && seq_slot.start < seq_slot.end && seq_slot.end as usize <= frame.len();
    sound.then(|| EventView {
        claim: i64_at(head, 8),
        position: (flags & SETTLES != 0).then_some(Position(u64_at(head, 32))),
        command: flags & COMMAND != 0,
        account: u64_at(head, 16),
        taken_down: flags & TAKEN_DOWN != 0,
        at_micros: u64_at(head, 24),
        seq_slot,
        did,
        state,
        frame,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::conformance::sample;

    use super::*;

    proptest! {
        #[test]
        fn an_event_survives_its_encoding(
            (account, number, len) in (0_u64..1_000, any::<u64>(), 0_usize..400),
            claim in any::<i64>(), at in any::<u64>(), position in any::<Option<u64>>(), taken_down in any::<bool>(),
            command in any::<bool>(),
        ) {
            let mut event = sample::accepted(account, number, len);
            event.position = position.map(Position);
            if taken_down {
                event.state.local = LocalStatus::TakenDown;
            }
            let mut bytes = Vec::new();
            write_event(&mut bytes, &event, command, claim, at);
            let Ok(View::Event(view)) = View::decode(&bytes) else { panic!("not an event") };
            prop_assert_eq!((view.claim, view.at_micros, view.position, view.taken_down), (claim, at, event.position, taken_down));
            prop_assert_eq!(view.command, command && position.is_some());
            prop_assert_eq!(view.account, Did::lane_hash(event.did.as_str()));
            prop_assert_eq!(view.frame, &event.frame[..]);
            prop_assert_eq!((view.seq_slot.start, view.seq_slot.end), (event.seq_slot.start, event.seq_slot.end));
            prop_assert_eq!(view.state().unwrap(), (event.did, event.state));
        }

        #[test]
        fn a_claim_survives_its_encoding(instance in any::<Instance>()) {
            let bytes = View::Claim(instance).encode();
            prop_assert_eq!(View::decode(&bytes), Ok(View::Claim(instance)));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in 0..2 {
                let mut record = vec![VERSION, kind];
                record.extend(&bytes);
                if let Ok(View::Event(event)) = View::decode(&record) {
                    let _ = event.state();
                }
            }
            let _ = View::decode(&bytes);
        }
    }

    #[test]
    fn frozen_bytes() {
        assert_eq!(View::Claim([9; 16]).encode(), [[1, 0, 0, 0, 0, 0, 0, 0], [9; 8], [9; 8]].concat());
        let event = EventView {
            claim: 4,
            position: Some(Position(7)),
            command: true,
            account: 5,
            taken_down: true,
            at_micros: 6,
            seq_slot: SeqSlot { start: 1, end: 2 },
            did: b"did",
            state: b"state",
            frame: b"frame",
        };
        let mut expected = vec![1, 1, 7, 0, 3, 0, 5, 0];
        [4, 5, 6, 7].into_iter().for_each(|number| expected.extend([number, 0, 0, 0, 0, 0, 0, 0]));
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend(b"didstateframe");
        assert_eq!(View::Event(event).encode(), expected);
        expected[2] = 4;
        assert!(View::decode(&expected).is_err(), "a command that settles nothing");
    }
}
