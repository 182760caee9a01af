//! What every process tells of itself, whichever roles it plays: whether it works, and if not, why.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use runtime::{clock::Clock, tasks::Tasks};
use storage::log::{EventLog, LogHealth};
use storage_cluster::{Health, sequence::Phase};
use tokio::{sync::watch, time::Instant};

use crate::{
    admin::readiness::{ClusterFacts, Facts},
    lanes::WatchedIntake,
};

/// What readiness and the process's metrics are made of.
pub struct Vitals {
    /// The process's tasks.
    pub tasks: Tasks,
    /// What time it is.
    pub clock: Clock,
    /// When the process began.
    pub started: Instant,
    /// The intake, for what it has seen, where events come in and are judged in this process.
    pub intake: Option<Arc<WatchedIntake>>,
    /// The log, for its health, where there is one.
    pub log: Option<Arc<dyn EventLog>>,
    /// How the cluster stands, where there is one.
    pub cluster: Option<watch::Receiver<Health>>,
    /// What the sequencer does, where there is one.
    pub sequencer: Option<watch::Receiver<Phase>>,
    /// Whether all parts are running.
    pub running: AtomicBool,
}

impl Vitals {
    /// What readiness is judged by.
    pub fn facts(&self) -> Facts {
        Facts {
            running: self.running.load(Ordering::Relaxed),
            draining: self.tasks.cause().is_some(),
            log: self.log.as_ref().map_or(LogHealth::Ready, |log| log.health()),
            lanes_stalled: self.intake.as_ref().map_or(0, |intake| intake.standing_still()),
            uptime: self.started.elapsed(),
            cluster: self.cluster.as_ref().map(|health| ClusterFacts::of(&health.borrow())),
            sequencer: self.sequencer.as_ref().map(|phase| *phase.borrow()),
        }
    }
}
