//! With a network before it.

use std::time::Duration;

use loadtest::{
    judge::{Extent, Judge},
    network::{Config as NetworkConfig, Mix, Network, Pace},
    subscriber::{self, Keep},
};
use runtime::clock::Clock;

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
    config.plc_url = network.plc_url().parse().unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_network_shows_at_once() {
    let relay = Relay::start(config(&["--simulate"])).await;
    let mut subscriber = relay.subscribe("?cursor=0").await;
    subscriber.expect_events(1, 30).await;
    assert!(get(relay.public, "/").await.body.contains("simulated"));
    relay.drain().await;
}
