//! The private listener, and the page for people.

use std::io::Write;

use crate::harness::{Relay, ask, config, get};

/// `admin:hunter2`
const ADMIN: (&str, &str) = ("authorization", "Basic YWRtaW46aHVudGVyMg==");

async fn relay_with_password() -> (Relay, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "hunter2").unwrap();
    let relay = Relay::start(config(&["--admin-password-file", file.path().to_str().unwrap()])).await;
    (relay, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_are_private() {
    let relay = Relay::start(config(&[])).await;
    let health = get(relay.private, "/healthz").await;
    assert_eq!(health.status, 200);
    let ready = get(relay.private, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
    let metrics = get(relay.private, "/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    for name in [
        "mainstem_fanout_subscribers",
        "mainstem_crawler_hosts",
        "mainstem_events_judged_total",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.body.contains(name), "{name}");
    }
    let ours = |line: &&str| line.contains("mainstem_") || line.contains("process_");
    let foreign: Vec<_> = metrics.body.lines().filter(|line| !ours(line)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    for path in ["/metrics", "/readyz", "/admin/hosts"] {
        get(relay.public, path).await.expect_error(404, "NotFound");
    }
    get(relay.private, "/xrpc/_health").await.expect_error(404, "NotFound");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_wants_a_password() {
    let without = Relay::start(config(&[])).await;
    let answer = ask(without.private, "GET", "/admin/hosts", &[ADMIN], "").await;
    answer.expect_error(404, "NotFound");
    without.drain().await;

    let (relay, _file) = relay_with_password().await;
    let wrong = ("authorization", "Basic YWRtaW46d3Jvbmc=");
    for headers in [&[][..], &[wrong]] {
        let answer = ask(relay.private, "GET", "/admin/hosts", headers, "").await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic"));
    }
    let add = async |body: &str| ask(relay.private, "POST", "/admin/hosts", &[ADMIN], body).await;
    let added = add("{\"hostname\": \"localhost:9\"}").await;
    assert_eq!((added.status, &added.json()["added"]), (200, &true.into()));
    assert_eq!(add("{\"hostname\": \"localhost:9\"}").await.json()["added"], false);
    assert_eq!(add("{\"hostname\": \"localhost:10\", \"banned\": true}").await.status, 200);
    add("{\"hostname\": \"localhost:9\", \"color\": 1}").await.expect_error(400, "InvalidRequest");
    add("nonsense").await.expect_error(400, "InvalidRequest");

    let hosts = ask(relay.private, "GET", "/admin/hosts", &[ADMIN], "").await.json();
    let hosts = hosts["hosts"].as_array().unwrap();
    let names: Vec<_> = hosts.iter().map(|host| host["hostname"].as_str().unwrap()).collect();
    assert_eq!(names, ["localhost:10", "localhost:9"]);
    assert_eq!(hosts[0]["status"], "banned");
    assert!(hosts[0]["refused"].as_array().unwrap().is_empty());

    let crawl =
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], "{\"hostname\": \"localhost:10\"}");
    crawl.await.expect_error(400, "HostBanned");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_for_people() {
    let relay = Relay::start(config(&[])).await;
    relay.append(7, 200).await;
    let page = get(relay.public, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains("<h1>Mainstem</h1>") && page.body.contains("1 … 7"), "{}", page.body);
    for outside in ["src=\"http", "href=\"http", "@import"] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    assert!(page.body.contains(&get(relay.public, "/status.html").await.body[..20]));
    get(relay.public, "/host.json?hostname=unknown.example.com").await.expect_error(400, "HostNotFound");
    for (query, status) in [("?hostname=unknown.example.com", 404), ("?hostname=%3Cscript%3E", 400), ("", 400)] {
        let page = get(relay.public, &format!("/host{query}")).await;
        assert_eq!(page.status, status, "{query}");
        assert!(page.body.contains("<form action=\"/host\">") && !page.body.contains("<script"), "{}", page.body);
    }
    let status = get(relay.public, "/status.json").await.json();
    assert_eq!((&status["window"]["first"], &status["window"]["last"]), (&1.into(), &7.into()));
    relay.drain().await;
}
