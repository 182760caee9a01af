//! The whole protocol holds in every state within the bounds, and each step that is left out is missed.

use std::{collections::BTreeSet, time::Instant};

use cluster_model::{Action, Bounds, Change, Event, Faults, Protocol, Raw, Record, Repo, Step};
use stateright::{Checker, HasDiscoveries, Model, UniformChooser};

// === worlds ===

fn frame(did: u8, epoch: u8, seq: u8) -> Raw {
    Raw::Frame { did, epoch, seq, id: 10 * epoch + seq }
}

fn command(change: Change) -> Raw {
    Raw::Command { did: 0, change }
}

/// A lane whose owner is killed, and which is moved while its owner goes on; an event was brought twice.
fn lane() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1), frame(0, 1, 2), frame(0, 1, 2)],
        validators: 2,
        landed_max: 1,
        faults: Faults { crashes: 1, moves: 1, stragglers: 1, ..Faults::default() },
        ..Bounds::default()
    }
}

/// Several are under way at once.
fn in_flight() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1), frame(0, 1, 2)],
        landed_max: 2,
        faults: Faults { moves: 1, stragglers: 1, ..Faults::default() },
        ..lane()
    }
}

/// One of two accounts waits.
fn parking() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1), frame(1, 1, 2), frame(0, 1, 3)],
        faults: Faults { moves: 1, parks: 1, ..Faults::default() },
        ..lane()
    }
}

/// A takedown, another one that changes nothing, and its end, behind an event that waits.
fn commands() -> Bounds {
    Bounds {
        raw: vec![frame(1, 1, 1), command(Change::Takedown), command(Change::Takedown), command(Change::Restore)],
        faults: Faults { moves: 1, parks: 1, ..Faults::default() },
        ..lane()
    }
}

/// The host began anew, and a late crawler brings an event from before.
fn epochs() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1), frame(0, 2, 1), frame(0, 1, 1)],
        faults: Faults { moves: 1, evictions: 1, stragglers: 1, ..Faults::default() },
        ..lane()
    }
}

/// The lane goes to and fro, and who lost it does not hear of it.
fn to_and_fro() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1), frame(0, 1, 2)],
        faults: Faults { moves: 2, blind_claims: 1, ..Faults::default() },
        ..lane()
    }
}

/// Two sequencers, and two lanes: one that was taken over while a zombie wrote, and one that grows.
fn sequencers() -> Bounds {
    let event = |claim, seq| Record::Event {
        claim: Some(claim),
        position: seq,
        event: Event::Frame { did: 7, id: seq },
        repo: Repo { last: (1, seq), down: false },
    };
    let other_lane = vec![Record::Claim, event(0, 1), Record::Claim, event(0, 2), event(2, 2)];
    Bounds {
        raw: vec![frame(0, 1, 1), frame(0, 1, 2)],
        other_lane,
        validators: 1,
        sequencers: 2,
        landed_max: 1,
        faults: Faults { sequencer_crashes: 1, leader_moves: 2, ..Faults::default() },
        ..Bounds::default()
    }
}

/// A lane and the lead are moved, whichever is first.
fn lane_and_lead() -> Bounds {
    Bounds {
        raw: vec![frame(0, 1, 1)],
        validators: 2,
        other_lane: Vec::new(),
        faults: Faults { moves: 1, leader_moves: 1, ..Faults::default() },
        ..sequencers()
    }
}

/// Two crawlers bring a host's events.
fn crawlers() -> Bounds {
    Bounds {
        host: vec![0, 0, 1],
        validators: 1,
        crawlers: 2,
        landed_max: 1,
        faults: Faults { crawler_crashes: 1, crawler_moves: 1, ..Faults::default() },
        ..Bounds::default()
    }
}

/// A host begins anew, and may come past the old cursor before a crawler is back.
fn new_count() -> Bounds {
    Bounds {
        host: vec![0; 5],
        reset_after: Some(2),
        crawlers: 1,
        faults: Faults { crawler_crashes: 1, ..Faults::default() },
        ..crawlers()
    }
}

/// All roles twice, and everything goes wrong more than once: too much to visit every state.
fn everything() -> Bounds {
    Bounds {
        raw: Vec::new(),
        host: vec![0, 1, 0, 1, 1, 0],
        validators: 2,
        sequencers: 2,
        crawlers: 2,
        landed_max: 3,
        faults: Faults {
            crashes: 2,
            moves: 4,
            parks: 2,
            stragglers: 2,
            evictions: 1,
            blind_claims: 2,
            sequencer_crashes: 2,
            leader_moves: 3,
            crawler_crashes: 1,
            crawler_moves: 2,
        },
        ..sequencers()
    }
}

// === the whole protocol ===

fn explore(name: &str, bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, without: None };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, depth {}, {:.1?}", checker.unique_state_count(), checker.max_depth(), began.elapsed());
    checker.assert_properties();
}

#[test]
fn every_state_is_good() {
    explore("lane", lane());
    explore("in flight", in_flight());
    explore("parking", parking());
    explore("commands", commands());
    explore("epochs", epochs());
    explore("to and fro", to_and_fro());
    explore("sequencers", sequencers());
    explore("lane and lead", lane_and_lead());
    explore("crawlers", crawlers());
    explore("new count", new_count());
}

/// Walks at random through what is too large to be explored.
#[test]
fn walks_through_everything_find_nothing() {
    let mut seen = BTreeSet::new();
    for seed in 0..4 {
        let began = Instant::now();
        let protocol = Protocol { bounds: everything(), without: None };
        let walks = protocol.checker().finish_when(HasDiscoveries::AnyFailures).target_state_count(100_000);
        let walks = walks.spawn_simulation(seed, UniformChooser).join();
        println!("seed {seed}: {} steps, depth {}, {:.1?}", walks.state_count(), walks.max_depth(), began.elapsed());
        for (name, path) in walks.discoveries() {
            assert!(!is_failure(walks.model(), name), "{name}: {:?}", path.into_actions());
            seen.insert(name);
        }
    }
    let all = Protocol { bounds: everything(), without: None }.properties();
    let wanted = all.iter().filter(|property| !property.expectation.discovery_is_failure());
    assert_eq!(seen, wanted.map(|property| property.name).collect(), "the walks saw little");
}

// === without a step ===

/// Shows the shortest way to this harm.
fn show(step: Step, bounds: &Bounds, harm: &'static str) {
    let began = Instant::now();
    let (mut found, mut states): (Option<Vec<Action>>, usize) = (None, 0);
    loop {
        let depth_max = found.as_ref().map_or(0, Vec::len);
        let protocol = Protocol { bounds: bounds.clone(), without: Some(step) };
        let checker = protocol.checker().target_max_depth(depth_max);
        let checker = checker.finish_when(HasDiscoveries::AnyOf([harm].into())).spawn_bfs().join();
        states += checker.unique_state_count();
        let Some(path) = checker.discovery(harm) else { break };
        found = Some(path.into_actions());
    }
    let path = found.unwrap_or_else(|| panic!("without {step:?} it holds all the same: {harm}"));
    println!("\nwithout {step:?} ({states} states, {:.1?}), not so: {harm}", began.elapsed());
    for action in path {
        println!("  {action:?}");
    }
}

fn is_failure(protocol: &Protocol, name: &'static str) -> bool {
    protocol.property(name).expectation.discovery_is_failure()
}

const ONCE: &str = "an event comes once, and an account's events come in order";
const LOST: &str = "when all is quiet, nothing is lost";
const DENSE: &str = "seqs are dense";
const ROWS: &str = "rows are never ahead of the log";
const COMMITTED: &str = "what is committed is in the rows";
const CURSOR: &str = "a host's cursor is never ahead of raw";

#[test]
fn each_step_is_needed() {
    let lanes_sequenced = Bounds { sequencers: 1, ..lane() };
    let given_lanes = Bounds { raw: Vec::new(), validators: 0, ..sequencers() };
    let table: [(Step, &Bounds, &[&'static str]); _] = [
        (Step::CursorAfterAck, &crawlers(), &[CURSOR, LOST]),
        (Step::GaplessProducer, &crawlers(), &[LOST]),
        (Step::EpochBeforeFrames, &new_count(), &[LOST]),
        (Step::Claim, &lane(), &[ONCE]),
        (Step::FreshCache, &to_and_fro(), &[ONCE]),
        (Step::Repair, &lane(), &[ONCE]),
        (Step::ClaimAgain, &lane(), &[LOST]),
        (Step::EpochOrder, &epochs(), &[ONCE]),
        (Step::SettledPositions, &commands(), &[ONCE]),
        (Step::CommandOrder, &commands(), &[ONCE]),
        (Step::DeliveryBeforeRows, &lane(), &[ROWS, LOST]),
        (Step::HoleCheck, &lane(), &[ROWS, LOST]),
        (Step::Timestamps, &lane(), &[COMMITTED, ONCE]),
        (Step::RowsBeforeCommit, &lane(), &[COMMITTED, ONCE]),
        (Step::CoverInOrder, &parking(), &[COMMITTED, LOST]),
        (Step::HoldBack, &commands(), &[ONCE]),
        (Step::ClaimInCommit, &lane(), &[ONCE]),
        (Step::ClaimCheck, &lanes_sequenced, &[ONCE]),
        (Step::Fencing, &given_lanes, &[DENSE, ONCE]),
        (Step::FencingBeforeRead, &given_lanes, &[DENSE, ONCE]),
        (Step::StateInTransaction, &given_lanes, &[ONCE]),
        (Step::ClaimInState, &given_lanes, &[LOST]),
        (Step::LeadAgain, &given_lanes, &[LOST]),
    ];
    for (step, bounds, harms) in table {
        for harm in harms {
            show(step, bounds, harm);
        }
    }
}
