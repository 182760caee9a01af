//! The docket: what one lane has to judge, in which order, and how far it has come.
//!
//! It owns the frames and commands that were pulled and are not settled, the repos' states that the log does not hold
//! yet, and the lane's low-water mark. It owns no clock, socket or store: what it can't know it asks for ([`Ask`]), and
//! whoever asks it to go on has brought the answer.
//!
//! ```text
//!   take(frame) ──▶ all known? ──yes──▶ judge ──▶ accepted ──▶ batch ──▶ being appended ──▶ settled ─┐
//!                      │no                └─────▶ repeat, refused ──────────────────────▶ settled ─┴▶ low-water mark
//!                      ▼
//!                   parked, with all that follow of its account from that host, until answer()
//! ```
//!
//! What must hold:
//! 1. frames of one account from one host are judged in the order in which they were taken; others overtake them freely;
//! 2. each frame is settled once: accepted and durable, a repeat, or refused;
//! 3. the low-water mark never passes a frame that is parked, or accepted and not durable;
//! 4. a frame is judged by the state that the last accepted one of its account left, durable or not.
//!
//! Frames are parked by account *and* host because anybody can send events of any account: a host that is not the
//! account's must not be able to hold up the one that is. An operator's commands are a party of their own, so that no
//! host can hold them up either.
//!
//! What subscribers believe of an account is the status of the last state in the log ([`RepoState::status`]). Where it
//! changes by anything but the host's own `#account` event, an `#account` event of ours goes before.

mod parked;
mod progress;
mod states;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
};

use atproto::{
    event::Kind,
    syntax::{Did, HostName},
};
use storage::{
    intake::{Action, Command, CommandReceipt, Declined, Position, RawFrame, Taken, Work},
    log::Accepted,
    repos::{AccountStatus, LocalStatus, RepoState},
};

use self::{
    parked::{Case, Grounds, Parked},
    progress::Progress,
    states::{States, Statuses},
};
use crate::{
    announcement, finding,
    identity::{Absence, Identity, Want},
    places::{MARKS_MAX, Moved, Pin, Places},
    rules::Room,
    verdict::{Accept, Reason, Refusal, Verdict},
};

/// Bounds of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Parked bytes of one account from one host; past it the lane takes no more.
    pub account_bytes_max: usize,
    /// Parked bytes of one account that answers for its own identity (`did:web`) and does not; past it its oldest frames
    /// are refused, and the lane goes on.
    pub web_account_bytes_max: usize,
    /// Parked bytes of the lane; past it the lane takes no more.
    pub lane_bytes_max: usize,
    /// Accepted bytes that wait to be handed to the log; past it the lane takes no more.
    pub batch_bytes_max: usize,
    /// Bytes of repo states remembered beside those the log does not hold yet.
    pub states_bytes_max: u64,
    /// How long the directory's replicas may lag. An identity counts as fresh for a frame when it was fetched this long
    /// after the frame came, so that a key or host announced a moment ago is not missed.
    pub replica_lag_micros: u64,
    /// How long an answer to `getRepoStatus` is not asked for again.
    pub status_micros: u64,
}

/// An account, and who sends events or commands of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// The account.
    pub did: Did,
    /// The sender.
    pub sender: Sender,
}

/// Where frames and commands come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A host.
    Host(HostName),
    /// Whoever runs this relay.
    Operator,
}

/// Something only the outside knows. Frames wait until [`Docket::answer`] brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The repo's state in the store. Asked once at a time for an account.
    State(Did),
    /// Who the account is.
    Identity(Party, Want),
    /// How the account is at this host, which is the party's sender.
    Status(Party, HostName),
    /// How many accounts this host has: to be loaded into the [`Places`].
    Places(Party, HostName),
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// The stored state; `None` for an unknown repo.
    State(Did, Option<RepoState>),
    /// Who the account is.
    Identity(Party, Identity),
    /// The status at the host; `None` where the host gave none.
    Status(Party, Option<AccountStatus>),
    /// The host's accounts are counted.
    Places(Party),
}

/// A command that is done: its state is durable, or it was declined.
#[must_use]
pub struct Done {
    receipt: Arc<dyn CommandReceipt>,
    result: Result<RepoState, Declined>,
}

/// How a frame was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes into the log.
    Accepted {
        /// It does not continue the last state.
        discontinuous: bool,
    },
    /// It had been judged before.
    Repeat,
    /// It does not count.
    Refused(Refusal),
}

/// What a frame is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Now, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// The repo's state before it.
    pub state: Option<&'a RepoState>,
    /// Who the account is.
    pub identity: &'a Identity,
    /// Whether no newer identity could say otherwise.
    pub identity_is_fresh: bool,
    /// Whether the state's `upstream` was asked of the host just now.
    pub status_is_fresh: bool,
    /// Whether the host has a place for the account.
    pub room: Room,
}

/// Who decides, and who hears of it.
pub trait Judge {
    /// What is known of an account without waiting.
    fn identity(&mut self, did: &Did) -> Option<Identity>;

    /// How many accounts are relayed of a host; `None` where there is no limit.
    fn accounts_max(&mut self, host: &HostName) -> Option<u64>;

    /// Judges a frame.
    fn judge(&mut self, frame: &RawFrame, evidence: &Evidence<'_>) -> Verdict;

    /// Whether an identity is worth a fetch because of an event of this host that does not fit what is known.
    fn may_refresh(&mut self, host: &HostName, now_micros: u64) -> bool;

    /// What was fetched proved the host right.
    fn was_right(&mut self, host: &HostName);

    /// A frame has been settled (an accepted one is on its way into the log).
    fn settled(&mut self, frame: &RawFrame, outcome: Outcome);
}

/// See the module's documentation.
pub struct Docket {
    limits: Limits,
    since_micros: u64,
    states: States,
    statuses: Statuses,
    places: Arc<Places>,
    parked: Parked,
    /// Who waits for an account's stored state.
    loading: HashMap<Did, Vec<Party>>,
    asks: VecDeque<Ask>,
    progress: Progress,
    batch: Vec<Accepted>,
    batch_positions: Vec<Position>,
    batch_bytes: usize,
    /// Commands that are done when the batch is durable.
    batch_done: Vec<Done>,
    /// Hosts whose counts it has changed.
    batch_pins: Vec<Pin>,
    appending: VecDeque<Appending>,
    done: VecDeque<Done>,
}

/// A batch that was handed out.
struct Appending {
    positions: Vec<Position>,
    dids: Vec<Did>,
    done: Vec<Done>,
    /// Dropped when the batch is durable.
    _pins: Vec<Pin>,
}

/// How far a frame came.
enum Step {
    Settled,
    Wait(Need),
}

/// What a frame can't be judged without.
enum Need {
    State,
    Identity(Want),
    Status(HostName),
    Places(HostName),
}

// === impl Docket ===

impl Docket {
    /// An empty docket, of a lane that is judged here since this time (microseconds since the Unix epoch). All lanes share
    /// the places.
    pub fn new(limits: Limits, places: Arc<Places>, since_micros: u64) -> Docket {
        Docket {
            limits,
            since_micros,
            states: States::new(limits.states_bytes_max),
            statuses: Statuses::new(limits.status_micros),
            places,
            parked: Parked::new(limits.account_bytes_max),
            loading: HashMap::new(),
            asks: VecDeque::new(),
            progress: Progress::default(),
            batch: Vec::new(),
            batch_positions: Vec::new(),
            batch_bytes: 0,
            batch_done: Vec::new(),
            batch_pins: Vec::new(),
            appending: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// Whether it should be given no more until something is answered or handed to the log.
    pub fn is_full(&self) -> bool {
        self.parked.bytes() >= self.limits.lane_bytes_max
            || self.parked.has_full_case()
            || self.batch_bytes >= self.limits.batch_bytes_max
    }

    /// Bytes parked, with a share for each frame's keeping.
    pub fn parked_bytes(&self) -> usize {
        self.parked.bytes()
    }

    /// How many parties wait.
    pub fn parked_parties(&self) -> usize {
        self.parked.len()
    }

    /// A frame or command from the intake, positions rising.
    pub fn take(&mut self, taken: Taken, now_micros: u64, judge: &mut impl Judge) {
        self.progress.open(taken.position);
        let party = Party::of(&taken.work);
        let Some(taken) = self.parked.join(&party, taken) else { return self.give_up(party, now_micros, judge) };
        let mut case = Case::new();
        if let Step::Wait(need) = self.proceed(&taken, &mut case.grounds, now_micros, judge) {
            case.push(taken);
            self.wait(party, case, need);
        }
    }

    /// An answer to an ask: judges the frames that waited for it until they are done or have to ask again. An answer
    /// that nobody waits for is dropped.
    pub fn answer(&mut self, answer: Answer, now_micros: u64, judge: &mut impl Judge) {
        match answer {
            Answer::State(did, state) => {
                let Some(parties) = self.loading.remove(&did) else { return };
                self.states.learn(&did, state, parties.len());
                for party in parties {
                    if let Some(mut case) = self.parked.remove(&party) {
                        case.holds_state = true;
                        self.resume(party, case, now_micros, judge);
                    }
                }
            }
            Answer::Identity(party, identity) => {
                if let Some(mut case) = self.parked.remove(&party) {
                    case.identity_asked = None;
                    case.grounds.identity = Some(identity);
                    self.resume(party, case, now_micros, judge);
                }
            }
            Answer::Status(party, status) => {
                self.statuses.note(&party, status, now_micros);
                if let Some(mut case) = self.parked.remove(&party) {
                    case.grounds.status = Some(status);
                    self.resume(party, case, now_micros, judge);
                }
            }
            Answer::Places(party) => {
                if let Some(case) = self.parked.remove(&party) {
                    self.resume(party, case, now_micros, judge);
                }
            }
        }
    }

    /// The next thing to ask, if there is any. Each ask is given once, and at most one waits for each party (and one
    /// [`Ask::State`] for each account).
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Bytes accepted and not yet handed out.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Hands out what was accepted since the last time. Batches are to be appended in the order in which they were
    /// handed out, and [`Docket::appended`] called once for each, in that order.
    pub fn next_batch(&mut self) -> Option<Vec<Accepted>> {
        if self.batch.is_empty() {
            return None;
        }
        self.batch_bytes = 0;
        let events = mem::take(&mut self.batch);
        let positions = mem::take(&mut self.batch_positions);
        let done = mem::take(&mut self.batch_done);
        let dids = events.iter().map(|event| event.did.clone()).collect();
        let _pins = mem::take(&mut self.batch_pins);
        self.appending.push_back(Appending { positions, dids, done, _pins });
        Some(events)
    }

    /// The oldest batch that was handed out is durable.
    pub fn appended(&mut self) {
        let Some(done) = self.appending.pop_front() else { return };
        for position in done.positions {
            self.progress.close(position);
        }
        for did in done.dids {
            self.states.release(&did);
        }
        self.done.extend(done.done);
    }

    /// The next command that is done and was not told of, if there is any.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// The low-water mark, if it has moved since it was last asked for: all frames up to it are settled, and durable
    /// where they were accepted.
    pub fn covered(&mut self) -> Option<Position> {
        self.progress.moved()
    }

    /// Frames past the low-water mark that were settled since this was last asked for, durable where they were accepted.
    /// A few may be below it by now.
    pub fn settled_early(&mut self) -> Vec<Position> {
        self.progress.early()
    }

    /// An account whose own host does not answer for it holds up nobody else: with too much parked its oldest frames are
    /// judged as if it never would.
    fn give_up(&mut self, party: Party, now_micros: u64, judge: &mut impl Judge) {
        let bytes_max = self.limits.web_account_bytes_max;
        while party.did.as_str().starts_with("did:web:")
            && self.parked.waits_for_identity(&party, bytes_max)
            && let Some(mut case) = self.parked.remove(&party)
        {
            let unanswered = Identity { known: Err(Absence::Unanswered), fetched_at_micros: now_micros };
            case.grounds.identity = Some(unanswered);
            self.resume(party.clone(), case, now_micros, judge);
        }
    }

    /// Judges a case's frames until they are done or have to ask again.
    fn resume(&mut self, party: Party, mut case: Case, now_micros: u64, judge: &mut impl Judge) {
        while let Some((front, grounds)) = case.front() {
            match self.proceed(front, grounds, now_micros, judge) {
                Step::Settled => case.pop(),
                Step::Wait(need) => return self.wait(party, case, need),
            }
        }
        if case.holds_state {
            self.states.release(&party.did);
        }
    }

    /// Parks a case and asks what it needs.
    fn wait(&mut self, party: Party, mut case: Case, need: Need) {
        // From here to its end a case keeps its account's state: were it forgotten in between, it would be loaded anew
        // for each frame that waits.
        if !case.holds_state {
            case.holds_state = self.states.hold(&party.did);
        }
        case.waits_for_identity = matches!(need, Need::Identity(_));
        match need {
            Need::State => {
                let waiting = self.loading.entry(party.did.clone()).or_default();
                if waiting.is_empty() {
                    self.asks.push_back(Ask::State(party.did.clone()));
                }
                waiting.push(party.clone());
            }
            Need::Identity(want) if case.identity_asked == Some(want) => {}
            Need::Identity(want) => {
                case.identity_asked = Some(want);
                self.asks.push_back(Ask::Identity(party.clone(), want));
            }
            Need::Status(host) => self.asks.push_back(Ask::Status(party.clone(), host)),
            Need::Places(host) => self.asks.push_back(Ask::Places(party.clone(), host)),
        }
        self.parked.insert(party, case);
    }

    /// Goes as far with a frame or command as what is known allows.
    fn proceed(&mut self, taken: &Taken, grounds: &mut Grounds, now_micros: u64, judge: &mut impl Judge) -> Step {
        match &taken.work {
            Work::Frame(frame) => self.judge(taken.position, frame, grounds, now_micros, judge),
            Work::Command(command) => self.carry_out(taken.position, command, grounds, now_micros, judge),
        }
    }

    /// Carries a command out. An account that nothing is known of is taken down at the host that its identity names.
    fn carry_out(
        &mut self,
        position: Position,
        command: &Command,
        grounds: &Grounds,
        now_micros: u64,
        judge: &mut impl Judge,
    ) -> Step {
        let Command { did, action, receipt, .. } = command;
        let Some(state) = self.states.get(did) else { return Step::Wait(Need::State) };
        let result = match (action, state) {
            (Action::Takedown, Some(state)) => Ok(RepoState { local: LocalStatus::TakenDown, ..state.clone() }),
            (Action::Restore, Some(state)) if state.local == LocalStatus::TakenDown => {
                Ok(RepoState { local: LocalStatus::None, ..state.clone() })
            }
            (Action::Restore, Some(state)) => Ok(state.clone()),
            (Action::Restore, None) => Err(Declined::UnknownAccount),
            (Action::Takedown, None) => {
                let known = grounds.identity.clone().or_else(|| judge.identity(did));
                let Some(identity) = known else { return Step::Wait(Need::Identity(Want::Any)) };
                unseen(&identity).map(|state| RepoState { local: LocalStatus::TakenDown, ..state })
            }
        };
        let done = Done { receipt: Arc::clone(receipt), result };
        match &done.result {
            Ok(after) if state != Some(after) => {
                // An operator's word needs no place.
                match self.places.change(state, after, None) {
                    Moved::Done(pins) => self.batch_pins.extend(pins.into_iter().flatten()),
                    Moved::Unknown(host) => return Step::Wait(Need::Places(host)),
                    Moved::Full => unreachable!("there is no limit"),
                }
                let (frame, seq_slot) = announcement::account(did, after.status(), now_micros);
                let (did, state, position) = (did.clone(), after.clone(), Some(position));
                self.accept(Accepted { did, state, frame, seq_slot, position });
                self.batch_done.push(done);
            }
            // Nothing changes, but what is so may not be durable yet.
            Ok(_) if !self.batch.is_empty() => {
                self.progress.close(position);
                self.batch_done.push(done);
            }
            Ok(_) | Err(_) => {
                self.progress.close(position);
                match self.appending.back_mut() {
                    Some(last) => last.done.push(done),
                    None => self.done.push_back(done),
                }
            }
        }
        Step::Settled
    }

    /// Judges a frame.
    fn judge(
        &mut self,
        position: Position,
        frame: &RawFrame,
        grounds: &mut Grounds,
        now_micros: u64,
        judge: &mut impl Judge,
    ) -> Step {
        let Some(state) = self.states.get(&frame.did) else { return Step::Wait(Need::State) };
        let RawFrame { host, host_epoch, upstream_seq, .. } = frame;
        if state.is_some_and(|state| state.is_past(host, *host_epoch, *upstream_seq)) {
            return self.settle(position, frame, Outcome::Repeat, judge);
        }

        let needs_a_place = state.is_none_or(|state| state.host != frame.host || state.local == LocalStatus::Throttled);
        let mut room = Room::Free;
        if needs_a_place && let Some(accounts_max) = judge.accounts_max(&frame.host) {
            let Some(standing) = self.places.standing(&frame.host) else {
                return Step::Wait(Need::Places(frame.host.clone()));
            };
            if standing.taken >= accounts_max {
                room = Room::Full { accounts_max };
                // Not worth a look at the directory.
                if state.is_none() && standing.throttled >= MARKS_MAX {
                    let refusal = finding::throttled(&frame.host, accounts_max);
                    return self.settle(position, frame, Outcome::Refused(refusal), judge);
                }
            }
        }

        // What was fetched for this frame, else what was known.
        let known = grounds.identity.clone().or_else(|| judge.identity(&frame.did));
        let announces = frame.kind == Kind::Identity && !grounds.announced;
        let is_worth_a_fetch = announces
            && known.as_ref().is_none_or(|known| {
                known.fetched_at_micros < frame.received_at_micros
                    && (is_of_its_host(known, state, frame) || grounds.may_refresh(judge, frame, now_micros))
            });
        if is_worth_a_fetch {
            grounds.announced = true;
            return Step::Wait(Need::Identity(Want::Announced { at_micros: frame.received_at_micros }));
        }
        let Some(identity) = known else { return Step::Wait(Need::Identity(Want::Any)) };
        // Whoever judged the lane before may have seen the account move away from where an older document has it, and what
        // its old host sent before may be read again here.
        if identity.fetched_at_micros < self.since_micros && moves(&identity, state, frame) {
            return Step::Wait(Need::Identity(Want::Since { at_micros: self.since_micros }));
        }

        let asked = grounds.status.or_else(|| self.recent_status(state, frame, now_micros));
        let overlaid = match (state, asked) {
            (Some(state), Some(Some(upstream))) => Some(RepoState { upstream, ..state.clone() }),
            (Some(_) | None, _) => None,
        };
        let received = frame.received_at_micros.min(now_micros);
        let fresh_from = received.saturating_add(self.limits.replica_lag_micros);
        let evidence = Evidence {
            now_micros,
            state: overlaid.as_ref().or(state),
            identity: &identity,
            identity_is_fresh: identity.fetched_at_micros >= fresh_from,
            status_is_fresh: asked.is_some(),
            room,
        };
        let (identity_is_fresh, status_is_fresh) = (evidence.identity_is_fresh, evidence.status_is_fresh);
        match judge.judge(frame, &evidence) {
            Verdict::Accept(Accept { state: after, discontinuous }) => {
                if grounds.refresh_taken {
                    judge.was_right(&frame.host);
                }
                let accounts_max = if needs_a_place { judge.accounts_max(&frame.host) } else { None };
                match self.places.change(state, &after, accounts_max) {
                    Moved::Done(pins) => self.batch_pins.extend(pins.into_iter().flatten()),
                    Moved::Unknown(host) => return Step::Wait(Need::Places(host)),
                    // Another lane's account has taken the last one.
                    Moved::Full => {
                        let refusal = finding::throttled(&frame.host, accounts_max.unwrap_or_default());
                        return self.throttle(position, frame, refusal, now_micros, judge);
                    }
                }
                let told = state.map_or(AccountStatus::Active, RepoState::status);
                if frame.kind != Kind::Account && after.status() != told {
                    // The state before the frame, with the new status: so it is judged again if the process ends here.
                    let between = RepoState {
                        upstream: after.upstream,
                        local: after.local,
                        ..state.cloned().unwrap_or_else(|| after.clone())
                    };
                    self.announce(&frame.did, between, now_micros);
                }
                let (did, bytes) = (frame.did.clone(), frame.bytes.clone());
                let (seq_slot, position) = (frame.seq_slot, Some(position));
                self.accept(Accepted { did, state: after, frame: bytes, seq_slot, position });
                judge.settled(frame, Outcome::Accepted { discontinuous });
                Step::Settled
            }
            Verdict::Repeat => self.settle(position, frame, Outcome::Repeat, judge),
            Verdict::Refuse(refusal) if refusal.reason == Reason::AccountThrottled => {
                self.throttle(position, frame, refusal, now_micros, judge)
            }
            Verdict::Refuse(refusal) => self.settle(position, frame, Outcome::Refused(refusal), judge),
            Verdict::RefreshIdentity(refusal) if identity_is_fresh => {
                self.settle(position, frame, Outcome::Refused(refusal), judge)
            }
            Verdict::RefreshIdentity(refusal) if !grounds.may_refresh(judge, frame, now_micros) => {
                self.settle(position, frame, Outcome::Refused(refusal), judge)
            }
            // First what the directory says at once: nearly always it is right. Only if that changes nothing is it
            // given the time that its replicas may need.
            Verdict::RefreshIdentity(_) => {
                let at_micros = if identity.fetched_at_micros < received { received } else { fresh_from };
                Step::Wait(Need::Identity(Want::Since { at_micros }))
            }
            Verdict::AskStatus(refusal) if status_is_fresh => {
                self.settle(position, frame, Outcome::Refused(refusal), judge)
            }
            Verdict::AskStatus(_) => Step::Wait(Need::Status(frame.host.clone())),
        }
    }

    /// Refuses a frame of an account for which its host has no place, and marks the account where that is new.
    fn throttle(
        &mut self,
        position: Position,
        frame: &RawFrame,
        refusal: Refusal,
        now_micros: u64,
        judge: &mut impl Judge,
    ) -> Step {
        let state = self.states.get(&frame.did).flatten();
        let is_new = state.is_none_or(|state| state.local == LocalStatus::None);
        let marks = self.places.standing(&frame.host).map_or(0, |standing| standing.throttled);
        if is_new && marks < MARKS_MAX {
            let mark = RepoState {
                host: frame.host.clone(),
                host_epoch: frame.host_epoch,
                // The frame itself is not taken: when the host is read again, it counts.
                upstream_seq: frame.upstream_seq.saturating_sub(1),
                head: state.and_then(|state| state.head),
                upstream: state.map_or(AccountStatus::Active, |state| state.upstream),
                local: LocalStatus::Throttled,
            };
            match self.places.change(state, &mark, None) {
                Moved::Done(pins) => self.batch_pins.extend(pins.into_iter().flatten()),
                Moved::Unknown(host) => return Step::Wait(Need::Places(host)),
                Moved::Full => unreachable!("there is no limit"),
            }
            self.announce(&frame.did, mark, now_micros);
        }
        self.settle(position, frame, Outcome::Refused(refusal), judge)
    }

    /// What the host said of the account not long ago, where that matters.
    fn recent_status(
        &self,
        state: Option<&RepoState>,
        frame: &RawFrame,
        now_micros: u64,
    ) -> Option<Option<AccountStatus>> {
        if self.statuses.is_empty() || state.is_none_or(|state| state.upstream.is_active()) {
            return None;
        }
        self.statuses.recent(&Party::of_host(frame), now_micros)
    }

    /// Puts an `#account` event of our own into the log: the account is as `state` says.
    fn announce(&mut self, did: &Did, state: RepoState, now_micros: u64) {
        let (frame, seq_slot) = announcement::account(did, state.status(), now_micros);
        self.accept(Accepted { did: did.clone(), state, frame, seq_slot, position: None });
    }

    /// Puts an event into the batch.
    fn accept(&mut self, event: Accepted) {
        self.states.set(&event.did, event.state.clone());
        self.batch_bytes += event.frame.len();
        self.batch_positions.extend(event.position);
        self.batch.push(event);
    }

    fn settle(&mut self, position: Position, frame: &RawFrame, outcome: Outcome, judge: &mut impl Judge) -> Step {
        self.progress.close(position);
        judge.settled(frame, outcome);
        Step::Settled
    }
}

// === impl Party ===

impl Party {
    fn of(work: &Work) -> Party {
        match work {
            Work::Frame(frame) => Party::of_host(frame),
            Work::Command(command) => Party { did: command.did.clone(), sender: Sender::Operator },
        }
    }

    fn of_host(frame: &RawFrame) -> Party {
        Party { did: frame.did.clone(), sender: Sender::Host(frame.host.clone()) }
    }
}

// === impl Done ===

impl Done {
    /// Tells whoever gave the command.
    pub fn tell(self) {
        self.receipt.settled(self.result);
    }
}

/// The state of an account that no event was seen of: at the host that its document names, with all its events to come.
fn unseen(identity: &Identity) -> Result<RepoState, Declined> {
    let document = identity.known.as_ref().map_err(|absence| Declined::NoIdentity { why: absence.to_string() })?;
    Ok(RepoState {
        host: document.pds.clone().ok_or(Declined::NoPds)?,
        host_epoch: 0,
        upstream_seq: 0,
        head: None,
        upstream: AccountStatus::Active,
        local: LocalStatus::None,
    })
}

/// Whether a frame comes from its account's host, or from the one that was until now.
fn is_of_its_host(identity: &Identity, state: Option<&RepoState>, frame: &RawFrame) -> bool {
    identity.known.as_ref().is_ok_and(|document| document.pds.as_ref() == Some(&frame.host))
        || state.is_some_and(|state| state.host == frame.host)
}

/// Whether the frame, by this identity, brings its account to another host than its state has.
fn moves(identity: &Identity, state: Option<&RepoState>, frame: &RawFrame) -> bool {
    state.is_some_and(|state| state.host != frame.host)
        && identity.known.as_ref().is_ok_and(|document| document.pds.as_ref() == Some(&frame.host))
}

#[cfg(test)]
mod tests;
