//! Lanes from end to end: frames of a simulated network, its directory over sockets, stores in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod court;

use std::{num::NonZeroU32, time::Duration};

use atproto::event::Kind;
use loadtest::{
    judge::{Expect, Extent},
    network::{Action, Config, Fault, Kind as Record, Mix, Network, Pace},
};
use runtime::clock::Clock;
use storage::{
    faults::{Call, Fault as StoreFault, Faults, Gate, Planned},
    lane::LaneCount,
    limits::Rules,
    memory,
    repos::{AccountStatus, LocalStatus},
};
use tokio::time::{sleep, timeout};
use validator::verdict::Reason;

use crate::court::{Court, Frames, LONG, SHORT, eventually, frames_of};

async fn network(mix: Mix) -> Network {
    let config = Config { hosts: 3, accounts: 30, pace: Pace::ByHand, mix, remember: true, ..Config::default() };
    Network::start(config, Clock::system()).await.unwrap()
}

/// All that a network has sent after some hundred events.
async fn traffic(network: &Network, events: u64) -> Frames {
    network.announce_all().await.unwrap();
    network.generate(events).await.unwrap();
    frames_of(network).await
}

fn memory_config() -> memory::Config {
    memory::Config { lane_bytes_max: 64 << 20, window_bytes: 1 << 30, ..memory::Config::default() }
}

/// A network's traffic, and a court that has judged all of it.
async fn judged(mix: Mix, events: u64) -> (Network, Frames, Court) {
    let network = network(mix).await;
    let frames = traffic(&network, events).await;
    let court = Court::open(&network, memory_config());
    court.feed(&frames).await;
    court.covered(frames.len()).await;
    (network, frames, court)
}

/// A network's traffic, and a court whose appends all meet `fault`, with all of it to judge.
async fn facing(fault: StoreFault, events: u64) -> (Network, Frames, Court, Planned) {
    let network = network(Mix::COMMITS).await;
    let frames = traffic(&network, events).await;
    let (stores, faults) = Faults::wrap(memory::open_with(memory_config()));
    let planned = faults.plan(Call::Append, fault).always();
    let court = Court::open_on(&network, stores);
    court.feed(&frames).await;
    (network, frames, court, planned)
}

#[tokio::test]
async fn everything_that_is_right_arrives_once_and_in_order() {
    let (network, _, court) = judged(Mix::STRICT, 1_500).await;
    let report = court.judge(&network, Extent::Whole).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(court.refused(), []);
    assert_eq!(court.stores.intake.bytes_held(), 0);
    assert_eq!(court.stores.repos.count().await.unwrap(), 30);
    assert!(court.metric("mainstem_identity_cache_total") > 0.0);
    assert_eq!(court.metric("mainstem_parked_bytes"), 0.0);
    court.close().await;
}

#[tokio::test]
async fn a_directory_with_moods_delays_and_changes_nothing() {
    let network = network(Mix::STRICT).await;
    let frames = traffic(&network, 600).await;
    let court = Court::open(&network, memory_config());
    let moods = [Fault::Status(503), Fault::Hang, Fault::Status(429), Fault::Delay(Duration::from_millis(30))];
    for (part, fault) in frames.parts(moods.len()).into_iter().zip(moods) {
        network.directory().set_fault(Some(fault));
        court.feed(&part).await;
        sleep(SHORT).await;
    }
    network.directory().set_fault(None);
    court.covered(frames.len()).await;
    let report = court.judge(&network, Extent::Whole).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(court.refused(), []);
    court.close().await;
}

#[tokio::test]
async fn what_is_sent_again_is_known_again() {
    let (network, frames, court) = judged(Mix::STRICT, 300).await;
    let before = court.stores.log.window().borrow().last;

    // Another process on the same stores: nothing is cached.
    let stores = court.stores.clone();
    court.close().await;
    let court = Court::open_on(&network, stores);
    court.feed(&frames).await;
    court.covered(frames.len()).await;
    assert_eq!(court.stores.log.window().borrow().last, before);
    assert_eq!(court.refused(), []);
    assert_eq!(court.metric("mainstem_events_judged_total{verdict=repeat}"), frames.len() as f64);
    assert_eq!(court.metric("mainstem_identity_requests_total"), 0.0, "a repeat needs no identity");
    court.close().await;
}

#[tokio::test]
async fn a_silent_directory_holds_the_intake_back() {
    let network = network(Mix::COMMITS).await;
    let frames = traffic(&network, 400).await;
    network.directory().set_fault(Some(Fault::Hang));
    let lanes = LaneCount(NonZeroU32::MIN);
    let court = Court::open_edited(&network, memory::Config { lanes, ..memory_config() }, |config| {
        config.parked_bytes_max = 64 << 10;
        config.pull_bytes = 4 << 10;
    });
    court.feed(&frames).await;
    let held = court.stores.intake.bytes_held();
    eventually("the lane is full", || court.metric("mainstem_parked_bytes") >= 65_536.0).await;
    sleep(SHORT).await;
    assert!(court.metric("mainstem_parked_bytes") < 65_536.0 + 16_384.0, "it stopped pulling");
    assert_eq!(court.stores.intake.bytes_held(), held);
    assert_eq!(court.stores.log.window().borrow().last.0, 0);
    network.directory().set_fault(None);
    court.covered(frames.len()).await;
    let report = court.judge(&network, Extent::Whole).await;
    assert!(report.is_clean(), "{report}");
    court.close().await;
}

#[tokio::test]
async fn nothing_is_covered_before_it_is_durable() {
    let gate = Gate::new();
    let (network, frames, court, _) = facing(StoreFault::Hold(gate.clone()), 200).await;
    gate.reached().await;
    sleep(SHORT).await;
    assert_eq!(court.taken(), 0);
    gate.open();
    court.covered(frames.len()).await;
    let report = court.judge(&network, Extent::Whole).await;
    assert!(report.is_clean(), "{report}");
    court.close().await;
}

#[tokio::test]
async fn a_shutdown_lets_appends_end_and_covers_them() {
    let gate = Gate::new();
    let (_network, _, court, _) = facing(StoreFault::Hold(gate.clone()), 100).await;
    gate.reached().await;
    let stores = court.stores.clone();
    let (covered, ()) = tokio::join!(court.close(), async {
        sleep(SHORT).await;
        gate.open();
    });
    assert!(covered > 0);
    assert!(stores.log.window().borrow().last.0 >= covered as u64);
}

#[tokio::test]
async fn a_failed_append_ends_the_lanes() {
    let (_network, _, court, failed) = facing(StoreFault::LostCall, 50).await;
    let error = timeout(LONG, court.died()).await.unwrap();
    assert!(matches!(error, validator::Error::Store(storage::error::Error::Indeterminate { .. })), "{error}");
    assert!(failed.fired() > 0);
}

#[tokio::test]
async fn a_new_key_is_found_though_nobody_announced_it() {
    let (network, frames, court) = judged(Mix::COMMITS, 100).await;

    let did = &network.accounts()[0];
    let asked = network.directory().requests_for(did.as_str());
    network.act(0, Action::RotateKey).unwrap();
    network.act(0, Action::Create(Record::Post)).unwrap();
    let unannounced = frames_of(&network).await.after(&frames).only(&[Kind::Commit]);
    assert_eq!(unannounced.len(), 1);
    court.feed(&unannounced).await;
    court.covered(frames.len() + 1).await;
    assert_eq!(court.refused(), []);
    assert_eq!(network.directory().requests_for(did.as_str()), asked + 1);
    court.close().await;
}

#[tokio::test]
async fn an_account_moves_and_its_old_host_is_heard_no_more() {
    let (network, frames, court) = judged(Mix::COMMITS, 100).await;

    let did = &network.accounts()[0];
    let old = network.hosts()[network.host_of(0)].clone();
    network.act(0, Action::Migrate).unwrap();
    network.act(0, Action::Create(Record::Post)).unwrap();
    let new = network.hosts()[network.host_of(0)].clone();
    assert_ne!(old, new);
    let moved = frames_of(&network).await.after(&frames);
    // The new host is read before the old one.
    court.feed(&moved.of_host(&new)).await;
    court.covered(frames.len() + moved.of_host(&new).len()).await;
    court.feed(&moved.of_host(&old)).await;
    court.covered(frames.len() + moved.len()).await;
    assert_eq!(court.refused(), [(Reason::WrongHost, 1)]);
    let state = court.stores.repos.get(did).await.unwrap().unwrap();
    assert_eq!((state.host, state.upstream), (new, AccountStatus::Active));
    court.close().await;
}

#[tokio::test]
async fn an_account_that_is_active_again_is_believed_when_its_host_says_so() {
    let (network, frames, court) = judged(Mix::COMMITS, 100).await;
    network.act(0, Action::Deactivate).unwrap();
    let off = frames_of(&network).await.after(&frames);
    court.feed(&off).await;
    court.covered(frames.len() + off.len()).await;

    // A commit from an account that is not active, whatever its host says: refused, and asked about once.
    let did = network.accounts()[0].clone();
    network.send_raw(network.host_of(0), &did, Kind::Commit, Expect::Refuse, |seq, time| {
        court::empty_commit(&did, seq, time)
    });
    let refused = frames_of(&network).await.after(&frames).after(&off);
    court.feed(&refused).await;
    court.covered(frames.len() + off.len() + 1).await;
    assert_eq!(court.refused(), [(Reason::AccountInactive, 1)]);
    assert_eq!(court.metric("mainstem_repo_status_asked_total"), 1.0);

    // It comes back, but the events that say so are lost on the way; another court has not asked yet.
    network.act(0, Action::Activate).unwrap();
    network.act(0, Action::Create(Record::Post)).unwrap();
    let all = frames_of(&network).await;
    let back = all.after(&frames).after(&off).after(&refused).only(&[Kind::Commit]);
    let stores = court.stores.clone();
    court.close().await;
    let court = Court::open_on(&network, stores);
    court.feed(&back).await;
    court.covered(back.len()).await;
    assert_eq!(court.refused(), []);
    let state = court.stores.repos.get(&did).await.unwrap().unwrap();
    assert_eq!(state.upstream, AccountStatus::Active);
    // Subscribers are told before they get what it writes.
    let told = court.events_of(&did).await;
    let expected = [
        (Kind::Account, Some(AccountStatus::Deactivated)),
        (Kind::Account, Some(AccountStatus::Active)),
        (Kind::Commit, None),
    ];
    assert!(told.ends_with(&expected), "{told:?}");
    court.close().await;
}

/// A host with more accounts than it may have: the first ones are taken whole, the others by name not at all, until there
/// is a place for them.
#[tokio::test]
async fn accounts_over_the_cap_are_throttled_and_heal_when_it_rises() {
    let config =
        Config { hosts: 2, accounts: 16, pace: Pace::ByHand, mix: Mix::COMMITS, remember: true, ..Config::default() };
    let network = Network::start(config, Clock::system()).await.unwrap();
    let capped = network.hosts()[0].clone();
    let cap = |max: u64| Rules::parse(&format!("[[rule]]\nhosts = [\"{capped}\"]\naccounts_max = {max}\n")).unwrap();
    let write =
        |accounts: &[usize]| accounts.iter().for_each(|n| network.act(*n, Action::Create(Record::Post)).unwrap());
    let all: Vec<usize> = (0..16).collect();
    // Two commits of each, with the one that it begins with.
    write(&all);
    // Commits alone, which is what counts here.
    let commits = async || frames_of(&network).await.only(&[Kind::Commit]);
    let first = commits().await;
    let court = Court::open(&network, memory_config());
    court.limits.set_rules(cap(5));
    court.feed(&first).await;
    court.covered(first.len()).await;
    let stores = court.stores.clone();
    let throttled = async || {
        let mut throttled = Vec::new();
        for (n, did) in network.accounts().iter().enumerate() {
            let state = stores.repos.get(did).await.unwrap().unwrap();
            if state.local == LocalStatus::Throttled {
                assert_eq!((state.status(), network.host_of(n)), (AccountStatus::Throttled { active: false }, 0));
                throttled.push(n);
            }
        }
        throttled
    };
    let marked = throttled().await;
    assert_eq!(marked.len(), 3);
    assert_eq!(court.refused(), [(Reason::AccountThrottled, 6)]);
    assert_eq!(court.stores.log.window().borrow().last.0, 26 + 3, "one event says so of each");

    // Another process counts the same. One place more: the first that writes has it.
    court.close().await;
    let court = Court::open_on(&network, stores.clone());
    court.limits.set_rules(cap(6));
    write(&all);
    let second = commits().await.after(&first);
    court.feed(&second).await;
    court.covered(second.len()).await;
    let still = throttled().await;
    assert_eq!((still.len(), court.refused()), (2, vec![(Reason::AccountThrottled, 2)]));

    // Without a limit the others come too; nothing is told of those who were never throttled.
    court.limits.set_rules(Rules::default());
    write(&all);
    let third = commits().await.after(&first).after(&second);
    court.feed(&third).await;
    court.covered(second.len() + third.len()).await;
    assert_eq!(throttled().await, [0_usize; 0]);
    for (n, did) in network.accounts().iter().enumerate() {
        let (commit, account) = ((Kind::Commit, None), |status| (Kind::Account, Some(status)));
        let (off, on) = (account(AccountStatus::Throttled { active: false }), account(AccountStatus::Active));
        let expected = match (marked.contains(&n), still.contains(&n)) {
            (false, _) => vec![commit; 4],
            (true, false) => vec![off, on, commit, commit],
            (true, true) => vec![off, on, commit],
        };
        assert_eq!(court.events_of(did).await, expected, "account {n}");
    }
    court.close().await;
}

#[tokio::test]
async fn lies_are_refused_by_name_and_delay_nobody_else() {
    let network = network(Mix::COMMITS).await;
    network.announce_all().await.unwrap();
    let did = network.accounts()[0].clone();
    let stranger = atproto::syntax::Did::parse("did:plc:zzzzzzzzzzzzzzzzzzzzzzzz").unwrap();
    let other = (network.host_of(0) + 1) % 3;
    let commit = Kind::Commit;
    for (host, did) in [(other, &did), (network.host_of(0), &did), (other, &stranger)] {
        network.send_raw(host, did, commit, Expect::Refuse, |seq, time| court::empty_commit(did, seq, time));
    }
    network.generate(100).await.unwrap();
    let frames = frames_of(&network).await;
    let court = Court::open(&network, memory_config());
    court.feed(&frames).await;
    court.covered(frames.len()).await;
    let report = court.judge(&network, Extent::Whole).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(court.refused(), [(Reason::IdentityNotFound, 1), (Reason::WrongHost, 1), (Reason::BadCar, 1)]);
    let host = &network.hosts()[other];
    let refused = court.refusals.of_host(host, 0);
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].example.did.as_deref(), Some(stranger.as_str()));
    court.close().await;
}
