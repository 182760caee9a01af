//! The hub tails the log, encodes each event once, and keeps the newest chunks for all subscribers.
//!
//! What must hold: chunks follow each other without a hole, and hold only what the log has made durable. The hub knows
//! no subscriber; they come and take what follows their position, so a slow one costs nobody else anything.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use runtime::{backoff::Backoff, rate::Rate};
use storage::{
    error::Error,
    log::{EventLog, Published, ReadError, Window},
    repos::Repos,
    seq::Seq,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    chunk::Chunk,
    deflating::Deflating,
    linger::{Due, Linger},
    metrics::Metrics,
    replay::{self, Piece, Reach, Replay, Turn},
    ring::{Found, Ring},
    shard::Shard,
    trail::Trail,
    withheld::Withheld,
};

/// Sizes of the hub.
#[derive(Clone, Debug)]
pub struct Config {
    /// Encoded events kept in memory: enough for subscribers at the end to be a few seconds late at the network's usual
    /// rates, or a fraction of one at the most that a machine can do. Who is later shares reads of the log, most of
    /// which is in the system's cache.
    pub ring_bytes: usize,
    /// The most that is read from the log, and put into one chunk, at a time.
    pub chunk_bytes: usize,
    /// Sizes of the reads behind the ring.
    pub replay: replay::Config,
    /// Chunks that are deflated at once, by a thread each: half of the processors', so that a herd that replays deflated
    /// leaves the other half to the rest.
    pub deflate_jobs_max: usize,
    /// The longest a chunk that is not full waits after the one before.
    pub linger_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ring_bytes: 16 << 20,
            chunk_bytes: 256 << 10,
            replay: replay::Config::default(),
            deflate_jobs_max: std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2),
            linger_max: Duration::from_millis(20),
        }
    }
}

/// A handle on the hub, cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn EventLog>,
    withheld: Arc<Withheld>,
    ring: RwLock<Ring>,
    /// The ring's last seq.
    tail: watch::Sender<Seq>,
    replay: Replay,
    deflating: Arc<Deflating>,
    rate: Rate,
    trail: Trail,
    config: Config,
    metrics: Metrics,
}

impl Hub {
    /// A hub that begins at the end of the log and knows what may not be served. Nothing moves until [`Hub::run`].
    pub async fn build(
        log: Arc<dyn EventLog>,
        repos: Arc<dyn Repos>,
        config: Config,
        metrics: Metrics,
        trail: Trail,
    ) -> Result<Hub, ReadError> {
        let (withheld, last) = Withheld::load(repos, log.clone()).await?;
        let withheld = Arc::new(withheld);
        metrics.withheld_accounts.set(count(withheld.filter().len()));
        let replay = Replay::new(log.clone(), withheld.clone(), &config.replay, metrics.clone());
        let deflating = Arc::new(Deflating::new(config.deflate_jobs_max, metrics.clone()));
        let ring = RwLock::new(Ring::new(last, config.ring_bytes));
        let tail = watch::Sender::new(last);
        let rate = Rate::default();
        let shared = Shared { log, withheld, ring, tail, replay, deflating, rate, trail, config, metrics };
        Ok(Hub { shared: Arc::new(shared) })
    }

    /// What of the log can be read now.
    pub fn window(&self) -> Window {
        *self.shared.log.window().borrow()
    }

    /// As [`EventLog::catch_up`].
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.shared.log.catch_up().await
    }

    /// Wakes when there is something newer for those at the end.
    pub fn tail(&self) -> watch::Receiver<Seq> {
        self.shared.tail.subscribe()
    }

    /// What follows `position` in memory: about `bytes_max`.
    pub fn find(&self, position: Seq, bytes_max: usize) -> Found {
        self.shared.ring.read().unwrap_or_else(PoisonError::into_inner).find(position, bytes_max)
    }

    /// What follows `position` in the log, with the turn to send it; none where it is the end. For a reader that takes
    /// deflated frames they have been made.
    pub async fn read_behind(&self, position: Seq, deflated: bool) -> Result<Option<Piece>, ReadError> {
        if deflated {
            // No turn to send is held meanwhile, and few pieces are.
            let _place = self.shared.deflating.turn_behind().await;
            let Some(Piece { chunk, turn }) = self.read_plain(position).await? else { return Ok(None) };
            if chunk.deflated().is_some() {
                return Ok(Some(Piece { chunk, turn }));
            }
            drop(turn);
            self.deflate(&chunk).await;
            let turn = self.shared.replay.turn().await?;
            return Ok(Some(Piece { chunk, turn: Some(turn) }));
        }
        self.read_plain(position).await
    }

    /// Deflates a chunk, or waits for who does.
    pub async fn deflate(&self, chunk: &Arc<Chunk>) {
        self.shared.deflating.deflate(chunk).await;
    }

    /// Waits for the turn to send what was missed.
    pub async fn turn(&self) -> Result<Turn, ReadError> {
        self.shared.replay.turn().await
    }

    async fn read_plain(&self, position: Seq) -> Result<Option<Piece>, ReadError> {
        let tail = *self.shared.tail.borrow();
        let ring_after = self.shared.ring.read().unwrap_or_else(PoisonError::into_inner).after();
        self.shared.replay.read(position, Reach { tail, ring_after }).await
    }

    /// All of a subscriber's events in `(after, to]` have left for it.
    pub fn sent(&self, after: Seq, to: Seq, shard: Option<Shard>) {
        self.shared.trail.sent(after, to, shard);
    }

    /// Which state of what may not be served counts. Chunks of another one must not be sent any more.
    pub fn generation(&self) -> u64 {
        self.shared.withheld.generation()
    }

    /// Waits until what is durable now is seen here: a takedown among it is then in force for every subscriber.
    pub async fn caught_up(&self) {
        let last = self.window().last;
        let mut tail = self.tail();
        // The sender lives as long as this hub.
        let _seen = tail.wait_for(|tail| *tail >= last).await;
    }

    /// Events a second over the last seconds.
    pub fn events_per_second(&self) -> f64 {
        self.shared.rate.per_second()
    }

    /// Tails the log until `stop`, or until the log fails for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let shared = &self.shared;
        let mut window = shared.log.window();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut linger = Linger::new(shared.config.linger_max, shared.config.chunk_bytes);
        loop {
            let position = *shared.tail.borrow();
            let waiting = window.borrow_and_update().last.0.saturating_sub(position.0);
            let live = u64::try_from(shared.metrics.live.get()).unwrap_or(0);
            let due = match linger.due(Instant::now(), waiting, live) {
                Due::At(_) if stop.is_cancelled() => Due::Now,
                Due::Idle if stop.is_cancelled() => return Ok(()),
                due => due,
            };
            match due {
                Due::Now => {}
                Due::At(at) => {
                    tokio::select! {
                        // Perhaps the chunk is full now.
                        changed = window.changed() => changed.map_err(|_| Error::Closed)?,
                        () = sleep_until(at) => {}
                        () = stop.cancelled() => {}
                    }
                    continue;
                }
                Due::Idle => {
                    tokio::select! {
                        changed = window.changed() => changed.map_err(|_| Error::Closed)?,
                        () = stop.cancelled() => {}
                    }
                    continue;
                }
            }
            match shared.log.read(position, shared.config.chunk_bytes).await {
                // A jump over seqs that no event has.
                Ok(events) if events.is_empty() => {
                    tokio::select! {
                        changed = window.changed() => changed.map_err(|_| Error::Closed)?,
                        () = stop.cancelled() => return Ok(()),
                    }
                }
                Ok(events) => {
                    backoff.reset();
                    self.publish(position, &events);
                    let bytes = events.iter().map(|event| event.frame.len()).sum();
                    linger.went(Instant::now(), events.len(), bytes);
                }
                Err(ReadError::Outdated { first, .. }) => {
                    // The window was cut past us: subscribers at our place are behind it and will be told so.
                    warn!(%position, %first, "the hub fell out of the window");
                    self.restart().await?;
                }
                Err(ReadError::Store(error @ Error::Determinate { .. })) => {
                    warn!(%error, "failed to read the log's tail");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next(&mut rand::rng())) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                }
                Err(ReadError::Store(
                    error
                    @ (Error::Indeterminate { .. } | Error::Closed | Error::Fenced { .. } | Error::Damaged { .. }),
                )) => {
                    return Err(error);
                }
            }
        }
    }

    fn publish(&self, position: Seq, events: &[Published]) {
        let shared = &self.shared;
        let read_at_micros = shared.trail.now_micros();
        if shared.withheld.fold(events) {
            // What was encoded before may hold what is served no longer, or lack what is served again.
            shared.ring.write().unwrap_or_else(PoisonError::into_inner).reset(position);
            shared.replay.forget();
            shared.metrics.withheld_accounts.set(count(shared.withheld.filter().len()));
        }
        let chunk = Arc::new(Chunk::encode(position, events, &shared.withheld.filter()));
        let (events_count, last) = (chunk.events() as u64, chunk.last());
        // Before anybody can have taken one of them.
        shared.trail.published(events, read_at_micros);
        let bytes = {
            let mut ring = shared.ring.write().unwrap_or_else(PoisonError::into_inner);
            ring.push(chunk);
            ring.bytes()
        };
        shared.metrics.events.inc_by(events_count);
        shared.metrics.ring_bytes.set(bytes as i64);
        shared.replay.forget_unused();
        shared.rate.add(events_count);
        shared.tail.send_replace(last);
    }

    /// Begins anew at the end of the log: what may not be served is not known from the events that were missed.
    async fn restart(&self) -> Result<(), Error> {
        let tail = *self.shared.tail.borrow();
        self.shared.ring.write().unwrap_or_else(PoisonError::into_inner).reset(tail);
        let after = match self.shared.withheld.reload().await {
            Ok(end) => end,
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::Outdated { .. }) => return Ok(()),
        };
        self.shared.replay.forget();
        self.shared.metrics.withheld_accounts.set(count(self.shared.withheld.filter().len()));
        self.shared.ring.write().unwrap_or_else(PoisonError::into_inner).reset(after);
        self.shared.tail.send_replace(after);
        Ok(())
    }
}

fn count(accounts: usize) -> i64 {
    i64::try_from(accounts).unwrap_or(i64::MAX)
}
