//! What all tests of the program need: the program, a folder, a seed, and ways to wait.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use atproto::syntax::HostName;
use loadtest::{
    network::{self, Network},
    relay_process::{self, RelayProcess, get},
    subscriber::{self, Keep, Subscriber},
};
use runtime::clock::Clock;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

/// Long enough for a busy machine; a test that works never waits that long.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// The `mainstem` program.
pub(crate) fn mainstem() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match environment("MAINSTEM_BIN") {
        Some(path) => PathBuf::from(path),
        None => build_mainstem(),
    })
}

/// Builds the program where this test's own binary was built.
fn build_mainstem() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let mut build = Command::new(env!("CARGO"));
    // The whole workspace, as the tests themselves are built: a narrower choice would choose other features, and build
    // everything once more.
    build.args(["build", "--quiet", "--workspace", "--bin", "mainstem"]);
    build.arg("--target-dir").arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "cargo can't build mainstem");
    folder.join("mainstem")
}

/// Until this is dropped, no other test of the program runs: each wants the machine to itself.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

/// What random choices follow from; printed, so that a run can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = environment("LOADTEST_SEED").and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Clock::system().now_micros());
    println!("LOADTEST_SEED={seed}");
    seed
}

#[expect(clippy::disallowed_methods, reason = "the one place where these tests read the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How the program is run beside `network`, with its data in `folder`.
pub(crate) fn relay_of(network: &Network, folder: &Path) -> relay_process::Config {
    relay_process::Config::new(mainstem(), &folder.join("data"), network.plc_url(), network.hosts()).unwrap()
}

/// A simulated network, a relay that reads it, and a subscriber of the relay.
pub(crate) struct Scene {
    pub(crate) network: Network,
    pub(crate) relay: RelayProcess,
    pub(crate) subscriber: Subscriber,
    /// The relay's data; goes when this is dropped.
    pub(crate) folder: TempDir,
}

impl Scene {
    /// All of it, connected; nothing has happened yet.
    pub(crate) async fn open(config: network::Config) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::start_paused(config, Clock::system()).await.unwrap();
        let relay = RelayProcess::start(relay_of(&network, folder.path())).await.unwrap();
        all_connected(&network).await;
        let subscriber = subscriber_of(&relay);
        Scene { network, relay, subscriber, folder }
    }
}

/// A subscriber of all that the relay has and gets.
pub(crate) fn subscriber_of(relay: &RelayProcess) -> Subscriber {
    Subscriber::start(subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Received })
}

/// Waits until the relay reads all hosts.
pub(crate) async fn all_connected(network: &Network) {
    let connected = || (0..network.hosts().len()).filter(|host| network.subscribers(*host) > 0).count();
    let all = wait_until(LONG, || connected() == network.hosts().len()).await;
    assert!(all, "the relay reads {} of {} hosts", connected(), network.hosts().len());
}

/// What the relay says that it has refused of a host, by reason.
pub(crate) async fn refused_of(relay: &RelayProcess, host: &HostName) -> BTreeMap<String, u64> {
    let (status, body) = get(&format!("{}/host.json?hostname={host}", relay.public_url())).await.unwrap();
    assert_eq!(status, 200, "{host}");
    let host: Value = serde_json::from_slice(&body).unwrap();
    let refused = host["refused"].as_array().unwrap().iter();
    refused
        .map(|refused| (refused["reason"].as_str().unwrap().to_owned(), refused["total"].as_u64().unwrap()))
        .collect()
}

/// Waits until `met`; false if that takes longer than `limit`.
pub(crate) async fn wait_until(limit: Duration, mut met: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !met() {
        if started.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Reads all that the relay has from the first event on, until `events` have come and nothing more does.
pub(crate) async fn replay(relay: &RelayProcess, events: u64) -> subscriber::Reading {
    replay_from(&relay.stream_url(), events).await
}

/// The same of any server of a stream.
pub(crate) async fn replay_from(url: &str, events: u64) -> subscriber::Reading {
    let config = subscriber::Config { url: url.to_owned(), cursor: Some(0), keep: Keep::Received };
    let subscriber = Subscriber::start(config);
    subscriber.wait_for(events, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    subscriber.stop().await
}
