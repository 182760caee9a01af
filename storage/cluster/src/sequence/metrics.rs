//! What the sequencer measures.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// What a process in this role is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Kafka does not answer, or has not yet.
    Unreachable,
    /// Somebody else leads.
    StandingBy,
    /// Takes the producer and reads the state.
    TakingOver,
    /// Orders events.
    Leading,
    /// Something failed; it waits before it tries again.
    BackingOff,
}

impl Phase {
    const ALL: [Phase; 5] =
        [Phase::Unreachable, Phase::StandingBy, Phase::TakingOver, Phase::Leading, Phase::BackingOff];

    /// A label.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Unreachable => "unreachable",
            Phase::StandingBy => "standing_by",
            Phase::TakingOver => "taking_over",
            Phase::Leading => "leading",
            Phase::BackingOff => "backing_off",
        }
    }
}

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    phase: IntGaugeVec,
    pub(crate) events: IntCounter,
    pub(crate) event_bytes: IntCounter,
    pub(crate) stale: IntCounter,
    pub(crate) committed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) transaction_events: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) take_over_seconds: Histogram,
    pub(crate) age_seconds: Gauge,
    pub(crate) wait_seconds: Histogram,
    pub(crate) lag_records: IntGauge,
    pub(crate) trimmed_raw: IntCounter,
    pub(crate) trimmed_verified: IntCounter,
    pub(crate) trim_failures: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let phase = IntGaugeVec::new(
            Opts::new("mainstem_sequencer_phase", "1 for what this sequencer is doing, 0 for the rest."),
            &["phase"],
        )?;
        registry.register(Box::new(phase.clone()))?;
        let transactions = IntCounterVec::new(
            Opts::new("mainstem_sequencer_transactions_total", "The sequencer's transactions, by how they ended."),
            &["result"],
        )?;
        registry.register(Box::new(transactions.clone()))?;
        let trimmed = IntCounterVec::new(
            Opts::new(
                "mainstem_sequencer_trimmed_total",
                "Records that were deleted because nobody needs them any more, by topic.",
            ),
            &["topic"],
        )?;
        registry.register(Box::new(trimmed.clone()))?;
        let age_seconds = Gauge::new(
            "mainstem_sequencer_age_seconds",
            "Since when the oldest event waits that was accepted and is not in the firehose yet; 0 where none waits.",
        )?;
        registry.register(Box::new(age_seconds.clone()))?;
        let seconds = exponential_buckets(0.001, 2.0, 15)?;
        let lag_records = IntGauge::new(
            "mainstem_sequencer_lag_records",
            "Records of verified that the leader has not read yet, all lanes together; 0 where another leads.",
        )?;
        registry.register(Box::new(lag_records.clone()))?;
        let wait_seconds = histogram(
            "mainstem_sequencer_wait_seconds",
            "From a transaction's oldest event being accepted until it can be read in the firehose.",
            seconds.clone(),
        )?;
        let metrics = Metrics {
            phase,
            events: counter("mainstem_sequencer_events_total", "Events that were given a seq.")?,
            event_bytes: counter("mainstem_sequencer_event_bytes_total", "Bytes of records written to the firehose.")?,
            stale: counter(
                "mainstem_sequencer_stale_total",
                "Records that were not taken, because their writer had lost its lane.",
            )?,
            committed: transactions.with_label_values(&["committed"]),
            failed: transactions.with_label_values(&["failed"]),
            fenced: transactions.with_label_values(&["fenced"]),
            transaction_events: histogram(
                "mainstem_sequencer_transaction_events",
                "Events that were published together.",
                exponential_buckets(1.0, 2.0, 16)?,
            )?,
            commit_seconds: histogram(
                "mainstem_sequencer_commit_seconds",
                "From a transaction's last record until it was committed.",
                seconds.clone(),
            )?,
            take_over_seconds: histogram(
                "mainstem_sequencer_take_over_seconds",
                "From being given the lead until the first record can be ordered.",
                seconds,
            )?,
            age_seconds,
            wait_seconds,
            lag_records,
            trimmed_raw: trimmed.with_label_values(&["raw"]),
            trimmed_verified: trimmed.with_label_values(&["verified"]),
            trim_failures: counter(
                "mainstem_sequencer_trim_failures_total",
                "Times what nobody needs any more could not be deleted.",
            )?,
        };
        metrics.set_phase(Phase::Unreachable);
        Ok(metrics)
    }

    pub(crate) fn set_phase(&self, now: Phase) {
        for phase in Phase::ALL {
            self.phase.with_label_values(&[phase.as_str()]).set(i64::from(phase == now));
        }
    }
}
