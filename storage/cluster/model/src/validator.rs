use crate::{
    Change, Event, Protocol, Raw, Record, State, Step,
    state::{Committed, DIDS, Landed, LanePhase, Offset, Repo, Row, Validator, offset, valid_after},
};

/// What a validator may do next. Judging touches its own memory alone, so it is one step with the append that follows;
/// what was sent and not yet in the log shows only when its sender ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It is given the lane and appends its claim.
    Claim,
    /// It reads what is committed and the lane up to its claim, writes the rows that may be missing, and reads them.
    Recover,
    /// It reads the next record of `raw` and judges it; what is accepted is in the log, and it does not know yet.
    Append,
    /// It reads the next record of `raw` and can't judge it yet.
    Park,
    /// It judges what it has parked first, as in `Append`.
    Answer,
    /// It forgets an account's state, and reads its row when it needs it.
    Evict,
    /// It learns of a delivery: writes the row, or ends because of a hole.
    Row,
    /// It commits.
    Commit,
    /// It hears that the lane is another's.
    Gone,
    /// The same, while a record of it is on its way.
    GoneStraggling,
    /// What was on its way when its sender ended is in the log.
    LandLate,
    /// It is killed and starts again.
    Crash,
    /// The same, while a record of it is on its way.
    CrashStraggling,
}

impl Act {
    /// Whether it may happen, but need not.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Act::Crash | Act::CrashStraggling | Act::GoneStraggling | Act::Park | Act::Evict)
    }
}

/// How often an owner commits under one claim: what counts is the last time before somebody reads it.
const COMMITS_MAX: u8 = 1;

pub(crate) fn acts(protocol: &Protocol, state: &State, who: usize) -> Vec<Act> {
    let validator = &state.validators[who];
    let faults = &state.faults;
    let owns = state.owner == who;
    let mut acts = Vec::new();
    let mut straggles = false;
    match validator.phase {
        LanePhase::Idle => acts.extend(owns.then_some(Act::Claim)),
        LanePhase::Given => acts.push(Act::Claim),
        LanePhase::Claimed => acts.push(Act::Recover),
        LanePhase::Working => {
            let has_room = validator.landed.len() < protocol.bounds.landed_max;
            let next = state.raw.get(usize::from(validator.next)).copied();
            if let Some(next) = next
                && has_room
            {
                acts.push(Act::Append);
                let can_wait = matches!(next, Raw::Frame { .. }) && !parks(&state.raw, validator, next);
                acts.extend((can_wait && faults.parks > 0).then_some(Act::Park));
            }
            acts.extend((!validator.parked.is_empty() && has_room).then_some(Act::Answer));
            acts.extend((!validator.landed.is_empty()).then_some(Act::Row));
            let may_commit = validator.commits < COMMITS_MAX && to_commit(protocol, validator) != state.committed;
            acts.extend(may_commit.then_some(Act::Commit));
            acts.extend((faults.evictions > 0 && validator.landed.is_empty()).then_some(Act::Evict));
            straggles = faults.stragglers > 0 && next_sent(protocol, state, who).is_some();
        }
        LanePhase::Fenced => {
            let again = protocol.has(Step::ClaimAgain) && (owns || faults.blind_claims > 0);
            acts.extend(again.then_some(Act::Claim));
        }
    }
    if validator.phase != LanePhase::Idle {
        acts.extend((!owns).then_some(Act::Gone));
        acts.extend((!owns && straggles).then_some(Act::GoneStraggling));
        // Another's crash is as if it had heard that the lane is gone.
        let crashes = owns && faults.crashes > 0;
        acts.extend(crashes.then_some(Act::Crash));
        acts.extend((crashes && straggles).then_some(Act::CrashStraggling));
    }
    acts.extend((!validator.late.is_empty()).then_some(Act::LandLate));
    acts
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, who: usize, act: Act) {
    if matches!(act, Act::GoneStraggling | Act::CrashStraggling) {
        let record = next_sent(protocol, state, who).expect("it has one to send");
        state.validators[who].late.push_back(record);
        state.faults.stragglers -= 1;
    }
    let State { raw, verified, rows, committed, validators, faults, owner, .. } = state;
    let validator = &mut validators[who];
    match act {
        Act::Claim => {
            if validator.phase == LanePhase::Fenced && *owner != who {
                faults.blind_claims -= 1;
            }
            claim(protocol, validator, verified);
        }
        Act::Recover => recover(protocol, validator, verified, rows, *committed),
        Act::Append => {
            let position = validator.next;
            let next = raw[usize::from(position)];
            validator.next += 1;
            if parks(raw, validator, next) {
                validator.parked.push(position);
            } else {
                append(protocol, validator, rows, verified, position, next);
            }
        }
        Act::Park => {
            validator.parked.push(validator.next);
            validator.next += 1;
            faults.parks -= 1;
        }
        Act::Answer => {
            let position = validator.parked.remove(0);
            append(protocol, validator, rows, verified, position, raw[usize::from(position)]);
        }
        Act::Evict => {
            validator.cache = [None; DIDS];
            faults.evictions -= 1;
        }
        Act::Row => {
            let landed = validator.landed.pop_front().expect("there is one");
            if landed.offset != validator.expected && protocol.has(Step::HoleCheck) {
                end(validator, LanePhase::Fenced);
            } else {
                validator.expected = landed.offset + 1;
                write(protocol, rows, &landed);
                validator.kept.push(landed);
            }
        }
        Act::Commit => {
            *committed = to_commit(protocol, validator);
            validator.commits += 1;
        }
        Act::Gone | Act::GoneStraggling => end(validator, LanePhase::Idle),
        Act::LandLate => {
            verified.push(validator.late.pop_front().expect("there is one"));
        }
        Act::Crash | Act::CrashStraggling => {
            end(validator, LanePhase::Idle);
            validator.cache = [None; DIDS];
            faults.crashes -= 1;
        }
    }
    forget(protocol, validator);
}

/// Records that settle nothing but what is covered are not needed any more.
fn forget(protocol: &Protocol, validator: &mut Validator) {
    let covered = covered(protocol, validator);
    validator.kept.retain(|kept| kept.position >= covered);
}

fn claim(protocol: &Protocol, validator: &mut Validator, verified: &mut Vec<Record>) {
    validator.expected = offset(verified.len());
    validator.claim = None;
    if protocol.has(Step::Claim) {
        validator.claim = Some(validator.expected);
        validator.expected += 1;
        verified.push(Record::Claim);
    }
    validator.phase = LanePhase::Claimed;
}

/// What is before the claim is all there will ever be of others: what they still send comes after it and is not valid.
fn recover(
    protocol: &Protocol,
    validator: &mut Validator,
    verified: &[Record],
    rows: &mut [Row; DIDS],
    committed: Committed,
) {
    let before = &verified[..usize::from(validator.expected)];
    validator.next = committed.position;
    validator.kept.clear();
    let claim = if protocol.has(Step::ClaimInCommit) { committed.claim } else { None };
    for landed in valid_after(before, committed.repair, claim) {
        if protocol.has(Step::Repair) {
            write(protocol, rows, &landed);
        }
        validator.kept.push(landed);
    }
    if protocol.has(Step::FreshCache) {
        validator.cache = [None; DIDS];
    }
    for (cached, row) in validator.cache.iter_mut().zip(rows) {
        cached.get_or_insert(row.repo);
    }
    validator.phase = LanePhase::Working;
}

/// Leaves the lane.
fn end(validator: &mut Validator, phase: LanePhase) {
    let late = std::mem::take(&mut validator.late);
    *validator = Validator { phase, late, cache: validator.cache, ..Validator::default() };
}

/// Whether something of the same account, from the same sender, is parked before it.
fn parks(raw: &[Raw], validator: &Validator, next: Raw) -> bool {
    let of = |raw: Raw| match raw {
        Raw::Frame { did, .. } => Some(did),
        // Commands are a party of their own, and are never parked.
        Raw::Command { .. } => None,
    };
    let Some(did) = of(next) else { return false };
    validator.parked.iter().any(|position| of(raw[usize::from(*position)]) == Some(did))
}

/// What it would send next, if that is judged good.
fn next_sent(protocol: &Protocol, state: &State, who: usize) -> Option<Record> {
    let mut validator = state.validators[who].clone();
    let raw = *state.raw.get(usize::from(validator.next))?;
    if parks(&state.raw, &validator, raw) {
        return None;
    }
    let position = validator.next;
    let landed = judge(protocol, &mut validator, &state.rows, position, raw)?;
    Some(Record::Event { claim: validator.claim, position, event: landed.0, repo: landed.1 })
}

fn append(
    protocol: &Protocol,
    validator: &mut Validator,
    rows: &mut [Row; DIDS],
    verified: &mut Vec<Record>,
    position: Offset,
    raw: Raw,
) {
    let Some((event, repo)) = judge(protocol, validator, rows, position, raw) else { return };
    if !protocol.has(Step::DeliveryBeforeRows) {
        let offset = validator.expected + offset(validator.landed.len());
        write(protocol, rows, &Landed { offset, claim: validator.claim, position, event, repo });
    }
    let claim = validator.claim;
    validator.landed.push_back(Landed { offset: offset(verified.len()), claim, position, event, repo });
    verified.push(Record::Event { claim, position, event, repo });
}

/// What comes of a record of `raw`, if anything does.
fn judge(
    protocol: &Protocol,
    validator: &mut Validator,
    rows: &[Row; DIDS],
    position: Offset,
    raw: Raw,
) -> Option<(Event, Repo)> {
    let did = match raw {
        Raw::Frame { did, .. } | Raw::Command { did, .. } => did,
    };
    let row = rows[usize::from(did)];
    let before = *validator.cache[usize::from(did)].get_or_insert(row.repo);
    if was_settled(protocol, validator, position, raw) {
        return None;
    }
    let (event, repo) = match raw {
        Raw::Frame { did, epoch, seq, id } => {
            let is_repeat = if protocol.has(Step::EpochOrder) {
                (epoch, seq) <= before.last
            } else {
                epoch == before.last.0 && seq <= before.last.1
            };
            if is_repeat {
                return None;
            }
            (Event::Frame { did, id }, Repo { last: (epoch, seq), ..before })
        }
        Raw::Command { did, change } => {
            let down = change == Change::Takedown;
            if before.down == down {
                return None;
            }
            (Event::Command { did, position, change }, Repo { down, ..before })
        }
    };
    validator.cache[usize::from(did)] = Some(repo);
    Some((event, repo))
}

fn write(protocol: &Protocol, rows: &mut [Row; DIDS], landed: &Landed) {
    let row = &mut rows[usize::from(landed.event.did())];
    if !protocol.has(Step::Timestamps) || row.at <= Some(landed.offset) {
        row.repo = landed.repo;
        row.at = Some(landed.offset);
    }
}

/// Whether an owner before us has settled it, by the records that are left of them.
fn was_settled(protocol: &Protocol, validator: &Validator, position: Offset, raw: Raw) -> bool {
    if !protocol.has(Step::SettledPositions) {
        return false;
    }
    // Commands of an account are carried out in order.
    let is_later_command = |kept: &Landed| match (raw, kept.event) {
        (Raw::Command { did, .. }, Event::Command { did: of, .. }) => of == did && kept.position > position,
        (Raw::Command { .. }, Event::Frame { .. }) | (Raw::Frame { .. }, _) => false,
    };
    let by_order = protocol.has(Step::CommandOrder);
    validator.kept.iter().any(|kept| kept.position == position || (by_order && is_later_command(kept)))
}

/// What may be committed now.
fn to_commit(protocol: &Protocol, validator: &Validator) -> Committed {
    let position = covered(protocol, validator);
    let first_kept = validator.kept.first().filter(|_| protocol.has(Step::HoldBack));
    let (mut repair, claim) = match first_kept {
        Some(kept) => (kept.offset, kept.claim),
        None => (validator.expected, validator.claim),
    };
    if !protocol.has(Step::RowsBeforeCommit) {
        repair = validator.landed.back().map_or(repair, |landed| landed.offset + 1);
    }
    Committed { position, repair, claim }
}

/// The position before which all is settled.
fn covered(protocol: &Protocol, validator: &Validator) -> Offset {
    let parked = validator.parked.iter().filter(|_| protocol.has(Step::CoverInOrder));
    let landed = validator.landed.iter().filter(|_| protocol.has(Step::RowsBeforeCommit));
    let open = parked.copied().chain(landed.map(|landed| landed.position));
    open.min().unwrap_or(validator.next)
}
