//! What an operator may do with hosts, and what strangers may ask for.

use std::{sync::atomic::Ordering, time::Duration};

use atproto::syntax::HostName;
use crawler::{Added, BannedBy, CrawlRequestError, Error, Phase, Scope, Start};
use storage::{
    hosts::{CrawlRequests, Domain, HostCursor, HostStatus, ResetCause},
    limits::{Change, Limit, Rules},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    discovery::{DESCRIBE, site},
    world::{Pds, World, quick, until},
};

fn at(epoch: u32, seq: u64) -> HostCursor {
    HostCursor { epoch, seq: Some(seq) }
}

#[tokio::test]
async fn a_rewound_host_is_read_again_at_once_and_a_crash_does_not_forget_it() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1, 2, 3, 4]).await;
    world.intake.has(&[1, 2, 3, 4]).await;
    world.intake.take(&[1, 2, 3]);
    world.saves(&pds, at(0, 3)).await;
    let error = world.handle.rewind(&pds.name, Some(4)).await.unwrap_err();
    assert!(matches!(error, Error::RewindAhead { to: 4, cursor: Some(3) }), "{error:?}");
    let unknown = HostName::parse("nobody.example.com").unwrap();
    assert!(matches!(world.handle.rewind(&unknown, None).await, Err(Error::UnknownHost(_))));

    let rewound = world.handle.rewind(&pds.name, Some(1)).await.unwrap();
    assert_eq!((rewound.from, rewound.to), (at(0, 3), at(0, 1)));
    assert_eq!(world.saved(&pds).await, at(0, 1));
    assert!(matches!(connection.next().await, Some(Message::Close(_))));
    // Late receipts of the reading before move nothing.
    world.intake.take(&[4]);
    let mut connection = pds.accept_at(Some(1)).await;
    assert_eq!(world.view(&pds).cursor, at(0, 1));
    connection.events(&[2, 3, 4]).await;
    world.intake.has(&[1, 2, 3, 4, 2, 3, 4]).await;
    assert!(world.intake.frames().iter().all(|frame| frame.host_epoch == 0), "repeats are known by their seq");
    world.intake.take(&[2, 3, 4]);
    world.saves(&pds, at(0, 4)).await;
    world.handle.rewind(&pds.name, None).await.unwrap();
    pds.accept_at(Some(0)).await;

    let hosts = world.hosts.clone();
    world.stopped().await;
    let row = hosts.get(&pds.name).await.unwrap().unwrap();
    let reset = row.notes.last_reset.unwrap();
    assert_eq!((reset.cause, reset.from, reset.to), (ResetCause::Rewound, at(0, 4), at(0, 0)));
    let world = World::with_hosts(quick(), hosts);
    pds.accept_at(Some(0)).await;
    until("shown", || world.view(&pds).last_reset == Some(reset)).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_reset_is_recorded_for_good() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Live).await;
    let mut connection = pds.accept().await;
    connection.events(&[100]).await;
    world.intake.has(&[100]).await;
    world.intake.take(&[100]);
    until("taken", || world.view(&pds).cursor.seq == Some(100)).await;
    connection.error("FutureCursor").await;
    // It was asked for no cursor, so there is none to be in the future: an error like others.
    let mut connection = pds.accept_at(Some(100)).await;
    assert_eq!(world.view(&pds).last_reset, None);
    connection.error("FutureCursor").await;
    let mut connection = pds.accept_at(None).await;
    let reset = world.view(&pds).last_reset.unwrap();
    assert_eq!((reset.cause, reset.from), (ResetCause::FutureCursor, at(0, 100)));
    assert_eq!((reset.to, reset.at_micros), (HostCursor { epoch: 1, seq: None }, 1_000_000));
    connection.events(&[5]).await;
    world.intake.has(&[100, 5]).await;
    world.intake.take(&[5]);
    world.saves(&pds, at(1, 5)).await;
    let hosts = world.hosts.clone();
    world.stopped().await;
    assert_eq!(hosts.get(&pds.name).await.unwrap().unwrap().notes.last_reset, Some(reset));
}

#[tokio::test]
async fn a_banned_domain_covers_known_and_unknown_hosts_until_the_ban_is_lifted() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    let mine = HostName::parse(&format!("a.b.localhost:{}", pds.addr.port())).unwrap();
    world.handle.add_host(&mine, Start::Oldest).await.unwrap();
    world.read(&pds, Start::Oldest).await;
    let (mut first, mut second) = (pds.accept().await, pds.accept().await);
    let view = |world: &World, name: &HostName| world.handle.host(name).unwrap();
    until("both are read", || [&mine, &pds.name].iter().all(|name| view(&world, name).phase == Phase::Active)).await;
    let domain = Domain::parse("b.localhost").unwrap();
    assert!(world.handle.ban_domain(&domain).await.unwrap());
    assert!(!world.handle.ban_domain(&domain).await.unwrap());
    assert_eq!(world.handle.domain_bans(), [(domain.clone(), 1_000_000)]);
    until("banned", || view(&world, &mine).phase == Phase::Banned).await;
    assert_eq!(view(&world, &mine).banned_by, Some(BannedBy::Domain(domain.clone())));
    let closed = tokio::select! {
        message = first.next() => message,
        message = second.next() => message,
    };
    assert!(matches!(closed, Some(Message::Close(_))), "one of the two connections");
    until("the other", || world.view(&pds).phase == Phase::Active).await;
    for name in ["c.b.localhost:9", &format!("b.localhost:{}", pds.addr.port())] {
        let error = world.handle.request_crawl(&HostName::parse(name).unwrap()).await.unwrap_err();
        assert!(matches!(error, CrawlRequestError::Banned), "{name}: {error:?}");
    }

    // After a restart too; and a ban of the host itself stays when that of the domain goes.
    let hosts = world.hosts.clone();
    world.stopped().await;
    let world = World::with_hosts(quick(), hosts);
    until("known", || world.handle.host(&mine).is_some()).await;
    assert_eq!(view(&world, &mine).phase, Phase::Banned);
    world.handle.ban(&mine).await.unwrap();
    assert!(world.handle.unban_domain(&domain).await.unwrap());
    assert!(!world.handle.unban_domain(&domain).await.unwrap());
    assert_eq!(view(&world, &mine).banned_by, Some(BannedBy::Host));
    world.handle.unban(&mine).await.unwrap();
    until("read", || view(&world, &mine).status == HostStatus::Active).await;
    world.stopped().await;
}

#[tokio::test]
async fn an_exception_from_the_rules_holds_at_once_and_after_a_restart() {
    let (world, pds) = (World::new(quick()), Pds::new().await);
    world.limits.set_rules(Rules::parse("[[rule]]\nhosts = \"*\"\nevents_per_second = 5\n").unwrap());
    world.read(&pds, Start::Oldest).await;
    let change = Change { accounts_max: Some(Limit::AtMost(3)), ..Change::default() };
    assert_eq!(world.handle.set_limits(&pds.name, change).await.unwrap(), Change::default());
    let view = world.view(&pds);
    assert_eq!((view.limits.accounts_max, view.limits_exception), (Some(3), Some(change)));
    assert_eq!(view.limits.events_per_second.map(|n| n.get()), Some(5));
    let hosts = world.hosts.clone();
    world.stopped().await;
    let world = World::with_hosts(quick(), hosts);
    until("known", || world.handle.host(&pds.name).is_some()).await;
    assert_eq!(world.limits.of(&pds.name).accounts_max, Some(3));
    assert_eq!(world.handle.set_limits(&pds.name, Change::default()).await.unwrap(), change);
    assert_eq!(world.view(&pds).limits_exception, None);
    world.stopped().await;
}

#[tokio::test]
async fn requests_to_be_crawled_have_a_switch_and_quotas_that_outlive_the_process() {
    let world = World::new(quick());
    let answer = r#"{"did":"did:web:pds.example.com","availableUserDomains":[]}"#;
    let port = site(&world.tasks, &[(DESCRIBE, answer)]).port().unwrap();
    let name = |host: &str| HostName::parse(&format!("{host}:{port}")).unwrap();
    let rules = CrawlRequests { accepted: true, new_hosts_per_day: 3, new_hosts_per_day_and_domain: 2 };
    world.handle.set_crawl_requests(rules).await.unwrap();
    for host in ["a.one.localhost", "b.one.localhost"] {
        assert_eq!(world.handle.request_crawl(&name(host)).await.unwrap(), Added::New);
    }
    let spent = |error| match error {
        CrawlRequestError::Quota(spent) => (spent.scope, spent.retry_after),
        other => panic!("{other:?}"),
    };
    let day = Duration::from_secs(24 * 3_600);
    let error = world.handle.request_crawl(&name("c.one.localhost")).await.unwrap_err();
    assert_eq!(spent(error), (Scope::Domain("one.localhost".into()), day));
    assert_eq!(world.handle.request_crawl(&name("a.two.localhost")).await.unwrap(), Added::New);
    let error = world.handle.request_crawl(&name("b.two.localhost")).await.unwrap_err();
    assert_eq!(spent(error), (Scope::All, day));
    assert_eq!(world.handle.request_crawl(&name("a.two.localhost")).await.unwrap(), Added::Known);
    assert_eq!(world.handle.crawl_requests().new_hosts_last_day, 3);
    // What the operator adds is none of it.
    world.handle.add_host(&name("b.two.localhost"), Start::Live).await.unwrap();
    assert_eq!(world.metric("mainstem_crawler_crawl_requests_total"), 6.0);

    let hosts = world.hosts.clone();
    world.stopped().await;
    let world = World::with_hosts(quick(), hosts);
    until("known", || world.handle.hosts().len() == 4).await;
    let view = world.handle.crawl_requests();
    assert_eq!((view.rules, view.new_hosts_last_day), (rules, 3));
    world.handle.set_crawl_requests(CrawlRequests { accepted: false, ..rules }).await.unwrap();
    let error = world.handle.request_crawl(&name("z.three.localhost")).await.unwrap_err();
    assert!(matches!(error, CrawlRequestError::NotAccepted), "{error:?}");
    assert_eq!(world.handle.request_crawl(&name("a.two.localhost")).await.unwrap(), Added::Known);
    world.stopped().await;
}

#[tokio::test]
async fn a_host_that_keeps_saying_future_cursor_is_no_hot_loop() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Live).await;
    let began = std::time::Instant::now();
    for _ in 0..6 {
        pds.accept_at(None).await.error("FutureCursor").await;
    }
    // Half of 20, 40, 80, 160 and 200 ms at least.
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    assert_eq!(world.view(&pds).cursor.epoch, 0, "there was no cursor");
    assert!(pds.connects.load(Ordering::Relaxed) >= 6);
    world.stopped().await;
}
