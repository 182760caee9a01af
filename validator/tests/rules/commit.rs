//! `#commit`.

use std::collections::BTreeSet;

use atproto::{
    cid::Cid,
    commit,
    crypto::{Curve, SigningKey},
    event::Action,
    mst::{EMPTY, Entry, Node},
    syntax::{Did, HostName, Tid},
};
use storage::repos::{AccountStatus, LocalStatus};
use validator::verdict::{Accept, Reason, Verdict};

use crate::world::{Commit, NOW_MICROS, Step, World, assert_refused, record, rev, with_high_s};

type Spoil = fn(&mut Commit, &mut World);

/// Every way to spoil a commit, by the reason it is refused for.
const SPOILT: &[(&str, Reason, Spoil)] = &[
    ("no key", Reason::NoSigningKey, |_, world| world.identity.signing_key = None),
    ("no host", Reason::NoPds, |_, world| world.identity.pds = None),
    ("another host", Reason::WrongHost, |_, world| world.identity.pds = HostName::parse("other.example").ok()),
    ("deactivated", Reason::AccountInactive, |_, world| {
        world.state_mut().upstream = AccountStatus::Deactivated;
    }),
    ("taken down by us", Reason::AccountInactive, |_, world| world.state_mut().local = LocalStatus::TakenDown),
    ("blocks over 2 MB", Reason::BlocksTooLarge, |commit, _| {
        commit.extra = (0..40).map(|n| record(&format!("{n:050000}"))).collect();
    }),
    ("201 ops", Reason::TooManyOps, |commit, _| {
        let op = commit.ops[0].clone();
        commit.ops.extend((0..200).map(|n| Step { path: format!("a.b.c/{n}"), ..op.clone() }));
    }),
    ("a record over 1 MiB", Reason::RecordTooLarge, |commit, world| {
        *commit = world.commit_of(&[("a.b.c/d", Some(&"x".repeat(1_048_569)))]);
    }),
    ("tooBig", Reason::TooBig, |commit, _| commit.too_big = true),
    ("rebase", Reason::Rebase, |commit, _| commit.rebase = true),
    ("a rev that is not a TID", Reason::BadRev, |commit, _| commit.rev = "2026-09-21".to_owned()),
    ("a rev before the last", Reason::StaleRev, |commit, world| {
        commit.set_rev(world.head().rev.micros() - 1, world);
    }),
    ("the last rev on another commit", Reason::StaleRev, |commit, world| {
        commit.rev = world.head().rev.to_string();
        commit.sign(world);
    }),
    ("a rev in the future", Reason::FutureRev, |commit, world| {
        commit.set_rev(NOW_MICROS + 301_000_000, world);
    }),
    ("a CAR cut short", Reason::BadCar, |commit, _| commit.spoil_car = |car| car[..car.len() - 1].to_vec()),
    ("no CAR", Reason::BadCar, |commit, _| commit.spoil_car = |_| Vec::new()),
    ("a block that hashes to another CID", Reason::WrongBlockHash, |commit, _| commit.records[0].1[4] ^= 1),
    ("an extra block that hashes to another CID", Reason::WrongBlockHash, |commit, _| {
        commit.extra.push((Cid::of_cbor(b"one"), b"another".to_vec()));
    }),
    ("a commit field that is not the CAR's root", Reason::RootMismatch, |commit, _| {
        commit.commit = commit.data;
    }),
    ("a CAR's root that is not the commit", Reason::RootMismatch, |commit, _| commit.root = commit.data),
    ("a root that is not in the CAR", Reason::RootMismatch, |commit, _| {
        commit.root = Cid::of_cbor(b"elsewhere");
        commit.commit = commit.root;
    }),
    ("a root that is a record", Reason::BadCommit, |commit, _| {
        let block = commit.records[0].1.clone();
        commit.put_commit_block(block);
    }),
    ("version 2", Reason::BadCommit, |commit, _| {
        let mut block = commit.commit_block.clone();
        *block.last_mut().unwrap() = 2;
        commit.put_commit_block(block);
    }),
    ("no prev key", Reason::BadCommit, |commit, _| {
        let prev = b"\x64prev\xf6";
        let at = commit.commit_block.windows(prev.len()).position(|window| window == prev).unwrap();
        let mut block = commit.commit_block.clone();
        block.drain(at..at + prev.len());
        block[0] -= 1;
        commit.put_commit_block(block);
    }),
    ("another DID in the commit", Reason::CommitDidMismatch, |commit, world| {
        let other = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let rev = Tid::parse(&commit.rev).unwrap();
        commit.put_commit_block(commit::sign(&other, rev, commit.data, &world.key));
    }),
    ("another rev in the commit", Reason::CommitRevMismatch, |commit, _| {
        commit.rev = rev(NOW_MICROS - 59_000_000).to_string();
    }),
    ("a high S", Reason::HighS, |commit, world| {
        let block = with_high_s(&commit.commit_block, world.key.public_key().curve());
        commit.put_commit_block(block);
    }),
    ("another key of the curve", Reason::BadSignature, |commit, world| {
        let key = SigningKey::from_bytes(world.key.public_key().curve(), &[8; 32]).unwrap();
        commit.sign(&World { key, ..world.clone() });
    }),
    ("a key of the other curve", Reason::BadSignature, |_, world| {
        let curve = match world.key.public_key().curve() {
            Curve::K256 => Curve::P256,
            Curve::P256 => Curve::K256,
        };
        world.identity.signing_key = Some(SigningKey::from_bytes(curve, &[9; 32]).unwrap().public_key());
    }),
    ("a signature of zeros", Reason::BadSignature, |commit, _| {
        let at = commit.commit_block.windows(6).position(|window| window == b"\x63sig\x58\x40").unwrap() + 6;
        let mut block = commit.commit_block.clone();
        block[at..at + 64].fill(0);
        commit.put_commit_block(block);
    }),
    ("signed bytes that changed", Reason::BadSignature, |commit, _| {
        let data = commit.data.to_bytes();
        let at = commit.commit_block.windows(36).position(|window| window == data).unwrap();
        let mut block = commit.commit_block.clone();
        block[at + 20] ^= 1;
        commit.put_commit_block(block);
    }),
    ("a path without a record key", Reason::BadPath, |commit, _| commit.ops[0].path = "app.bsky.feed.post".into()),
    ("a path of three parts", Reason::BadPath, |commit, _| commit.ops[0].path.push_str("/x")),
    ("a path with a space", Reason::BadPath, |commit, _| commit.ops[0].path.push(' ')),
    ("a collection that is no NSID", Reason::BadPath, |commit, _| commit.ops[0].path = "post/3zz".into()),
    ("a record key of one dot", Reason::BadPath, |commit, _| commit.ops[0].path = "app.bsky.feed.post/.".into()),
    ("a create without cid", Reason::BadOp, |commit, _| step(commit, Action::Create).cid = None),
    ("a create with prev", Reason::BadOp, |commit, _| {
        step(commit, Action::Create).prev = Some(Cid::of_cbor(b"prev"));
    }),
    ("an update without cid", Reason::BadOp, |commit, _| step(commit, Action::Update).cid = None),
    ("an update without prev", Reason::BadOp, |commit, _| step(commit, Action::Update).prev = None),
    ("a delete with cid", Reason::BadOp, |commit, _| {
        let op = step(commit, Action::Delete);
        op.cid = op.prev;
    }),
    ("a delete without prev", Reason::BadOp, |commit, _| step(commit, Action::Delete).prev = None),
    ("one key created twice", Reason::BadOp, |commit, _| commit.ops.push(commit.ops[0].clone())),
    ("one key deleted twice", Reason::BadOp, |commit, _| {
        let op = step(commit, Action::Delete).clone();
        commit.ops.push(op);
    }),
    ("a deleted key updated", Reason::BadOp, |commit, _| {
        let mut op = step(commit, Action::Delete).clone();
        op.action = Action::Update;
        op.cid = commit.ops[0].cid;
        commit.ops.push(op);
    }),
    ("a missing record", Reason::MissingRecord, |commit, _| drop(commit.records.remove(0))),
    ("a record of noise", Reason::BadRecord, |commit, world| *commit = with_record(world, vec![0xff; 40])),
    ("a record that is no map", Reason::BadRecord, |commit, world| *commit = with_record(world, vec![0x80])),
    ("a record cut short", Reason::BadRecord, |commit, world| *commit = with_record(world, b"\xa1\x61a\x62b".to_vec())),
    ("a record and more", Reason::BadRecord, |commit, world| *commit = with_record(world, vec![0xa0, 0xa0])),
    ("keys out of order", Reason::BadRecord, |commit, world| {
        *commit = with_record(world, b"\xa2\x61b\x01\x61a\x01".to_vec());
    }),
    ("a record of 33 levels", Reason::BadRecord, |commit, world| *commit = with_record(world, nested(33))),
    ("a record of a million levels", Reason::BadRecord, |commit, world| {
        *commit = with_record(world, nested(1_000_000))
    }),
    ("a bad record behind a good one, on one path", Reason::BadRecord, |commit, world| {
        let writes = vec![("a.b.c/d", Some(record("x").1)), ("a.b.c/d", Some(vec![0xff]))];
        *commit = world.commit_of_blocks(writes);
    }),
    ("a missing root of the tree", Reason::MissingMstBlock, |commit, _| {
        commit.nodes.retain(|(cid, _)| *cid != commit.data);
    }),
    ("only the root of the tree", Reason::MissingMstBlock, |commit, _| {
        commit.nodes.retain(|(cid, _)| *cid == commit.data);
    }),
    ("a tree that is a record", Reason::BadMst, |commit, world| {
        commit.data = commit.records[0].0;
        commit.sign(world);
    }),
    ("a tree with a prefix that lies", Reason::BadMst, |commit, world| {
        let value = commit.data;
        let node = Node { left: None, entries: vec![Entry { prefix_len: 1, suffix: b"a.b.c/d", value, right: None }] };
        commit.data = Cid::of_cbor(&node.encode());
        commit.nodes.push((commit.data, node.encode()));
        commit.sign(world);
    }),
    ("a created record that the tree has not", Reason::OpMismatch, |commit, _| {
        step(commit, Action::Create).path.push('2');
    }),
    ("a created record that is another in the tree", Reason::OpMismatch, |commit, _| {
        let other = commit.records[1].0;
        step(commit, Action::Create).cid = Some(other);
    }),
    ("a deleted record that is still in the tree", Reason::OpMismatch, |commit, world| {
        let path = world.path(11);
        let prev = Some(commit.records[0].0);
        commit.ops.retain(|op| op.path != path);
        commit.ops.push(Step { action: Action::Delete, path, cid: None, prev });
    }),
    ("a later step with a prev from nowhere", Reason::OpMismatch, |commit, _| {
        let mut op = step(commit, Action::Create).clone();
        op.action = Action::Update;
        op.prev = Some(Cid::of_cbor(b"nowhere"));
        commit.ops.push(op);
    }),
    ("no prevData in a repo with a past", Reason::PrevDataMismatch, |commit, _| commit.prev_data = None),
    ("another prevData", Reason::PrevDataMismatch, |commit, _| commit.prev_data = Some(EMPTY)),
    ("another prevData of an unknown repo", Reason::PrevDataMismatch, |commit, world| {
        world.state = None;
        commit.prev_data = Some(EMPTY);
    }),
    ("an op left out", Reason::PrevDataMismatch, |commit, _| drop(commit.ops.remove(0))),
    ("an update called a create", Reason::PrevDataMismatch, |commit, _| {
        let op = step(commit, Action::Update);
        op.action = Action::Create;
        op.prev = None;
    }),
    ("another prev of an update", Reason::PrevDataMismatch, |commit, _| {
        step(commit, Action::Update).prev = Some(Cid::of_cbor(b"prev"));
    }),
    ("another prev of a delete", Reason::PrevDataMismatch, |commit, _| {
        step(commit, Action::Delete).prev = Some(Cid::of_cbor(b"prev"));
    }),
    ("an op added", Reason::PrevDataMismatch, |commit, world| {
        let path = format!("{}x", world.path(20));
        commit.ops.push(Step { action: Action::Delete, path, cid: None, prev: Some(EMPTY) });
    }),
];

/// One record, in a block of its own.
fn with_record(world: &World, block: Vec<u8>) -> Commit {
    world.commit_of_blocks(vec![("a.b.c/d", Some(block))])
}

/// A map with arrays inside each other, so many levels in all.
fn nested(levels: usize) -> Vec<u8> {
    [&b"\xa1\x61a"[..], &vec![0x81; levels - 1], &[0x00]].concat()
}

fn step(commit: &mut Commit, action: Action) -> &mut Step {
    commit.ops.iter_mut().find(|op| op.action == action).unwrap()
}

#[test]
fn each_fault_is_refused_for_its_reason() {
    for curve in [Curve::K256, Curve::P256] {
        let good = World::new(curve);
        for (what, reason, spoil) in SPOILT {
            let (mut commit, mut world) = (good.commit(), good.clone());
            spoil(&mut commit, &mut world);
            assert_refused(&world.judge_commit(&commit), *reason, what);
        }
        let commit = good.commit();
        let state = good.state_with(commit.head());
        assert_eq!(good.judge_commit(&commit), Verdict::Accept(Accept { state, discontinuous: false }));
    }
}

#[test]
fn the_faults_name_every_reason() {
    let named: BTreeSet<Reason> = SPOILT.iter().map(|(_, reason, _)| *reason).collect();
    let judged_elsewhere = [
        Reason::FrameTooLarge,
        Reason::BadHeader,
        Reason::BadPayload,
        Reason::SeqNotRising,
        Reason::IdentityNotFound,
        Reason::IdentityUnanswered,
        Reason::ExtraBlocks,
        Reason::SyncRollback,
        Reason::AccountThrottled,
    ];
    for reason in Reason::ALL {
        assert_ne!(named.contains(&reason), judged_elsewhere.contains(&reason), "{reason}");
    }
}

/// With two faults at once, the reason is that of the row that comes first.
#[test]
fn the_first_row_gives_the_reason() {
    // Faults that do not touch the same parts of a commit.
    let faults: &[(Reason, Spoil)] = &[
        (Reason::WrongHost, |_, world| world.identity.pds = HostName::parse("other.example").ok()),
        (Reason::AccountInactive, |_, world| world.state_mut().local = LocalStatus::TakenDown),
        (Reason::TooBig, |commit, _| commit.too_big = true),
        (Reason::BadRev, |commit, _| commit.rev.push('x')),
        (Reason::BadCar, |commit, _| commit.spoil_car = |car| car[..car.len() - 1].to_vec()),
        (Reason::RootMismatch, |commit, _| commit.commit = EMPTY),
        (Reason::BadSignature, |_, world| {
            let curve = world.key.public_key().curve();
            world.identity.signing_key = Some(SigningKey::from_bytes(curve, &[8; 32]).unwrap().public_key());
        }),
        (Reason::BadPath, |commit, _| commit.ops[0].path.push('/')),
        (Reason::BadOp, |commit, _| step(commit, Action::Update).prev = None),
        (Reason::MissingRecord, |commit, _| drop(commit.records.pop())),
        (Reason::MissingMstBlock, |commit, _| commit.nodes.clear()),
        (Reason::PrevDataMismatch, |commit, _| commit.prev_data = Some(EMPTY)),
    ];
    let good = World::new(Curve::K256);
    for (at, (first, spoil)) in faults.iter().enumerate() {
        for (_, spoil_more) in &faults[at..] {
            let (mut commit, mut world) = (good.commit(), good.clone());
            spoil_more(&mut commit, &mut world);
            spoil(&mut commit, &mut world);
            assert_refused(&world.judge_commit(&commit), *first, "two faults");
        }
    }
}

#[test]
fn a_stale_identity_or_status_gets_a_second_look() {
    let stale_identity = [Reason::NoSigningKey, Reason::NoPds, Reason::WrongHost, Reason::BadSignature];
    for (what, reason, spoil) in SPOILT {
        let good = World { identity_is_fresh: false, status_is_fresh: false, ..World::new(Curve::P256) };
        let (mut commit, mut world) = (good.commit(), good);
        spoil(&mut commit, &mut world);
        let verdict = world.judge_commit(&commit);
        assert_eq!(verdict.reason(), Some(*reason), "{what}");
        let is_as_expected = match reason {
            Reason::AccountInactive if world.state_mut().local == LocalStatus::None => {
                matches!(verdict, Verdict::AskStatus(_))
            }
            // No key makes a signature of zeros good.
            Reason::BadSignature if *what == "a signature of zeros" => matches!(verdict, Verdict::Refuse(_)),
            reason if stale_identity.contains(reason) => matches!(verdict, Verdict::RefreshIdentity(_)),
            _ => matches!(verdict, Verdict::Refuse(_)),
        };
        assert!(is_as_expected, "{what}: {verdict:?}");
    }
}

type Legal = fn(&World) -> Commit;

/// Legal, and easy to refuse by mistake.
const LEGAL: &[(&str, Legal)] = &[
    ("no ops", |world| world.commit_of(&[])),
    ("no ops, and only the commit block", |world| {
        let commit = world.commit_of(&[]);
        Commit { nodes: Vec::new(), ..commit }
    }),
    ("blocks that nothing refers to", |world| {
        let commit = world.commit();
        Commit { extra: vec![record("x"), (Cid::of_cbor(b"\xff"), b"\xff".to_vec())], ..commit }
    }),
    ("a record of 32 levels", |world| with_record(world, nested(32))),
    ("a float, which the data model has not", |world| {
        with_record(world, b"\xa1\x61a\xfb\x3f\xf8\0\0\0\0\0\0".to_vec())
    }),
    ("a link of another codec and hash", |world| {
        // dag-pb, BLAKE3 cut to four bytes.
        with_record(world, b"\xa1\x61a\xd8\x2a\x49\0\x01\x70\x1e\x04abcd".to_vec())
    }),
    ("an empty record", |world| with_record(world, vec![0xa0])),
    ("a block that is no record, which came and went", |world| {
        world.commit_of_blocks(vec![("a.b.c/flip", Some(vec![0xff])), ("a.b.c/flip", None)])
    }),
    ("one key created and deleted, without prev", |world| {
        world.commit_of(&[("a.b.c/flip", Some("flop")), ("a.b.c/flip", None)])
    }),
    ("and without the record that came and went", |world| {
        let commit = world.commit_of(&[("a.b.c/flip", Some("flop")), ("a.b.c/flip", None)]);
        Commit { records: Vec::new(), ..commit }
    }),
    ("one key updated and deleted", |world| world.commit_of(&[(&world.path(3), Some("flop")), (&world.path(3), None)])),
    ("one key deleted and created, with the prev from before", |world| {
        let commit = world.commit_of(&[(&world.path(3), None), (&world.path(3), Some("again"))]);
        assert!(commit.ops[1].action == Action::Create && commit.ops[1].prev.is_some());
        commit
    }),
    ("one key updated twice, with the true prev", |world| {
        let mut commit = world.commit_of(&[(&world.path(3), Some("one")), (&world.path(3), Some("two"))]);
        commit.ops[1].prev = commit.ops[0].cid;
        commit
    }),
    ("the same ops in another order", |world| {
        let mut commit = world.commit();
        commit.ops.reverse();
        commit
    }),
    ("200 ops", |world| {
        let paths: Vec<String> = (0..200).map(|n| format!("a.b.c/{n}")).collect();
        let writes: Vec<(&str, Option<&str>)> = paths.iter().map(|path| (path.as_str(), Some("x"))).collect();
        world.commit_of(&writes)
    }),
    ("a record of the largest size", |world| world.commit_of(&[("a.b.c/d", Some(&"x".repeat(1_048_568)))])),
    ("a rev four minutes ahead", |world| {
        let mut commit = world.commit();
        commit.set_rev(NOW_MICROS + 240_000_000, world);
        commit
    }),
    ("the whole repo emptied", |world| {
        let paths: Vec<String> = (0..40).map(|n| world.path(n)).collect();
        let writes: Vec<(&str, Option<&str>)> = paths.iter().map(|path| (path.as_str(), None)).collect();
        let commit = world.commit_of(&writes);
        assert_eq!(commit.data, EMPTY);
        commit
    }),
];

#[test]
fn legal_commits_pass() {
    for (what, make) in LEGAL {
        let world = World::new(Curve::K256);
        let commit = make(&world);
        let state = world.state_with(commit.head());
        let expected = Verdict::Accept(Accept { state, discontinuous: false });
        assert_eq!(world.judge_commit(&commit), expected, "{what}");
    }
}

#[test]
fn a_first_commit_stands_alone() {
    let mut world = World::new(Curve::K256);
    let commit = world.commit();
    let with_identity_only = |world: &mut World| world.state_mut().head = None;
    let unknown = |world: &mut World| world.state = None;
    for forget in [unknown, with_identity_only] {
        forget(&mut world);
        for (since, prev_data) in [(None, None), (commit.since.clone(), commit.prev_data), (None, commit.prev_data)] {
            let commit = Commit { since, prev_data, ..commit.clone() };
            let state = world.state_with(commit.head());
            assert_eq!(world.judge_commit(&commit), Verdict::Accept(Accept { state, discontinuous: false }));
        }
        world = World::new(Curve::K256);
    }
}

#[test]
fn a_gap_is_passed_on_and_said() {
    let world = World::new(Curve::K256);
    let commit = world.commit();
    let mut elsewhere = world.clone();
    elsewhere.state_mut().head.as_mut().unwrap().data = EMPTY;
    let mut since_null = commit.clone();
    since_null.since = None;
    let mut since_junk = commit.clone();
    since_junk.since = Some("junk".to_owned());
    for (world, commit) in [(&elsewhere, &commit), (&world, &since_null), (&world, &since_junk)] {
        let state = world.state_with(commit.head());
        assert_eq!(world.judge_commit(commit), Verdict::Accept(Accept { state, discontinuous: true }));
    }
}

#[test]
fn what_was_judged_is_not_judged_again() {
    let good = World::new(Curve::K256);
    let commit = good.commit();

    let mut sent_again = good.clone();
    sent_again.upstream_seq = 100;
    assert_eq!(sent_again.judge_commit(&commit), Verdict::Repeat);
    // Whatever else is wrong with it now.
    sent_again.identity.signing_key = None;
    assert_eq!(sent_again.judge_commit(&commit), Verdict::Repeat);

    let mut with_a_new_seq = good.clone();
    with_a_new_seq.state = Some(good.state_with(commit.head()));
    with_a_new_seq.upstream_seq = 102;
    assert_eq!(with_a_new_seq.judge_commit(&commit), Verdict::Repeat);

    // The host began its stream anew: seqs tell nothing, and old revs are no fault.
    let mut anew = good.clone();
    anew.host_epoch = 4;
    anew.upstream_seq = 1;
    let state = anew.state_with(commit.head());
    assert_eq!(anew.judge_commit(&commit), Verdict::Accept(Accept { state, discontinuous: false }));
    let mut old = commit.clone();
    old.set_rev(good.head().rev.micros() - 1, &good);
    assert_eq!(anew.judge_commit(&old), Verdict::Repeat);
}

#[test]
fn a_new_host_takes_over_with_its_first_event() {
    let mut world = World::new(Curve::P256);
    world.state_mut().host = HostName::parse("old.example").unwrap();
    world.state_mut().host_epoch = 900;
    world.host_epoch = 1;
    world.upstream_seq = 5;
    let commit = world.commit();
    let state = world.state_with(commit.head());
    assert_eq!(world.judge_commit(&commit), Verdict::Accept(Accept { state, discontinuous: false }));
}
