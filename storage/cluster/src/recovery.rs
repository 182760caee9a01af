//! What a lane's new owner takes from `verified` before it goes on. Pure.
//!
//! It reads from the repair point to its own claim. A record counts as it does for the sequencer: if the claim that it
//! names is the latest before it. Of those that count, the rows may be missing, and what they settle is not to be judged
//! again.

use std::collections::BTreeSet;

use atproto::syntax::Did;
use storage::{intake::Position, repos::RepoState};

use crate::{
    tail::{Kept, Resume},
    wire::{Malformed, verified::View},
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Recovery {
    resume: Resume,
    /// The latest claim before the next record.
    claim: Option<i64>,
    /// Settled, though not covered.
    settled: BTreeSet<u64>,
    kept: Vec<Kept>,
}

/// What is left when all is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Positions of `raw` from the resume point on that are settled.
    pub(crate) settled: BTreeSet<u64>,
    /// The records that say so, the oldest first.
    pub(crate) kept: Vec<Kept>,
}

impl Recovery {
    /// From where the last owner said.
    pub(crate) fn new(resume: Resume) -> Recovery {
        Recovery { resume, claim: resume.claim, settled: BTreeSet::new(), kept: Vec::new() }
    }

    /// The next record. Gives the state that is to be in rows, if it counts.
    pub(crate) fn take(&mut self, offset: i64, record: &[u8]) -> Result<Option<(Did, RepoState)>, Malformed> {
        match View::decode(record)? {
            View::Claim(_) => {
                self.claim = Some(offset);
                Ok(None)
            }
            View::Event(event) if self.claim == Some(event.claim) => {
                if let Some(position) = event.position.filter(|position| position.0 >= self.resume.raw) {
                    self.settled.insert(position.0);
                    self.kept.push(Kept { offset, claim: event.claim, position: Some(position) });
                }
                event.state().map(Some)
            }
            // Written by who had been replaced.
            View::Event(_) => Ok(None),
        }
    }

    /// Our claim has been reached, and all rows are in.
    pub(crate) fn finish(self) -> Recovered {
        Recovered { settled: self.settled, kept: self.kept }
    }
}

impl Recovered {
    /// Whether what stands there was settled by who had the lane before us. Asked once of each position.
    pub(crate) fn takes(&mut self, position: Position) -> bool {
        self.settled.remove(&position.0)
    }
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;
    use crate::wire::verified::write_event;

    fn event(claim: i64, number: u64, position: Option<u64>) -> Vec<u8> {
        let mut accepted = sample::accepted(number, number, 100);
        accepted.position = position.map(Position);
        let mut bytes = Vec::new();
        write_event(&mut bytes, &accepted, claim, 1);
        bytes
    }

    fn claim() -> Vec<u8> {
        View::Claim([1; 16]).encode()
    }

    #[test]
    fn a_record_counts_under_the_latest_claim_alone() {
        let mut recovery = Recovery::new(Resume { raw: 10, verified: 5, claim: Some(3) });
        let records = [
            (event(3, 1, Some(9)), Some(1)),
            (event(2, 2, Some(11)), None),
            (event(3, 3, Some(12)), Some(3)),
            (claim(), None),
            (event(3, 4, Some(13)), None),
            (event(8, 5, None), Some(5)),
            (event(8, 6, Some(14)), Some(6)),
        ];
        for (offset, (record, account)) in (5..).zip(&records) {
            let state = recovery.take(offset, record).unwrap();
            assert_eq!(state.map(|(did, _)| did), account.map(sample::did), "at {offset}");
        }
        let mut recovered = recovery.finish();
        let kept = |offset, claim, position| Kept { offset, claim, position: Some(Position(position)) };
        assert_eq!(recovered.kept, [kept(7, 3, 12), kept(11, 8, 14)]);
        assert!(recovered.takes(Position(12)) && !recovered.takes(Position(12)));
        assert!(!recovered.takes(Position(13)) && recovered.takes(Position(14)) && !recovered.takes(Position(9)));
    }

    #[test]
    fn nothing_counts_before_the_first_claim() {
        let mut recovery = Recovery::new(Resume { raw: 0, verified: 0, claim: None });
        assert_eq!(recovery.take(0, &event(0, 1, Some(1))).unwrap(), None);
        assert_eq!(recovery.take(1, &claim()).unwrap(), None);
        assert!(recovery.take(2, &event(1, 1, Some(1))).unwrap().is_some());
        assert!(recovery.take(3, b"what is this").is_err());
    }
}
