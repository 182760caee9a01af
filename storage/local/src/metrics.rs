//! What the backend measures.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, exponential_buckets};
use storage::log::Window;

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) log_bytes: IntGauge,
    pub(crate) log_bytes_max: IntGauge,
    pub(crate) log_first_seq: IntGauge,
    pub(crate) log_last_seq: IntGauge,
    pub(crate) log_full: IntGauge,
    pub(crate) events: IntCounter,
    pub(crate) written_bytes: IntCounter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) apply_seconds: Histogram,
    pub(crate) group_events: Histogram,
    pub(crate) disk_reads: IntCounter,
    pub(crate) disk_read_bytes: IntCounter,
    pub(crate) repos: IntGauge,
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
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let seconds = exponential_buckets(0.000_1, 2.0, 16)?;
        Ok(Metrics {
            log_bytes: gauge("mainstem_log_bytes", "Bytes of the event log on disk.")?,
            log_bytes_max: gauge(
                "mainstem_log_bytes_max",
                "Bytes of the event log past which its oldest events go, whatever their age; 0 where there is no such limit.",
            )?,
            log_first_seq: gauge("mainstem_log_first_seq", "The oldest seq that is kept.")?,
            log_last_seq: gauge("mainstem_log_last_seq", "The newest seq that is durable.")?,
            log_full: gauge("mainstem_log_full", "1 while appends wait for room on the disk.")?,
            events: counter("mainstem_log_events_total", "Events made durable in the log.")?,
            written_bytes: counter("mainstem_log_written_bytes_total", "Bytes written to the log.")?,
            sync_seconds: histogram(
                "mainstem_log_sync_seconds",
                "How long a sync of the log took; its count is that of the syncs.",
                seconds.clone(),
            )?,
            apply_seconds: histogram(
                "mainstem_log_apply_seconds",
                "How long it took to write the newest states to the repos.",
                seconds,
            )?,
            group_events: histogram(
                "mainstem_log_group_events",
                "Events that were synced together.",
                exponential_buckets(1.0, 2.0, 14)?,
            )?,
            disk_reads: counter("mainstem_log_disk_reads_total", "Reads that were not answered from memory.")?,
            disk_read_bytes: counter(
                "mainstem_log_disk_read_bytes_total",
                "Bytes read from the log's files for readers, from the disk or the system's cache.",
            )?,
            repos: gauge("mainstem_repos", "Repos whose state is known.")?,
        })
    }

    pub(crate) fn set_bytes_max(&self, bytes: Option<u64>) {
        self.log_bytes_max.set(bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    }

    pub(crate) fn set_window(&self, window: &Window) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.log_bytes.set(gauge(window.bytes));
        self.log_first_seq.set(gauge(window.first.0));
        self.log_last_seq.set(gauge(window.last.0));
    }
}
