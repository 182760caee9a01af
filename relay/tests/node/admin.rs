//! The private listener, and the page for people.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::{Answer, DID, Got, LONG, Relay, ask, config, get},
    schema::Document,
};

/// `admin:hunter2`
const ADMIN: (&str, &str) = ("authorization", "Basic YWRtaW46aHVudGVyMg==");

/// A relay under administration.
struct Administered {
    relay: Relay,
    document: Document,
    folder: tempfile::TempDir,
    /// Operations that were asked.
    asked: RefCell<BTreeSet<String>>,
}

impl Administered {
    async fn start() -> Administered {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("password"), "hunter2\n").unwrap();
        std::fs::write(path("tokens"), "# who may\n\nalice: 0123456789abcdef\nfedcba9876543210\n").unwrap();
        let args = ["--admin-password-file", &path("password"), "--admin-token-file", &path("tokens")];
        let relay = Relay::start(config(&[&args[..], &["--data-dir", &path("data")]].concat())).await;
        let document = get(relay.private, "/admin/openapi.json").await;
        assert_eq!(document.header("content-type"), Some("application/json"));
        Administered { document: Document::new(document.json()), relay, folder, asked: RefCell::default() }
    }

    /// Asks with the password, and holds the answer against the document.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as(ADMIN, method, path, body).await
    }

    async fn ask_as(&self, key: (&str, &str), method: &str, path: &str, body: &str) -> Answer {
        let answer = ask(self.relay.private, method, &format!("/admin{path}"), &[key], body).await;
        let bare = format!("/admin{}", path.split('?').next().unwrap());
        let operation = self.document.operations().into_iter().find(|(_, of, template)| {
            let parts = || template.split('/').zip(bare.split('/'));
            of == method
                && template.split('/').count() == bare.split('/').count()
                && parts().all(|(template, part)| template == part || template.starts_with('{'))
        });
        if let Some((operation, ..)) = operation {
            self.document.check(&operation, answer.status, &answer.json());
            self.asked.borrow_mut().insert(operation);
        }
        answer
    }

    /// Does something, and gives the answer.
    async fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.json()
    }

    /// The record, the newest first: who, operation, target, result, error.
    async fn changes(&self) -> Vec<[String; 5]> {
        let page = self.ok("GET", "/audit?limit=1000", "").await;
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let row = |entry| ["who", "operation", "target", "result", "error"].map(|name| text(entry, name));
        page["entries"].as_array().unwrap().iter().map(row).collect()
    }
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
async fn without_a_key_there_is_no_administration() {
    let relay = Relay::start(config(&[])).await;
    for path in ["/admin/hosts", "/admin/openapi.json", "/admin/nothing"] {
        let answer = ask(relay.private, "GET", path, &[ADMIN], "").await;
        answer.expect_error(404, "AdministrationOff");
        assert!(answer.body.contains("--admin-password-file"), "{answer:?}");
    }
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_but_the_document_wants_a_key() {
    let administered = Administered::start().await;
    let private = administered.relay.private;
    let operations = administered.document.operations();
    assert!(operations.len() > 10);
    for (operation, method, path) in operations.into_iter().filter(|(name, ..)| name != "describe") {
        let answer = ask(private, &method, &path.replace(['{', '}'], "x"), &[], "").await;
        answer.expect_error(401, "AuthenticationRequired");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic"), "{operation}");
    }
    // What nobody knows is not told to strangers either.
    ask(private, "GET", "/admin/nothing", &[], "").await.expect_error(401, "AuthenticationRequired");
    let wrong = administered.ask_as(("authorization", "Basic YWRtaW46d3Jvbmc="), "GET", "/hosts", "").await;
    wrong.expect_error(401, "AuthenticationRequired");
    let wrong = administered.ask_as(("authorization", "Bearer 0123456789abcdeF"), "GET", "/hosts", "").await;
    wrong.expect_error(401, "AuthenticationRequired");
    for key in [ADMIN, ("authorization", "Bearer 0123456789abcdef"), ("authorization", "bearer fedcba9876543210")] {
        assert_eq!(administered.ask_as(key, "GET", "/hosts", "").await.status, 200);
    }
    assert_eq!(administered.relay.metric("mainstem_admin_attempts_failed_total").await, 2.0);

    // A page elsewhere has the operator's browser ask.
    let origin = ("origin", "https://evil.example.com");
    let answer = ask(private, "PUT", "/admin/hosts/localhost:9", &[ADMIN, origin], "").await;
    answer.expect_error(403, "ForeignOrigin");

    // Guessing: the failures of before count too.
    let limited = async {
        loop {
            let answer = administered.ask_as(("authorization", "Bearer x"), "GET", "/hosts", "").await;
            if answer.status == 429 {
                break answer;
            }
        }
    };
    let limited = tokio::time::timeout(LONG, limited).await.unwrap();
    limited.expect_error(429, "TooManyAttempts");
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait));
    administered.relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_said() {
    let administered = Administered::start().await;
    administered.ok("PUT", "/hosts/localhost:1234", "").await;
    for (method, path, body, status, error, says) in [
        ("GET", "/nothing", "", 404, "NotFound", "openapi.json"),
        ("POST", "/hosts", "", 405, "MethodNotAllowed", "allow"),
        ("DELETE", "/openapi.json", "", 405, "MethodNotAllowed", "allow"),
        ("GET", "/hosts?status=dead", "", 400, "InvalidRequest", "active, idle, offline, throttled, banned"),
        ("GET", "/hosts?staus=active", "", 400, "InvalidRequest", "unknown parameter staus"),
        ("GET", "/hosts?limit=0", "", 400, "InvalidRequest", "from 1 to 1000"),
        ("GET", "/hosts/not%20a%20host", "", 400, "InvalidRequest", "is not a host"),
        ("GET", "/hosts/localhost:1243", "", 404, "HostNotFound", "did you mean localhost:1234"),
        ("DELETE", "/hosts/unknown.example.com/ban", "", 404, "HostNotFound", "not known"),
        ("PUT", "/hosts/localhost:9", "nonsense", 400, "InvalidRequest", "must be JSON"),
        ("PUT", "/hosts/localhost:9", "{\"color\": 1}", 400, "InvalidRequest", "color"),
        ("PUT", "/hosts/localhost:9", "{\"from\": \"here\"}", 400, "InvalidRequest", "oldest"),
        ("POST", "/hosts/localhost:1234/rewind", "{\"to\": -1}", 400, "InvalidRequest", "must be JSON"),
        ("POST", "/hosts/localhost:1234/rewind", "{\"to\": 5}", 409, "RewindAhead", "never read"),
        ("POST", "/hosts/localhost:1235/rewind", "", 404, "HostNotFound", "localhost:1234"),
        ("PUT", "/hosts/localhost:1234/limits", "{}", 400, "InvalidRequest", "at least one limit"),
        ("PUT", "/hosts/localhost:1234/limits", "{\"eventsPerDay\": 0}", 400, "InvalidRequest", "eventsPerDay"),
        ("PUT", "/hosts/localhost:1234/limits", "{\"accountsMax\": \"many\"}", 400, "InvalidRequest", "unlimited"),
        ("DELETE", "/hosts/unknown.example.com/limits", "", 404, "HostNotFound", "not known"),
        ("PUT", "/domain-bans/example.com:80", "", 400, "InvalidRequest", "port"),
        ("DELETE", "/domain-bans/example.com", "", 404, "DomainNotBanned", "not banned"),
        ("PATCH", "/request-crawl", "{\"on\": true}", 400, "InvalidRequest", "accepted"),
        ("GET", "/accounts/alice", "", 400, "InvalidRequest", "is not a DID"),
        ("GET", "/accounts/did:web:unknown.example.com", "", 404, "AccountNotFound", "not known"),
        ("DELETE", "/subscribers/7", "", 404, "SubscriberNotFound", "not connected"),
        ("DELETE", "/subscribers/x", "", 400, "InvalidRequest", "number"),
        ("GET", "/subscribers?x=1", "", 400, "InvalidRequest", "unknown parameter x"),
        ("GET", "/audit?before=x", "", 400, "InvalidRequest", "whole number"),
    ] {
        let answer = administered.ask(method, path, body).await;
        answer.expect_error(status, error);
        assert!(answer.json()["message"].as_str().unwrap().contains(says), "{method} {path}: {answer:?}");
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{answer:?}");
        }
    }
    // Changes that were turned down are recorded too, questions are not.
    let text = |row: [&str; 5]| row.map(str::to_owned);
    assert_eq!(
        administered.changes().await,
        [
            text(["admin", "disconnectSubscriber", "x", "refused", "InvalidRequest"]),
            text(["admin", "disconnectSubscriber", "7", "refused", "SubscriberNotFound"]),
            text(["admin", "setRequestCrawl", "", "refused", "InvalidRequest"]),
            text(["admin", "unbanDomain", "example.com", "refused", "DomainNotBanned"]),
            text(["admin", "banDomain", "example.com:80", "refused", "InvalidRequest"]),
            text(["admin", "clearLimits", "unknown.example.com", "refused", "HostNotFound"]),
            text(["admin", "setLimits", "localhost:1234", "refused", "InvalidRequest"]),
            text(["admin", "setLimits", "localhost:1234", "refused", "InvalidRequest"]),
            text(["admin", "setLimits", "localhost:1234", "refused", "InvalidRequest"]),
            text(["admin", "rewindHost", "localhost:1235", "refused", "HostNotFound"]),
            text(["admin", "rewindHost", "localhost:1234", "refused", "RewindAhead"]),
            text(["admin", "rewindHost", "localhost:1234", "refused", "InvalidRequest"]),
            text(["admin", "addHost", "localhost:9", "refused", "InvalidRequest"]),
            text(["admin", "addHost", "localhost:9", "refused", "InvalidRequest"]),
            text(["admin", "addHost", "localhost:9", "refused", "InvalidRequest"]),
            text(["admin", "unbanHost", "unknown.example.com", "refused", "HostNotFound"]),
            text(["admin", "addHost", "localhost:1234", "done", ""]),
        ]
    );
    let page = administered.ok("GET", "/audit?limit=2&before=5", "").await;
    let ids: Vec<_> = page["entries"].as_array().unwrap().iter().map(|entry| &entry["id"]).collect();
    assert_eq!((ids, &page["before"]), (vec![&json!(4), &json!(3)], &json!(3)));
    assert_eq!(page["entries"][0]["body"], json!({ "color": 1 }));
    assert_eq!(page["entries"][1]["body"], "nonsense");
    administered.relay.drain().await;
    let file = std::fs::read_to_string(administered.folder.path().join("data/admin.jsonl")).unwrap();
    assert_eq!(file.lines().count(), 34);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_does_what_it_says() {
    let administered = Administered::start().await;
    let relay = &administered.relay;

    // Hosts.
    let added = administered.ask("PUT", "/hosts/localhost:9", "{\"from\": \"live\"}").await;
    assert_eq!((added.status, &added.json()["hostname"]), (201, &json!("localhost:9")));
    assert_eq!(administered.ask("PUT", "/hosts/localhost:9", "").await.status, 200);
    assert_eq!(administered.ok("PUT", "/hosts/localhost:10/ban", "").await["status"], "banned");
    let names = async |query: &str| {
        let page = administered.ok("GET", &format!("/hosts{query}"), "").await;
        let names = page["hosts"].as_array().unwrap().iter().map(|host| host["hostname"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(names("").await, (vec!["localhost:10".into(), "localhost:9".into()], None));
    assert_eq!(names("?status=banned").await.0, ["localhost:10"]);
    assert_eq!(names("?search=t:9").await.0, ["localhost:9"]);
    assert_eq!(names("?limit=1").await, (vec!["localhost:10".into()], Some("localhost:10".into())));
    assert_eq!(names("?limit=1&cursor=localhost:10").await, (vec!["localhost:9".into()], None));
    let crawl =
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], "{\"hostname\": \"localhost:10\"}");
    crawl.await.expect_error(400, "HostBanned");
    assert_eq!(administered.ok("GET", "/hosts/localhost:10", "").await["status"], "banned");
    assert_ne!(administered.ok("DELETE", "/hosts/localhost:10/ban", "").await["status"], "banned");

    let rewound = administered.ok("POST", "/hosts/localhost:10/rewind", "").await;
    assert_eq!((&rewound["hostname"], &rewound["lastReset"]["toSeq"]), (&json!("localhost:10"), &json!(0)));

    // Limits: an exception, and back to the rules.
    let limits = administered.ok("GET", "/hosts/localhost:10/limits", "").await;
    assert_eq!((&limits["source"], &limits["exception"]), (&json!("local"), &json!({})));
    let exception = json!({ "accountsMax": 7, "eventsPerDay": "unlimited" });
    let limits = administered.ok("PUT", "/hosts/localhost:10/limits", &exception.to_string()).await;
    assert_eq!((&limits["inForce"]["accountsMax"], &limits["exception"]), (&json!(7), &exception));
    let limits = administered.ok("DELETE", "/hosts/localhost:10/limits", "").await;
    assert_eq!((&limits["inForce"]["accountsMax"], &limits["exception"]), (&json!(null), &json!({})));

    // Domains: the port does not matter, and what is banned twice was banned once.
    let ban = administered.ask("PUT", "/domain-bans/localhost", "").await;
    assert_eq!((ban.status, &ban.json()["hosts"]), (201, &json!(2)));
    assert_eq!(administered.ask("PUT", "/domain-bans/localhost", "").await.status, 200);
    let bans = administered.ok("GET", "/domain-bans", "").await;
    assert_eq!((&bans["domains"][0]["domain"], bans["domains"].as_array().unwrap().len()), (&json!("localhost"), 1));
    let crawl =
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], "{\"hostname\": \"localhost:77\"}");
    crawl.await.expect_error(400, "HostBanned");
    administered.ok("DELETE", "/domain-bans/localhost", "").await;
    assert_eq!(administered.ok("GET", "/domain-bans", "").await["domains"], json!([]));

    // Requests to be crawled: off, and its quota.
    let rules = administered.ok("GET", "/request-crawl", "").await;
    assert_eq!((&rules["accepted"], &rules["newHostsLastDay"]), (&json!(true), &json!(0)));
    let rules = administered.ok("PATCH", "/request-crawl", "{\"accepted\": false, \"newHostsPerDay\": 3}").await;
    assert_eq!((&rules["accepted"], &rules["newHostsPerDay"]), (&json!(false), &json!(3)));
    let crawl =
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], "{\"hostname\": \"localhost:78\"}");
    assert_eq!(crawl.await.status, 403);
    assert_eq!(administered.ok("PATCH", "/request-crawl", "{\"accepted\": true}").await["newHostsPerDay"], 3);

    // Nobody is compared with.
    assert_eq!(administered.ok("GET", "/coverage", "").await, json!({ "peers": [] }));

    // Accounts.
    relay.append(3, 200).await;
    let account = administered.ok("GET", &format!("/accounts/{DID}"), "").await;
    assert_eq!(
        (&account["did"], &account["hostname"], &account["active"], &account["rev"]),
        (&json!(DID), &json!("localhost:2583"), &json!(true), &json!("3l4nk7lqxyk2a"))
    );
    assert_eq!((&account["status"], &account["localStatus"]), (&json!("active"), &json!("none")));
    // Its method says for sure that it has none, without asking anybody.
    let identity = administered.ok("POST", "/accounts/did:key:zQ3shunBK/re-resolve", "").await;
    assert_eq!(identity["absence"], "unsupported");

    // Subscribers.
    let mut subscriber = relay.subscribe("?cursor=0").await;
    subscriber.expect_events(1, 3).await;
    let wait = async {
        loop {
            let page = administered.ok("GET", "/subscribers", "").await;
            if page["subscribers"][0]["eventsSent"] == 3 {
                break page["subscribers"][0].clone();
            }
        }
    };
    let seen = tokio::time::timeout(LONG, wait).await.unwrap();
    assert_eq!(
        (&seen["id"], &seen["cursor"], &seen["seq"], &seen["lag"]),
        (&json!(1), &json!(0), &json!(3), &json!(0))
    );
    assert_eq!((&seen["client"], &seen["token"]), (&json!("127.0.0.1"), &json!(null)));
    assert!(seen["address"].as_str().unwrap().starts_with("127.0.0.1:") && seen["bytesSent"].as_u64().unwrap() > 600);
    assert_eq!(administered.ok("DELETE", "/subscribers/1", "").await["id"], 1);
    assert_eq!(subscriber.next().await, Got::Closed(Some(1008)));
    relay.wait_for_metric("mainstem_fanout_subscribers", 0.0).await;
    // Who is not a subscriber, and who no longer is.
    get(relay.public, "/xrpc/com.atproto.sync.subscribeRepos").await.expect_error(426, "InvalidRequest");
    let page = administered.ok("GET", "/subscribers", "").await;
    assert_eq!((&page["subscribers"], &page["max"], &page["perAddressMax"]), (&json!([]), &json!(1000), &json!(100)));
    assert_eq!(page["refused"], json!([{ "reason": "no_upgrade", "count": 1 }]));
    assert_eq!(page["ended"], json!([{ "reason": "disconnected", "count": 1 }]));
    let away = &page["turnedAway"][0];
    assert_eq!(
        (&away["client"], &away["reason"], &away["count"]),
        (&json!("127.0.0.1"), &json!("no_upgrade"), &json!(1))
    );
    administered.ask("DELETE", "/subscribers/1", "").await.expect_error(404, "SubscriberNotFound");

    // Takedowns, which are events of our own.
    let taken = administered.ok("PUT", &format!("/accounts/{DID}/takedown"), "").await;
    assert_eq!((&taken["status"], &taken["active"]), (&json!("takendown"), &json!(false)));
    assert_eq!((&taken["upstreamStatus"], &taken["localStatus"]), (&json!("active"), &json!("takendown")));
    let restored = administered.ok("DELETE", &format!("/accounts/{DID}/takedown"), "").await;
    assert_eq!((&restored["status"], &restored["localStatus"]), (&json!("active"), &json!("none")));
    let unknown = administered.ask("DELETE", "/accounts/did:web:unknown.example.com/takedown", "").await;
    unknown.expect_error(404, "AccountNotFound");
    administered.ask("PUT", "/accounts/did:key:zQ3shunBK/takedown", "").await.expect_error(409, "AccountDeclined");

    // Who did it.
    let alice = ("authorization", "Bearer 0123456789abcdef");
    assert_eq!(administered.ask_as(alice, "PUT", "/hosts/localhost:9/ban", "").await.status, 200);
    let changes = administered.changes().await;
    assert_eq!(changes[0], ["alice", "banHost", "localhost:9", "done", ""]);
    assert_eq!(changes[1][1..], ["takedownAccount", "did:key:zQ3shunBK", "refused", "AccountDeclined"]);
    assert_eq!(relay.metric("mainstem_admin_changes_total{result=\"refused\"}").await, 3.0);

    administered.ok("GET", "/openapi.json", "").await;
    let all: BTreeSet<String> = administered.document.operations().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(*administered.asked.borrow(), all);
    administered.relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_reads_nothing_is_sent_away_after_a_whole_frame() {
    let administered = Administered::start().await;
    let relay = &administered.relay;
    relay.append(64, 1 << 20).await;
    let mut subscriber = relay.subscribe("?cursor=0").await;
    // What the sockets' buffers take leaves; then it stands still in the middle of something.
    let stands_still = async {
        let mut before = 0;
        loop {
            let page = administered.ok("GET", "/subscribers", "").await;
            let sent = page["subscribers"][0]["bytesSent"].as_u64().unwrap();
            if sent > 0 && sent == before {
                break;
            }
            before = sent;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(LONG, stands_still).await.unwrap();
    administered.ok("DELETE", "/subscribers/1", "").await;
    let mut seq = 0;
    loop {
        match subscriber.next().await {
            Got::Event(next) => {
                assert_eq!(next, seq + 1);
                seq = next;
            }
            end => {
                assert_eq!(end, Got::Closed(Some(1008)));
                break;
            }
        }
    }
    assert!((1..64).contains(&seq), "{seq}");
    relay.wait_for_metric("mainstem_fanout_disconnects_total{reason=\"disconnected\"}", 1.0).await;
    administered.relay.drain().await;
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
