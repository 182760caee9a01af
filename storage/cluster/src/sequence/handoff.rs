//! The queue between who reads and who commits, bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use runtime::trace::Followed;
use storage::seq::Seq;

use crate::wire::sequencer::State;

/// Records that belong together, ready to be sent, and the state after them.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Records of `firehose`, one after another.
    pub(crate) bytes: Vec<u8>,
    /// Where each record ends.
    pub(crate) ends: Vec<usize>,
    /// The state after them, and after what was read between them and does not count.
    pub(crate) state: State,
    /// When the oldest of them was accepted; `None` where none counts.
    pub(crate) oldest_at_micros: Option<u64>,
    /// Those that are followed.
    pub(crate) following: Vec<Following>,
}

/// An event that is followed ([`runtime::trace`]) until it is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Following {
    pub(crate) followed: Followed,
    pub(crate) seq: Seq,
    /// When it was accepted, microseconds since the Unix epoch.
    pub(crate) at_micros: u64,
}

impl Chunk {
    /// Its records.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Why nothing comes any more.
pub(crate) struct Ended;

/// Chunks in order. One side puts, the other takes; either may end it.
pub(crate) struct Queue<E> {
    inner: Mutex<Inner<E>>,
    changed: Condvar,
    bytes_max: usize,
}

struct Inner<E> {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Set by either side: no more is put.
    closed: bool,
    failure: Option<E>,
}

/// What a taker finds.
pub(crate) enum Taken<E> {
    /// The next chunk.
    Chunk(Chunk),
    /// Nothing came in time.
    Nothing,
    /// Who reads has failed; what it had read before was taken.
    Failed(E),
}

impl<E> Queue<E> {
    /// An empty queue.
    pub(crate) fn new(bytes_max: usize) -> Queue<E> {
        let inner = Inner { chunks: VecDeque::new(), bytes: 0, closed: false, failure: None };
        Queue { inner: Mutex::new(inner), changed: Condvar::new(), bytes_max }
    }

    /// Puts a chunk at the end. Gives it back where there was no room in that time; one alone always finds room.
    pub(crate) fn put(&self, chunk: Chunk, wait: Duration) -> Result<Option<Chunk>, Ended> {
        let is_full =
            |inner: &mut Inner<E>| !inner.closed && inner.bytes > 0 && inner.bytes + chunk.bytes.len() > self.bytes_max;
        let waited = self.changed.wait_timeout_while(self.lock(), wait, is_full);
        let (mut inner, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            return Err(Ended);
        }
        if timeout.timed_out() {
            return Ok(Some(chunk));
        }
        inner.bytes += chunk.bytes.len();
        inner.chunks.push_back(chunk);
        self.changed.notify_all();
        Ok(None)
    }

    /// Takes the first chunk; waits for one until then.
    pub(crate) fn take(&self, until: Instant) -> Taken<E> {
        let wait = until.saturating_duration_since(Instant::now());
        let is_empty = |inner: &mut Inner<E>| inner.chunks.is_empty() && inner.failure.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), wait, is_empty);
        let (mut inner, _timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = inner.chunks.pop_front() {
            inner.bytes -= chunk.bytes.len();
            self.changed.notify_all();
            return Taken::Chunk(chunk);
        }
        inner.failure.take().map_or(Taken::Nothing, Taken::Failed)
    }

    /// When the oldest event that waits here was accepted.
    pub(crate) fn oldest_at_micros(&self) -> Option<u64> {
        self.lock().chunks.iter().find_map(|chunk| chunk.oldest_at_micros)
    }

    /// The reader ends, for this reason.
    pub(crate) fn fail(&self, failure: E) {
        let mut inner = self.lock();
        inner.failure = Some(failure);
        inner.closed = true;
        self.changed.notify_all();
    }

    /// Nobody takes any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether it was ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use storage::seq::Seq;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn chunk(records: &[&[u8]]) -> Chunk {
        let mut ends = Vec::new();
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(record);
            ends.push(bytes.len());
        }
        Chunk { bytes, ends, state: State::start(Seq(1), 0), following: Vec::new(), oldest_at_micros: None }
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn records_are_where_they_were_put() {
        let records: [&[u8]; 3] = [b"one", b"", b"three"];
        assert_eq!(chunk(&records).records().collect::<Vec<_>>(), records);
    }

    #[test]
    fn is_bounded_in_bytes_and_takes_one_alone() {
        let queue = Queue::<()>::new(4);
        assert!(matches!(queue.put(chunk(&[b"seven.."]), LONG), Ok(None)));
        assert!(matches!(queue.put(chunk(&[b"1"]), Duration::ZERO), Ok(Some(_))));
        assert!(matches!(queue.take(now()), Taken::Chunk(_)));
        assert!(matches!(queue.put(chunk(&[b"1"]), LONG), Ok(None)));
        assert!(matches!(queue.put(chunk(&[b"234"]), LONG), Ok(None)));
        assert!(matches!(queue.put(chunk(&[b"5"]), Duration::ZERO), Ok(Some(_))));
    }

    #[test]
    fn what_was_put_comes_before_the_failure() {
        let queue = Queue::new(100);
        assert!(matches!(queue.take(now()), Taken::Nothing));
        assert!(queue.put(chunk(&[b"1"]), LONG).is_ok());
        queue.fail("why");
        assert!(queue.put(chunk(&[b"2"]), LONG).is_err());
        assert!(matches!(queue.take(now()), Taken::Chunk(_)));
        assert!(matches!(queue.take(now() + LONG), Taken::Failed("why")));
    }

    #[test]
    fn who_waits_for_room_is_woken_by_the_end() {
        let queue = Queue::<()>::new(1);
        assert!(queue.put(chunk(&[b"1"]), LONG).is_ok());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.put(chunk(&[b"2"]), LONG).is_err());
            queue.close();
            assert!(waiting.join().unwrap());
        });
    }
}
