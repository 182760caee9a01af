//! A relay that knows nobody beside a network of very many accounts: how fast it comes to know them, against the limit it
//! was given, and what that takes.

use std::{fmt, path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    network::{
        self,
        cold::{self, ColdNetwork, Requests},
    },
    relay_process::{self, RelayProcess, Usage},
    subscriber::{self, Keep, Subscriber},
};

/// The size of a cold start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `mainstem` program.
    pub relay: PathBuf,
    /// Its data goes into `data` here, which is new.
    pub folder: PathBuf,
    /// The network.
    pub network: cold::Config,
    /// `--plc-rate`.
    pub rate: u32,
    /// `--plc-concurrency`.
    pub concurrency: u32,
    /// What it may take.
    pub limit: Duration,
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
    #[error("{done} of {all} events after {limit:?}; the relay's log ends:\n{log}")]
    Late {
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

/// One moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the start.
    pub at: Duration,
    /// Events served.
    pub events: u64,
    /// Accounts asked for.
    pub resolved: u64,
    /// The relay's memory.
    pub rss_bytes: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Accounts, and as many events.
    pub accounts: u64,
    /// `--plc-rate`.
    pub rate: u32,
    /// From the relay's start until the last event was served.
    pub wall: Duration,
    /// What the directory was asked.
    pub requests: Requests,
    /// What the relay took.
    pub usage: Usage,
    /// How it came back, with all of them known.
    pub reopened: Reopened,
    /// The way there.
    pub samples: Vec<Sample>,
}

/// A relay that is started on what it has come to know.
#[derive(Clone, Copy, Debug)]
pub struct Reopened {
    /// From its start until it was ready.
    pub ready_after: Duration,
    /// Its memory, some moments later.
    pub rss_bytes: u64,
}

/// What a relay does first of all is over by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Runs it; tells `progress` how it goes.
pub async fn run(config: Config, progress: impl Fn(&str)) -> Result<Report, Error> {
    let accounts = config.network.accounts;
    let network = ColdNetwork::start(config.network).await?;
    let data = config.folder.join("data");
    let mut relay = relay_process::Config::new(&config.relay, &data, network.plc_url(), network.hosts())?;
    relay.args = vec![
        format!("--plc-rate={}", config.rate),
        format!("--plc-concurrency={}", config.concurrency),
        "--window-bytes=64GB".to_owned(),
    ];
    let started = Instant::now();
    let relay = RelayProcess::start(relay).await?;
    let subscriber =
        Subscriber::start(subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Count });
    let mut samples: Vec<Sample> = Vec::new();
    let every = Duration::from_secs(5);
    while !subscriber.wait_for(accounts, every).await {
        let sample = Sample {
            at: started.elapsed(),
            events: subscriber.events(),
            resolved: network.requests().all,
            rss_bytes: relay.usage()?.rss_bytes,
        };
        let before = samples.last().map_or(0, |before| before.resolved);
        let per_second = (sample.resolved - before) as f64 / every.as_secs_f64();
        progress(&format!(
            "{:>5.0} s  {:>9} events  {:>9} asked for  {per_second:>6.0}/s of {}  {:>5} MB",
            sample.at.as_secs_f64(),
            sample.events,
            sample.resolved,
            config.rate,
            sample.rss_bytes >> 20,
        ));
        samples.push(sample);
        if started.elapsed() > config.limit {
            let log = relay.config().log_tail(20);
            return Err(Error::Late { done: subscriber.events(), all: accounts, limit: config.limit, log });
        }
    }
    let wall = started.elapsed();
    let usage = relay.usage()?;
    subscriber.stop().await;
    let requests = network.requests();
    let again = relay.config().clone();
    relay.terminate(config.limit).await?;
    let relay = RelayProcess::start(again).await?;
    let ready_after = relay.uptime();
    tokio::time::sleep(SETTLE).await;
    let reopened = Reopened { ready_after, rss_bytes: relay.usage()?.rss_bytes };
    relay.terminate(config.limit).await?;
    Ok(Report { accounts, rate: config.rate, wall, requests, usage, reopened, samples })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { accounts, rate, wall, requests, usage, reopened, .. } = self;
        let seconds = wall.as_secs_f64();
        writeln!(f, "{accounts} unknown accounts in {seconds:.1} s")?;
        writeln!(f, "  events served      {:>8.0}/s", *accounts as f64 / seconds)?;
        writeln!(f, "  accounts asked for {:>8.0}/s of {rate} allowed", requests.all as f64 / seconds)?;
        writeln!(f, "  most in one second {:>8}", requests.per_second_max)?;
        writeln!(f, "  asked for again    {:>8}", requests.again)?;
        writeln!(f, "  most memory        {:>8} MB", usage.rss_bytes_max >> 20)?;
        writeln!(
            f,
            "  CPU an account     {:>8.0} µs",
            (usage.user_seconds + usage.system_seconds) * 1e6 / *accounts as f64
        )?;
        writeln!(f, "  ready again after  {:>8.0} ms", reopened.ready_after.as_secs_f64() * 1e3)?;
        write!(f, "  memory then        {:>8} MB", reopened.rss_bytes >> 20)
    }
}
