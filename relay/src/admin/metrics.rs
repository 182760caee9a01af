//! What is looked up when metrics are asked for, because nobody counts it as it happens; and what administration counts.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, process_collector::ProcessCollector,
};
use storage::intake::Intake;

use super::{audit::Outcome, readiness};
use crate::{
    version::{COMMIT, VERSION},
    vitals::Vitals,
};

/// The process's own metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    intake_bytes: IntGauge,
    lanes_standing_still: IntGauge,
    uptime_seconds: IntGauge,
    not_ready: IntGaugeVec,
    log_oldest_age_seconds: IntGauge,
    /// Wrong passwords and tokens.
    pub(super) attempts_failed: IntCounter,
    changes: IntCounterVec,
}

impl Metrics {
    /// Registers them, and what the system knows of the process.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let opts = Opts::new("mainstem_build_info", "Always 1; the labels say what the program is.");
        let build = IntGaugeVec::new(opts, &["version", "commit"])?;
        build.with_label_values(&[VERSION, COMMIT]).set(1);
        registry.register(Box::new(build))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<IntGauge, prometheus::Error>(gauge)
        };
        let attempts_failed =
            IntCounter::new("mainstem_admin_attempts_failed_total", "Wrong passwords and tokens for administration.")?;
        registry.register(Box::new(attempts_failed.clone()))?;
        let opts =
            Opts::new("mainstem_admin_changes_total", "Changes that were asked for by administration, by result.");
        let changes = IntCounterVec::new(opts, &["result"])?;
        for outcome in Outcome::ALL {
            changes.with_label_values(&[outcome.as_str()]);
        }
        registry.register(Box::new(changes.clone()))?;
        let opts = Opts::new("mainstem_not_ready", "1 while /readyz says no for this reason.");
        let not_ready = IntGaugeVec::new(opts, &["reason"])?;
        registry.register(Box::new(not_ready.clone()))?;
        Ok(Metrics {
            attempts_failed,
            changes,
            not_ready,
            log_oldest_age_seconds: gauge(
                "mainstem_log_oldest_age_seconds",
                "Time since the oldest event that is kept entered the log; 0 where there is none.",
            )?,
            intake_bytes: gauge("mainstem_intake_bytes", "Bytes of frames that were read and are not judged yet.")?,
            lanes_standing_still: gauge(
                "mainstem_lanes_standing_still",
                "Lanes that hold frames and have been done with none for a minute.",
            )?,
            uptime_seconds: gauge("mainstem_uptime_seconds", "Time since the process was started.")?,
        })
    }

    /// Counts a change by its end.
    pub(super) fn changed(&self, outcome: Outcome) {
        self.changes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Looks.
    pub(super) fn look(&self, vitals: &Vitals) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if let Some(intake) = &vitals.intake {
            self.intake_bytes.set(gauge(intake.bytes_held()));
            self.lanes_standing_still.set(gauge(intake.standing_still() as u64));
        }
        if let Some(log) = &vitals.log {
            let first = log.window().borrow().first_at_micros;
            let age = first.map_or(0, |first| vitals.clock.now_micros().saturating_sub(first) / 1_000_000);
            self.log_oldest_age_seconds.set(gauge(age));
        }
        let problems = readiness::problems(&vitals.facts());
        for name in readiness::NAMES {
            let holds = problems.iter().any(|problem| problem.name == name);
            self.not_ready.with_label_values(&[name]).set(i64::from(holds));
        }
        self.uptime_seconds.set(gauge(vitals.started.elapsed().as_secs()));
    }
}
