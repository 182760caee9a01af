//! What the backend is told when it is opened.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use storage::{lane::LaneCount, seq::Seq};

/// How to open a data directory. [`Config::new`] gives defaults for a small machine.
#[derive(Clone)]
pub struct Config {
    /// The data directory; made where it is missing.
    pub dir: PathBuf,
    /// How many lanes; must be what the directory was made with.
    pub lanes: LaneCount,
    /// What one lane of the intake holds at most, in bytes.
    pub lane_bytes_max: usize,
    /// What it holds at most of one host, in bytes: a host whose events can't be judged for now fills no lane.
    pub host_bytes_max: usize,
    /// How long events are kept; `None` for as long as there is room.
    pub window: Option<Duration>,
    /// How many bytes of events are kept; `None` for as many as there is room for.
    pub window_bytes: Option<u64>,
    /// The next seq must be at least this: the first one of a new log, or a jump of an existing one after a loss. Seqs
    /// that are already used are refused, but for the value that was given last time.
    pub seq_start: Option<Seq>,
    /// The size at which a new segment is begun. Less is used where `window_bytes` is small.
    pub segment_bytes: u64,
    /// The newest events kept in memory for readers, in bytes: for those that keep up, and may fall behind by some
    /// groups. Who is further behind reads the segments, from the system's cache if they are recent.
    pub tail_bytes_max: usize,
    /// Events that wait to be written, in bytes; more wait with their callers.
    pub append_bytes_max: usize,
    /// The most that is written and synced at once, in bytes, unless one batch is larger.
    pub group_bytes_max: usize,
    /// What must stay free on the disk: below it appends wait.
    pub reserve_bytes: u64,
    /// How often a full disk is looked at again.
    pub full_retry: Duration,
    /// How many bytes of the newest segments are verified on opening. The last segment always is.
    pub verify_bytes_max: u64,
    /// Memory for the states of the accounts that were busy last, in bytes.
    pub repo_cache_bytes: u64,
    /// Memory for states that are in the log and not in the state store yet, in bytes. They are written together; where
    /// they are more than this, the log waits for that.
    pub repo_overlay_bytes_max: usize,
    /// Memory for the blocks of the state store, in bytes.
    pub block_cache_bytes: u64,
    /// Identities of a generation, some 130 bytes each on the disk; two generations are kept.
    pub identities_max: u64,
    /// While a group is small, how long after the last sync the next one waits for company. An event that comes alone
    /// is synced at once.
    pub linger: Duration,
    /// What time it is, microseconds since the Unix epoch.
    pub now_micros: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How many bytes are free where the directory is.
    pub free_bytes: Arc<dyn Fn() -> io::Result<u64> + Send + Sync>,
    /// Called when a write or a sync failed, so that nobody can know what is durable: must end the process. The default
    /// aborts it. Where it returns, the backend is closed.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// Where the metrics are registered.
    pub metrics: prometheus::Registry,
}

impl Config {
    /// A directory with the defaults.
    pub fn new(
        dir: impl Into<PathBuf>,
        lanes: LaneCount,
        now_micros: Arc<dyn Fn() -> u64 + Send + Sync>,
        metrics: prometheus::Registry,
    ) -> Config {
        let dir = dir.into();
        Config {
            lanes,
            lane_bytes_max: 2 << 20,
            host_bytes_max: 512 << 10,
            window: Some(Duration::from_secs(72 * 3600)),
            window_bytes: None,
            seq_start: None,
            segment_bytes: 64 << 20,
            tail_bytes_max: 8 << 20,
            append_bytes_max: 32 << 20,
            group_bytes_max: 1 << 20,
            reserve_bytes: 256 << 20,
            full_retry: Duration::from_secs(1),
            verify_bytes_max: 128 << 20,
            repo_cache_bytes: 32 << 20,
            repo_overlay_bytes_max: 8 << 20,
            block_cache_bytes: 32 << 20,
            identities_max: 16_000_000,
            linger: Duration::from_millis(1),
            now_micros,
            free_bytes: {
                let dir = dir.clone();
                Arc::new(move || {
                    let disk = rustix::fs::statvfs(&dir)?;
                    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
                })
            },
            fatal: Arc::new(|what| {
                tracing::error!(what, "the store can't go on; ending the process");
                std::process::abort()
            }),
            metrics,
            dir,
        }
    }

    /// The size at which a new segment is begun: an eighth of a small window, so that whole segments can go.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let eighth = self.window_bytes.map_or(u64::MAX, |bytes| (bytes / 8).max(64 << 10));
        self.segment_bytes.min(eighth)
    }

    /// How long events go into one segment: a part of the window, so that whole segments can go.
    pub(crate) fn segment_micros(&self) -> u64 {
        self.window.map_or(u64::MAX, |window| micros(window) / 24).max(1_000_000)
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
