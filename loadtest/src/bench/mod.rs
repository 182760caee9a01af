//! What an event costs a relay, from its host's socket to a subscriber's, beside what the machine itself takes in the
//! same run: ratios travel between machines, seconds do not.
//!
//! A run is some rounds; in each, every subject has a turn: a fresh relay beside a fresh network is warmed up, so that
//! no identity is resolved while a clock runs, then its hosts let go of traffic that was signed beforehand, which is
//! served as fast as it is read. Bare verification of the same signatures is measured right before and right after,
//! because machines drift. Then events come at a rate that leaves the machine idle, and the time of each is taken from
//! its host's send to the subscriber's receipt.
//!
//! What must hold: a figure that can't be trusted says so; yardsticks share nothing with the relay's code.

mod cost;
mod idle;
mod machine;
mod memory;
mod peer;
pub mod plot;
mod report;
mod spread;
mod subject;
mod turn;
mod yardstick;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::clock::Clock;

pub use self::{
    cost::Cost,
    idle::{IDLE_SHARE_MIN, Ticks},
    machine::Machine,
    memory::{Memory, MemoryWatch},
    peer::{Peer, PeerError, PeerKind},
    report::{Measured, Report, Traffic},
    spread::Spread,
    subject::{Kind, Running, Subject},
    turn::{Latency, Load, Turn},
    yardstick::{Append, Bare, Fsync, Loopback, Signatures},
};
use crate::{network, relay_process};

/// The size of a measurement.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is measured; the first is what all is about.
    pub subjects: Vec<Subject>,
    /// Turns of each.
    pub rounds: usize,
    /// Their data goes into new folders here, and the yardsticks of the disk too.
    pub folder: PathBuf,
    /// Hosts.
    pub hosts: usize,
    /// Accounts over all hosts.
    pub accounts: usize,
    /// Records that each repo has before.
    pub records_per_repo: usize,
    /// Commits in a load.
    pub events: u64,
    /// Share of accounts with P-256 keys.
    pub p256_share: f64,
    /// Seed of the traffic.
    pub seed: u64,
    /// Events a second while latency is measured.
    pub rate: f64,
    /// How long latency is measured in each turn; not at all where zero.
    pub latency_time: Duration,
    /// What each phase may take.
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
    /// A yardstick.
    #[error("failed to measure the machine")]
    Yardstick(#[source] io::Error),
    /// The kernel doesn't tell what this process has used.
    #[error("failed to read this process's usage")]
    Usage(#[from] io::Error),
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
    let mut turns: Vec<Vec<Turn>> = config.subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..config.rounds {
        for (number, subject) in config.subjects.iter().enumerate() {
            let name = &subject.name;
            let say = |doing: &str| progress(&format!("round {} of {}, {name}: {doing}", round + 1, config.rounds));
            let folder = config.folder.join(format!("{round}-{number}"));
            std::fs::create_dir_all(&folder)?;
            turns[number].push(turn::turn(&config, subject, &folder, &say).await?);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    progress("measuring the disk and the loopback interface");
    let event_bytes =
        turns.first().and_then(|turns| turns.first()).map_or(0, |turn| turn.load.bytes / turn.load.events);
    let folder = config.folder.clone();
    let machine = tokio::task::spawn_blocking(move || {
        let append = Append::measure(&folder, usize::try_from(event_bytes).unwrap_or(usize::MAX))?;
        Ok((Fsync::measure(&folder)?, append, Loopback::measure()?))
    });
    let (fsync, append, loopback) = machine.await.map_err(|_| Error::Died)?.map_err(Error::Yardstick)?;
    let subjects = config.subjects.into_iter().zip(turns).map(|(subject, turns)| Measured { subject, turns }).collect();
    Ok(Report {
        at_micros,
        machine: Machine::this(),
        traffic: Traffic {
            hosts: config.hosts,
            accounts: config.accounts,
            records_per_repo: config.records_per_repo,
            seed: config.seed,
        },
        subjects,
        fsync,
        append,
        loopback,
    })
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
