//! With a peer that is a real server on this machine, and answers what the test wants.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
};

use atproto::event::{self, AccountEvent, Event, Routed};
use axum::{Router, extract::RawQuery, http::Uri, routing::get};
use http::StatusCode;
use runtime::egress::Policy;
use serde_json::{Value, json};
use storage::{
    log::{Accepted, EventLog},
    memory,
    repos::{AccountStatus, LocalStatus, RepoState},
};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

/// What the peer says next, by method; the last answer is said again and again.
type Script = Arc<Mutex<HashMap<&'static str, VecDeque<(StatusCode, String)>>>>;

struct Stage {
    handle: Handle,
    comparison: Comparison,
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
    requests: Arc<AtomicUsize>,
    log: Arc<dyn EventLog>,
    server: JoinSet<()>,
}

fn page(value: Value) -> (StatusCode, String) {
    (StatusCode::OK, value.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// We read `a.test`, can't reach `b.test`, and know no others.
    async fn open() -> Stage {
        let script = Script::default();
        let (asked, requests) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let answer = {
            let (script, asked, requests) = (script.clone(), asked.clone(), requests.clone());
            move |uri: Uri, RawQuery(query): RawQuery| {
                let method = if uri.path().ends_with("listHosts") { "hosts" } else { "repos" };
                requests.fetch_add(1, Ordering::Relaxed);
                lock(&asked).push(format!("{method}?{}", query.unwrap_or_default()));
                let mut script = lock(&script);
                let answers = script.get_mut(method).unwrap();
                let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                std::future::ready(answer.unwrap())
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/some/path?and=query", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, Router::new().route("/xrpc/{method}", get(answer))).await.unwrap();
        });
        let stores = memory::open();
        let status_of = |name: &HostName| match name.as_str() {
            "a.test" => Some(HostStatus::Active),
            "b.test" => Some(HostStatus::Offline),
            _ => None,
        };
        let parts = Parts {
            status_of: Box::new(status_of),
            repos: stores.repos.clone(),
            egress: Egress::new(Policy { allow_local: true, ..Policy::default() }),
            clock: Clock::manual(7_000_000),
        };
        let peer = Peer { name: "peer.test".to_owned(), url: url.parse().unwrap() };
        let config = Config { peers: vec![peer], interval: Duration::from_secs(600) };
        let (handle, mut comparisons) = build(&config, parts, &Registry::new()).unwrap();
        let comparison = comparisons.pop().unwrap();
        let stage = Stage { handle, comparison, script, asked, requests, log: stores.log, server };
        stage.says("hosts", [page(json!({ "hosts": [] }))]);
        stage.says("repos", [page(json!({ "repos": [] }))]);
        stage
    }

    fn says<const N: usize>(&self, method: &'static str, answers: [(StatusCode, String); N]) {
        lock(&self.script).insert(method, answers.into());
    }

    /// An account becomes known here.
    async fn knows(&self, did: &str) {
        let did = Did::parse(did).unwrap();
        let state = RepoState {
            host: HostName::parse("a.test").unwrap(),
            host_epoch: 0,
            upstream_seq: 1,
            head: None,
            upstream: AccountStatus::Active,
            local: LocalStatus::None,
        };
        let time = "2026-01-02T03:04:05.678Z";
        let frame =
            Event::Account(AccountEvent { seq: 1, did: did.as_str(), time, active: true, status: None }).encode();
        let Ok(Routed::Event(route)) = event::route(&frame) else { panic!("not an event") };
        let seq_slot = route.seq_slot;
        let accepted = Accepted { did, state, frame: frame.into(), seq_slot, position: None };
        self.log.append(vec![accepted]).await.unwrap();
    }

    /// A round, noted; gives why it failed.
    async fn round(&self) -> Option<String> {
        let result = self.comparison.round().await;
        let why = result.as_ref().err().map(|error| Chain(error).to_string());
        self.comparison.note(result);
        why
    }

    fn standing(&self) -> Standing {
        self.handle.standings().remove(0).1
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.asked))
    }
}

#[tokio::test]
async fn a_round_looks_at_all_hosts_and_some_repos() {
    let stage = Stage::open().await;
    stage.knows("did:plc:here").await;
    stage.says(
        "hosts",
        [
            page(json!({ "cursor": "x y", "hosts": [
                { "hostname": "a.test", "accountCount": 5, "status": "active" },
                { "hostname": "b.test", "accountCount": 7 },
                { "hostname": "idle.test", "accountCount": 100, "status": "idle" },
                { "hostname": "not a host", "accountCount": 100, "status": "active" },
            ] })),
            page(json!({ "hosts": [
                { "hostname": "a.test", "accountCount": 5, "status": "active" },
                { "hostname": "c.test", "accountCount": 9, "status": "active", "seq": 3 },
            ] })),
        ],
    );
    stage.says(
        "repos",
        [
            page(json!({ "cursor": "2", "repos": [{ "did": "did:plc:here" }, { "did": "did:plc:gone", "active": false }] })),
            page(json!({ "repos": [{ "did": "did:plc:lost", "active": true, "head": "x" }, { "did": "nobody" }] })),
        ],
    );
    assert_eq!(stage.round().await, None);
    assert_eq!(
        stage.asked(),
        ["hosts?limit=1000", "hosts?limit=1000&cursor=x+y", "repos?limit=1000", "repos?limit=1000&cursor=2"]
    );
    let Standing { rounds, failures, tally, walk, last_round_micros, .. } = stage.standing();
    assert_eq!((rounds, failures, last_round_micros), (1, 0, Some(7_000_000)));
    assert_eq!((tally.hosts, tally.missing, tally.accounts_there, tally.accounts_here), (3, 2, 21, Some(1)));
    let names: Vec<_> = tally.names().into_iter().map(|host| host.name.to_string()).collect();
    assert_eq!(names, ["c.test", "b.test"]);
    assert_eq!((walk.looked, walk.missing, walk.laps, walk.names().len()), (2, 1, 1, 1));
    let metrics = &stage.comparison.metrics;
    assert_eq!((metrics.hosts.get(), metrics.hosts_missing.get(), metrics.repos.get()), (3, 2, 21));
    assert_eq!((metrics.looked.get(), metrics.missing.get(), metrics.own_repos.get()), (2, 1, 1));

    // What has come since is missing no more.
    stage.knows("did:plc:lost").await;
    assert_eq!(stage.round().await, None);
    let walk = stage.standing().walk;
    assert_eq!((walk.names(), walk.looked, walk.missing), (vec![], 3, 1));
}

#[tokio::test]
async fn the_walk_goes_on_from_round_to_round() {
    let stage = Stage::open().await;
    let repos = |cursor: &str| page(json!({ "cursor": cursor, "repos": [] }));
    stage.says("repos", [repos("1"), repos("2"), repos("3"), repos("4"), page(json!({ "repos": [] }))]);
    assert_eq!(stage.round().await, None);
    assert_eq!(stage.standing().walk.cursor(), Some("3"));
    assert_eq!(stage.round().await, None);
    assert_eq!((stage.standing().walk.cursor(), stage.standing().walk.laps), (None, 1));
    assert_eq!(stage.asked().len(), 2 + 3 + 2);

    // A cursor that the peer does not take any more is not kept; one that it could not look at is.
    for (answer, kept) in [
        ((StatusCode::BAD_REQUEST, String::new()), None),
        ((StatusCode::OK, "garbage".to_owned()), None),
        ((StatusCode::OK, "x".repeat(2 << 20)), None),
        ((StatusCode::TOO_MANY_REQUESTS, String::new()), Some("9")),
        ((StatusCode::BAD_GATEWAY, String::new()), Some("9")),
    ] {
        stage.says("repos", [repos("9"), answer]);
        stage.round().await.unwrap();
        assert_eq!(stage.standing().walk.cursor(), kept);
        lock(&stage.handle.0[0].standing).walk.begin_anew();
    }
}

#[tokio::test]
async fn whatever_a_peer_answers_a_round_ends_and_is_counted() {
    let stage = Stage::open().await;
    let endless = || page(json!({ "cursor": "same", "hosts": [] }));
    let long = "x".repeat(2 << 20);
    let table = [
        ((StatusCode::OK, "garbage".to_owned()), "the answer is no page of listHosts"),
        ((StatusCode::OK, "{\"hosts\": 7}".to_owned()), "the answer is no page of listHosts"),
        ((StatusCode::OK, "{\"hosts\": [{\"hostname\": \"a.test\", \"accountCount\": -1}]}".to_owned()), "no page"),
        ((StatusCode::INTERNAL_SERVER_ERROR, String::new()), "was answered 500"),
        ((StatusCode::FOUND, String::new()), "was answered 302"),
        ((StatusCode::OK, long), "answer of over"),
        (endless(), "listHosts has no end: after 2 pages"),
    ];
    let failures = table.len() as u64;
    for (answer, expected) in table {
        stage.says("hosts", [answer]);
        let why = stage.round().await.unwrap();
        assert!(why.contains(expected), "{why}");
    }
    let standing = stage.standing();
    assert_eq!((standing.rounds, standing.failures, standing.last_round_micros), (0, failures, None));
    assert!(standing.last_failure.unwrap().1.contains("no end"));
    assert_eq!(stage.comparison.metrics.failures.get(), failures);
    assert_eq!(standing.tally, Tally::default(), "half a list is no list");

    stage.says("hosts", [page(json!({ "hosts": [] }))]);
    stage.says("repos", [page(json!({ "cursor": "same", "repos": [] }))]);
    assert_eq!(stage.round().await.as_deref(), Some("listRepos has no end: after 2 pages"));
}

#[tokio::test]
async fn a_peer_whose_list_has_no_end_is_left_after_some_pages() {
    let stage = Stage::open().await;
    // Each page has another cursor.
    let pages: VecDeque<_> =
        (0..=HOST_PAGES_MAX).map(|n| page(json!({ "cursor": n.to_string(), "hosts": [] }))).collect();
    lock(&stage.script).insert("hosts", pages);
    assert_eq!(stage.round().await.as_deref(), Some("listHosts has no end: after 200 pages"));
    assert_eq!(stage.requests.load(Ordering::Relaxed), HOST_PAGES_MAX);
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_counted() {
    let mut stage = Stage::open().await;
    stage.server.shutdown().await;
    let why = stage.round().await.unwrap();
    assert!(why.starts_with("failed to ask for listHosts"), "{why}");
    assert_eq!(stage.standing().failures, 1);
}
