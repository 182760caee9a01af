//! What an event costs a relay, from its host's socket to a subscriber's, beside what the machine itself takes in the
//! same run: ratios travel between machines, seconds do not.
//!
//! A run is some rounds; in each, every subject has a turn: a fresh relay beside hosts that play traffic from
//! a folder is warmed up, so that no identity is resolved while a clock runs. First events come at a rate that leaves the
//! machine idle, and the time of each is taken from its host's send to the subscriber's receipt; then all others come as
//! fast as they are read. Bare verification of the same signatures is measured right before that and right after,
//! because machines drift.
//!
//! What must hold: a figure that can't be trusted says so; yardsticks share nothing with the relay's code.

mod cache;
mod check;
mod cost;
pub mod fan_out;
mod growth;
mod idle;
mod machine;
mod memory;
mod peer;
pub mod plot;
mod report;
mod soak;
mod spread;
mod subject;
mod turn;
mod yardstick;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use runtime::clock::Clock;

pub use self::{
    cache::traffic,
    check::{Bound, Check},
    cost::Cost,
    growth::{Grown, GrowthConfig, GrowthReport, growth},
    idle::{IDLE_SHARE_MIN, Ticks},
    machine::Machine,
    memory::{Memory, MemoryWatch},
    peer::{Peer, PeerError, PeerKind},
    report::{Measured, Report},
    soak::{Phase, Sample, SoakConfig, SoakReport, soak, verdict},
    spread::Spread,
    subject::{Kind, Running, Subject},
    turn::{Latency, Load, Turn},
    yardstick::{Append, Bare, Fsync, FsyncWatch, Loopback, Signatures, Sockets},
};
use crate::{
    cluster, network, relay_process,
    traffic::{self, folder::Manifest},
};

/// The size of a measurement.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is measured; the first is what all is about.
    pub subjects: Vec<Subject>,
    /// Turns of each.
    pub rounds: usize,
    /// Their data goes into new folders here, and the yardsticks of the disk too.
    pub folder: PathBuf,
    /// The folder of traffic that is played.
    pub traffic: PathBuf,
    /// Events a second while latency is measured.
    pub rate: f64,
    /// How long latency is measured in each turn; not at all where zero.
    pub latency_time: Duration,
    /// The first moments at that rate, which don't count.
    pub lead_in: Duration,
    /// What each phase may take.
    pub limit: Duration,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The simulated network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// The traffic can't be played.
    #[error(transparent)]
    Player(#[from] traffic::Error),
    /// The traffic can't be read.
    #[error(transparent)]
    Traffic(#[from] traffic::folder::Error),
    /// A block of the traffic can't be read.
    #[error(transparent)]
    Blocks(#[from] traffic::blocks::Error),
    /// The traffic can't be made.
    #[error(transparent)]
    Generate(#[from] traffic::generate::Error),
    /// The folder that traffic is kept in.
    #[error("failed to keep traffic")]
    Cache(#[source] io::Error),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] relay_process::Error),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// A yardstick.
    #[error("failed to measure the machine")]
    Yardstick(#[source] io::Error),
    /// The kernel doesn't tell what this process has used.
    #[error("failed to read this process's usage")]
    Usage(#[from] io::Error),
    /// Readers were not served.
    #[error("{what}: {served} of {all} readers are served; the others: {endings}; the relay's log ends:\n{log}")]
    NotServed {
        /// The phase.
        what: &'static str,
        /// Readers that are.
        served: usize,
        /// Readers that should be.
        all: usize,
        /// How the connections of the others ended.
        endings: String,
        /// The relay's last lines.
        log: String,
    },
    /// There are not enough events.
    #[error("the traffic has {has} events, and {wanted} are needed: say --commits")]
    TooFew {
        /// What there is.
        has: u64,
        /// What it takes.
        wanted: u64,
    },
    /// A worker of ours panicked.
    #[error("a measurement died")]
    Died,
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
    let at_micros = Clock::system().now_micros();
    let (manifest, signatures) = open(&config.traffic).await?;
    let mut turns: Vec<Vec<Turn>> = config.subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..config.rounds {
        for (number, subject) in config.subjects.iter().enumerate() {
            let name = &subject.name;
            let say = |doing: &str| progress(&format!("round {} of {}, {name}: {doing}", round + 1, config.rounds));
            let folder = config.folder.join(format!("{round}-{number}"));
            std::fs::create_dir_all(&folder)?;
            turns[number].push(turn::turn(&config, subject, &folder, &signatures, &say).await?);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    progress("measuring the disk and the loopback interface");
    let event_bytes = manifest.measured.frame_bytes_mean as usize;
    let folder = config.folder.clone();
    let machine = tokio::task::spawn_blocking(move || {
        let append = Append::measure(&folder, event_bytes)?;
        Ok((Fsync::measure(&folder)?, append, Loopback::measure()?))
    });
    let (fsync, append, loopback) = machine.await.map_err(|_| Error::Died)?.map_err(Error::Yardstick)?;
    let subjects = config.subjects.into_iter().zip(turns).map(|(subject, turns)| Measured { subject, turns }).collect();
    Ok(Report { at_micros, machine: Machine::this(), traffic: manifest, subjects, fsync, append, loopback })
}

/// Signatures that bare verification takes, at most: a third of a second.
const BARE_SIGNATURES_MAX: u64 = 8_000;

/// What is in a folder of traffic, and some of its signatures, evenly.
async fn open(path: &Path) -> Result<(Manifest, Arc<Signatures>), Error> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let folder = traffic::Folder::open(&path)?;
        let step = folder.manifest().measured.events.div_ceil(BARE_SIGNATURES_MAX).max(1);
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        let frames = (0..folder.hosts()).flat_map(|host| folder.frames(host)).step_by(step);
        // Copied, so that they don't hold the blocks that they were read in.
        let frames = frames.map(|frame| Ok(Bytes::copy_from_slice(&frame?))).collect::<Result<Vec<Bytes>, Error>>()?;
        let signatures = Signatures::of(&frames, &folder.signing_keys(), usize::MAX);
        Ok((folder.manifest().clone(), Arc::new(signatures)))
    });
    opened.await.map_err(|_| Error::Died)?
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
