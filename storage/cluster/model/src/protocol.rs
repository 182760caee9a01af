use stateright::{Model, Property};

use crate::{
    Raw, Record, State, Step, crawler, properties, sequencer,
    state::{Crawler, Cursor, Host, LanePhase, LeadPhase, Progress, Sequencer, Validator, offset},
    validator,
};

/// What may go wrong, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A validator is killed.
    pub crashes: u8,
    /// The lane is given to the other validator, while the first knows nothing of it.
    pub moves: u8,
    /// An event can't be judged at once.
    pub parks: u8,
    /// A validator ends while a record of it is on its way, which lands at any later time.
    pub stragglers: u8,
    /// A validator forgets the states that it has in memory.
    pub evictions: u8,
    /// A validator that saw a hole claims again, though the lane is no longer its own.
    pub blind_claims: u8,
    /// A sequencer is killed.
    pub sequencer_crashes: u8,
    /// The other sequencer is to lead, while the first knows nothing of it.
    pub leader_moves: u8,
    /// A crawler is killed, or a delivery of it fails.
    pub crawler_crashes: u8,
    /// The host is given to the other crawler, while the first knows nothing of it.
    pub crawler_moves: u8,
}

/// How much of the world is explored.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// The lane's `raw` at the start.
    pub raw: Vec<Raw>,
    /// The accounts of a host's events, which crawlers bring into `raw`.
    pub host: Vec<u8>,
    /// After so many events the host may begin anew; then it makes the rest.
    pub reset_after: Option<u8>,
    /// `verified` of another lane, which the sequencer reads too.
    pub other_lane: Vec<Record>,
    /// How many there are, at most 2.
    pub validators: usize,
    /// How many there are, at most 2; without one, what it would take is looked at.
    pub sequencers: usize,
    /// How many there are, at most 2.
    pub crawlers: usize,
    /// How many records of a validator may be in the log whose delivery it has not learnt of.
    pub landed_max: usize,
    /// What may go wrong.
    pub faults: Faults,
}

/// The protocol within bounds, whole or with a step left out.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    /// What is explored.
    pub bounds: Bounds,
    /// The step that nobody takes.
    pub without: Option<Step>,
}

impl Protocol {
    pub(crate) fn has(&self, step: Step) -> bool {
        self.without != Some(step)
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A crawler does something.
    Crawler(usize, crawler::Act),
    /// A validator does something.
    Validator(usize, validator::Act),
    /// A sequencer does something.
    Sequencer(usize, sequencer::Act),
    /// The group gives the lane to the other validator.
    MoveLane,
    /// The group gives the lead to the other sequencer.
    MoveLead,
    /// The group gives the host to the other crawler.
    MoveHost,
    /// The host forgets its events and counts anew.
    HostResets,
    /// The host makes its next event.
    HostMakes,
}

impl Action {
    /// Whether it may happen, but need not.
    pub(crate) fn is_fault(self) -> bool {
        match self {
            Action::Crawler(_, act) => act.is_fault(),
            Action::Validator(_, act) => act.is_fault(),
            Action::Sequencer(_, act) => act.is_fault(),
            Action::MoveLane | Action::MoveLead | Action::MoveHost | Action::HostResets => true,
            Action::HostMakes => false,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { raw, host, reset_after, validators, sequencers, crawlers, faults, .. } = self.bounds.clone();
        vec![State {
            raw,
            verified: Vec::new(),
            firehose: Vec::new(),
            rows: Default::default(),
            committed: Default::default(),
            saved: Progress::default(),
            producer: 0,
            cursor: Cursor { epoch: 1, seq: 0 },
            host: Host { has_reset: false, made: reset_after.unwrap_or(offset(host.len())) },
            owner: 0,
            leader: 0,
            crawls: 0,
            validators: vec![Validator::default(); validators],
            sequencers: vec![Sequencer::default(); sequencers],
            crawlers: vec![Crawler::default(); crawlers],
            faults,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for who in 0..self.bounds.crawlers {
            actions.extend(crawler::acts(self, state, who).into_iter().map(|act| Action::Crawler(who, act)));
        }
        for who in 0..self.bounds.validators {
            actions.extend(validator::acts(self, state, who).into_iter().map(|act| Action::Validator(who, act)));
        }
        for who in 0..self.bounds.sequencers {
            actions.extend(sequencer::acts(self, state, who).into_iter().map(|act| Action::Sequencer(who, act)));
        }
        let Bounds { validators, sequencers, crawlers, .. } = self.bounds;
        actions.extend((validators > 1 && state.faults.moves > 0).then_some(Action::MoveLane));
        actions.extend((sequencers > 1 && state.faults.leader_moves > 0).then_some(Action::MoveLead));
        actions.extend((crawlers > 1 && state.faults.crawler_moves > 0).then_some(Action::MoveHost));
        let Host { has_reset, made } = state.host;
        actions.extend((self.bounds.reset_after.is_some() && !has_reset).then_some(Action::HostResets));
        let makes = has_reset && usize::from(made) < self.bounds.host.len();
        actions.extend(makes.then_some(Action::HostMakes));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Crawler(who, act) => crawler::apply(self, &mut state, who, act),
            Action::Validator(who, act) => validator::apply(self, &mut state, who, act),
            Action::Sequencer(who, act) => sequencer::apply(self, &mut state, who, act),
            Action::MoveLane => {
                // It may have been about to claim.
                let idle = &mut state.validators[state.owner].phase;
                *idle = if *idle == LanePhase::Idle { LanePhase::Given } else { *idle };
                state.owner = 1 - state.owner;
                state.faults.moves -= 1;
            }
            Action::MoveLead => {
                let idle = &mut state.sequencers[state.leader].phase;
                *idle = if *idle == LeadPhase::Idle { LeadPhase::Given } else { *idle };
                state.leader = 1 - state.leader;
                state.faults.leader_moves -= 1;
            }
            Action::MoveHost => {
                state.crawls = 1 - state.crawls;
                state.faults.crawler_moves -= 1;
            }
            Action::HostResets => state.host.has_reset = true,
            Action::HostMakes => state.host.made += 1,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        properties::all(self)
    }
}
