//! Which records count, and what seq they get. Pure.
//!
//! A lane of `verified` holds claims and events. An event carries the claim that it was written under, and counts only if
//! that is the latest claim before it:
//!
//! ```text
//!   offset   7        8        9        10        11        12
//!            claim    event    event    claim     event     event
//!                     of 7     of 7               of 7      of 10
//!                     seq 501  seq 502            stale     seq 503
//! ```
//!
//! Who has lost a lane and does not know it yet can append as much as it likes: nobody takes it. What must hold: each
//! record is taken once, in the order of its lane, whichever way the lanes are mixed and however often records come
//! again; seqs are dense.

use storage::{lane::Lane, seq::Seq};

use crate::wire::sequencer::{LaneState, State};

/// What the order depends on of a record of `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Somebody takes the lane over; its offset is the claim.
    Claim,
    /// An event, written under this claim.
    Event {
        /// The claim's offset.
        claim: i64,
    },
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The lane has a new owner.
    Claimed,
    /// It counts, and has this seq.
    Ordered(Seq),
    /// Its writer had lost the lane.
    Stale,
    /// It was taken before.
    Repeated,
}

/// Why no record can be taken any more: stored data is not what was written. An operator must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Records are missing.
    #[error("verified has no records {expected} to {} in lane {}, which were not published yet", found - 1, lane.0)]
    Gap { lane: Lane, expected: i64, found: i64 },
    /// There are more partitions than lanes.
    #[error("there is no lane {}", lane.0)]
    NoLane { lane: Lane },
    /// There are no more.
    #[error("there is no seq after {}", Seq::MAX)]
    OutOfSeqs,
}

/// The order so far.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    state: State,
}

impl Order {
    /// Goes on from a state.
    pub(crate) fn new(state: State) -> Order {
        Order { state }
    }

    /// The state after all that was taken.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Takes a lane's record.
    pub(crate) fn take(&mut self, lane: Lane, offset: i64, entry: Entry) -> Result<Step, Broken> {
        let State { next_seq, lanes } = &mut self.state;
        let LaneState { next_offset, claim } = lanes.get_mut(lane.0 as usize).ok_or(Broken::NoLane { lane })?;
        if offset < *next_offset {
            return Ok(Step::Repeated);
        }
        if offset > *next_offset {
            return Err(Broken::Gap { lane, expected: *next_offset, found: offset });
        }
        let step = match entry {
            Entry::Claim => {
                *claim = Some(offset);
                Step::Claimed
            }
            Entry::Event { claim: under } if *claim == Some(under) => {
                if *next_seq > Seq::MAX {
                    return Err(Broken::OutOfSeqs);
                }
                let seq = *next_seq;
                *next_seq = seq.next();
                Step::Ordered(seq)
            }
            Entry::Event { .. } => Step::Stale,
        };
        *next_offset += 1;
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LANES: u32 = 3;

    fn order() -> Order {
        Order::new(State::start(Seq(501), LANES))
    }

    #[test]
    fn only_the_latest_claim_counts() {
        let mut order = order();
        let lane = Lane(1);
        let table = [
            (Entry::Event { claim: 0 }, Step::Stale),
            (Entry::Claim, Step::Claimed),
            (Entry::Event { claim: 1 }, Step::Ordered(Seq(501))),
            (Entry::Event { claim: 1 }, Step::Ordered(Seq(502))),
            (Entry::Claim, Step::Claimed),
            (Entry::Event { claim: 1 }, Step::Stale),
            (Entry::Event { claim: 4 }, Step::Ordered(Seq(503))),
            (Entry::Event { claim: 9 }, Step::Stale),
        ];
        for (offset, (entry, step)) in (0..).zip(table) {
            assert_eq!(order.take(lane, offset, entry), Ok(step), "{offset}");
            assert_eq!(order.take(lane, offset, entry), Ok(Step::Repeated), "{offset}");
        }
        assert_eq!(order.state().lanes[1], LaneState { next_offset: 8, claim: Some(4) });
        assert_eq!(order.state().lanes[0], LaneState::default());
    }

    #[test]
    fn what_was_lost_is_not_passed_over() {
        let mut order = order();
        let gap = Broken::Gap { lane: Lane(0), expected: 0, found: 2 };
        assert_eq!(order.take(Lane(0), 2, Entry::Claim), Err(gap));
        assert_eq!(gap.to_string(), "verified has no records 0 to 1 in lane 0, which were not published yet");
        assert_eq!(order.take(Lane(LANES), 0, Entry::Claim), Err(Broken::NoLane { lane: Lane(LANES) }));
    }

    #[test]
    fn seqs_end() {
        let mut order = Order::new(State::start(Seq::MAX, 1));
        order.take(Lane(0), 0, Entry::Claim).unwrap();
        assert_eq!(order.take(Lane(0), 1, Entry::Event { claim: 0 }), Ok(Step::Ordered(Seq::MAX)));
        assert_eq!(order.take(Lane(0), 2, Entry::Event { claim: 0 }), Err(Broken::OutOfSeqs));
    }

    /// What happens in the model.
    #[derive(Clone, Debug)]
    enum Move {
        /// A validator takes a lane over; those before it are not told.
        TakeOver { lane: u32 },
        /// A validator that has held a lane, the last one or an earlier, appends.
        Append { lane: u32, owner: usize },
        /// The sequencer reads some records of a lane, from at most `back` records before where it stands.
        Read { lane: u32, count: usize, back: i64 },
        /// What it has read since the last commit is published.
        Commit,
        /// It starts anew from the committed state.
        Crash,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            1 => (0..LANES).prop_map(|lane| Move::TakeOver { lane }),
            // The last owner most of the time, else a zombie.
            6 => (0..LANES, prop_oneof![3 => Just(0), 1 => 0_usize..4])
                .prop_map(|(lane, owner)| Move::Append { lane, owner }),
            4 => (0..LANES, 0_usize..6, 0_i64..3).prop_map(|(lane, count, back)| Move::Read { lane, count, back }),
            2 => Just(Move::Commit),
            1 => Just(Move::Crash),
        ];
        proptest::collection::vec(one, 0..200)
    }

    /// By lane and offset.
    type Published = BTreeMap<Seq, (u32, i64)>;

    fn read(order: &mut Order, logs: &[Vec<Entry>], lane: u32, from: i64, count: usize, out: &mut Published) {
        let log = logs[lane as usize].iter().enumerate();
        for (offset, entry) in log.skip(usize::try_from(from.max(0)).unwrap()).take(count) {
            let offset = i64::try_from(offset).unwrap();
            if let Step::Ordered(seq) = order.take(Lane(lane), offset, *entry).unwrap() {
                assert_eq!(out.insert(seq, (lane, offset)), None);
            }
        }
    }

    proptest! {
        /// However claims, zombies, repeats and crashes are mixed, each event that was written under the latest claim is
        /// published once, in its lane's order, under dense seqs, and no other.
        #[test]
        fn publishes_what_counts_once(moves in moves()) {
            let mut logs: Vec<Vec<Entry>> = vec![Vec::new(); LANES as usize];
            let mut owners: Vec<Vec<i64>> = vec![Vec::new(); LANES as usize];
            let mut order = order();
            let (mut pending, mut published) = (Published::new(), Published::new());
            let mut committed = order.state().encode();
            for next in moves {
                match next {
                    Move::TakeOver { lane } => {
                        let log = &mut logs[lane as usize];
                        owners[lane as usize].push(i64::try_from(log.len()).unwrap());
                        log.push(Entry::Claim);
                    }
                    Move::Append { lane, owner } => {
                        if let Some(claim) = owners[lane as usize].iter().rev().nth(owner) {
                            logs[lane as usize].push(Entry::Event { claim: *claim });
                        }
                    }
                    Move::Read { lane, count, back } => {
                        let from = order.state().lanes[lane as usize].next_offset - back;
                        read(&mut order, &logs, lane, from, count, &mut pending);
                    }
                    Move::Commit => {
                        published.append(&mut pending);
                        committed = order.state().encode();
                    }
                    Move::Crash => {
                        pending.clear();
                        order = Order::new(State::decode(&committed).unwrap());
                    }
                }
            }
            for lane in 0..LANES {
                read(&mut order, &logs, lane, 0, usize::MAX, &mut pending);
            }
            published.append(&mut pending);

            prop_assert!((501..).zip(published.keys()).all(|(dense, seq)| *seq == Seq(dense)));
            for lane in 0..LANES {
                let mut claim = None;
                let mut counts = Vec::new();
                for (offset, entry) in (0_i64..).zip(&logs[lane as usize]) {
                    match entry {
                        Entry::Claim => claim = Some(offset),
                        Entry::Event { claim: under } if claim == Some(*under) => counts.push(offset),
                        Entry::Event { .. } => {}
                    }
                }
                let got: Vec<_> = published.values().filter(|(of, _)| *of == lane).map(|(_, offset)| *offset).collect();
                prop_assert_eq!(got, counts);
            }
        }
    }
}
