use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::{
    Change, Event, Protocol, Raw, State, crawler,
    state::{Did, LanePhase, LeadPhase, Record, ends, offset, valid},
};

/// What must hold in every state, and what must be seen in some: else the bounds are too small to show anything.
pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always("an event comes once, and an account's events come in order", in_order),
        Property::always("seqs are dense", dense),
        Property::always("rows are never ahead of the log", rows_are_of_the_log),
        Property::always("what is committed is in the rows", committed_is_in_the_rows),
        Property::always("a host's cursor is never ahead of raw", crawler::cursor_is_true),
        Property::always("when all is quiet, nothing is lost", nothing_is_lost),
        Property::always("when all is quiet, rows are equal to the log", rows_are_equal_to_the_log),
        Property::sometimes("all is quiet", is_quiet),
    ];
    if protocol.bounds.validators > 1 {
        all.push(Property::sometimes("a zombie's record comes after another's claim", zombie_writes));
        all.push(Property::sometimes("a validator sees a hole", |_, state: &State| {
            state.validators.iter().any(|validator| validator.phase == LanePhase::Fenced)
        }));
        all.push(Property::sometimes("a new owner has rows to repair", |_, state: &State| {
            let is_claimed = state.validators.iter().any(|validator| validator.phase == LanePhase::Claimed);
            is_claimed && !rows_are_those_of_the_log(state)
        }));
    }
    if protocol.bounds.sequencers > 1 {
        all.push(Property::sometimes("a sequencer is fenced", |_, state: &State| {
            state.sequencers.iter().any(|sequencer| sequencer.phase == LeadPhase::Fenced)
        }));
    }
    all
}

/// What subscribers get; without a sequencer, what it would take.
fn stream(protocol: &Protocol, state: &State) -> Vec<Event> {
    if protocol.bounds.sequencers > 0 {
        state.firehose.iter().map(|published| published.event).collect()
    } else {
        valid(&state.verified).map(|landed| landed.event).collect()
    }
}

fn in_order(protocol: &Protocol, state: &State) -> bool {
    let (mut frames, mut commands) = (BTreeMap::new(), BTreeMap::new());
    stream(protocol, state).into_iter().all(|event| match event {
        Event::Frame { did, id } => frames.insert(did, id).is_none_or(|last| last < id),
        Event::Command { did, position, .. } => commands.insert(did, position).is_none_or(|last| last < position),
    })
}

fn dense(_: &Protocol, state: &State) -> bool {
    state.firehose.iter().zip(1..).all(|(published, seq)| published.seq == seq)
}

fn rows_are_of_the_log(_: &Protocol, state: &State) -> bool {
    state.rows.iter().zip(0..).all(|(row, did): (_, Did)| {
        row.at.is_none_or(|at| {
            valid(&state.verified)
                .any(|landed| landed.offset == at && landed.event.did() == did && landed.repo == row.repo)
        })
    })
}

fn committed_is_in_the_rows(_: &Protocol, state: &State) -> bool {
    let committed = state.committed;
    let rows_are_in = valid(&state.verified)
        .take_while(|landed| landed.offset < committed.repair)
        .all(|landed| state.rows[usize::from(landed.event.did())].at >= Some(landed.offset));
    let frames_are_settled = state.raw.iter().zip(0..committed.position).all(|(raw, _)| match *raw {
        Raw::Frame { did, epoch, seq, .. } => state.rows[usize::from(did)].repo.last >= (epoch, seq),
        Raw::Command { .. } => true,
    });
    rows_are_in && frames_are_settled
}

fn nothing_is_lost(protocol: &Protocol, state: &State) -> bool {
    if !is_quiet(protocol, state) || new_count_was_missed(protocol, state) {
        return true;
    }
    let out: BTreeSet<Event> = stream(protocol, state).into_iter().collect();
    // What a host made before it began anew may be gone before anybody reads it.
    let of_the_host = if protocol.bounds.reset_after.is_none() { &protocol.bounds.host[..] } else { &[] };
    let frames_of_the_host = of_the_host.iter().zip(1..).map(|(did, id)| Event::Frame { did: *did, id });
    let other = if protocol.bounds.sequencers > 0 { &protocol.bounds.other_lane[..] } else { &[] };
    frames_of_the_host
        .chain(judged_once(&state.raw))
        .chain(valid(other).map(|landed| landed.event))
        .all(|event| out.contains(&event))
}

/// The host began anew and was past the cursor before anybody came back: nobody can tell, with one process or with many.
fn new_count_was_missed(protocol: &Protocol, state: &State) -> bool {
    let is_noticed = state.raw.iter().any(|raw| matches!(raw, Raw::Frame { epoch: 2.., .. }));
    protocol.bounds.reset_after.is_some() && !is_noticed
}

/// What must come out of `raw`: each event, and each command that changes something where commands come in order.
fn judged_once(raw: &[Raw]) -> impl Iterator<Item = Event> {
    let mut down: BTreeMap<Did, bool> = BTreeMap::new();
    raw.iter().enumerate().filter_map(move |(at, raw)| match *raw {
        Raw::Frame { did, id, .. } => Some(Event::Frame { did, id }),
        Raw::Command { did, change } => {
            let is_takedown = change == Change::Takedown;
            let was_down = down.insert(did, is_takedown).unwrap_or(false);
            (was_down != is_takedown).then_some(Event::Command { did, position: offset(at), change })
        }
    })
}

fn rows_are_equal_to_the_log(protocol: &Protocol, state: &State) -> bool {
    !is_quiet(protocol, state) || rows_are_those_of_the_log(state)
}

fn rows_are_those_of_the_log(state: &State) -> bool {
    ends(&state.verified).into_iter().all(|(did, (offset, repo))| {
        let row = &state.rows[usize::from(did)];
        row.at == Some(offset) && row.repo == repo
    })
}

/// Nothing is left to do but what may go wrong.
fn is_quiet(protocol: &Protocol, state: &State) -> bool {
    let mut actions = Vec::new();
    protocol.actions(state, &mut actions);
    actions.iter().all(|action| action.is_fault())
}

fn zombie_writes(_: &Protocol, state: &State) -> bool {
    let events = state.verified.iter().filter(|record| matches!(record, Record::Event { .. })).count();
    valid(&state.verified).count() < events
}
