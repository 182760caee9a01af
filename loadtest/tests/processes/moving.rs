//! A relay that moves from one process into a cluster and back, judged as one stream.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use loadtest::{
    cluster::{self, Cluster, Counts, Servers},
    judge::{Extent, Fault, Judge, Received},
    network::{Config, Mix, Network, Pace},
    relay_process::RelayProcess,
    subscriber::{self, Keep, Subscriber},
};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::process::Command;

use crate::harness::{LONG, all_connected, alone, mainstem, relay_of, seed, wait_until};

/// Events while each of them has the stream.
const EVENTS: u64 = 300;

/// `mainstem cluster COMMAND`, which must succeed; or else what it says.
async fn command(place: &[&str], name: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(mainstem());
    command.args(["cluster", name]).args(place).args(args).env_clear().kill_on_drop(true);
    let output = command.output().await.unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Lets some events come, and waits until all that were sent are there. `before`: how many others have had.
async fn some_events(network: &Network, url: String, before: u64) -> Vec<Received> {
    all_connected(network).await;
    let subscriber = Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received });
    network.resume();
    assert!(subscriber.wait_for(EVENTS, LONG).await, "{} events have come", subscriber.events());
    network.pause();
    let all = network.truth().to_pass() as u64 - before;
    assert!(subscriber.wait_for(all, LONG).await, "{} of {all} events have come", subscriber.events());
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    subscriber.stop().await.received
}

/// Ends it, and waits until no host is read.
async fn ends(network: &Network, relay: RelayProcess) {
    relay.terminate(LONG).await.unwrap();
    let unread = || (0..network.hosts().len()).all(|host| network.subscribers(host) == 0);
    assert!(wait_until(LONG, unread).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_moves_into_a_cluster_and_back_and_nothing_is_lost_or_comes_twice() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        seed: seed(),
        hosts: 3,
        accounts: 40,
        pace: Pace::PerSecond(200.0),
        mix: Mix::STRICT,
        remember: true,
        ..Config::default()
    };
    let network = Network::start_paused(config, Clock::system()).await.unwrap();
    let relay = RelayProcess::start(relay_of(&network, folder.path())).await.unwrap();
    let url = relay.stream_url();
    let mut received = some_events(&network, url, 0).await;
    ends(&network, relay).await;

    let servers = Arc::new(Servers::start(1).await.unwrap());
    let (kafka, cql) = (servers.kafka_address(), servers.cql_address());
    let place = ["--cluster", "moving", "--kafka", &kafka, "--cql", &cql];
    let data = folder.path().join("data");
    let from = ["--data-dir", data.to_str().unwrap()];
    let init_args = ["--lanes", "4", "--host-partitions", "4", "--seq-start", "2000000"];
    let replicas = ["--replication", "1"];
    command(&place, "init", &[&init_args[..], &replicas].concat()).await.unwrap();
    let said = command(&place, "import", &["--data-dir", "/nowhere"]).await.unwrap_err();
    assert!(said.contains("there is no data folder"), "{said}");
    command(&place, "import", &from).await.unwrap();
    let again = command(&place, "import", &from).await.unwrap();
    assert!(again.contains(" 0 hosts and "), "again changes nothing: {again}");

    let config = cluster::Config {
        program: mainstem().to_owned(),
        name: "moving".to_owned(),
        folder: folder.path().join("cluster"),
        counts: Counts { crawl: 1, validate: 1, sequence: 1, serve: 1 },
        address: Ipv4Addr::LOCALHOST,
        first_public: None,
        plc_url: Some(network.plc_url().to_owned()),
        hosts: network.hosts().to_vec(),
        dev: true,
        init_args: init_args.map(str::to_owned).to_vec(),
        role_args: Vec::new(),
        sites: Vec::new(),
    };
    let cluster = Cluster::start(config, Arc::clone(&servers)).await.unwrap();
    let url = cluster.stream_urls().remove(0);
    received.extend(some_events(&network, url, received.len() as u64).await);

    let back = folder.path().join("back");
    let to = ["--data-dir", back.to_str().unwrap()];
    let said = command(&place, "export", &to).await.unwrap_err();
    assert!(said.contains("is running"), "{said}");
    let said = command(&place, "import", &from).await.unwrap_err();
    assert!(said.contains("has judged events already"), "{said}");
    no_lag(&cluster).await;
    cluster.stop().await.unwrap();
    command(&place, "export", &to).await.unwrap();
    let said = command(&place, "export", &to).await.unwrap_err();
    assert!(said.contains("is there already"), "{said}");

    let relay = RelayProcess::start(relay_in(&network, &back)).await.unwrap();
    let url = relay.stream_url();
    received.extend(some_events(&network, url, received.len() as u64).await);
    ends(&network, relay).await;

    let report = Judge::new(network.truth()).reading(&received, Extent::Whole);
    // Two jumps, where the stream moved, and nothing else.
    assert_eq!(report.count(Fault::SeqGap), 2, "{report}");
    assert_eq!(report.faults.len(), 1, "{report}");
    network.stop().await;
}

/// Waits until all is judged and published.
async fn no_lag(cluster: &Cluster) {
    for _ in 0..600 {
        let status = cluster.command("status", &["--json".to_owned()]).await.unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        if status["raw_lag"] == 0 && status["verified_lag"] == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cluster has a lag for good");
}

/// How the program is run beside `network`, on a folder that is there.
fn relay_in(network: &Network, data: &Path) -> loadtest::relay_process::Config {
    loadtest::relay_process::Config::new(mainstem(), data, network.plc_url(), network.hosts()).unwrap()
}
