//! What an event costs a relay, from its socket to a subscriber's, beside the bare cost of verifying the same
//! signatures in the same run: ratios travel between machines, seconds do not.
//!
//! Traffic is signed beforehand and held at its hosts. A warm-up makes every account known to the relay, so that no
//! identity is resolved while the clock runs; then the hosts let go, and the stream is served as fast as it is read.

mod report;
mod yardstick;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::clock::Clock;
use tokio::time::Instant;

pub use self::{report::Report, yardstick::Yardstick};
use crate::{
    network::{self, Mix, Network, Pace},
    relay_process::{self, RelayProcess},
    subscriber::{self, Keep, Subscriber},
};

/// The size of a measurement.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `mainstem` program, a release build.
    pub relay: PathBuf,
    /// Its data goes into a new folder here, which is removed afterwards.
    pub folder: PathBuf,
    /// Hosts.
    pub hosts: usize,
    /// Accounts over all hosts.
    pub accounts: usize,
    /// Records that each repo has before.
    pub records_per_repo: usize,
    /// Commits that are measured.
    pub events: u64,
    /// Share of accounts with P-256 keys.
    pub p256_share: f64,
    /// Seed of the traffic.
    pub seed: u64,
    /// What each phase may take.
    pub limit: Duration,
    /// More arguments of `mainstem run`.
    pub relay_args: Vec<String>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The simulated network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] relay_process::Error),
    /// It did not come to its end.
    #[error("{what}: {done} of {all} after {limit:?}; the relay's log ends:\n{log}")]
    Late {
        /// The phase.
        what: &'static str,
        /// Events that came.
        done: u64,
        /// Events that were sent.
        all: u64,
        /// The time it had.
        limit: Duration,
        /// The relay's last lines.
        log: String,
    },
}

/// Measures; tells `progress` what it does.
pub async fn run(config: Config, progress: impl Fn(&str)) -> Result<Report, Error> {
    progress(&format!(
        "making {} accounts with {} records each on {} hosts",
        config.accounts, config.records_per_repo, config.hosts
    ));
    let network = network::Config {
        seed: config.seed,
        hosts: config.hosts,
        accounts: config.accounts,
        p256_share: config.p256_share,
        records_per_repo: config.records_per_repo,
        pace: Pace::ByHand,
        mix: Mix::COMMITS,
        // All of the run stays: what is measured must not depend on who reads how fast.
        window_bytes: usize::MAX,
        ..network::Config::default()
    };
    let network = Network::start_paused(network, Clock::system()).await?;
    let mut relay =
        relay_process::Config::new(&config.relay, &config.folder.join("data"), network.plc_url(), network.hosts())?;
    relay.args = config.relay_args.clone();
    progress("starting the relay");
    let relay = RelayProcess::start(relay).await?;
    let subscriber =
        Subscriber::start(subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Count });
    let watch =
        Watch { network: &network, relay: &relay, subscriber: &subscriber, limit: config.limit, progress: &progress };

    network.announce_all().await?;
    watch.all_arrived("warming up").await?;
    let warm = network.stats();
    let warm_frames: Vec<usize> = (0..config.hosts).map(|host| network.frames(host).len()).collect();

    progress(&format!("signing {} commits", config.events));
    network.hold();
    network.generate(config.events).await?;
    let sent = network.stats();
    let before = relay.usage()?;
    let started = Instant::now();
    network.release();
    watch.all_arrived("serving as fast as it is read").await?;
    let wall = started.elapsed();
    // The log's last group may still be on its way to the disk.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = relay.usage()?;
    subscriber.stop().await;
    relay.kill().await?;

    progress("verifying the same signatures, bare, on one thread");
    let frames: Vec<_> = (0..config.hosts)
        .flat_map(|host| {
            // What the warm-up sent is not what was measured.
            network.frames(host).split_off(warm_frames[host])
        })
        .collect();
    let keys = network.signing_keys();
    let yardstick = tokio::task::spawn_blocking(move || Yardstick::measure(&frames, &keys));
    let yardstick = yardstick.await.map_err(|_| network::Error::Died)?;
    network.stop().await;
    Ok(Report {
        events: sent.events - warm.events,
        bytes: sent.bytes - warm.bytes,
        wall,
        before,
        after,
        yardstick,
        hosts: config.hosts,
        accounts: config.accounts,
        records_per_repo: config.records_per_repo,
    })
}

/// Looks on while the relay works.
struct Watch<'a, P> {
    network: &'a Network,
    relay: &'a RelayProcess,
    subscriber: &'a Subscriber,
    limit: Duration,
    progress: &'a P,
}

impl<P: Fn(&str)> Watch<'_, P> {
    /// Waits until the subscriber has all that was sent.
    async fn all_arrived(&self, what: &'static str) -> Result<(), Error> {
        let (all, started) = (self.network.stats().events, Instant::now());
        let mut last = self.subscriber.events();
        while !self.subscriber.wait_for(all, Duration::from_secs(1)).await {
            let done = self.subscriber.events();
            (self.progress)(&format!("{what}: {done} of {all} events, {}/s", done - last));
            last = done;
            if started.elapsed() > self.limit {
                let log = self.relay.config().log_tail(20);
                return Err(Error::Late { what, done, all, limit: self.limit, log });
            }
        }
        Ok(())
    }
}

/// The folder of a measurement, removed with its value.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder under `parent`.
    pub fn new(parent: &Path) -> std::io::Result<Folder> {
        let path = parent.join(format!("mainstem-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it; what stays behind is in the machine's folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
