//! Two crawlers that share the hosts, one fan-out node that administers them: in a cluster on real servers.

use std::{fs, path::Path, sync::Arc, time::Duration};

use loadtest::{
    cluster::{self, Cluster, Counts, Role, Servers},
    judge::{Extent, Judge},
    network::{Config, Mix, Network, Pace},
    subscriber::{self, Keep, Subscriber},
};
use runtime::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::harness::{LONG, all_connected, alone, mainstem, seed, wait_until};

const SHARES: f64 = 16.0;

/// The shares of the hosts that each crawler holds.
async fn held(cluster: &Cluster) -> Vec<f64> {
    let mut held = Vec::new();
    for crawler in cluster.of(Role::Crawl) {
        held.push(crawler.metric("mainstem_host_shares_held").await.unwrap_or(0.0));
    }
    held
}

/// Waits until the shares are spread as wanted.
async fn spread(cluster: &Cluster, wanted: impl Fn(&[f64]) -> bool) {
    let began = Instant::now();
    loop {
        let held = held(cluster).await;
        if wanted(&held) {
            println!("shares {held:?} after {:.2?}", began.elapsed());
            return;
        }
        assert!(began.elapsed() < LONG, "{held:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn is_shared(held: &[f64]) -> bool {
    held.iter().all(|held| *held >= 1.0) && held.iter().sum::<f64>() == SHARES
}

/// `mainstem admin hosts COMMAND HOST` at the fan-out node.
async fn admin(cluster: &Cluster, password: &Path, command: &str, host: &str) {
    let url = format!("http://{}", cluster.of(Role::Serve).next().unwrap().admin());
    let mut admin = tokio::process::Command::new(mainstem());
    admin.args(["admin", "hosts", command, host, "--url", &url, "--password-file"]);
    let output = admin.arg(password).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crawlers_share_the_hosts_and_take_them_over_and_hear_what_is_ordered_elsewhere() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "a password of the test\n").unwrap();
    let config = Config {
        seed: seed(),
        hosts: 12,
        accounts: 120,
        pace: Pace::PerSecond(100.0),
        mix: Mix::STRICT,
        window_bytes: 64 << 20,
        remember: true,
        ..Config::default()
    };
    let network = Network::start_paused(config, Clock::system()).await.unwrap();
    let servers = Arc::new(Servers::start(1).await.unwrap());
    let with_password = vec!["--admin-password-file".to_owned(), password.to_str().unwrap().to_owned()];
    let config = cluster::Config {
        program: mainstem().to_owned(),
        name: "sharing".to_owned(),
        folder: folder.path().to_owned(),
        counts: Counts { crawl: 2, validate: 1, sequence: 1, serve: 1 },
        address: std::net::Ipv4Addr::LOCALHOST,
        first_public: None,
        plc_url: Some(network.plc_url().to_owned()),
        hosts: network.hosts().to_vec(),
        dev: true,
        init_args: vec!["--lanes=4".to_owned(), format!("--host-partitions={SHARES}")],
        role_args: vec![(Role::Serve, with_password)],
        sites: Vec::new(),
    };
    let mut cluster = Cluster::start(config, servers).await.unwrap();
    all_connected(&network).await;
    spread(&cluster, is_shared).await;
    let url = cluster.stream_urls().swap_remove(0);
    let subscriber = Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received });
    network.resume();
    assert!(subscriber.wait_for(300, LONG).await);
    let read_once = || (0..network.hosts().len()).all(|host| network.subscribers(host) == 1);
    assert!(wait_until(LONG, read_once).await, "each host is read by one");

    // Of each crawler some host is named here.
    for (at, host) in network.hosts().iter().enumerate().take(4) {
        admin(&cluster, &password, "ban", host.as_str()).await;
        assert!(wait_until(LONG, || network.subscribers(at) == 0).await, "{host} is banned and read");
        admin(&cluster, &password, "unban", host.as_str()).await;
        assert!(wait_until(LONG, || network.subscribers(at) == 1).await, "{host} is not banned and not read");
        admin(&cluster, &password, "rewind", host.as_str()).await;
    }

    cluster.process(Role::Crawl, 1).kill().await.unwrap();
    spread(&cluster, |held| held[1] == SHARES).await;
    all_connected(&network).await;
    let before = subscriber.events();
    assert!(subscriber.wait_for(before + 300, LONG).await);
    cluster.process(Role::Crawl, 1).start().await.unwrap();
    spread(&cluster, is_shared).await;
    let (status, took) = cluster.process(Role::Crawl, 2).terminate(LONG).await.unwrap();
    println!("left with {status} after {took:.2?}");
    assert!(status.success(), "{status}");
    spread(&cluster, |held| held[0] == SHARES).await;
    let before = subscriber.events();
    assert!(subscriber.wait_for(before + 300, LONG).await);

    network.pause();
    let truth = network.truth();
    let arrived = subscriber.wait_for(truth.to_pass() as u64, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let report = Judge::new(truth).reading(&subscriber.stop().await.received, Extent::Whole);
    println!("{report}");
    let tails: Vec<String> = cluster.processes().iter().map(|process| process.log_tail(20)).collect();
    assert!(arrived && report.is_clean(), "{report}\n{}", tails.join("\n"));
    cluster.stop().await.unwrap();
    network.stop().await;
}
