//! What is looked up when metrics are asked for, because nobody counts it as it happens.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, process_collector::ProcessCollector};

use crate::app::{App, VERSION};

/// The process's own metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    intake_bytes: IntGauge,
    lanes_standing_still: IntGauge,
    uptime_seconds: IntGauge,
}

impl Metrics {
    /// Registers them, and what the system knows of the process.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let opts = Opts::new("mainstem_build_info", "Always 1; the program's version is in the label.");
        let build = IntGaugeVec::new(opts, &["version"])?;
        build.with_label_values(&[VERSION]).set(1);
        registry.register(Box::new(build))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<IntGauge, prometheus::Error>(gauge)
        };
        Ok(Metrics {
            intake_bytes: gauge("mainstem_intake_bytes", "Bytes of frames that were read and are not judged yet.")?,
            lanes_standing_still: gauge(
                "mainstem_lanes_standing_still",
                "Lanes that hold frames and have been done with none for a minute.",
            )?,
            uptime_seconds: gauge("mainstem_uptime_seconds", "Time since the process was started.")?,
        })
    }

    /// Looks.
    pub(super) fn look(&self, app: &App) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.intake_bytes.set(gauge(app.stores.intake.bytes_held()));
        self.lanes_standing_still.set(gauge(app.intake.standing_still() as u64));
        self.uptime_seconds.set(gauge(app.started.elapsed().as_secs()));
    }
}
