//! `#account` and `#identity`.

use atproto::{
    crypto::Curve,
    event::{AccountEvent, Event, IdentityEvent},
    syntax::HostName,
};
use storage::repos::{AccountStatus, LocalStatus, RepoState};
use validator::{
    rules::Room,
    verdict::{Accept, Reason, Verdict},
};

use crate::world::{World, assert_refused};

fn account(world: &World, active: bool, status: Option<&str>) -> Verdict {
    let did = world.identity.did.as_str();
    world.judge(&Event::Account(AccountEvent { seq: world.upstream_seq, did, time: "", active, status }))
}

fn identity(world: &World) -> Verdict {
    let did = world.identity.did.as_str();
    let handle = Some("alice.example.com");
    world.judge(&Event::Identity(IdentityEvent { seq: world.upstream_seq, did, time: "", handle }))
}

fn accepted(state: RepoState) -> Verdict {
    Verdict::Accept(Accept { state, discontinuous: false })
}

#[test]
fn an_account_event_sets_the_status_at_the_host_alone() {
    let table = [
        (true, None, AccountStatus::Active),
        (false, Some("deactivated"), AccountStatus::Deactivated),
        (false, Some("takendown"), AccountStatus::Takendown),
        (false, Some("suspended"), AccountStatus::Suspended),
        (false, Some("deleted"), AccountStatus::Deleted),
        (true, Some("throttled"), AccountStatus::Throttled { active: true }),
        (false, Some("desynchronized"), AccountStatus::Desynchronized { active: false }),
        (false, Some("something new"), AccountStatus::Inactive),
        (true, Some("something new"), AccountStatus::Active),
    ];
    for (active, status, upstream) in table {
        for was in [AccountStatus::Active, AccountStatus::Takendown] {
            for local in [LocalStatus::None, LocalStatus::TakenDown, LocalStatus::Throttled] {
                let mut world = World::new(Curve::K256);
                *world.state_mut() = RepoState { upstream: was, local, ..world.state_mut().clone() };
                // An account on its way out may have no key, and one that is gone asks nobody.
                world.identity.signing_key = None;
                world.status_is_fresh = false;
                // An event that is accepted has a place.
                let local = if local == LocalStatus::Throttled { LocalStatus::None } else { local };
                let expected = RepoState { upstream, local, ..world.state_with(world.head()) };
                assert_eq!(account(&world, active, status), accepted(expected), "{status:?}");
            }
        }
    }
}

#[test]
fn an_account_that_nobody_knew() {
    let mut world = World::new(Curve::K256);
    let expected = RepoState { head: None, ..world.state_with(world.head()) };
    world.state = None;
    assert_eq!(account(&world, true, None), accepted(expected.clone()));
    assert_eq!(identity(&world), accepted(expected));
}

#[test]
fn only_the_accounts_host_speaks_of_its_status() {
    let mut world = World::new(Curve::K256);
    for (pds, reason) in [(HostName::parse("new.example").ok(), Reason::WrongHost), (None, Reason::NoPds)] {
        world.identity.pds = pds;
        world.identity_is_fresh = false;
        let verdict = account(&world, false, Some("deactivated"));
        assert!(matches!(&verdict, Verdict::RefreshIdentity(refusal) if refusal.reason == reason), "{verdict:?}");
        world.identity_is_fresh = true;
        assert_refused(&account(&world, false, Some("deactivated")), reason, "no host or another");
    }
}

#[test]
fn the_present_and_the_new_host_announce_an_identity() {
    let mut world = World::new(Curve::K256);
    let unchanged = accepted(world.state_with(world.head()));
    assert_eq!(identity(&world), unchanged);

    // The document names the new host, and the one that has it still announces it.
    world.identity.pds = HostName::parse("new.example").ok();
    assert_eq!(identity(&world), unchanged);
    world.identity.pds = None;
    assert_eq!(identity(&world), unchanged);

    // The new host.
    world.host = HostName::parse("new.example").unwrap();
    world.identity.pds = Some(world.host.clone());
    assert_eq!(identity(&world), accepted(world.state_with(world.head())));

    // Any other.
    world.host = HostName::parse("third.example").unwrap();
    assert_refused(&identity(&world), Reason::WrongHost, "neither host");
    world.identity_is_fresh = false;
    assert!(matches!(identity(&world), Verdict::RefreshIdentity(refusal) if refusal.reason == Reason::WrongHost));
}

#[test]
fn an_identity_event_neither_lifts_nor_sets_a_status() {
    let mut world = World::new(Curve::K256);
    let gone = |world: &mut World| {
        *world.state_mut() = RepoState {
            upstream: AccountStatus::Deactivated,
            local: LocalStatus::TakenDown,
            ..world.state_mut().clone()
        };
    };
    gone(&mut world);
    let expected = RepoState {
        upstream: AccountStatus::Deactivated,
        local: LocalStatus::TakenDown,
        ..world.state_with(world.head())
    };
    assert_eq!(identity(&world), accepted(expected));
}

#[test]
fn an_event_that_comes_again_is_a_repeat() {
    let mut world = World::new(Curve::K256);
    world.upstream_seq = 100;
    assert_eq!(account(&world, false, None), Verdict::Repeat);
    assert_eq!(identity(&world), Verdict::Repeat);
    world.host_epoch += 1;
    assert_eq!(identity(&world), accepted(world.state_with(world.head())));

    // What the host sent before it began anew comes again after what it sends now, and has no rev to tell.
    world.state = Some(world.state_with(world.head()));
    world.host_epoch -= 1;
    world.upstream_seq += 1;
    assert_eq!(account(&world, false, None), Verdict::Repeat);
    assert_eq!(identity(&world), Verdict::Repeat);
}

#[test]
fn nothing_of_an_account_without_a_place_passes_but_the_host_is_looked_at_first() {
    let mut world = World::new(Curve::K256);
    world.room = Room::Full { accounts_max: 5 };
    world.state_mut().local = LocalStatus::Throttled;
    let commit = world.commit();
    for verdict in [account(&world, true, None), identity(&world), world.judge_commit(&commit)] {
        assert_eq!(verdict.reason(), Some(Reason::AccountThrottled));
    }
    world.state = None;
    assert_eq!(world.judge_commit(&commit).reason(), Some(Reason::AccountThrottled));
    world.identity.pds = HostName::parse("new.example").ok();
    for verdict in [account(&world, true, None), identity(&world), world.judge_commit(&commit)] {
        assert_eq!(verdict.reason(), Some(Reason::WrongHost));
    }
}
