//! How much `raw` may hold: who pushes frames waits while it holds more.
//!
//! `raw` keeps what nobody has judged for as long as it takes, so without a limit it would fill the brokers' disks. What it
//! holds is all from its first offset to its end, also what is settled and not yet deleted: that is what disks hold.
//!
//! Kafka's clients can't ask for a topic's bytes, so they are reckoned: records, which offsets tell exactly, times the mean
//! size of what this process has pushed of late. All crawlers push events of the same network; where theirs are larger or
//! smaller than another's, each waits a little sooner or later. Between two looks, what this process has pushed since is
//! added.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{IntGauge, Registry};
use rdkafka::{ClientConfig, consumer::BaseConsumer};
use storage::{error::Error, lane::Lane, lane::LaneCount};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::kafka::{
    client::{all_ends, partition},
    quiet::Quiet,
};

/// How often is looked what the topic holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a call to end is seen.
const END_SEEN_WITHIN: Duration = Duration::from_millis(50);
/// How long Kafka may take to say it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What a record is taken for before any was pushed, with the weight of so many.
const FIRST_GUESS: (u64, u64) = (4_096, 1_000);
/// After so many records, those before count half.
const MEAN_OF: u64 = 100_000;

/// Whether there is room, and how much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawRoom {
    /// About how many bytes `raw` holds.
    pub bytes: u64,
    /// How many it may.
    pub bytes_max: u64,
}

impl RawRoom {
    /// Whether pushes wait.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }
}

/// What is looked at, and with what.
pub(crate) struct Parts {
    pub(crate) settings: ClientConfig,
    /// The topic.
    pub(crate) topic: String,
    pub(crate) lanes: LaneCount,
    pub(crate) bytes_max: u64,
    pub(crate) metrics: Metrics,
}

/// No thread can be had to look.
#[derive(Debug, thiserror::Error)]
#[error("failed to start the thread that looks what raw holds")]
pub struct NoThread(#[from] io::Error);

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    bytes: IntGauge,
    bytes_max: IntGauge,
    full: IntGauge,
}

/// See the module's documentation.
pub(crate) struct Room {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    parts: Parts,
    reckoned: Mutex<Reckoned>,
    room: watch::Sender<RawRoom>,
}

/// The reckoning. Pure.
#[derive(Debug)]
struct Reckoned {
    /// At the last look.
    records: u64,
    /// Pushed since that look began; and since the one that is under way.
    pushed_since: u64,
    pushed_during: u64,
    /// Of what was pushed of late.
    mean_bytes: u64,
    mean_records: u64,
}

// === impl Room ===

impl Room {
    /// Looks from now on, on a thread of its own, until it is dropped.
    pub(crate) fn watch(parts: Parts) -> Result<Room, NoThread> {
        let room = RawRoom { bytes: 0, bytes_max: parts.bytes_max };
        parts.metrics.bytes_max.set(i64::try_from(parts.bytes_max).unwrap_or(i64::MAX));
        let shared = Arc::new(Shared { parts, reckoned: Mutex::default(), room: watch::Sender::new(room) });
        let stop = CancellationToken::new();
        let (looks, stopped) = (Arc::clone(&shared), stop.clone());
        std::thread::Builder::new().name("raw-room".into()).spawn(move || looks.run(&stopped))?;
        Ok(Room { shared, _stop: stop.drop_guard() })
    }

    /// Waits until there is room.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        let mut room = self.shared.room.subscribe();
        room.wait_for(|room| !room.is_full()).await.map(drop).map_err(|_gone| Error::Closed)
    }

    /// A record of so many bytes is pushed.
    pub(crate) fn pushed(&self, bytes: usize) {
        self.shared.reckoned().pushed(bytes as u64);
        self.shared.show();
    }

    /// What it holds; wakes when that changes.
    pub(crate) fn room(&self) -> watch::Receiver<RawRoom> {
        self.shared.room.subscribe()
    }
}

// === impl Shared ===

impl Shared {
    fn reckoned(&self) -> MutexGuard<'_, Reckoned> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.reckoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, stop: &CancellationToken) {
        let mut consumer = None;
        while !stop.is_cancelled() {
            self.reckoned().look_begins();
            match self.look(&mut consumer) {
                Ok(records) => {
                    self.reckoned().look_ends(records);
                    self.show();
                }
                // While Kafka is silent nothing is pushed that it does not take.
                Err(error) => {
                    warn!(%error, "what raw holds is not known");
                    consumer = None;
                }
            }
            let next = Instant::now() + LOOK_EVERY;
            while !stop.is_cancelled() && Instant::now() < next {
                std::thread::sleep(END_SEEN_WITHIN);
            }
        }
    }

    fn look(&self, consumer: &mut Option<BaseConsumer<Quiet>>) -> rdkafka::error::KafkaResult<u64> {
        let Parts { settings, topic, lanes, .. } = &self.parts;
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => consumer.insert(settings.create_with_context(Quiet)?),
        };
        let ends = all_ends(consumer, topic, partition(Lane(lanes.0.get())), ANSWER_WITHIN)?;
        Ok(ends.iter().map(|(first, end)| end.saturating_sub(*first).max(0).unsigned_abs()).sum())
    }

    fn show(&self) {
        let now = RawRoom { bytes: self.reckoned().bytes(), bytes_max: self.parts.bytes_max };
        let Metrics { bytes, full, .. } = &self.parts.metrics;
        bytes.set(i64::try_from(now.bytes).unwrap_or(i64::MAX));
        full.set(i64::from(now.is_full()));
        self.room.send_if_modified(|room| {
            let was_full = std::mem::replace(room, now).is_full();
            match (was_full, now.is_full()) {
                (false, true) => warn!(bytes = now.bytes, max = now.bytes_max, "raw is full: pushes wait"),
                (true, false) => info!(bytes = now.bytes, "raw has room again"),
                (false, false) | (true, true) => {}
            }
            was_full != now.is_full()
        });
    }
}

// === impl Reckoned ===

impl Default for Reckoned {
    fn default() -> Reckoned {
        let (bytes, weight) = FIRST_GUESS;
        Reckoned { records: 0, pushed_since: 0, pushed_during: 0, mean_bytes: bytes * weight, mean_records: weight }
    }
}

impl Reckoned {
    fn pushed(&mut self, bytes: u64) {
        self.pushed_since += bytes;
        self.pushed_during += bytes;
        self.mean_bytes += bytes;
        self.mean_records += 1;
        if self.mean_records >= MEAN_OF {
            self.mean_bytes /= 2;
            self.mean_records /= 2;
        }
    }

    fn look_begins(&mut self) {
        self.pushed_during = 0;
    }

    /// What was pushed while it was looked may be counted twice, until the next.
    fn look_ends(&mut self, records: u64) {
        self.records = records;
        self.pushed_since = self.pushed_during;
    }

    fn bytes(&self) -> u64 {
        let held = u128::from(self.records) * u128::from(self.mean_bytes) / u128::from(self.mean_records.max(1));
        u64::try_from(held).unwrap_or(u64::MAX).saturating_add(self.pushed_since)
    }
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Metrics {
            bytes: gauge("mainstem_raw_bytes", "About how many bytes the topic raw holds, judged or not.")?,
            bytes_max: gauge("mainstem_raw_bytes_max", "How many bytes the topic raw may hold.")?,
            full: gauge("mainstem_raw_full", "1 while the topic raw is full and pushes wait, 0 where not.")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_by_the_mean_of_what_is_pushed() {
        let mut reckoned = Reckoned::default();
        reckoned.look_begins();
        reckoned.look_ends(10);
        assert_eq!(reckoned.bytes(), 40_960, "by the first guess");
        (0..1_000).for_each(|_| reckoned.pushed(8_192));
        assert_eq!(reckoned.bytes(), 10 * 6_144 + 8_192_000, "and all that came since");
        reckoned.look_begins();
        reckoned.pushed(8_192);
        reckoned.look_ends(1_010);
        let bytes = reckoned.bytes();
        assert!((6_200_000..6_300_000).contains(&bytes), "{bytes}");
        // In time the guess does not count.
        (0..1_000_000).for_each(|_| reckoned.pushed(1_000));
        reckoned.look_begins();
        reckoned.look_ends(1_000_000);
        let bytes = reckoned.bytes();
        assert!((1_000_000_000..1_010_000_000).contains(&bytes), "{bytes}");
    }
}
