//! The lanes' metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, core::Collector};

/// What lanes do. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) held: IntGauge,
    pub(crate) claims: IntCounter,
    pub(crate) holes: IntCounter,
    pub(crate) rebalances: IntCounter,
    pub(crate) lost: IntCounter,
    pub(crate) commit_failures: IntCounter,
    pub(crate) take_seconds: Histogram,
    pub(crate) recovered: IntCounter,
    pub(crate) batch_events: Histogram,
    pub(crate) rows_seconds: Histogram,
    pub(crate) push_seconds: Histogram,
    pub(crate) wait_seconds: Histogram,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let seconds = || vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let metrics = Metrics {
            held: IntGauge::new("mainstem_lane_held", "Lanes that this process owns.")?,
            claims: IntCounter::new("mainstem_lane_claims_total", "Claims that this process has laid to lanes.")?,
            holes: IntCounter::new(
                "mainstem_lane_holes_total",
                "Times a record of another stood between a lane's own.",
            )?,
            rebalances: IntCounter::new("mainstem_lane_rebalances_total", "Times lanes were given or taken.")?,
            lost: IntCounter::new(
                "mainstem_lane_lost_total",
                "Lanes that were lost because the group did not hear of this process in time.",
            )?,
            commit_failures: IntCounter::new(
                "mainstem_lane_commit_failures_total",
                "Times the lanes' positions could not be committed.",
            )?,
            take_seconds: Histogram::with_opts(
                HistogramOpts::new("mainstem_lane_take_seconds", "Time from being given a lane to judging it.")
                    .buckets(seconds()),
            )?,
            recovered: IntCounter::new(
                "mainstem_lane_recovered_total",
                "Records of verified that were read again when a lane was taken over.",
            )?,
            batch_events: Histogram::with_opts(
                HistogramOpts::new("mainstem_lane_batch_events", "Events that are appended together.")
                    .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 2_000.0]),
            )?,
            rows_seconds: Histogram::with_opts(
                HistogramOpts::new("mainstem_lane_rows_seconds", "Time of writing a batch's rows.").buckets(seconds()),
            )?,
            push_seconds: Histogram::with_opts(
                HistogramOpts::new("mainstem_lane_push_seconds", "Time from a frame's coming to its being in raw.")
                    .buckets(seconds()),
            )?,
            wait_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "mainstem_lane_wait_seconds",
                    "Time from a frame's coming to a crawler until it is taken to be judged, by two machines' clocks.",
                )
                .buckets(seconds()),
            )?,
        };
        let all: [Box<dyn Collector>; 12] = [
            Box::new(metrics.held.clone()),
            Box::new(metrics.claims.clone()),
            Box::new(metrics.holes.clone()),
            Box::new(metrics.rebalances.clone()),
            Box::new(metrics.lost.clone()),
            Box::new(metrics.commit_failures.clone()),
            Box::new(metrics.take_seconds.clone()),
            Box::new(metrics.recovered.clone()),
            Box::new(metrics.batch_events.clone()),
            Box::new(metrics.rows_seconds.clone()),
            Box::new(metrics.push_seconds.clone()),
            Box::new(metrics.wait_seconds.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }
}
