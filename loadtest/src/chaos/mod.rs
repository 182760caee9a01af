//! A cluster under load that is broken again and again, and judged after each time.
//!
//! [`fault`] is what can break, [`plan`] what breaks when, [`scene`] the cluster with its hosts and subscribers,
//! `strike` how each fault is done and shown to have happened, [`standstill`] how long the stream stood still for it,
//! [`report`] what came of it.
//!
//! What must hold: all that is random follows from the seed. A fault that can't be shown to have happened fails the run,
//! as does anything lost, repeated or out of order, a gap in seq, another frame for the same seq, and a process that
//! ended though nobody had done anything to it.

pub mod fault;
pub mod plan;
pub mod report;
pub mod scene;
pub mod standstill;
mod strike;

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use self::scene::Scene;
pub use self::{
    fault::{Fault, Target},
    report::Report,
};
use crate::cluster;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `mainstem` program.
    pub program: PathBuf,
    /// All that is random follows from it.
    pub seed: u64,
    /// Events a second over all hosts.
    pub rate: f64,
    /// Kafka brokers.
    pub brokers: usize,
    /// Lanes of the cluster.
    pub lanes: u32,
    /// Which faults, and how often each.
    pub faults: Vec<(Fault, usize)>,
    /// At most so many of them.
    pub rounds_max: usize,
    /// No further fault after so long.
    pub time_max: Duration,
    /// How long Kafka is gone, when it is.
    pub kafka_gone: Duration,
    /// Where logs and ledgers are kept.
    pub folder: PathBuf,
}

/// Why a run can't go on. What it found until then is in its report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The simulated network.
    #[error("failed to simulate a network")]
    Network(#[from] crate::network::Error),
    /// The machine has no namespaces for us, which cuts need.
    #[error("failed to make a network of namespaces")]
    Lan(#[from] crate::lan::Error),
    /// A fault can't be shown to have happened.
    #[error("{fault} can't be shown to have happened: {why}")]
    NotShown {
        /// Which.
        fault: Fault,
        /// Why.
        why: String,
    },
    /// The stream does not come back.
    #[error("{missing} events have not come {limit:?} after {what}")]
    Stuck {
        /// How many.
        missing: u64,
        /// How long they had.
        limit: Duration,
        /// After what.
        what: String,
    },
    /// A ledger or a log.
    #[error("failed to {what}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Starts a cluster, breaks it, and tells what came of it. `say` is told of each step as it is done.
pub async fn run(options: &Options, say: &(dyn Fn(String) + Sync)) -> Result<Report, Error> {
    let started = Instant::now();
    let mut report = Report::new(options);
    let mut scene = Scene::open(options).await?;
    say(format!("the cluster runs after {:.1?}; logs are in {}", started.elapsed(), options.folder.display()));
    let since = Instant::now();
    let rounds = plan::draw(options.seed, &options.faults);
    for (number, round) in (1..).zip(rounds.iter().take(options.rounds_max)) {
        if since.elapsed() > options.time_max {
            break;
        }
        match scene.round(round).await {
            Ok(outcome) => {
                say(format!("{number:3} {outcome}"));
                report.add(outcome);
            }
            Err(error) => {
                // What follows would tell of this one again and again.
                report.problem(format!("round {number}, {}: {error}", round.fault));
                report.problem(scene.logs());
                break;
            }
        }
    }
    match scene.end().await {
        Ok(last) => report.end(last),
        Err(error) => report.problem(format!("at the end: {error}")),
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}
