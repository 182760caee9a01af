//! The validator's metrics.

use std::time::Duration;

use atproto::event::Kind;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use storage::refusal::Reason;

use crate::{
    docket::Outcome,
    identity::{Fetched, Method},
};

/// What becomes of events.
pub(crate) struct Metrics {
    pub(crate) parked_bytes: IntGauge,
    pub(crate) parked_parties: IntGauge,
    pub(crate) status_asked: IntCounter,
    pub(crate) judge_seconds: Histogram,
    events: [KindCounters; 4],
    refused: [IntCounter; Reason::COUNT],
    discontinuous: IntCounter,
    pub(crate) lanes_judged: IntGauge,
    pub(crate) lanes_fenced: IntCounter,
}

/// One kind's events, by what became of them.
struct KindCounters {
    accepted: IntCounter,
    repeat: IntCounter,
    refused: IntCounter,
}

/// How identities are found.
pub(crate) struct IdentityMetrics {
    pub(crate) hits: IntCounter,
    pub(crate) kept_hits: IntCounter,
    pub(crate) misses: IntCounter,
    pub(crate) lookups: IntGauge,
    pub(crate) in_flight: IntGauge,
    pub(crate) per_second_max: IntGauge,
    pub(crate) cached: IntGauge,
    pub(crate) cached_bytes: IntGauge,
    requests: IntCounterVec,
    seconds: HistogramVec,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let events = IntCounterVec::new(
            Opts::new("mainstem_events_judged_total", "Events that were judged, by kind and what became of them."),
            &["kind", "verdict"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new("mainstem_events_refused_total", "Events that the validator refused, by reason."),
            &["reason"],
        )?;
        // All labels are made here, so that each is there from the start, at zero, and none is looked up per event.
        let of_kind = |kind: Kind| KindCounters {
            accepted: events.with_label_values(&[label(kind), "accepted"]),
            repeat: events.with_label_values(&[label(kind), "repeat"]),
            refused: events.with_label_values(&[label(kind), "refused"]),
        };
        let metrics = Metrics {
            events: [Kind::Commit, Kind::Sync, Kind::Identity, Kind::Account].map(of_kind),
            refused: Reason::ALL.map(|reason| refused.with_label_values(&[reason.as_str()])),
            discontinuous: IntCounter::new(
                "mainstem_events_discontinuous_total",
                "Commits that were accepted though they do not continue the repo's last known state.",
            )?,
            parked_bytes: IntGauge::new(
                "mainstem_parked_bytes",
                "Bytes of events that wait for their account's identity, status or state.",
            )?,
            parked_parties: IntGauge::new(
                "mainstem_parked_accounts",
                "Accounts, each with the host that sent, whose events wait.",
            )?,
            status_asked: IntCounter::new(
                "mainstem_repo_status_asked_total",
                "Times a host was asked whether an account is active again.",
            )?,
            lanes_judged: IntGauge::new("mainstem_lanes_judged", "Lanes that this process judges.")?,
            lanes_fenced: IntCounter::new(
                "mainstem_lanes_fenced_total",
                "Times a lane was given up because another process had taken it over.",
            )?,
            judge_seconds: Histogram::with_opts(
                HistogramOpts::new("mainstem_judge_seconds", "Time of decoding and judging one event.")
                    .buckets(vec![1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2]),
            )?,
        };
        let all: [Box<dyn Collector>; 9] = [
            Box::new(events),
            Box::new(refused),
            Box::new(metrics.discontinuous.clone()),
            Box::new(metrics.parked_bytes.clone()),
            Box::new(metrics.parked_parties.clone()),
            Box::new(metrics.status_asked.clone()),
            Box::new(metrics.judge_seconds.clone()),
            Box::new(metrics.lanes_judged.clone()),
            Box::new(metrics.lanes_fenced.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }

    pub(crate) fn settled(&self, kind: Kind, outcome: &Outcome) {
        let counters = &self.events[kind as usize];
        match outcome {
            Outcome::Accepted { discontinuous } => {
                counters.accepted.inc();
                self.discontinuous.inc_by(u64::from(*discontinuous));
            }
            Outcome::Repeat => counters.repeat.inc(),
            Outcome::Refused(refusal) => {
                counters.refused.inc();
                self.refused[refusal.reason as usize].inc();
            }
        }
    }
}

/// The kind as a label: without its `#`.
fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Commit => "commit",
        Kind::Sync => "sync",
        Kind::Identity => "identity",
        Kind::Account => "account",
    }
}

// === impl IdentityMetrics ===

impl IdentityMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<IdentityMetrics, prometheus::Error> {
        let cache = IntCounterVec::new(
            Opts::new(
                "mainstem_identity_cache_total",
                "Identities that were needed, by whether they were in memory, kept on disk or had to be fetched.",
            ),
            &["result"],
        )?;
        let metrics = IdentityMetrics {
            hits: cache.with_label_values(&["hit"]),
            kept_hits: cache.with_label_values(&["kept"]),
            misses: cache.with_label_values(&["miss"]),
            lookups: IntGauge::new("mainstem_identity_lookups", "Accounts that are being looked up or wait for it.")?,
            in_flight: IntGauge::new("mainstem_identity_in_flight", "Requests to the directory under way.")?,
            per_second_max: IntGauge::new(
                "mainstem_identity_requests_per_second_max",
                "Requests to the directory that may be made in a second (--plc-rate).",
            )?,
            cached: IntGauge::new("mainstem_identity_cached", "Identities in memory.")?,
            cached_bytes: IntGauge::new("mainstem_identity_cached_bytes", "Memory of cached identities, estimated.")?,
            requests: IntCounterVec::new(
                Opts::new("mainstem_identity_requests_total", "Requests for DID documents, by method and result."),
                &["method", "result"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("mainstem_identity_request_seconds", "Time of a request for a DID document.")
                    .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
                &["method"],
            )?,
        };
        registry.register(Box::new(cache))?;
        registry.register(Box::new(metrics.lookups.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.per_second_max.clone()))?;
        registry.register(Box::new(metrics.cached.clone()))?;
        registry.register(Box::new(metrics.cached_bytes.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn looked_up(&self, method: Method, fetched: &Fetched, took: Duration) {
        self.requests.with_label_values(&[method.as_str(), fetched.as_str()]).inc();
        self.seconds.with_label_values(&[method.as_str()]).observe(took.as_secs_f64());
    }
}
