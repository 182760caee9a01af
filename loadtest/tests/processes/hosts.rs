//! Many hosts at once, and an end in good order.

use std::time::Duration;

use loadtest::{
    judge::{Extent, Judge},
    network::{Config, Mix, Pace},
    relay_process::RelayProcess,
};

use crate::harness::{LONG, Scene, all_connected, alone, replay};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_hosts_and_a_drain_within_ten_seconds_that_loses_nothing() {
    let _alone = alone().await;
    let config = Config {
        hosts: 100,
        accounts: 600,
        pace: Pace::PerSecond(500.0),
        mix: Mix::STRICT,
        window_bytes: 32 << 20,
        remember: true,
        ..Config::default()
    };
    let Scene { network, relay, subscriber, folder: _folder } = Scene::open(config).await;
    network.resume();
    assert!(subscriber.wait_for(2_000, LONG).await);

    // Events keep coming while it drains.
    let config = relay.config().clone();
    let (status, took) = relay.terminate(Duration::from_secs(30)).await.unwrap();
    println!("ended with {status} after {took:.2?}");
    assert!(status.success(), "{status}: {}", config.log_tail(20));
    assert!(took < Duration::from_secs(10), "{took:?}");

    let relay = RelayProcess::start(config).await.unwrap();
    all_connected(&network).await;
    let before = subscriber.events();
    assert!(subscriber.wait_for(before + 1_000, LONG).await);
    network.pause();
    let truth = network.truth();
    let all = truth.to_pass() as u64;
    let arrived = subscriber.wait_for(all, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let live = subscriber.stop().await;
    let replayed = replay(&relay, all).await;
    let mut judge = Judge::new(truth);
    for (name, reading) in [("live", live), ("replay", replayed)] {
        let report = judge.reading(&reading.received, Extent::Whole);
        println!("{name}: {report}");
        assert!(arrived && report.is_clean(), "{name}: {report}\n{}", relay.config().log_tail(20));
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_is_read_from_where_it_was() {
    let _alone = alone().await;
    let config =
        Config { hosts: 3, accounts: 30, pace: Pace::ByHand, mix: Mix::STRICT, remember: true, ..Config::default() };
    let Scene { mut network, relay, subscriber, folder: _folder } = Scene::open(config).await;
    network.generate(200).await.unwrap();
    assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);
    network.stop_host(1).await;
    network.generate(200).await.unwrap();
    network.start_host(1).await.unwrap();
    network.generate(200).await.unwrap();
    let truth = network.truth();
    let arrived = subscriber.wait_for(truth.to_pass() as u64, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(300), LONG).await;
    let report = Judge::new(truth).reading(&subscriber.stop().await.received, Extent::Whole);
    println!("{report}");
    assert!(arrived && report.is_clean(), "{report}\n{}", relay.config().log_tail(20));
    network.stop().await;
}
