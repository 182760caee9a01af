//! The public methods, as the lexicons have them.

use atproto::{cid::Cid, syntax::HostName};
use serde_json::json;
use storage::{
    hosts::{Host, HostCursor, HostStatus},
    repos::{AccountStatus, LocalStatus},
};

use crate::harness::{Relay, accepted, ask, config, get, state};

/// A relay that knows repos in every status.
async fn relay_with_repos() -> Relay {
    let relay = Relay::start(config(&[])).await;
    let mut batch = Vec::new();
    for (name, upstream, local, has_head) in [
        ("active", AccountStatus::Active, LocalStatus::None, true),
        ("deactivated", AccountStatus::Deactivated, LocalStatus::None, true),
        ("deleted", AccountStatus::Deleted, LocalStatus::None, true),
        ("headless", AccountStatus::Active, LocalStatus::None, false),
        ("suspended", AccountStatus::Suspended, LocalStatus::None, true),
        ("takendown", AccountStatus::Takendown, LocalStatus::None, true),
        ("throttled", AccountStatus::Throttled { active: true }, LocalStatus::None, true),
        ("unwanted", AccountStatus::Active, LocalStatus::TakenDown, true),
    ] {
        let mut event = accepted(&format!("did:web:{name}.example.com"), 200);
        event.state = state("localhost:2583");
        event.state.upstream = upstream;
        event.state.local = local;
        event.state.head = event.state.head.filter(|_| has_head);
        batch.push(event);
    }
    relay.stores.log.append(batch).await.unwrap();
    relay
}

fn did(name: &str) -> String {
    format!("did:web:{name}.example.com")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_repos_in_pages() {
    let relay = relay_with_repos().await;
    let (mut all, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = get(relay.public, &format!("/xrpc/com.atproto.sync.listRepos?limit=3{cursor}")).await.json();
        all.extend(page["repos"].as_array().unwrap().clone());
        pages += 1;
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let names: Vec<_> = all.iter().map(|repo| repo["did"].as_str().unwrap()[8..].split('.').next().unwrap()).collect();
    assert_eq!(names, ["active", "deactivated", "deleted", "suspended", "takendown", "throttled", "unwanted"]);
    let head = Cid::of_cbor(b"commit").to_string();
    let rev = "3l4nk7lqxyk2a";
    assert_eq!(all[0], json!({ "did": did("active"), "head": head, "rev": rev, "active": true }));
    assert_eq!(
        all[1],
        json!({ "did": did("deactivated"), "head": head, "rev": rev, "active": false, "status": "deactivated" })
    );
    assert_eq!((&all[5]["active"], &all[5]["status"]), (&json!(true), &json!("throttled")));
    assert_eq!((&all[6]["active"], &all[6]["status"]), (&json!(false), &json!("takendown")));
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=zzz"] {
        let answer = get(relay.public, &format!("/xrpc/com.atproto.sync.listRepos?{query}")).await;
        answer.expect_error(400, "InvalidRequest");
    }
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_repo() {
    let relay = relay_with_repos().await;
    let ask = async |method: &str, name: &str| {
        get(relay.public, &format!("/xrpc/com.atproto.sync.{method}?did={}", did(name))).await
    };
    let rev = "3l4nk7lqxyk2a";
    assert_eq!(
        ask("getRepoStatus", "active").await.json(),
        json!({ "did": did("active"), "active": true, "rev": rev })
    );
    assert_eq!(
        ask("getRepoStatus", "unwanted").await.json(),
        json!({ "did": did("unwanted"), "active": false, "status": "takendown" })
    );
    assert_eq!(ask("getRepoStatus", "headless").await.json(), json!({ "did": did("headless"), "active": true }));
    assert_eq!(
        ask("getLatestCommit", "active").await.json(),
        json!({ "cid": Cid::of_cbor(b"commit").to_string(), "rev": rev })
    );

    let answer = ask("getRepo", "active").await;
    let location = "http://localhost:2583/xrpc/com.atproto.sync.getRepo?did=did%3Aweb%3Aactive.example.com";
    assert_eq!((answer.status, answer.header("location")), (302, Some(location)));
    assert_eq!(ask("getRepo", "headless").await.status, 302);

    for (name, error) in [
        ("unknown", "RepoNotFound"),
        ("deleted", "RepoNotFound"),
        ("deactivated", "RepoDeactivated"),
        ("suspended", "RepoSuspended"),
        ("takendown", "RepoTakendown"),
        ("unwanted", "RepoTakendown"),
    ] {
        ask("getLatestCommit", name).await.expect_error(400, error);
        ask("getRepo", name).await.expect_error(400, error);
    }
    ask("getLatestCommit", "headless").await.expect_error(400, "RepoNotFound");
    ask("getRepoStatus", "unknown").await.expect_error(400, "RepoNotFound");
    for query in ["", "?did=", "?did=alice", "?did=did:"] {
        for method in ["getRepoStatus", "getLatestCommit", "getRepo"] {
            let answer = get(relay.public, &format!("/xrpc/com.atproto.sync.{method}{query}")).await;
            answer.expect_error(400, "InvalidRequest");
        }
    }
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts() {
    let relay = relay_with_repos().await;
    // Banned, so that the crawler leaves them alone.
    for n in 0..5 {
        let name = HostName::parse(&format!("localhost:{}", 9000 + n)).unwrap();
        let cursor = HostCursor { epoch: 0, seq: (n > 0).then_some(n) };
        let host = Host { cursor, ..Host::new(name, HostStatus::Banned, 0) };
        relay.stores.hosts.add(&host).await.unwrap();
        relay.stores.hosts.save_cursors(&[(host.name.clone(), cursor)]).await.unwrap();
    }
    let page = get(relay.public, "/xrpc/com.atproto.sync.listHosts?limit=2").await.json();
    assert_eq!(
        page,
        json!({ "cursor": "localhost:9001", "hosts": [
            { "hostname": "localhost:9000", "accountCount": 0, "status": "banned" },
            { "hostname": "localhost:9001", "seq": 1, "accountCount": 0, "status": "banned" },
        ]})
    );
    let page = get(relay.public, "/xrpc/com.atproto.sync.listHosts?limit=3&cursor=localhost:9002").await.json();
    assert_eq!(page["hosts"].as_array().unwrap().len(), 2);
    assert!(page.get("cursor").is_none());

    let status = get(relay.public, "/xrpc/com.atproto.sync.getHostStatus?hostname=localhost:9003").await.json();
    assert_eq!(status, json!({ "hostname": "localhost:9003", "seq": 3, "accountCount": 0, "status": "banned" }));
    let path = "/xrpc/com.atproto.sync.getHostStatus?hostname=";
    get(relay.public, &format!("{path}elsewhere.example.com")).await.expect_error(400, "HostNotFound");
    get(relay.public, &format!("{path}not%20a%20host")).await.expect_error(400, "InvalidRequest");
    get(relay.public, "/xrpc/com.atproto.sync.listHosts?limit=1001").await.expect_error(400, "InvalidRequest");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_be_crawled() {
    let mut config = config(&[]);
    config.network.dev = false;
    let relay = Relay::start(config).await;
    let request = async |body: &str| {
        let headers = [("content-type", "application/json")];
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &headers, body).await
    };
    for body in [
        "",
        "{}",
        "{\"hostname\": 1}",
        "{\"hostname\": \"not a host\"}",
        "{\"hostname\": \"localhost:2583\"}",
        "{\"hostname\": \"10.0.0.1\"}",
        "{\"hostname\": \"https://169.254.169.254\"}",
        "{\"hostname\": \"nobody.invalid\"}",
    ] {
        request(body).await.expect_error(400, "InvalidRequest");
    }
    assert_eq!(relay.stores.hosts.count().await.unwrap(), 0);
    let answer = get(relay.public, "/xrpc/com.atproto.sync.requestCrawl").await;
    answer.expect_error(405, "InvalidRequest");
    assert_eq!(answer.header("allow"), Some("POST"));
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_may_ask() {
    let relay = Relay::start(config(&[])).await;
    let path = "/xrpc/com.atproto.sync.listHosts";
    let headers = [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let answer = ask(relay.public, "OPTIONS", path, &headers, "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    for path in [path, "/xrpc/_health", "/xrpc/com.example.unknown", "/xrpc/com.atproto.sync.getRepo"] {
        let answer = ask(relay.public, "GET", path, &headers[..1], "").await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
    let health = get(relay.public, "/xrpc/_health").await;
    assert_eq!((health.status, health.json()["version"].is_string()), (200, true));
    relay.drain().await;
}
