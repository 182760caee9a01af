//! What serving costs a relay: many subscribers, live and behind, quiet and hostile, beside raw sockets in the same run.
//!
//! Each [`Scenario`] has a fresh relay beside hosts that play traffic, and its readers are a [`crate::crowd::Crowd`]. What
//! is live is sent as fast as the slowest reader takes it, no faster: otherwise all would soon read behind. What a
//! subscriber costs is told as the CPU time of the relay with N of them, less what it takes with one, divided by the
//! deliveries to the others; the yardstick is what it costs to write 64 KiB at a time to as many sockets.
//!
//! What must hold: a figure that the machine's other work decides is told beside its yardstick of the same minute.

mod compression;
mod herd;
mod live;
mod pace;
mod quiet;
mod replay;
mod report;
mod shards;
mod slow;
mod stage;

use std::{path::PathBuf, str::FromStr, time::Duration};

use runtime::clock::Clock;

pub use self::{
    compression::{Compression, CompressionLive, CompressionReplay},
    herd::{Herd, HerdPhase},
    live::{Live, LiveRow},
    pace::{Paced, PacedPhase},
    quiet::Quiet,
    replay::{Replay, ReplayRow},
    report::FanOutReport,
    shards::{Shards, ShardsPhase},
    slow::{Slow, SlowPhase},
};
use super::{Error, Machine, Subject};
use crate::traffic;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// As fast as it goes, by the number of subscribers.
    Live,
    /// At a rate: what a delivery costs, and how late it is.
    Pace,
    /// From the oldest event on, by the number of readers.
    Replay,
    /// Memory of those who are there and get nothing.
    Quiet,
    /// Very many come back at once, far behind, while others read on.
    Herd,
    /// Some never read, or hardly, or talk all the time, while others read on.
    Slow,
    /// Readers that read in several streams, each of a part of the accounts.
    Shards,
    /// Some readers or all take messages compressed, live and from the oldest event on.
    Compression,
}

/// Text that names no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scenario: {text:?}; there are {}", Scenario::ALL.map(Scenario::name).join(", "))]
pub struct ScenarioError {
    text: String,
}

impl Scenario {
    /// All of them, in the order they are told.
    pub const ALL: [Scenario; 8] = [
        Scenario::Live,
        Scenario::Pace,
        Scenario::Replay,
        Scenario::Quiet,
        Scenario::Herd,
        Scenario::Slow,
        Scenario::Shards,
        Scenario::Compression,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Live => "live",
            Scenario::Pace => "pace",
            Scenario::Replay => "replay",
            Scenario::Quiet => "quiet",
            Scenario::Herd => "herd",
            Scenario::Slow => "slow",
            Scenario::Shards => "shards",
            Scenario::Compression => "compression",
        }
    }

    /// More arguments of the relay.
    fn relay_args(self) -> impl Iterator<Item = String> {
        let args: &[&str] = match self {
            Scenario::Compression => &compression::RELAY_ARGS,
            Scenario::Live
            | Scenario::Pace
            | Scenario::Replay
            | Scenario::Quiet
            | Scenario::Herd
            | Scenario::Slow
            | Scenario::Shards => &[],
        };
        args.iter().map(|arg| (*arg).to_owned())
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Scenario, ScenarioError> {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| ScenarioError { text: text.to_owned() })
    }
}

/// The size of a measurement.
#[derive(Clone, Debug)]
pub struct FanOutConfig {
    /// What is measured.
    pub subject: Subject,
    /// Of these, in turn.
    pub scenarios: Vec<Scenario>,
    /// Its data goes into new folders here.
    pub folder: PathBuf,
    /// The folder of traffic that is played.
    pub traffic: PathBuf,
    /// What each phase may take.
    pub limit: Duration,
    /// How much of everything.
    pub sizes: Sizes,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Numbers of live subscribers.
    pub live: Vec<usize>,
    /// Deliveries to measure for each of them, about.
    pub deliveries: u64,
    /// Events a second, where it is not as fast as it goes.
    pub rate: f64,
    /// Subscribers at that rate.
    pub paced: usize,
    /// How long they are looked at.
    pub paced_time: Duration,
    /// Numbers of readers from the oldest event on.
    pub replay: Vec<usize>,
    /// Events that they read.
    pub window_events: u64,
    /// Quiet subscribers.
    pub quiet: usize,
    /// Subscribers that come back at once.
    pub herd: usize,
    /// How many events they are behind.
    pub behind: u64,
    /// Subscribers that are live meanwhile.
    pub herd_live: usize,
    /// Subscribers of each hostile kind.
    pub hostile: usize,
}

/// What came out, where it was measured.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Scenario::Live`].
    Live(Live),
    /// Of [`Scenario::Pace`].
    Pace(Paced),
    /// Of [`Scenario::Replay`].
    Replay(Replay),
    /// Of [`Scenario::Quiet`].
    Quiet(Quiet),
    /// Of [`Scenario::Herd`].
    Herd(Herd),
    /// Of [`Scenario::Slow`].
    Slow(Slow),
    /// Of [`Scenario::Shards`].
    Shards(Shards),
    /// Of [`Scenario::Compression`].
    Compression(Box<Compression>),
}

/// Measures; tells `progress` what it does.
pub async fn fan_out(mut config: FanOutConfig, progress: impl Fn(&str)) -> Result<FanOutReport, Error> {
    let at_micros = Clock::system().now_micros();
    allow_subscribers(&mut config.subject);
    let folder = config.traffic.clone();
    let manifest =
        tokio::task::spawn_blocking(move || Ok::<_, Error>(traffic::Folder::open(&folder)?.manifest().clone()));
    let manifest = manifest.await.map_err(|_| Error::Died)??;
    let mut outcomes = Vec::new();
    for scenario in config.scenarios.clone() {
        let say = |doing: &str| progress(&format!("{}: {doing}", scenario.name()));
        let stage = stage::Stage::open(&config, scenario, &say).await?;
        outcomes.push(match scenario {
            Scenario::Live => Outcome::Live(live::measure(&stage, &config.sizes).await?),
            Scenario::Pace => Outcome::Pace(pace::measure(&stage, &config.sizes).await?),
            Scenario::Replay => Outcome::Replay(replay::measure(&stage, &config.sizes).await?),
            Scenario::Quiet => Outcome::Quiet(quiet::measure(&stage, &config.sizes).await?),
            Scenario::Herd => Outcome::Herd(herd::measure(&stage, &config.sizes).await?),
            Scenario::Slow => Outcome::Slow(slow::measure(&stage, &config.sizes).await?),
            Scenario::Shards => Outcome::Shards(shards::measure(&stage, &config.sizes).await?),
            Scenario::Compression => Outcome::Compression(Box::new(compression::measure(&stage, &config.sizes).await?)),
        });
        stage.end().await?;
    }
    Ok(FanOutReport { at_micros, machine: Machine::this(), traffic: manifest, subject: config.subject, outcomes })
}

/// All subscribers come from one address here.
fn allow_subscribers(subject: &mut Subject) {
    for flag in ["--subscribers-max", "--subscribers-per-address"] {
        if !subject.args.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}="))) {
            subject.args.push(format!("{flag}=20000"));
        }
    }
}
