//! The metrics of who crawls what.

use prometheus::{IntCounter, IntGauge, Registry, core::Collector};

/// What happens on the topic `hosts`. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(super) held: IntGauge,
    pub(super) claims: IntCounter,
    pub(super) rebalances: IntCounter,
    pub(super) lost: IntCounter,
    pub(super) nudges_sent: IntCounter,
    pub(super) nudges_failed: IntCounter,
    pub(super) nudges_seen: IntCounter,
    pub(super) nudges_dropped: IntCounter,
    pub(super) malformed: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics {
            held: IntGauge::new("mainstem_host_shares_held", "Shares of the hosts that this process crawls.")?,
            claims: IntCounter::new(
                "mainstem_host_share_claims_total",
                "Claims that this process has laid to shares of the hosts.",
            )?,
            rebalances: IntCounter::new(
                "mainstem_host_share_rebalances_total",
                "Times shares of the hosts were given or taken.",
            )?,
            lost: IntCounter::new(
                "mainstem_host_shares_lost_total",
                "Shares of the hosts that were lost because the group did not hear of this process in time.",
            )?,
            nudges_sent: IntCounter::new(
                "mainstem_host_nudges_sent_total",
                "Times others were told to look at a host's row, or at the policy.",
            )?,
            nudges_failed: IntCounter::new(
                "mainstem_host_nudges_failed_total",
                "Times others could not be told; they look at all rows now and then.",
            )?,
            nudges_seen: IntCounter::new("mainstem_host_nudges_seen_total", "Nudges of others that were heard.")?,
            nudges_dropped: IntCounter::new(
                "mainstem_host_nudges_dropped_total",
                "Nudges that were heard and left out, because too many were waiting.",
            )?,
            malformed: IntCounter::new(
                "mainstem_host_records_malformed_total",
                "Records of the hosts topic that could not be read.",
            )?,
        };
        let all: [Box<dyn Collector>; 9] = [
            Box::new(metrics.held.clone()),
            Box::new(metrics.claims.clone()),
            Box::new(metrics.rebalances.clone()),
            Box::new(metrics.lost.clone()),
            Box::new(metrics.nudges_sent.clone()),
            Box::new(metrics.nudges_failed.clone()),
            Box::new(metrics.nudges_seen.clone()),
            Box::new(metrics.nudges_dropped.clone()),
            Box::new(metrics.malformed.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }
}
