//! What accounts do besides writing, a directory that is down, and what must never pass.

use std::{collections::HashSet, time::Duration};

use atproto::{
    event::{self, Kind as EventKind, Routed},
    frame,
};
use loadtest::{
    judge::{Digest, Expect, Extent, Judge},
    network::{Action, Config, Fault, Kind, Mix, Pace},
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::harness::{LONG, Scene, alone, seed, wait_until};

fn small(seed: u64) -> Config {
    Config { seed, hosts: 3, accounts: 12, pace: Pace::ByHand, mix: Mix::STRICT, remember: true, ..Config::default() }
}

impl Scene {
    /// Waits until all that must pass has passed.
    async fn settle(&self) {
        let truth = self.network.truth();
        let expected: HashSet<Digest> =
            truth.events().iter().filter(|sent| sent.expect == Expect::Pass).map(|sent| sent.digest).collect();
        let arrived = wait_until(LONG, || {
            self.subscriber.look(|reading| {
                let received: HashSet<Digest> = reading.received.iter().map(|received| received.digest).collect();
                expected.is_subset(&received)
            })
        });
        if !arrived.await {
            let report = self.subscriber.look(|reading| Judge::new(truth).reading(&reading.received, Extent::Whole));
            panic!("{report}\n{}", self.relay.config().log_tail(20));
        }
    }

    /// Judges all that the subscriber got.
    async fn close(self) {
        self.settle().await;
        self.subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
        let reading = self.subscriber.stop().await;
        let report = Judge::new(self.network.truth()).reading(&reading.received, Extent::Whole);
        println!("{report}");
        assert!(report.is_clean(), "{report}\n{}", self.relay.config().log_tail(20));
        self.network.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_keys_and_hosts_change_and_nothing_is_lost() {
    let _alone = alone().await;
    let seed = seed();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let scene = Scene::open(small(seed)).await;
    scene.network.announce_all().await.unwrap();
    for _ in 0..60 {
        scene.network.generate(rng.random_range(1..8)).await.unwrap();
        let actions = [
            Action::ChangeHandle,
            Action::RotateKey,
            Action::Migrate,
            Action::Deactivate,
            Action::Sync,
            Action::Identity,
            Action::Multi,
        ];
        let account = rng.random_range(0..12);
        let action = actions[rng.random_range(0..actions.len())];
        // What was signed with the old key, or sent by the old host, is through before the directory forgets them.
        scene.settle().await;
        scene.network.act(account, action).unwrap();
        scene.network.act(account, Action::Create(Kind::Post)).unwrap();
        scene.settle().await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_down_delays_and_loses_nothing() {
    let _alone = alone().await;
    let scene = Scene::open(small(seed())).await;
    // Some accounts are known before it goes down, others are not.
    for account in 0..6 {
        scene.network.act(account, Action::Create(Kind::Post)).unwrap();
    }
    scene.settle().await;
    let requests = scene.network.directory().requests();
    for fault in [Fault::Status(503), Fault::Status(429), Fault::Hang] {
        scene.network.directory().set_fault(Some(fault));
        scene.network.generate(100).await.unwrap();
        assert!(wait_until(LONG, || scene.network.directory().requests() > requests).await, "nobody asks");
    }
    scene.network.directory().set_fault(None);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rules_forbid_does_not_pass_and_stops_nothing_else() {
    let _alone = alone().await;
    let scene = Scene::open(small(seed())).await;
    let network = &scene.network;
    network.announce_all().await.unwrap();
    for round in 0..20 {
        network.generate(10).await.unwrap();
        // Of an account that is a host's own: its last commit, again and spoilt.
        let host = round % network.hosts().len();
        let other = (host + 1) % network.hosts().len();
        let commit = network.frames(host).into_iter().rev().find_map(|frame| match event::route(&frame) {
            Ok(Routed::Event(route)) if route.kind == EventKind::Commit => Some(frame.clone()),
            _ => None,
        });
        let commit = commit.unwrap();
        let Ok(Routed::Event(route)) = event::route(&commit) else { panic!("not an event") };
        let did = atproto::syntax::Did::parse(route.did).unwrap();
        let with_seq = |frame: &[u8], seq| {
            let mut out = Vec::new();
            frame::write_with_seq(&mut out, frame, route.seq_slot, seq);
            out
        };
        let flipped = {
            let mut flipped = commit.to_vec();
            let at = signature_at(&flipped);
            flipped[at] ^= 1;
            flipped
        };
        network.send_raw(host, &did, EventKind::Commit, Expect::Refuse, |seq, _| with_seq(&flipped, seq));
        network.send_raw(other, &did, EventKind::Commit, Expect::Refuse, |seq, _| with_seq(&flipped, seq));
        network.send_raw(host, &did, EventKind::Commit, Expect::Refuse, |_, _| b"\xffnot cbor".to_vec());
        network.send_raw(host, &did, EventKind::Commit, Expect::Refuse, |_, _| Vec::new());
    }
    network.generate(100).await.unwrap();
    scene.close().await;
}

/// Where the commit's signature is in a frame: behind its key and the head of 64 bytes.
fn signature_at(frame: &[u8]) -> usize {
    let head = b"\x63sig\x58\x40";
    frame.windows(head.len()).position(|window| window == head).unwrap() + head.len()
}
