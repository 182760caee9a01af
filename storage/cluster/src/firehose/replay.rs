//! Older events: found by their seq, read in large pieces, shared by readers near each other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{Message, types::RDKafkaErrorCode};
use storage::{
    error::Error,
    log::{Published, ReadError, Window},
    seq::Seq,
};
use tokio::sync::{Notify, Semaphore};

use super::{
    Found, PATIENCE, Point, Reader, Shared, blocking,
    chunks::{Chunk, Chunks},
    decode, failed, publish,
    search::Step,
    silent,
};

/// What is read at once, about.
const CHUNK_BYTES: usize = 1 << 20;
/// What a reader reads ahead of who asks.
const AHEAD_BYTES: usize = 4 << 20;
const STEP_BYTES: usize = 1 << 20;
/// So many events after the place of a read are in it, most likely.
const NEAR: u64 = 256;
const LOOK: Duration = Duration::from_millis(50);

/// Reads older events.
pub(super) struct Replay {
    shared: Arc<Shared>,
    chunks: Mutex<Chunks>,
    turns: Semaphore,
    /// After which seqs is being read; told each time that one has ended.
    fetching: Mutex<BTreeSet<Seq>>,
    done: Notify,
    /// Readers that nobody uses now; the last used is the last.
    idle: Mutex<Vec<Place>>,
}

/// A reader and where it stands.
struct Place {
    reader: Reader,
    /// The seq that it has given last.
    after: Option<Seq>,
}

/// A read that others wait for.
struct Fetching<'a> {
    replay: &'a Replay,
    after: Seq,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.replay.fetching.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.after);
        self.replay.done.notify_waiters();
    }
}

impl Replay {
    pub(super) fn new(shared: Arc<Shared>) -> Replay {
        let limits = shared.config.limits;
        Replay {
            chunks: Mutex::new(Chunks::new(limits.chunk_bytes_max)),
            turns: Semaphore::new(limits.readers.max(1)),
            fetching: Mutex::default(),
            done: Notify::new(),
            idle: Mutex::default(),
            shared,
        }
    }

    /// What follows `after`, which is in the window and not in the ring.
    pub(super) async fn read(self: &Arc<Self>, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        // Who finds somebody reading just before here waits for what comes of it.
        let _fetching = loop {
            if let Some(found) = self.kept(after, bytes_max) {
                return Ok(found);
            }
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            match self.begin(after) {
                Some(fetching) => break fetching,
                None => done.await,
            }
        };
        let turn = self.turns.acquire().await.map_err(|_closed| Error::Closed)?;
        let replay = Arc::clone(self);
        let read = blocking(move || replay.fetch(after, bytes_max.max(CHUNK_BYTES))).await;
        drop(turn);
        let Window { first, .. } = *self.shared.window.borrow();
        if after.next() < first {
            return Err(ReadError::Outdated { after, first });
        }
        let chunk = read?;
        let mut chunks = self.chunks();
        chunks.keep(after, chunk);
        Ok(chunks.read(after, bytes_max).unwrap_or_default())
    }

    /// `None` where somebody reads what will have this, too.
    fn begin(&self, after: Seq) -> Option<Fetching<'_>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let from = Seq(after.0.saturating_sub(NEAR));
        if fetching.range(from..=after).next().is_some() {
            return None;
        }
        fetching.insert(after);
        Some(Fetching { replay: self, after })
    }

    fn kept(&self, after: Seq, bytes_max: usize) -> Option<Vec<Published>> {
        let found = self.chunks().read(after, bytes_max);
        self.shared.metrics.chunk_hits.inc_by(u64::from(found.is_some()));
        found
    }

    /// Reads from Kafka. Blocks.
    fn fetch(&self, after: Seq, bytes: usize) -> Result<Chunk, Error> {
        let mut place = self.take_place(after).map_or_else(|| self.new_place(), Ok)?;
        let chunk = self.fetch_at(&mut place, after, bytes)?;
        self.shared.metrics.chunk_reads.inc();
        self.shared.metrics.chunk_read_bytes.inc_by(chunk.bytes as u64);
        let mut idle = self.idle();
        idle.push(place);
        if idle.len() > self.shared.config.limits.readers.max(1) {
            idle.remove(0);
        }
        Ok(chunk)
    }

    fn fetch_at(&self, place: &mut Place, after: Seq, bytes: usize) -> Result<Chunk, Error> {
        if place.after.take() != Some(after) {
            let offset = self.find(&place.reader, after.next())?;
            place.reader.place(offset).map_err(failed)?;
        }
        let last = self.shared.window.borrow().last;
        let until = Instant::now() + PATIENCE;
        let mut chunk = Chunk { events: Vec::new(), bytes: 0 };
        let mut newest = after;
        while chunk.bytes < bytes && newest < last {
            match place.reader.next(LOOK).map_err(|error| self.lost(error))? {
                Found::Record(message) => {
                    let record = decode(&message)?;
                    let point = Point { seq: record.head.seq, offset: message.offset() };
                    if point.seq <= newest {
                        continue;
                    }
                    if chunk.events.is_empty() {
                        self.shared.index().learn(point);
                    }
                    newest = point.seq;
                    chunk.bytes += record.frame.len();
                    chunk.events.push(publish(&record));
                }
                Found::End | Found::Nothing if Instant::now() > until => return Err(silent()),
                Found::End | Found::Nothing => {}
            }
        }
        place.after = Some(newest);
        Ok(chunk)
    }

    /// An offset from which on the first record at or after `target` comes soon.
    fn find(&self, reader: &Reader, target: Seq) -> Result<i64, Error> {
        let ends = *self.shared.ends();
        let last = self.shared.window.borrow().last;
        let Some(first) = ends.first.filter(|first| first.seq < target) else { return Ok(ends.low) };
        let end = Point { seq: last.next(), offset: ends.next };
        let mut search = self.shared.index().search(target, first, end);
        loop {
            match search.step() {
                Step::Read(offset) => return Ok(offset),
                Step::Look(offset) => {
                    self.shared.metrics.looks.inc();
                    let found = reader.look(offset)?.map(|(point, _)| point);
                    search.seen(offset, found);
                    found.into_iter().for_each(|found| self.shared.index().learn(found));
                }
            }
        }
    }

    fn take_place(&self, after: Seq) -> Option<Place> {
        let mut idle = self.idle();
        if let Some(at) = idle.iter().position(|place| place.after == Some(after)) {
            return Some(idle.remove(at));
        }
        let full = idle.len() >= self.shared.config.limits.readers.max(1);
        full.then(|| idle.remove(0))
    }

    fn new_place(&self) -> Result<Place, Error> {
        let reader = Reader::new(&self.shared.config, AHEAD_BYTES, STEP_BYTES).map_err(failed)?;
        Ok(Place { reader, after: None })
    }

    /// A failed read, and why: retention may have overtaken it.
    fn lost(&self, error: rdkafka::error::KafkaError) -> Error {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            self.chunks().clear();
        }
        failed(error)
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Place>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
