//! A relay that compares itself with another one of the same network, and lacks a host until it is told of it.

use std::{fs, path::Path, time::Duration};

use loadtest::{
    network::{Config, Mix, Network, Pace},
    relay_process::RelayProcess,
};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::harness::{LONG, all_connected, alone, mainstem, relay_of, seed, subscriber_of};

/// `mainstem admin ARGS…`
async fn admin(relay: &RelayProcess, password: &Path, args: &[&str]) -> String {
    let mut admin = Command::new(mainstem());
    admin.arg("admin").args(args).args(["--url", &relay.admin_url(), "--password-file"]).arg(password).env_clear();
    let output = admin.output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a metric of the peer has a value for which `met` holds.
async fn wait_for(relay: &RelayProcess, peer: &str, name: &str, met: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        let value = relay.metric(&format!("mainstem_coverage_{name}{{peer=\"{peer}\"}}")).await;
        if value.is_some_and(&met) {
            return;
        }
        assert!(begun.elapsed() < LONG, "{name} is {value:?}\n{}", relay.config().log_tail(20));
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_and_repos_that_a_peer_has_are_missing_until_they_are_read() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "a password of the test\n").unwrap();
    let network = Config {
        seed: seed(),
        hosts: 3,
        accounts: 30,
        pace: Pace::ByHand,
        mix: Mix::COMMITS,
        remember: true,
        ..Config::default()
    };
    let network = Network::start_paused(network, Clock::system()).await.unwrap();
    let whole = relay_of(&network, folder.path());
    let whole = RelayProcess::start(whole).await.unwrap();
    let peer = whole.public_address().to_string();

    fs::create_dir(folder.path().join("holed")).unwrap();
    let mut config = relay_of(&network, &folder.path().join("holed"));
    let missing = config.hosts.pop().unwrap();
    let args = ["--coverage-peer", &whole.public_url(), "--coverage-interval", "1s", "--admin-password-file"];
    config.args.extend(args.map(str::to_owned));
    config.args.push(password.to_str().unwrap().to_owned());
    let mut holed = RelayProcess::start(config).await.unwrap();
    all_connected(&network).await;
    network.announce_all().await.unwrap();
    let events = network.truth().events().len() as u64;
    for (relay, events) in [(&whole, events), (&holed, events / 3 * 2)] {
        assert!(subscriber_of(relay).wait_for(events, LONG).await);
    }

    wait_for(&holed, &peer, "peer_hosts", |hosts| hosts == 3.0).await;
    wait_for(&holed, &peer, "hosts_missing", |hosts| hosts == 1.0).await;
    wait_for(&holed, &peer, "peer_repos", |repos| repos == 30.0).await;
    wait_for(&holed, &peer, "own_repos", |repos| repos == 20.0).await;
    wait_for(&holed, &peer, "repos_missing_total", |repos| repos >= 10.0).await;
    wait_for(&holed, &peer, "repos_looked_total", |repos| repos >= 30.0).await;
    wait_for(&holed, &peer, "round_age_seconds", |age| age < 5.0).await;
    let told: Value = serde_json::from_str(&admin(&holed, &password, &["coverage", "--json"]).await).unwrap();
    let told = &told["peers"][0];
    assert_eq!((&told["peer"], told["peers"].as_array()), (&Value::from(&*peer), None), "{told:#}");
    let [host] = &told["hosts"]["examples"].as_array().unwrap()[..] else { panic!("{told:#}") };
    assert_eq!(
        (host["hostname"].as_str(), host["here"].as_str()),
        (Some(missing.as_str()), Some("unknown")),
        "{told:#}"
    );
    assert_eq!((&host["accountCount"], &told["failures"]), (&10.into(), &0.into()), "{told:#}");
    let mut repos: Vec<_> =
        told["repos"]["examples"].as_array().unwrap().iter().map(|repo| repo["did"].as_str().unwrap()).collect();
    repos.sort_unstable();
    let accounts = network.accounts();
    let mut expected: Vec<_> =
        (0..30).filter(|account| network.host_of(*account) == 2).map(|account| accounts[account].as_str()).collect();
    expected.sort_unstable();
    assert_eq!(repos, expected);
    let said = admin(&holed, &password, &["coverage"]).await;
    assert!(said.contains("HOST MISSING") && said.contains(missing.as_str()), "{said}");

    admin(&holed, &password, &["hosts", "add", missing.as_str()]).await;
    wait_for(&holed, &peer, "hosts_missing", |hosts| hosts == 0.0).await;
    wait_for(&holed, &peer, "own_repos", |repos| repos == 30.0).await;
    let begun = Instant::now();
    loop {
        let told: Value = serde_json::from_str(&admin(&holed, &password, &["coverage", "--json"]).await).unwrap();
        if told["peers"][0]["repos"]["examples"].as_array().unwrap().is_empty() {
            break;
        }
        assert!(begun.elapsed() < LONG, "{told:#}");
        sleep(Duration::from_millis(100)).await;
    }

    // A peer that is gone is counted, and the last figures stay.
    whole.kill().await.unwrap();
    wait_for(&holed, &peer, "failures_total", |failures| failures >= 2.0).await;
    wait_for(&holed, &peer, "peer_hosts", |hosts| hosts == 3.0).await;
    assert!(holed.ended().is_none());
    network.stop().await;
}
