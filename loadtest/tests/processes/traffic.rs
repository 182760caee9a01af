//! The instruments by their command line: traffic is made, served, relayed, and read with the time it took.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use atproto::syntax::HostName;
use loadtest::relay_process::{self, RelayProcess};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::harness::{LONG, alone, mainstem};

/// Four events a repo to announce it, and the commits.
const EVENTS: u64 = 4 * 30 + 600;

fn loadtest(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> Output {
    let ran = timeout(LONG, loadtest(args).output()).await.unwrap().unwrap();
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran
}

/// A `loadtest serve --traffic`, and what it says of how it is reached.
struct Served {
    _child: Child,
    said: Lines<BufReader<ChildStdout>>,
    plc_url: String,
    hosts: Vec<HostName>,
}

async fn serve(folder: &str, more: &[&str]) -> Served {
    let mut child = loadtest(&[&["serve", "--traffic", folder], more].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let invitation = async {
        loop {
            let line = said.next_line().await.unwrap().unwrap();
            if line.contains("mainstem run") {
                return line;
            }
        }
    };
    let invitation = timeout(LONG, invitation).await.unwrap();
    let words: Vec<&str> = invitation.split_whitespace().collect();
    let after = |flag: &str| words.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>();
    Served {
        plc_url: after("--plc-url")[0].to_owned(),
        hosts: after("--host").into_iter().map(|host| HostName::parse(host).unwrap()).collect(),
        _child: child,
        said,
    }
}

async fn relay_of(served: &Served, folder: &Path) -> RelayProcess {
    let config = relay_process::Config::new(mainstem(), folder, &served.plc_url, &served.hosts).unwrap();
    RelayProcess::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_arrives_whole_and_is_timed() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let traffic = folder.path().join("traffic");
    let traffic = traffic.to_str().unwrap();
    let made = run(&["gen", "--profile", "small", "--out", traffic]).await;
    let told = String::from_utf8(made.stdout).unwrap();
    assert!(told.contains("mean frame") && told.contains("600"), "{told}");

    for (name, how) in [("ports", &["--rate", "2000"][..]), ("one-port", &["--one-port"][..])] {
        let mut served = serve(traffic, how).await;
        assert_eq!(served.hosts.len(), 3);
        assert_eq!(served.hosts.iter().all(|host| host.host() == "localhost"), name == "ports");
        let relay = relay_of(&served, &folder.path().join(name)).await;
        let count = EVENTS.to_string();
        let read = run(&["subscribe", &relay.stream_url(), "--cursor", "0", "--count", &count, "--json"]).await;
        let figures: Value = serde_json::from_slice(&read.stdout).unwrap();
        assert_eq!((&figures["events"], &figures["notices"]), (&EVENTS.into(), &Value::Array(vec![])), "{figures}");
        assert_eq!(figures["latency"]["events"], EVENTS, "every event is stamped: {figures}");
        let latency = |which: &str| figures["latency"][which].as_u64().unwrap();
        let (p50, p99, max) = (latency("p50_micros"), latency("p99_micros"), latency("max_micros"));
        assert!(0 < p50 && p50 <= p99 && p99 <= max && max < LONG.as_micros() as u64, "{figures}");

        // Who comes again finds all of it, and has it as a table.
        let read = run(&["subscribe", &relay.stream_url(), "--cursor", "0", "--count", &count]).await;
        let table = String::from_utf8(read.stdout).unwrap();
        assert!(table.contains("events/s") && table.contains("p99"), "{table}");
        let all_sent = async { while !served.said.next_line().await.unwrap().unwrap().starts_with("all is sent") {} };
        timeout(LONG, all_sent).await.unwrap();
        relay.kill().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (args, told) in [
        (&["serve", "--traffic", path][..], "make it with `loadtest gen --out`"),
        (&["serve", "--traffic", path, "--hosts", "3"], "cannot be used with"),
        (&["serve", "--rate=-1"], "--rate must be 0 or more"),
        (&["gen", "--profile", "no-such-profile", "--out", path], "profiles that are built in: standard, small"),
        (&["gen", "--profile", "small", "--hosts", "0", "--out", path], "hosts must be 1 to 100,000"),
        (&["subscribe", "http://127.0.0.1:1"], "is no ws:// address"),
        (&["subscribe", "ws://127.0.0.1:1", "--seconds", "1"], "no connection came about"),
    ] {
        let ran = timeout(LONG, loadtest(args).output()).await.unwrap().unwrap();
        let error = String::from_utf8(ran.stderr).unwrap();
        assert!(!ran.status.success() && error.contains(told), "{args:?}: {error}");
    }
}
