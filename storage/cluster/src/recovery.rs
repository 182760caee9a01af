//! What a lane's new owner takes from `verified` before it goes on. Pure.
//!
//! It reads from the repair point to its own claim. A record counts as it does for the sequencer: if the claim that it
//! names is the latest before it. Of those that count, the rows may be missing, and what they settle is not to be judged
//! again. Nor is a command that stands before one of its account which has a record: it was carried out before it, changed
//! nothing, and left none.

use std::collections::{BTreeSet, HashMap};

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
    commands: HashMap<Did, Position>,
    kept: Vec<Kept>,
}

/// What is left when all is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Positions of `raw` from the resume point on that are settled.
    pub(crate) settled: BTreeSet<u64>,
    /// Of an account, the last of these that is a command.
    commands: HashMap<Did, Position>,
    /// The records that say so, the oldest first.
    pub(crate) kept: Vec<Kept>,
}

impl Recovery {
    /// From where the last owner said.
    pub(crate) fn new(resume: Resume) -> Recovery {
        Recovery { resume, claim: resume.claim, settled: BTreeSet::new(), commands: HashMap::new(), kept: Vec::new() }
    }

    /// The next record. Gives the state that is to be in rows, if it counts.
    pub(crate) fn take(&mut self, offset: i64, record: &[u8]) -> Result<Option<(Did, RepoState)>, Malformed> {
        match View::decode(record)? {
            View::Claim(_) => {
                self.claim = Some(offset);
                Ok(None)
            }
            View::Event(event) if self.claim == Some(event.claim) => {
                let (did, state) = event.state()?;
                if let Some(position) = event.position.filter(|position| position.0 >= self.resume.raw) {
                    self.settled.insert(position.0);
                    if event.command {
                        let last = self.commands.entry(did.clone()).or_insert(position);
                        *last = position.max(*last);
                    }
                    self.kept.push(Kept { offset, claim: event.claim, position: Some(position) });
                }
                Ok(Some((did, state)))
            }
            // Written by who had been replaced.
            View::Event(_) => Ok(None),
        }
    }

    /// Our claim has been reached, and all rows are in.
    pub(crate) fn finish(self) -> Recovered {
        Recovered { settled: self.settled, commands: self.commands, kept: self.kept }
    }
}

impl Recovered {
    /// Whether what stands there was settled by who had the lane before us. Asked once of each position.
    pub(crate) fn takes(&mut self, position: Position) -> bool {
        self.settled.remove(&position.0)
    }

    /// As [`Recovered::takes`], of a command for this account.
    pub(crate) fn takes_command(&mut self, position: Position, did: &Did) -> bool {
        self.takes(position) || self.commands.get(did).is_some_and(|last| position < *last)
    }
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;
    use crate::wire::verified::write_event;

    fn event(claim: i64, number: u64, position: Option<u64>) -> Vec<u8> {
        record(claim, number, position, false)
    }

    fn record(claim: i64, number: u64, position: Option<u64>, command: bool) -> Vec<u8> {
        let mut accepted = sample::accepted(number, number, 100);
        accepted.position = position.map(Position);
        let mut bytes = Vec::new();
        write_event(&mut bytes, &accepted, command, claim, 1);
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
    fn a_command_is_settled_by_a_later_one_of_its_account() {
        let mut recovery = Recovery::new(Resume { raw: 4, verified: 0, claim: Some(0) });
        // At 4 something waits; 6 has changed nothing and has no record; 7 is the last. A zombie's 9 does not count.
        let records = [(0, 1, 5, true), (0, 1, 7, true), (0, 1, 8, false), (0, 2, 20, false), (9, 1, 9, true)];
        for (offset, (claim, number, position, command)) in (1..).zip(records) {
            recovery.take(offset, &record(claim, number, Some(position), command)).unwrap();
        }
        let mut recovered = recovery.finish();
        let (one, two) = (sample::did(1), sample::did(2));
        for (position, did, is_settled) in [
            (4, &two, false),
            (5, &one, true),
            (6, &one, true),
            (6, &two, false),
            (7, &one, true),
            (9, &one, false),
            (19, &two, false),
        ] {
            assert_eq!(recovered.takes_command(Position(position), did), is_settled, "{position} of {did}");
        }
        assert!(!recovered.takes(Position(4)), "a frame is settled by its own record alone");
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
