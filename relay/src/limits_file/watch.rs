//! Reads the file of limits again while the relay runs.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use runtime::{chain::Chain, clock::Clock, signals::Hangups};
use serde::Serialize;
use storage::limits::Limits;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How often the file is looked at. A look costs one system call.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How it stands with the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The file.
    pub path: PathBuf,
    /// Rules in force, beside the default.
    pub rules: usize,
    /// When they were read, microseconds since the Unix epoch.
    pub read_at_micros: u64,
    /// Why the file as it is now can't be used; the rules before it are in force.
    pub error: Option<String>,
}

/// The handles.
#[derive(Clone, Debug)]
pub struct Metrics {
    reads: IntCounterVec,
    stale: IntGauge,
}

/// Watches the file. Made while the process starts, so that no signal is missed.
pub struct Watch {
    path: PathBuf,
    limits: Limits,
    hangups: Hangups,
    metrics: Metrics,
    clock: Clock,
    status: watch::Sender<Status>,
    seen: Option<Stamp>,
}

/// By what a change of the file is known.
type Stamp = (SystemTime, u64);

impl Metrics {
    /// Makes the metrics and registers them. Fails where they are registered already.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let reads = Opts::new("mainstem_limits_file_reads_total", "Readings of the file of limits after the start.");
        let metrics = Metrics {
            reads: IntCounterVec::new(reads, &["result"])?,
            stale: IntGauge::new(
                "mainstem_limits_file_bad",
                "1 while the file of limits can't be used and the rules before it are in force.",
            )?,
        };
        registry.register(Box::new(metrics.reads.clone()))?;
        registry.register(Box::new(metrics.stale.clone()))?;
        for result in ["ok", "failed"] {
            metrics.reads.with_label_values(&[result]);
        }
        Ok(metrics)
    }
}

impl Watch {
    /// For a file whose rules are in force in `limits`.
    pub fn new(path: PathBuf, rules: usize, limits: Limits, hangups: Hangups, metrics: Metrics, clock: Clock) -> Watch {
        let status = Status { path: path.clone(), rules, read_at_micros: clock.now_micros(), error: None };
        Watch { path, limits, hangups, metrics, clock, status: watch::Sender::new(status), seen: None }
    }

    /// How it stands with the file, now and later.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Watches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first look also catches a change between the start and now.
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.hangups.next() => true,
                _ = looks.tick() => false,
            };
            let stamp = self.stamp().await;
            if asked || self.seen.as_ref() != Some(&stamp) {
                self.seen = Some(stamp);
                self.read().await;
            }
        }
    }

    /// A file that can't be looked at has a stamp of its own, so that its absence is said once.
    async fn stamp(&self) -> Stamp {
        match tokio::fs::metadata(&self.path).await {
            Ok(metadata) => (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len()),
            Err(_) => (SystemTime::UNIX_EPOCH, u64::MAX),
        }
    }

    async fn read(&mut self) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || super::read(&path)).await;
        let error = match read {
            Ok(Ok(rules)) => {
                let count = rules.len();
                info!(path = %self.path.display(), rules = count, "limits read");
                self.limits.set_rules(rules);
                self.metrics.reads.with_label_values(&["ok"]).inc();
                self.metrics.stale.set(0);
                let read_at_micros = self.clock.now_micros();
                self.status.send_modify(|status| {
                    *status = Status { rules: count, read_at_micros, error: None, path: status.path.clone() };
                });
                return;
            }
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(panic) => panic.to_string(),
        };
        error!(error, "the file of limits can't be used; the rules before it stay in force");
        self.metrics.reads.with_label_values(&["failed"]).inc();
        self.metrics.stale.set(1);
        self.status.send_modify(|status| status.error = Some(error));
    }
}
