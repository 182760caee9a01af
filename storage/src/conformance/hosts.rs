//! [`Hosts`]' promises.
//!
//! [`Hosts`]: crate::hosts::Hosts

use super::{Backend, Setup, sample};
use crate::{
    hosts::{
        AddedBy, CrawlRequests, Domain, Host, HostCursor, HostStatus, Notes, Order, Policy, Reset, ResetCause, Rewind,
    },
    limits::{Change, Limit},
};

fn host(number: u64) -> Host {
    Host::new(sample::host(number), HostStatus::Active, 1_000_000 + number)
}

fn notes(number: u64) -> Notes {
    Notes {
        added_by: AddedBy::Request,
        limits: Change { events_per_second: Some(Limit::AtMost(1 + number)), ..Change::default() },
        last_reset: Some(Reset {
            cause: ResetCause::FutureCursor,
            at_micros: number,
            from: HostCursor { epoch: 1, seq: Some(u64::MAX) },
            to: HostCursor { epoch: 2, seq: None },
        }),
        rewind: None,
        rewound_at_micros: number,
    }
}

fn policy() -> Policy {
    let mut policy = Policy {
        crawl_requests: CrawlRequests { accepted: false, new_hosts_per_day: 3, new_hosts_per_day_and_domain: 0 },
        ..Policy::default()
    };
    policy.domain_bans.insert(Domain::parse("spam.example.com").unwrap(), 7);
    policy
}

const STATUSES: [HostStatus; 4] = [HostStatus::Active, HostStatus::Idle, HostStatus::Offline, HostStatus::Throttled];

/// What a crawler has noted, of a host of which nothing was ordered.
fn noted(number: u64) -> Notes {
    Notes { limits: Change::default(), ..notes(number) }
}

/// The first row of a name stays.
pub async fn adds_a_host_once(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    assert_eq!(hosts.get(&sample::host(1)).await.unwrap(), None);
    assert_eq!(hosts.count().await.unwrap(), 0);
    let first = Host { cursor: HostCursor { epoch: 2, seq: Some(9) }, notes: notes(1), ..host(1) };
    assert!(hosts.add(&first).await.unwrap());
    let second = Host { status: HostStatus::Banned, added_at_micros: 5, ..host(1) };
    assert!(!hosts.add(&second).await.unwrap());
    assert_eq!(hosts.get(&first.name).await.unwrap(), Some(first));
    assert_eq!(hosts.count().await.unwrap(), 1);
}

/// Status and cursor are written apart.
pub async fn rows_and_cursors_do_not_overwrite_each_other(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    for number in 0..10 {
        hosts.add(&host(number)).await.unwrap();
    }
    let cursor = |round: u64, number: u64| HostCursor { epoch: round as u32, seq: Some(round << 45 | number) };
    for round in 0..5 {
        let cursors: Vec<_> = (0..10).map(|number| (sample::host(number), cursor(round, number))).collect();
        let statuses = async {
            for number in 0..10 {
                hosts.set_status(&sample::host(number), STATUSES[(round + number) as usize % 4]).await.unwrap();
                hosts.set_notes(&sample::host(number), &notes(round)).await.unwrap();
            }
        };
        let (saved, ()) = tokio::join!(hosts.save_cursors(&cursors), statuses);
        saved.unwrap();
        for number in 0..10 {
            let status = STATUSES[(round + number) as usize % 4];
            let expected = Host { status, cursor: cursor(round, number), notes: noted(round), ..host(number) };
            assert_eq!(hosts.get(&sample::host(number)).await.unwrap(), Some(expected));
        }
    }
}

/// A status or a cursor makes no host.
pub async fn ignores_unknown_hosts(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    hosts.set_status(&sample::host(1), HostStatus::Banned).await.unwrap();
    hosts.set_notes(&sample::host(1), &notes(1)).await.unwrap();
    hosts.save_cursors(&[(sample::host(1), HostCursor { epoch: 1, seq: Some(1) })]).await.unwrap();
    assert_eq!(hosts.get(&sample::host(1)).await.unwrap(), None);
    assert_eq!(hosts.list(None, 10).await.unwrap(), []);
    assert!(hosts.add(&host(1)).await.unwrap());
    assert_eq!(hosts.get(&sample::host(1)).await.unwrap(), Some(host(1)));
}

/// What an operator has ordered outlives all that a crawler writes, and each kind of order the others.
pub async fn what_is_ordered_stays_whatever_a_crawler_writes(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    let name = sample::host(1);
    hosts.order(&name, &Order::Ban(true)).await.unwrap();
    assert_eq!(hosts.get(&name).await.unwrap(), None, "an order makes no host");
    hosts.add(&Host { status: HostStatus::Banned, ..host(1) }).await.unwrap();
    let writes = async || {
        hosts.set_status(&name, HostStatus::Offline).await.unwrap();
        hosts.set_notes(&name, &Notes { rewind: None, ..notes(1) }).await.unwrap();
        let row = hosts.get(&name).await.unwrap().unwrap();
        (row.status, row.notes.limits, row.notes.rewind, row.notes.rewound_at_micros)
    };
    let none = Change::default();
    assert_eq!(writes().await, (HostStatus::Banned, none, None, 1), "as it was added");
    hosts.order(&name, &Order::Ban(false)).await.unwrap();
    assert_eq!(writes().await, (HostStatus::Offline, none, None, 1));
    let limits = notes(7).limits;
    let rewind = Rewind { at_micros: 5, to: HostCursor { epoch: 1, seq: Some(u64::MAX) } };
    for order in [Order::Limits(limits), Order::Rewind(rewind), Order::Ban(true)] {
        hosts.order(&name, &order).await.unwrap();
    }
    assert_eq!(writes().await, (HostStatus::Banned, limits, Some(rewind), 1));
    let later = Rewind { at_micros: 6, ..rewind };
    for order in [Order::Limits(none), Order::Rewind(later), Order::Ban(false)] {
        hosts.order(&name, &order).await.unwrap();
    }
    assert_eq!(writes().await, (HostStatus::Offline, none, Some(later), 1));
}

/// Pages follow the names' byte order and begin after `after`.
pub async fn lists_in_pages(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    for number in (0..23).rev() {
        hosts.add(&host(number)).await.unwrap();
    }
    let all: Vec<Host> = (0..23).map(host).collect();
    for limit in [1, 5, 23, 100] {
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = hosts.list(after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            walked.extend(page);
        }
        assert_eq!(walked, all);
    }
    assert_eq!(hosts.count().await.unwrap(), 23);
}

/// A clean close keeps rows and cursors.
pub async fn stays_after_reopening(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    hosts.add(&host(1)).await.unwrap();
    hosts.add(&host(2)).await.unwrap();
    hosts.order(&sample::host(2), &Order::Ban(true)).await.unwrap();
    let cursor = HostCursor { epoch: 7, seq: Some(123) };
    hosts.save_cursors(&[(sample::host(1), cursor)]).await.unwrap();
    hosts.set_notes(&sample::host(1), &notes(4)).await.unwrap();
    hosts.set_policy(&policy()).await.unwrap();
    drop(hosts);
    let Some(running) = running.reopen().await else { return };
    let expected = [Host { cursor, notes: noted(4), ..host(1) }, Host { status: HostStatus::Banned, ..host(2) }];
    assert_eq!(running.stores().hosts.policy().await.unwrap(), policy());
    assert_eq!(running.stores().hosts.list(None, 10).await.unwrap(), expected);
    assert_eq!(running.stores().hosts.count().await.unwrap(), 2);
}

/// After a crash rows, statuses, notes and the policy are there. A cursor is one of those that were saved; the last one
/// where notes were set after it.
pub async fn stays_after_a_crash(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    hosts.add(&host(1)).await.unwrap();
    hosts.set_status(&sample::host(1), HostStatus::Throttled).await.unwrap();
    for seq in 1..=20 {
        hosts.save_cursors(&[(sample::host(1), HostCursor { epoch: 0, seq: Some(seq) })]).await.unwrap();
    }
    hosts.add(&host(2)).await.unwrap();
    let rewound = HostCursor { epoch: 0, seq: Some(3) };
    hosts.save_cursors(&[(sample::host(2), HostCursor { epoch: 0, seq: Some(9) })]).await.unwrap();
    hosts.save_cursors(&[(sample::host(2), rewound)]).await.unwrap();
    hosts.set_notes(&sample::host(2), &notes(2)).await.unwrap();
    hosts.set_policy(&policy()).await.unwrap();
    drop(hosts);
    let Some(running) = running.crash().await else { return };
    let found = running.stores().hosts.get(&sample::host(1)).await.unwrap().unwrap();
    assert_eq!(found.status, HostStatus::Throttled);
    assert!(found.cursor.epoch == 0 && found.cursor.seq.is_none_or(|seq| (1..=20).contains(&seq)));
    let found = running.stores().hosts.get(&sample::host(2)).await.unwrap().unwrap();
    assert_eq!((found.cursor, found.notes), (rewound, noted(2)));
    assert_eq!(running.stores().hosts.policy().await.unwrap(), policy());
    assert_eq!(running.stores().hosts.count().await.unwrap(), 2);
}

/// The default policy is there before anything is decided, and each decision replaces the one before.
pub async fn keeps_the_policy(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let hosts = running.stores().hosts;
    assert_eq!(hosts.policy().await.unwrap(), Policy::default());
    hosts.set_policy(&policy()).await.unwrap();
    assert_eq!(hosts.policy().await.unwrap(), policy());
    hosts.set_policy(&Policy::default()).await.unwrap();
    assert_eq!(hosts.policy().await.unwrap(), Policy::default());
    assert_eq!(hosts.list(None, 10).await.unwrap(), []);
}
