use std::collections::{HashMap, VecDeque};

use storage::{
    intake::{RawFrame, Taken, Work},
    repos::AccountStatus,
};

use super::{Judge, Party};
use crate::identity::{Identity, Want};

/// What a parked frame costs beside its bytes; keeps a flood of tiny frames within the bound.
const OVERHEAD_BYTES: usize = 512;

/// The cases that wait, and what they hold in bytes.
pub(super) struct Parked {
    cases: HashMap<Party, Case>,
    case_bytes_max: usize,
    bytes: usize,
    /// Cases at or over `case_bytes_max`.
    full_cases: usize,
}

/// A party whose frames wait.
pub(super) struct Case {
    /// The first is the one that asked.
    frames: VecDeque<Taken>,
    bytes: usize,
    pub(super) grounds: Grounds,
    /// Whether it keeps its account's state from being forgotten.
    pub(super) holds_state: bool,
    /// Whether it was an identity that was asked for last.
    pub(super) waits_for_identity: bool,
    /// What was asked of the identity and is not answered: not asked again for a frame that needs the same.
    pub(super) identity_asked: Option<Want>,
}

/// What was learnt because of the frame that is being judged.
#[derive(Default)]
pub(super) struct Grounds {
    /// Fetched for it.
    pub(super) identity: Option<Identity>,
    /// The identity was asked for because the frame announces a change.
    pub(super) announced: bool,
    /// The host was granted a fetch of the identity.
    pub(super) refresh_taken: bool,
    /// The host was asked, and answered this.
    pub(super) status: Option<Option<AccountStatus>>,
}

// === impl Parked ===

impl Parked {
    pub(super) fn new(case_bytes_max: usize) -> Parked {
        Parked { cases: HashMap::new(), case_bytes_max, bytes: 0, full_cases: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }

    pub(super) fn has_full_case(&self) -> bool {
        self.full_cases > 0
    }

    /// Queues a frame behind its party's waiting ones; gives it back if none wait.
    pub(super) fn join(&mut self, party: &Party, taken: Taken) -> Option<Taken> {
        let Some(case) = self.cases.get_mut(party) else { return Some(taken) };
        let was_full = case.bytes >= self.case_bytes_max;
        self.bytes += cost(&taken);
        case.push(taken);
        self.full_cases += usize::from(!was_full && case.bytes >= self.case_bytes_max);
        None
    }

    /// Whether a party's case waits for its identity with more than `bytes_max`.
    pub(super) fn waits_for_identity(&self, party: &Party, bytes_max: usize) -> bool {
        self.cases.get(party).is_some_and(|case| case.waits_for_identity && case.bytes > bytes_max)
    }

    pub(super) fn insert(&mut self, party: Party, case: Case) {
        self.bytes += case.bytes;
        self.full_cases += usize::from(case.bytes >= self.case_bytes_max);
        self.cases.insert(party, case);
    }

    pub(super) fn remove(&mut self, party: &Party) -> Option<Case> {
        let case = self.cases.remove(party)?;
        self.bytes -= case.bytes;
        self.full_cases -= usize::from(case.bytes >= self.case_bytes_max);
        Some(case)
    }
}

// === impl Grounds ===

impl Grounds {
    /// Whether the host is granted a fetch because of this frame; one grant is enough for all that the frame needs.
    pub(super) fn may_refresh(&mut self, judge: &mut impl Judge, frame: &RawFrame, now_micros: u64) -> bool {
        self.refresh_taken = self.refresh_taken || judge.may_refresh(&frame.host, now_micros);
        self.refresh_taken
    }
}

// === impl Case ===

impl Case {
    pub(super) fn new() -> Case {
        Case {
            frames: VecDeque::new(),
            bytes: 0,
            grounds: Grounds::default(),
            holds_state: false,
            waits_for_identity: false,
            identity_asked: None,
        }
    }

    pub(super) fn push(&mut self, taken: Taken) {
        self.bytes += cost(&taken);
        self.frames.push_back(taken);
    }

    /// The frame to judge, and where to note what is learnt for it.
    pub(super) fn front(&mut self) -> Option<(&Taken, &mut Grounds)> {
        let front = self.frames.front()?;
        Some((front, &mut self.grounds))
    }

    /// The first frame is settled; what was learnt for it is not the next one's.
    pub(super) fn pop(&mut self) {
        if let Some(front) = self.frames.pop_front() {
            self.bytes -= cost(&front);
        }
        self.grounds = Grounds::default();
    }
}

fn cost(taken: &Taken) -> usize {
    let bytes = match &taken.work {
        Work::Frame(frame) => frame.bytes.len(),
        Work::Command(_) => 0,
    };
    bytes + OVERHEAD_BYTES
}
