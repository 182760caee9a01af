//! What a reader of the firehose measures.

use prometheus::{IntCounter, IntGauge, Registry};
use storage::log::Window;

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    first_seq: IntGauge,
    last_seq: IntGauge,
    bytes: IntGauge,
    pub(super) tailed: IntCounter,
    pub(super) tail_restarts: IntCounter,
    pub(super) seqs_again: IntCounter,
    pub(super) chunk_hits: IntCounter,
    pub(super) chunk_reads: IntCounter,
    pub(super) chunk_read_bytes: IntCounter,
    pub(super) looks: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Metrics {
            first_seq: gauge("mainstem_log_first_seq", "The oldest seq that is kept.")?,
            last_seq: gauge("mainstem_log_last_seq", "The newest seq that can be read here.")?,
            bytes: gauge("mainstem_log_bytes", "Bytes of the events that are kept, estimated from those read here.")?,
            tailed: counter("mainstem_firehose_tailed_total", "Events read from the firehose's end.")?,
            tail_restarts: counter(
                "mainstem_firehose_tail_restarts_total",
                "How often following the firehose failed and began anew.",
            )?,
            seqs_again: counter(
                "mainstem_firehose_seqs_again_total",
                "Events of the firehose whose seq an earlier one has. Must be 0.",
            )?,
            chunk_hits: counter(
                "mainstem_firehose_chunk_hits_total",
                "Reads of older events that were answered by what somebody else had read.",
            )?,
            chunk_reads: counter("mainstem_firehose_chunk_reads_total", "Pieces of older events read from Kafka.")?,
            chunk_read_bytes: counter(
                "mainstem_firehose_chunk_read_bytes_total",
                "Bytes of older events read from Kafka.",
            )?,
            looks: counter(
                "mainstem_firehose_looks_total",
                "Looks at the firehose to find where an older event stands.",
            )?,
        })
    }

    pub(super) fn set_window(&self, window: &Window) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.first_seq.set(gauge(window.first.0));
        self.last_seq.set(gauge(window.last.0));
        self.bytes.set(gauge(window.bytes));
    }
}
