use crate::{
    Protocol, Record, State, Step,
    state::{LeadPhase, Progress, Published, Sequencer, offset},
};

/// What a sequencer may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It leads, and fences those before it.
    Init,
    /// It reads the state.
    Read,
    /// It takes a lane's next record and, if that is valid, gives it its seq, in a transaction; or learns that it is
    /// fenced.
    Sequence {
        /// The lane.
        lane: usize,
    },
    /// It writes the state, where that is not in the transaction.
    Save,
    /// It hears that another leads.
    Gone,
    /// It was fenced, and begins again.
    LeadAgain,
    /// It is killed and starts again.
    Crash,
}

impl Act {
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Act::Crash)
    }
}

pub(crate) fn acts(protocol: &Protocol, state: &State, who: usize) -> Vec<Act> {
    let sequencer = &state.sequencers[who];
    let leads = state.leader == who;
    let mut acts = Vec::new();
    match sequencer.phase {
        LeadPhase::Idle if !leads => {}
        LeadPhase::Idle if !protocol.has(Step::FencingBeforeRead) => acts.push(Act::Read),
        LeadPhase::Idle | LeadPhase::Given => acts.push(Act::Init),
        LeadPhase::Initialised => acts.push(Act::Read),
        LeadPhase::Working if sequencer.unsaved => acts.push(Act::Save),
        LeadPhase::Working => {
            let lanes = [&state.verified, &protocol.bounds.other_lane];
            let has_more = |lane: &usize| usize::from(sequencer.progress.next[*lane]) < lanes[*lane].len();
            acts.extend((0..lanes.len()).filter(has_more).map(|lane| Act::Sequence { lane }));
        }
        LeadPhase::Fenced => acts.extend((leads && protocol.has(Step::LeadAgain)).then_some(Act::LeadAgain)),
    }
    acts.extend((sequencer.phase != LeadPhase::Idle && !leads).then_some(Act::Gone));
    acts.extend((sequencer.phase != LeadPhase::Idle && state.faults.sequencer_crashes > 0).then_some(Act::Crash));
    acts
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, who: usize, act: Act) {
    let State { verified, firehose, saved, producer, sequencers, faults, .. } = state;
    let sequencer = &mut sequencers[who];
    match act {
        Act::Init => {
            *producer += 1;
            sequencer.epoch = *producer;
            let has_read = !protocol.has(Step::FencingBeforeRead);
            sequencer.phase = if has_read { LeadPhase::Working } else { LeadPhase::Initialised };
        }
        Act::Read => {
            sequencer.progress = *saved;
            if !protocol.has(Step::ClaimInState) {
                sequencer.progress.claim = Progress::default().claim;
            }
            let is_fenced_next = !protocol.has(Step::FencingBeforeRead);
            sequencer.phase = if is_fenced_next { LeadPhase::Given } else { LeadPhase::Working };
        }
        Act::Sequence { .. } if sequencer.epoch != *producer && protocol.has(Step::Fencing) => {
            *sequencer = Sequencer { phase: LeadPhase::Fenced, ..Sequencer::default() };
        }
        Act::Sequence { lane } => {
            let lanes = [verified, &protocol.bounds.other_lane];
            let Progress { next_seq, next, claim } = &mut sequencer.progress;
            let at = usize::from(next[lane]);
            match lanes[lane][at] {
                Record::Claim => claim[lane] = Some(offset(at)),
                Record::Event { claim: written_under, event, .. } => {
                    if written_under == claim[lane] || !protocol.has(Step::ClaimCheck) {
                        firehose.push(Published { seq: *next_seq, event });
                        *next_seq += 1;
                    }
                }
            }
            next[lane] += 1;
            if protocol.has(Step::StateInTransaction) {
                *saved = sequencer.progress;
            } else {
                sequencer.unsaved = true;
            }
        }
        Act::Save => {
            *saved = sequencer.progress;
            sequencer.unsaved = false;
        }
        Act::Gone => *sequencer = Sequencer::default(),
        Act::LeadAgain => *sequencer = Sequencer::default(),
        Act::Crash => {
            *sequencer = Sequencer::default();
            faults.sequencer_crashes -= 1;
        }
    }
}
