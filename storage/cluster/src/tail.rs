//! A lane's tail: which of its delivered records count, and from where a successor must look. Pure.
//!
//! ```text
//!   verified   … │ theirs │ claim │ r │ r │ r │ r │ r │ r │ …
//!                     ▲ repair        ▲ rows are in ▲ next
//! ```
//!
//! What must hold:
//! 1. a record counts only if all offsets from the claim to it are ours: a hole is another's record, perhaps a claim;
//! 2. all before the repair point is in rows, and settles nothing past what is covered: a successor that reads from there
//!    knows what may be missing, and what of `raw` is not to be judged again.

use std::collections::VecDeque;

use storage::intake::Position;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Our claim's offset.
    claim: i64,
    /// The offset that our next record must have.
    next: i64,
    /// Before it, all rows are in.
    rows_before: i64,
    /// All of `raw` before it is settled.
    covered_before: u64,
    /// Records from the repair point on.
    kept: VecDeque<Kept>,
}

/// A record that somebody may have to look at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) offset: i64,
    /// The claim that it was written under.
    pub(crate) claim: i64,
    pub(crate) position: Option<Position>,
}

/// From where a lane's new owner looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// The first position of `raw` that may not be settled.
    pub(crate) raw: u64,
    /// The first record of `verified` to read.
    pub(crate) verified: i64,
    /// The claim in force before that.
    pub(crate) claim: Option<i64>,
}

/// Another has written between our records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record came to offset {found} where {expected} is ours")]
pub(crate) struct Hole {
    expected: i64,
    found: i64,
}

impl Tail {
    /// After our claim. `kept` are the valid records before it that settle what is not covered, whose rows are in.
    pub(crate) fn new(claim: i64, resume_raw: u64, kept: Vec<Kept>) -> Tail {
        let (next, covered_before) = (claim + 1, resume_raw);
        let mut tail = Tail { claim, next, rows_before: next, covered_before, kept: kept.into() };
        tail.forget();
        tail
    }

    /// Our next record has come to this offset.
    pub(crate) fn delivered(&mut self, offset: i64, position: Option<Position>) -> Result<(), Hole> {
        if offset != self.next {
            return Err(Hole { expected: self.next, found: offset });
        }
        self.next += 1;
        self.kept.push_back(Kept { offset, claim: self.claim, position });
        Ok(())
    }

    /// The rows of all records up to this offset are in.
    pub(crate) fn rows_in(&mut self, through: i64) {
        self.rows_before = self.rows_before.max(through + 1);
        self.forget();
    }

    /// All of `raw` up to this position is settled.
    pub(crate) fn cover(&mut self, position: Position) {
        self.covered_before = self.covered_before.max(position.0 + 1);
        self.forget();
    }

    /// From where a successor looks.
    pub(crate) fn resume(&self) -> Resume {
        let first = self.kept.front();
        Resume {
            raw: self.covered_before,
            verified: first.map_or(self.next, |kept| kept.offset),
            claim: Some(first.map_or(self.claim, |kept| kept.claim)),
        }
    }

    fn forget(&mut self) {
        let (rows_before, covered_before) = (self.rows_before, self.covered_before);
        let is_done =
            |kept: &Kept| kept.offset < rows_before && kept.position.is_none_or(|position| position.0 < covered_before);
        while self.kept.front().is_some_and(is_done) {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(tail: &Tail) -> (u64, i64, i64) {
        let Resume { raw, verified, claim } = tail.resume();
        (raw, verified, claim.unwrap())
    }

    #[test]
    fn a_successor_looks_from_what_is_neither_covered_nor_in_rows() {
        let theirs = [
            Kept { offset: 5, claim: 2, position: Some(Position(9)) },
            Kept { offset: 6, claim: 2, position: Some(Position(30)) },
        ];
        let mut tail = Tail::new(10, 10, theirs.to_vec());
        assert_eq!(at(&tail), (10, 6, 2), "position 9 is covered, 30 is not");
        tail.delivered(11, Some(Position(10))).unwrap();
        tail.delivered(12, None).unwrap();
        tail.cover(Position(30));
        assert_eq!(at(&tail), (31, 11, 10), "covered, but its rows are not in");
        tail.rows_in(11);
        assert_eq!(at(&tail), (31, 12, 10));
        tail.rows_in(12);
        assert_eq!(at(&tail), (31, 13, 10));
        tail.delivered(13, Some(Position(40))).unwrap();
        tail.rows_in(13);
        assert_eq!(at(&tail), (31, 13, 10), "it settles what is not covered");
        tail.cover(Position(20));
        assert_eq!(at(&tail), (31, 13, 10), "a mark never goes back");
        tail.cover(Position(41));
        assert_eq!(at(&tail), (42, 14, 10));
    }

    proptest! {
        #[test]
        fn only_a_run_without_a_hole_counts(offsets in prop::collection::vec(101_i64..120, 0..30)) {
            let mut tail = Tail::new(100, 0, Vec::new());
            let run = (101..).zip(&offsets).take_while(|(expected, offset)| *expected == **offset).count();
            let taken = offsets.iter().take_while(|offset| tail.delivered(**offset, None).is_ok()).count();
            prop_assert_eq!(taken, run);
        }
    }
}
