//! `#sync`.

use atproto::{
    cid::Cid,
    commit,
    crypto::{Curve, SigningKey},
    syntax::{Did, HostName, Tid},
};
use storage::repos::{AccountStatus, Head};
use validator::verdict::{Accept, Reason, Verdict};

use crate::world::{NOW_MICROS, Sync, World, assert_refused, record, rev, with_high_s};

type Spoil = fn(&mut Sync, &mut World);

fn put(sync: &mut Sync, block: Vec<u8>) {
    sync.root = Cid::of_cbor(&block);
    sync.blocks = vec![(sync.root, block)];
}

fn sign(sync: &mut Sync, rev: Tid, world: &World) {
    sync.rev = rev.to_string();
    put(sync, commit::sign(&world.identity.did, rev, world.head().data, &world.key));
}

const SPOILT: &[(&str, Reason, Spoil)] = &[
    ("no key", Reason::NoSigningKey, |_, world| world.identity.signing_key = None),
    ("no host", Reason::NoPds, |_, world| world.identity.pds = None),
    ("another host", Reason::WrongHost, |_, world| world.identity.pds = HostName::parse("other.example").ok()),
    ("deactivated", Reason::AccountInactive, |_, world| {
        world.state_mut().upstream = AccountStatus::Deactivated;
    }),
    ("blocks over 10,000 bytes", Reason::BlocksTooLarge, |sync, _| sync.blocks.push(record(&"x".repeat(10_000)))),
    ("a rev that is not a TID", Reason::BadRev, |sync, _| sync.rev.clear()),
    ("a rev in the future", Reason::FutureRev, |sync, world| sign(sync, rev(NOW_MICROS + 301_000_000), world)),
    ("a CAR cut short", Reason::BadCar, |sync, _| sync.spoil_car = |car| car[..car.len() - 1].to_vec()),
    ("a block that hashes to another CID", Reason::WrongBlockHash, |sync, _| sync.blocks[0].1[9] ^= 1),
    ("extra blocks", Reason::ExtraBlocks, |sync, _| sync.blocks.push(record("x"))),
    ("a root that is not in the CAR", Reason::RootMismatch, |sync, _| sync.root = Cid::of_cbor(b"elsewhere")),
    ("no block at all", Reason::RootMismatch, |sync, _| sync.blocks.clear()),
    ("a root that is a record", Reason::BadCommit, |sync, _| put(sync, record("x").1)),
    ("another DID in the commit", Reason::CommitDidMismatch, |sync, world| {
        let other = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let rev = Tid::parse(&sync.rev).unwrap();
        put(sync, commit::sign(&other, rev, world.head().data, &world.key));
    }),
    ("a rev in the future in the commit alone", Reason::FutureRev, |sync, world| {
        let rev_of_event = sync.rev.clone();
        sign(sync, rev(NOW_MICROS + 301_000_000), world);
        sync.rev = rev_of_event;
    }),
    ("a high S", Reason::HighS, |sync, world| {
        let block = with_high_s(&sync.blocks[0].1, world.key.public_key().curve());
        put(sync, block);
    }),
    ("another key", Reason::BadSignature, |sync, world| {
        let key = SigningKey::from_bytes(world.key.public_key().curve(), &[8; 32]).unwrap();
        sign(sync, Tid::parse(&sync.rev).unwrap(), &World { key, ..world.clone() });
    }),
    ("a rev before the last", Reason::SyncRollback, |sync, world| {
        sign(sync, rev(world.head().rev.micros() - 1), world);
    }),
];

#[test]
fn each_fault_of_a_sync_is_refused_for_its_reason() {
    for curve in [Curve::K256, Curve::P256] {
        let good = World::new(curve);
        for (what, reason, spoil) in SPOILT {
            let (mut sync, mut world) = (good.sync(), good.clone());
            spoil(&mut sync, &mut world);
            assert_refused(&world.judge_sync(&sync), *reason, what);
        }
    }
}

#[test]
fn a_sync_takes_the_state() {
    let mut world = World::new(Curve::K256);
    let sync = world.sync();
    let head = Head { rev: Tid::parse(&sync.rev).unwrap(), commit: sync.root, data: world.head().data };
    let accepted = |world: &World| Verdict::Accept(Accept { state: world.state_with(head), discontinuous: false });
    assert_eq!(world.judge_sync(&sync), accepted(&world));

    // Hosts announce the same state again after an account was made or came back.
    world.state = Some(world.state_with(head));
    assert_eq!(world.judge_sync(&sync), Verdict::Repeat, "with the same seq");
    world.upstream_seq += 1;
    assert_eq!(world.judge_sync(&sync), accepted(&world), "with a new seq");

    world.state = None;
    assert_eq!(world.judge_sync(&sync), accepted(&world), "of an unknown repo");
}

#[test]
fn an_old_sync_of_a_stream_begun_anew_is_a_repeat() {
    let mut world = World::new(Curve::K256);
    let mut sync = world.sync();
    sign(&mut sync, rev(world.head().rev.micros() - 1), &world);
    world.host_epoch = 4;
    assert_eq!(world.judge_sync(&sync), Verdict::Repeat);
}

/// The new host announces the last commit, signed with the key of the old one, under a rev that no commit has.
#[test]
fn a_repo_that_has_moved_is_announced_with_its_last_commit() {
    let mut world = World::new(Curve::K256);
    let mut sync = world.sync();
    let head = Head { rev: Tid::parse(&sync.rev).unwrap(), commit: sync.root, data: world.head().data };
    world.state = Some(world.state_with(head));

    world.host = HostName::parse("new.example").unwrap();
    world.identity.pds = Some(world.host.clone());
    world.identity.signing_key = Some(SigningKey::from_bytes(Curve::P256, &[7; 32]).unwrap().public_key());
    sync.rev = rev(NOW_MICROS - 50_000_000).to_string();
    let state = world.state_with(head);
    assert_eq!(world.judge_sync(&sync), Verdict::Accept(Accept { state, discontinuous: false }));

    // Any other commit needs the new key, even one that says the same.
    world.state_mut().head.as_mut().unwrap().commit = Cid::of_cbor(b"another");
    assert_refused(&world.judge_sync(&sync), Reason::BadSignature, "the new key is not asked");
}
