//! Minutes at full rate, then idle, then full again: does anything grow that should not?
//!
//! Traffic is signed while it is read, for hours of it fit on no disk; so the signing shares the machine with the relay,
//! and events a second are fewer than those of a bench.

mod report;
mod verdict;

use std::{path::PathBuf, time::Duration};

use runtime::clock::Clock;
use tokio::time::{Instant, MissedTickBehavior};

pub use self::{report::SoakReport, verdict::verdict};
use super::{Error, Machine, Subject};
use crate::{
    network::{self, Mix, Network, Pace},
    subscriber::{self, Keep, Subscriber},
    traffic::latency::Latencies,
};

/// The size of a soak.
#[derive(Clone, Debug)]
pub struct SoakConfig {
    /// What is soaked.
    pub subject: Subject,
    /// Its data goes into a new folder here.
    pub folder: PathBuf,
    /// Hosts.
    pub hosts: usize,
    /// Repos over all hosts.
    pub repos: usize,
    /// Records that each repo has before.
    pub records: usize,
    /// The relay's `--window-bytes`: small, so that old segments go while it runs.
    pub window_bytes: u64,
    /// How long at full rate. It is idle for a tenth of it then, and full again for a fifth.
    pub time: Duration,
    /// What the warm-up may take.
    pub limit: Duration,
}

/// What a soak is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Full rate.
    Full,
    /// Nothing is sent.
    Idle,
    /// Full rate after that.
    Again,
}

impl Phase {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Full => "full",
            Phase::Idle => "idle",
            Phase::Again => "again",
        }
    }
}

/// A second of a soak.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Since the warm-up.
    pub at: Duration,
    /// What it was doing.
    pub phase: Phase,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Bytes of the files of the log.
    pub log_bytes: u64,
    /// Bytes of all files in the data folder.
    pub data_bytes: u64,
    /// Events at the subscriber in this second.
    pub events_per_second: f64,
    /// From the host's send to the subscriber: the median; none where nothing came.
    pub p50: Option<Duration>,
    /// What 99 of 100 did not exceed.
    pub p99: Option<Duration>,
}

/// Soaks; tells `progress` what it sees.
pub async fn soak(config: SoakConfig, progress: impl Fn(&str)) -> Result<SoakReport, Error> {
    let at_micros = Clock::system().now_micros();
    progress(&format!("making {} repos with {} records each on {} hosts", config.repos, config.records, config.hosts));
    let network = network::Config {
        hosts: config.hosts,
        accounts: config.repos,
        records_per_repo: config.records,
        pace: Pace::AsRead,
        mix: Mix::COMMITS,
        skew: 1.2,
        ..network::Config::default()
    };
    let network = Network::start_paused(network, Clock::system()).await?;
    let mut subject = config.subject.clone();
    subject.args.push(format!("--window-bytes={}", config.window_bytes));
    let data = config.folder.join("data");
    let relay = subject.start(&data, network.plc_url(), network.hosts()).await?;
    let reading = subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Count };
    let subscriber = Subscriber::start(reading);
    network.announce_all().await?;
    let all = network.stats().events;
    if !subscriber.wait_for(all, config.limit).await {
        let (done, limit, log) = (subscriber.events(), config.limit, relay.log_tail(20));
        return Err(Error::Late { what: "warming up", done, all, limit, log });
    }

    let mut samples = Vec::new();
    let (started, mut events) = (Instant::now(), subscriber.events());
    for (phase, time) in [(Phase::Full, config.time), (Phase::Idle, config.time / 10), (Phase::Again, config.time / 5)]
    {
        match phase {
            Phase::Full | Phase::Again => network.resume(),
            Phase::Idle => network.pause(),
        }
        subscriber.take_latencies();
        let until = Instant::now() + time;
        let mut ticks = tokio::time::interval_at(Instant::now() + SECOND, SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        while Instant::now() < until {
            ticks.tick().await;
            let (now, came) = (Instant::now(), subscriber.events());
            let latencies = subscriber.take_latencies();
            let folder = data.clone();
            let (log_bytes, data_bytes) =
                tokio::task::spawn_blocking(move || (bytes_under(&folder.join(LOG)), bytes_under(&folder)))
                    .await
                    .map_err(|_| Error::Died)?;
            let sample = Sample {
                at: now - started,
                phase,
                rss_bytes: relay.resident_bytes()?,
                log_bytes,
                data_bytes,
                events_per_second: (came - events) as f64 / (now - last).as_secs_f64(),
                p50: latencies.quantile(0.5),
                p99: latencies.quantile(0.99),
            };
            (events, last) = (came, now);
            if samples.len() % SAY_EVERY == 0 {
                progress(&said(&sample, &latencies));
            }
            samples.push(sample);
        }
    }
    subscriber.stop().await;
    relay.kill().await?;
    network.stop().await;
    Ok(SoakReport {
        at_micros,
        machine: Machine::this(),
        window_bytes: config.window_bytes,
        repos: config.repos,
        samples,
    })
}

const SECOND: Duration = Duration::from_secs(1);
/// Samples between two lines of progress.
const SAY_EVERY: usize = 10;
/// The log's folder in the relay's data folder.
const LOG: &str = "log";

fn said(sample: &Sample, latencies: &Latencies) -> String {
    let p99 = latencies.quantile(0.99).map_or("–".to_owned(), |p99| format!("{:.0} ms", p99.as_secs_f64() * 1e3));
    format!(
        "{:>5.0} s  {:<5}  {:>7.0} events/s  p99 {p99:>7}  {:>5} MiB resident  {:>6} MB of log",
        sample.at.as_secs_f64(),
        sample.phase.name(),
        sample.events_per_second,
        sample.rss_bytes >> 20,
        sample.log_bytes / 1_000_000,
    )
}

/// Bytes of the files in a folder and all under it. What vanishes meanwhile counts nothing.
fn bytes_under(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
