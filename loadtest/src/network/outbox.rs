//! What a host has to say: its newest frames, in order, within a bound in bytes.
//!
//! A subscriber is a position in it and pulls; nobody has a queue of their own. Past the bound the oldest frames go,
//! as on a real host whose backfill window ends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use runtime::clock::Clock;
use tokio::sync::watch;

use crate::traffic::stamp;

/// The window and who reads it.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Up to which seq subscribers may read.
    released: watch::Sender<u64>,
    clock: Clock,
}

struct State {
    frames: VecDeque<Item>,
    bytes: usize,
    window_bytes: usize,
    last_seq: u64,
    /// The newest frame that has left the window.
    evicted: u64,
    held: bool,
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
}

struct Item {
    seq: u64,
    frame: Bytes,
    /// It was made while frames were held and has not left since: its `time` is that of its making.
    waits: bool,
}

/// Where a subscriber starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// After this seq.
    After(u64),
    /// The cursor is older than the window: an `#info` first, then the window.
    Outdated,
    /// The cursor has not been reached.
    Future,
}

/// A subscriber's place; gives it up when dropped.
pub(super) struct Reader<'a> {
    outbox: &'a Outbox,
    id: u64,
    after: u64,
    released: watch::Receiver<u64>,
}

impl Outbox {
    /// An empty window whose first seq will be above `last_seq`.
    pub(super) fn new(window_bytes: usize, last_seq: u64, clock: Clock) -> Outbox {
        let state = State {
            frames: VecDeque::new(),
            bytes: 0,
            window_bytes,
            last_seq,
            evicted: last_seq,
            held: false,
            readers: BTreeMap::new(),
            next_reader: 0,
        };
        Outbox { state: Mutex::new(state), released: watch::Sender::new(last_seq), clock }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.state().last_seq
    }

    /// Adds a frame. Its seq must be above the last, and its `time` be now.
    pub(super) fn push(&self, seq: u64, frame: Bytes) {
        let mut state = self.state();
        state.bytes += frame.len();
        state.last_seq = seq;
        let waits = state.held;
        state.frames.push_back(Item { seq, frame, waits });
        while state.bytes > state.window_bytes && state.frames.len() > 1 {
            if let Some(Item { seq, frame, .. }) = state.frames.pop_front() {
                state.bytes -= frame.len();
                state.evicted = seq;
            }
        }
        if !state.held {
            self.released.send_replace(seq);
        }
    }

    /// All frames of the window.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        self.state().frames.iter().map(|item| item.frame.clone()).collect()
    }

    /// All frames of the window, which is empty then.
    pub(super) fn drain(&self) -> Vec<(u64, Bytes)> {
        let mut state = self.state();
        state.bytes = 0;
        state.evicted = state.last_seq;
        state.frames.drain(..).map(|item| (item.seq, item.frame)).collect()
    }

    /// While held, frames gather and no subscriber sees them. When they leave, they get the `time` of that.
    pub(super) fn hold(&self, held: bool) {
        let mut state = self.state();
        state.held = held;
        if !held {
            self.released.send_replace(state.last_seq);
        }
    }

    /// Bytes that the slowest subscriber has still to read; `None` where nobody reads.
    pub(super) fn backlog_bytes(&self) -> Option<usize> {
        let state = self.state();
        let slowest = *state.readers.values().min()?;
        let at = state.frames.partition_point(|item| item.seq <= slowest);
        Some(state.frames.range(at..).map(|item| item.frame.len()).sum())
    }

    /// How many subscribers read.
    pub(super) fn readers(&self) -> usize {
        self.state().readers.len()
    }

    /// Where a cursor leads, as real hosts answer: none is live, zero or less is everything.
    pub(super) fn start(&self, cursor: Option<i64>) -> Start {
        let state = self.state();
        let released = *self.released.borrow();
        match cursor {
            None => Start::After(released),
            Some(..=0) => Start::After(state.evicted),
            Some(cursor) => match u64::try_from(cursor) {
                Ok(cursor) if cursor > state.last_seq => Start::Future,
                Ok(cursor) if cursor < state.evicted => Start::Outdated,
                Ok(cursor) => Start::After(cursor),
                Err(_) => Start::Future,
            },
        }
    }

    /// The oldest position that can be read from.
    pub(super) fn window_start(&self) -> u64 {
        self.state().evicted
    }

    /// A place after `after`.
    pub(super) fn reader(&self, after: u64) -> Reader<'_> {
        let mut state = self.state();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, after);
        Reader { outbox: self, id, after, released: self.released.subscribe() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader<'_> {
    /// Waits for frames and gives the next ones, at least one and about `bytes_max` at most.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Vec<Bytes> {
        loop {
            let released = *self.released.borrow_and_update();
            if released > self.after {
                let batch = self.take(released, bytes_max);
                if !batch.is_empty() {
                    return batch;
                }
            }
            if self.released.changed().await.is_err() {
                // The outbox, which this borrows, holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self, released: u64, bytes_max: usize) -> Vec<Bytes> {
        let mut state = self.outbox.state();
        let at = state.frames.partition_point(|item| item.seq <= self.after);
        let mut bytes = 0;
        let mut batch = Vec::new();
        for item in state.frames.range_mut(at..).take_while(|item| item.seq <= released) {
            if std::mem::take(&mut item.waits) {
                item.frame = stamped(std::mem::take(&mut item.frame), self.outbox.clock.now_micros());
            }
            batch.push(item.frame.clone());
            self.after = item.seq;
            bytes += item.frame.len();
            if bytes >= bytes_max {
                break;
            }
        }
        if batch.is_empty() {
            self.after = released;
        }
        state.readers.insert(self.id, self.after);
        batch
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.outbox.state().readers.remove(&self.id);
    }
}

/// The frame, sent now.
fn stamped(frame: Bytes, now_micros: u64) -> Bytes {
    let Some(at) = stamp::find(&frame) else { return frame };
    // Nobody else has it yet, unless somebody looked at the window: then it is copied.
    let mut frame = frame.try_into_mut().unwrap_or_else(|frame| BytesMut::from(&frame[..]));
    stamp::write(&mut frame, at, now_micros);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use std::{future::Future, task::Poll, time::Duration};

    use atproto::{
        event::{AccountEvent, Event},
        syntax::Datetime,
    };

    use super::*;

    fn filled() -> Outbox {
        let outbox = Outbox::new(30, 100, Clock::manual(0));
        for seq in [101, 103, 104, 110] {
            outbox.push(seq, Bytes::from(vec![seq as u8; 10]));
        }
        outbox
    }

    #[test]
    fn cursors_lead_where_a_real_host_leads() {
        let outbox = filled();
        for (cursor, start) in [
            (None, Start::After(110)),
            (Some(0), Start::After(101)),
            (Some(-1), Start::After(101)),
            (Some(99), Start::Outdated),
            (Some(101), Start::After(101)),
            (Some(104), Start::After(104)),
            (Some(110), Start::After(110)),
            (Some(111), Start::Future),
        ] {
            assert_eq!(outbox.start(cursor), start, "{cursor:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_gets_what_follows_its_place_and_nothing_that_is_held() {
        let outbox = filled();
        let mut reader = outbox.reader(102);
        assert_eq!(outbox.backlog_bytes(), Some(30));
        let seqs = |batch: Vec<Bytes>| batch.iter().map(|frame| frame[0]).collect::<Vec<_>>();
        assert_eq!(seqs(reader.next(15).await), [103, 104]);
        outbox.hold(true);
        outbox.push(111, Bytes::from_static(&[111; 10]));
        assert_eq!(seqs(reader.next(100).await), [110]);
        {
            let mut waiting = std::pin::pin!(reader.next(100));
            assert!(std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
        }
        outbox.hold(false);
        assert_eq!(seqs(reader.next(100).await), [111]);
        drop(reader);
        assert_eq!(outbox.backlog_bytes(), None);
    }

    #[tokio::test]
    async fn what_was_held_says_when_it_left() {
        let clock = Clock::manual(1_795_367_100_000_000);
        let outbox = Outbox::new(1_000, 0, clock.clone());
        let frame = |seq| {
            let time = Datetime::from_micros(clock.now_micros());
            let event = AccountEvent { seq, did: "did:web:a.test", time: time.as_str(), active: true, status: None };
            Bytes::from(Event::Account(event).encode())
        };
        let sent = |frames: Vec<Bytes>| frames.iter().map(|frame| stamp::read(frame).unwrap()).collect::<Vec<_>>();
        outbox.push(1, frame(1));
        outbox.hold(true);
        outbox.push(2, frame(2));
        clock.advance(Duration::from_secs(1));
        outbox.hold(false);
        // Whoever comes later gets the same bytes, as from a real host.
        for _ in 0..2 {
            let times = sent(outbox.reader(0).next(1_000).await);
            assert_eq!(times, [1_795_367_100_000_000, 1_795_367_101_000_000]);
            clock.advance(Duration::from_secs(1));
        }
    }
}
