//! With a network before it.

use std::time::Duration;

use atproto::{
    cid::Cid,
    event::{CommitEvent, Event, Kind},
    syntax::Tid,
};
use loadtest::{
    judge::{Expect, Extent, Judge},
    network::{Config as NetworkConfig, Mix, Network, Pace},
    subscriber::{self, Keep},
};
use runtime::clock::Clock;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::harness::{LONG, Relay, ask, config, get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_asks_to_be_crawled_and_its_events_arrive() {
    let network = NetworkConfig {
        hosts: 1,
        accounts: 5,
        pace: Pace::ByHand,
        mix: Mix::STRICT,
        remember: true,
        ..NetworkConfig::default()
    };
    let network = Network::start_paused(network, Clock::system()).await.unwrap();
    let mut config = config(&[]);
    config.plc.as_mut().unwrap().url = network.plc_url().parse().unwrap();
    let relay = Relay::start(config).await;
    let url = format!("ws://{}", relay.public);
    let subscriber = subscriber::Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received });

    let name = network.hosts()[0].as_str();
    let body = format!("{{\"hostname\": \"http://{name}/\"}}");
    for _ in 0..2 {
        let answer = ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
    }
    network.generate(100).await.unwrap();
    let truth = network.truth();
    let arrived = subscriber.wait_for(truth.to_pass() as u64, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(200), LONG).await;
    let report = Judge::new(truth).reading(&subscriber.stop().await.received, Extent::Whole);
    assert!(arrived && report.is_clean(), "{report}");

    let hosts = get(relay.public, "/xrpc/com.atproto.sync.listHosts").await.json();
    assert_eq!(hosts["hosts"][0]["hostname"], name);
    assert_eq!(hosts["hosts"][0]["status"], "active");
    assert_eq!(hosts["hosts"][0]["accountCount"], 5);
    let page = get(relay.public, &format!("/host?hostname={name}")).await;
    assert!(page.status == 200 && page.body.contains(name), "{page:?}");
    relay.drain().await;
    network.stop().await;
}

/// What the author of a PDS sees who sends a commit without a CAR, and one of an account that lives elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_page_tells_its_author_what_is_wrong() {
    let network =
        NetworkConfig { hosts: 2, accounts: 6, pace: Pace::ByHand, mix: Mix::STRICT, ..NetworkConfig::default() };
    let network = Network::start_paused(network, Clock::system()).await.unwrap();
    network.announce_all().await.unwrap();
    let did = network.accounts()[0].clone();
    let (theirs, other) = (network.host_of(0), (network.host_of(0) + 1) % 2);
    for host in [theirs, other] {
        network.send_raw(host, &did, Kind::Commit, Expect::Refuse, |seq, time| {
            let rev = Tid::from_micros(Clock::system().now_micros(), 0).to_string();
            let (repo, commit) = (did.as_str(), Cid::of_cbor(b""));
            let (too_big, rebase, blocks, ops) = (false, false, &b"no car"[..], Vec::new());
            let (rev, since, prev_data) = (rev.as_str(), None, None);
            Event::Commit(CommitEvent { seq, repo, time, rev, since, commit, too_big, rebase, blocks, ops, prev_data })
                .encode()
        });
    }
    let mut config = config(&[]);
    config.plc.as_mut().unwrap().url = network.plc_url().parse().unwrap();
    let relay = Relay::start(config).await;

    for (host, reason, expected) in [(theirs, "bad_car", "a CAR of version 1"), (other, "wrong_host", "localhost")] {
        let name = network.hosts()[host].as_str();
        let body = format!("{{\"hostname\": \"http://{name}/\"}}");
        ask(relay.public, "POST", "/xrpc/com.atproto.sync.requestCrawl", &[], &body).await;
        let shown = async {
            loop {
                let view = get(relay.public, &format!("/host.json?hostname={name}")).await.json();
                if view["refused"] != json!([]) {
                    return view;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let view = timeout(LONG, shown).await.expect("the refusal is shown");
        let refused = &view["refused"][0];
        assert_eq!(
            (&refused["reason"], &refused["lastHour"], &refused["total"]),
            (&json!(reason), &json!(1), &json!(1))
        );
        assert_eq!(refused["example"]["did"], did.as_str());
        assert!(refused["example"]["rev"].is_string() && refused["example"]["kind"] == "#commit", "{refused}");
        let page = get(relay.public, &format!("/host?hostname={name}")).await.body;
        assert!(page.contains(reason) && page.contains(expected), "{page}");
        assert!(page.contains(&html_of(refused["remedy"].as_str().unwrap())), "{page}");
    }
    relay.drain().await;
    network.stop().await;
}

fn html_of(text: &str) -> String {
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_network_shows_at_once() {
    let relay = Relay::start(config(&["--simulate"])).await;
    let mut subscriber = relay.subscribe("?cursor=0").await;
    subscriber.expect_events(1, 30).await;
    assert!(get(relay.public, "/").await.body.contains("simulated"));
    relay.drain().await;
}
