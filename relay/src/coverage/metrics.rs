//! What is counted of each peer. The label is the peer's name as it was configured, a closed set.

use prometheus::{
    GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Handle;

/// The handles of one peer.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) hosts: IntGauge,
    pub(super) hosts_missing: IntGauge,
    pub(super) repos: IntGauge,
    pub(super) own_repos: IntGauge,
    pub(super) looked: IntCounter,
    pub(super) missing: IntCounter,
    pub(super) failures: IntCounter,
}

/// The same of all peers.
#[derive(Debug)]
pub(super) struct PeersMetrics {
    hosts: IntGaugeVec,
    hosts_missing: IntGaugeVec,
    repos: IntGaugeVec,
    own_repos: IntGaugeVec,
    looked: IntCounterVec,
    missing: IntCounterVec,
    failures: IntCounterVec,
}

impl PeersMetrics {
    /// Registers them, and how old each peer's last round of `handle` is, which is looked up when it is asked for.
    pub(super) fn register(registry: &Registry, handle: &Handle) -> Result<PeersMetrics, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["peer"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let counters = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &["peer"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let metrics = PeersMetrics {
            hosts: gauges("mainstem_coverage_peer_hosts", "Hosts that the peer lists as active.")?,
            hosts_missing: gauges(
                "mainstem_coverage_hosts_missing",
                "Hosts that the peer lists as active, and that are not known here or not read.",
            )?,
            repos: gauges(
                "mainstem_coverage_peer_repos",
                "Accounts on the hosts that the peer lists as active, as the peer counts them.",
            )?,
            own_repos: gauges(
                "mainstem_coverage_own_repos",
                "Accounts on the hosts that the peer lists as active, as they are counted here.",
            )?,
            looked: counters(
                "mainstem_coverage_repos_looked_total",
                "Active repos of the peer that were looked up here.",
            )?,
            missing: counters(
                "mainstem_coverage_repos_missing_total",
                "Active repos of the peer that were looked up here and not known.",
            )?,
            failures: counters(
                "mainstem_coverage_failures_total",
                "Rounds that came to no end: the peer was silent or its answers could not be used.",
            )?,
        };
        let opts = Opts::new(
            "mainstem_coverage_round_age_seconds",
            "Time since the peer was last compared with in a whole round, or since the start.",
        );
        registry.register(Box::new(Ages { gauges: GaugeVec::new(opts, &["peer"])?, handle: handle.clone() }))?;
        Ok(metrics)
    }

    /// Those of one peer.
    pub(super) fn of(&self, peer: &str) -> Metrics {
        let label = &[peer];
        Metrics {
            hosts: self.hosts.with_label_values(label),
            hosts_missing: self.hosts_missing.with_label_values(label),
            repos: self.repos.with_label_values(label),
            own_repos: self.own_repos.with_label_values(label),
            looked: self.looked.with_label_values(label),
            missing: self.missing.with_label_values(label),
            failures: self.failures.with_label_values(label),
        }
    }
}

/// How old the last rounds are when somebody asks: right even where a peer keeps its task waiting.
struct Ages {
    gauges: GaugeVec,
    handle: Handle,
}

impl Collector for Ages {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (peer, age) in self.handle.ages() {
            self.gauges.with_label_values(&[peer]).set(age.as_secs_f64());
        }
        self.gauges.collect()
    }
}
