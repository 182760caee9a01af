//! One process of each role of a cluster, judged from outside as the relay in one process is.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use loadtest::{
    cluster::{Cluster, Config, Counts, Role, Servers},
    judge::{Extent, Judge},
    network::{self, Mix, Network, Pace},
    subscriber::{self, Keep, Subscriber},
};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    collector::Collector,
    harness::{LONG, all_connected, alone, mainstem, seed},
    traces::{assert_one_way, stages},
};

const EVENTS: u64 = 500;
/// A role that is asked to end has nothing to wait for but its hand-over.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// A role that is started by hand, to its end.
async fn started(args: &[&str]) -> Output {
    let mut command = Command::new(mainstem());
    command.args(args).args(["--log", "error"]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(LONG, command.output()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_of_each_role_relays_a_network_and_ends_in_good_order() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start().await;
    let network = network::Config {
        seed: seed(),
        hosts: 3,
        accounts: 30,
        pace: Pace::PerSecond(200.0),
        mix: Mix::STRICT,
        remember: true,
        ..network::Config::default()
    };
    let network = Network::start_paused(network, Clock::system()).await.unwrap();
    let servers = Arc::new(Servers::start(1).await.unwrap());
    let (kafka, cql) = (servers.kafka_address(), servers.cql_address());
    let place = ["--cluster", "roles", "--kafka", &kafka, "--cql", &cql];

    // Before the cluster is made, each role says how to make it.
    for role in Role::ALL {
        let mut args = [&[role.as_str(), "--admin-bind", "127.0.0.1:0"][..], &place].concat();
        if role == Role::Serve {
            args.extend(["--bind", "127.0.0.1:0"]);
        }
        let output = started(&args).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("mainstem cluster init"), "{role}: {said}");
    }

    let traced = ["--traces-to", &collector.url, "--trace-one-in", "20"].map(str::to_owned).to_vec();
    let config = Config {
        program: mainstem().to_owned(),
        name: "roles".to_owned(),
        folder: folder.path().to_owned(),
        counts: Counts { crawl: 1, validate: 1, sequence: 1, serve: 1 },
        address: Ipv4Addr::LOCALHOST,
        first_public: None,
        plc_url: Some(network.plc_url().to_owned()),
        hosts: network.hosts().to_vec(),
        dev: true,
        init_args: ["--lanes", "4", "--host-partitions", "4"].map(str::to_owned).to_vec(),
        role_args: Role::ALL.map(|role| (role, traced.clone())).to_vec(),
        sites: Vec::new(),
    };
    let mut cluster = Cluster::start(config, servers).await.unwrap();
    let again = cluster.init().await.unwrap();
    assert!(again.contains("is there") && !again.contains("differs"), "{again}");
    all_connected(&network).await;
    let url = cluster.stream_urls().remove(0);
    let subscriber = Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received });
    network.resume();
    assert!(subscriber.wait_for(EVENTS, LONG).await, "{} events have come", subscriber.events());
    network.pause();

    let truth = network.truth();
    let all = truth.to_pass() as u64;
    assert!(subscriber.wait_for(all, LONG).await, "{} of {all} events have come", subscriber.events());
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let reading = subscriber.stop().await;
    let report = Judge::new(truth).reading(&reading.received, Extent::Whole);
    assert!(report.is_clean(), "{report}");

    // What status says comes to rest a moment after the events have.
    let mut settled = Value::Null;
    let last = reading.received.last().unwrap().seq;
    for _ in 0..600 {
        let status = cluster.command("status", &["--json".to_owned()]).await.unwrap();
        settled = serde_json::from_str(&status).unwrap();
        if settled["raw_lag"] == 0 && settled["verified_lag"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((&settled["raw_lag"], &settled["verified_lag"]), (&0.into(), &0.into()), "{settled:#}");
    assert_eq!(settled["window"]["last_seq"], last, "{settled:#}");
    assert_eq!(settled["validators"][0]["partitions"], serde_json::json!([0, 1, 2, 3]), "{settled:#}");
    assert_eq!(settled["sequencers"][0]["partitions"], serde_json::json!([0]), "{settled:#}");
    let owner = settled["validators"][0]["client"].as_str().unwrap();
    let owned = settled["lanes"].as_array().unwrap();
    assert!(owned.len() == 4 && owned.iter().all(|lane| lane["owner"] == owner), "{settled:#}");

    for role in Role::ALL {
        let (status, took) = cluster.process(role, 1).terminate(ENDS_WITHIN).await.unwrap();
        assert!(status.success(), "{role}: {status}");
        println!("{role} has ended in good order after {took:.1?}");
    }
    // Four processes have told of the same events, without a word between them.
    let traces = collector.traces();
    let all = ["receive", "judge", "validate", "append", "sequence", "publish", "send"];
    let whole: Vec<_> = traces.iter().filter(|trace| stages(trace) == BTreeSet::from(all)).collect();
    assert!(whole.len() as u64 > EVENTS / 60, "{} of {} traces are whole", whole.len(), traces.len());
    whole.iter().for_each(|trace| assert_one_way(trace));
    let roles: BTreeSet<_> = whole[0].iter().map(|told| &*told.role).collect();
    assert_eq!(roles, BTreeSet::from(["crawl", "validate", "sequence", "serve"]));
    network.stop().await;
}
