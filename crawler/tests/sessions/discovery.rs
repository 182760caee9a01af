//! Where hosts come from, and who is banned.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use crawler::{Added, Config, CrawlRequestError, Error, Start};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use runtime::{
    egress::Policy,
    http::{Limits, Listener},
    tasks::Tasks,
};
use storage::hosts::HostStatus;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

use crate::world::{Pds, World, quick, until};
use atproto::syntax::HostName;

/// A server with fixed answers by path and query; 404 for others.
pub(crate) fn site(tasks: &Tasks, answers: &[(&str, &str)]) -> HostName {
    let answers: HashMap<String, String> = answers.iter().map(|&(path, body)| (path.into(), body.into())).collect();
    let answers = Arc::new(answers);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let answers = answers.clone();
        async move {
            let asked = request.uri().path_and_query().unwrap().as_str();
            Ok::<_, Infallible>(match answers.get(asked) {
                Some(body) => Response::new(Full::new(Bytes::from(body.clone()))),
                None => Response::builder().status(404).body(Full::default()).unwrap(),
            })
        }
    });
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "--bind").unwrap();
    let name = HostName::parse(&listener.local_addr().to_string()).unwrap();
    tasks.spawn("site", listener.serve(service, Limits::default(), tasks.clone()));
    name
}

pub(crate) const DESCRIBE: &str = "/xrpc/com.atproto.server.describeServer";

#[tokio::test]
async fn who_wants_to_be_crawled_is_looked_at_first() {
    let world = World::new(quick());
    let tasks = &world.tasks;
    let good = site(tasks, &[(DESCRIBE, r#"{"did":"did:web:pds.example.com","availableUserDomains":[]}"#)]);
    let no_did = site(tasks, &[(DESCRIBE, r#"{"availableUserDomains":[]}"#)]);
    let not_json = site(tasks, &[(DESCRIBE, "<html>")]);
    let absent = site(tasks, &[]);
    let closed = HostName::parse("127.0.0.1:1").unwrap();

    assert_eq!(world.handle.request_crawl(&good).await.unwrap(), Added::New);
    assert_eq!(world.handle.request_crawl(&good).await.unwrap(), Added::Known);
    for name in [&no_did, &not_json, &absent] {
        let error = world.handle.request_crawl(name).await.unwrap_err();
        assert!(matches!(error, CrawlRequestError::NotPds(_)), "{error:?}");
    }
    let error = world.handle.request_crawl(&closed).await.unwrap_err();
    assert!(matches!(error, CrawlRequestError::Unreachable(_)), "{error:?}");
    world.handle.ban(&good).await.unwrap();
    let error = world.handle.request_crawl(&good).await.unwrap_err();
    assert!(matches!(error, CrawlRequestError::Banned), "{error:?}");
    let known: Vec<_> = world.handle.hosts().into_iter().map(|view| view.name).collect();
    assert_eq!(known, [good]);
    world.stopped().await;
}

#[tokio::test]
async fn private_hosts_are_not_public() {
    let world = World::with_policy(quick(), storage::memory::open().hosts, Policy::default());
    for name in ["127.0.0.1:2583", "localhost", "10.0.0.1", "[::1]:80", "169.254.169.254"] {
        let error = world.handle.request_crawl(&HostName::parse(name).unwrap()).await.unwrap_err();
        assert!(matches!(error, CrawlRequestError::NotPublic), "{name}: {error:?}");
    }
    world.stopped().await;
}

#[tokio::test]
async fn a_banned_host_is_left_and_stays_so_over_a_restart_until_it_is_unbanned() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    until("active", || world.view(&pds).status == HostStatus::Active).await;
    world.handle.ban(&pds.name).await.unwrap();
    assert!(matches!(connection.next().await, Some(Message::Close(_))));
    until("banned", || world.view(&pds).status == HostStatus::Banned).await;
    let hosts = world.hosts.clone();
    world.stopped().await;
    assert_eq!(hosts.get(&pds.name).await.unwrap().unwrap().status, HostStatus::Banned);

    let world = World::with_hosts(Config { hosts: vec![(pds.name.clone(), Start::Oldest)], ..quick() }, hosts);
    until("loaded", || world.handle.host(&pds.name).is_some()).await;
    assert_eq!(world.read_and_look(&pds).await, HostStatus::Banned);
    world.handle.unban(&pds.name).await.unwrap();
    pds.accept_at(Some(0)).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_host_may_be_banned_before_it_is_known() {
    let (world, pds) = (World::new(quick()), Pds::new().await);
    world.handle.ban(&pds.name).await.unwrap();
    assert_eq!(world.read_and_look(&pds).await, HostStatus::Banned);
    assert_eq!(world.hosts.get(&pds.name).await.unwrap().unwrap().status, HostStatus::Banned);
    world.stopped().await;
    assert_eq!(pds.connects.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_relays_hosts_are_taken_over_page_by_page() {
    let (first, second) = (Pds::new().await, Pds::new().await);
    let listing = |hosts: &[(&HostName, &str)], cursor: &str| {
        let hosts: Vec<String> = hosts
            .iter()
            .map(|(name, status)| format!(r#"{{"hostname":"{name}","seq":1,"accountCount":2,"status":"{status}"}}"#))
            .collect();
        format!(r#"{{"hosts":[{}]{cursor}}}"#, hosts.join(","))
    };
    let banned = HostName::parse("banned.example.com").unwrap();
    let page_1 = listing(&[(&first.name, "active"), (&banned, "banned")], r#","cursor":"two""#);
    let page_2 = listing(&[(&second.name, "offline")], "");
    let tasks = Tasks::new();
    let path = "/xrpc/com.atproto.sync.listHosts?limit=1000";
    let relay = site(&tasks, &[(path, &page_1), (&format!("{path}&cursor=two"), &page_2)]);
    let bootstrap = Some(Url::parse(&format!("http://{relay}")).unwrap());
    let world = World::new(Config { bootstrap, start: Start::Oldest, ..quick() });
    for mut pds in [first, second] {
        pds.accept_at(Some(0)).await;
    }
    assert!(world.handle.host(&banned).is_none());
    assert_eq!(world.handle.hosts().len(), 2);
    world.stopped().await;
    tasks.drain(crate::world::SOON).await.unwrap();
}

#[tokio::test]
async fn the_number_of_hosts_is_bounded() {
    let world = World::new(Config { hosts_max: 2, ..quick() });
    for (n, fits) in [(1, true), (2, true), (3, false)] {
        let name = HostName::parse(&format!("127.0.0.1:{n}")).unwrap();
        match world.handle.add_host(&name, Start::Live).await {
            Ok(added) => assert!(fits && added == Added::New),
            Err(error) => assert!(!fits && matches!(error, Error::Full { limit: 2 }), "{error:?}"),
        }
    }
    world.stopped().await;
}
