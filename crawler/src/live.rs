//! What is known of a host while the process runs: shared by its task, the saver of cursors and the status page.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atproto::syntax::HostName;
use rand::Rng;
use storage::hosts::{Host, HostCursor, HostStatus};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    crawler::Start,
    cursor::Tally,
    host::{Action, End, Input, Machine, Timing},
};

/// A host as a page shows it.
#[derive(Clone, Debug)]
pub struct HostView {
    /// Where it listens.
    pub name: HostName,
    /// How it is.
    pub status: HostStatus,
    /// How far it has been read, durably.
    pub cursor: HostCursor,
    /// How long the connection has been open.
    pub connected_for: Option<Duration>,
    /// How long until it is tried again.
    pub next_try_in: Option<Duration>,
    /// Events taken from it since the process began.
    pub events: u64,
    /// Bytes of messages of it since the process began.
    pub bytes: u64,
    /// Events a second, over the last few seconds.
    pub events_per_second: f64,
    /// Events handed on and not judged yet.
    pub in_flight: usize,
    /// When the last event came, microseconds since the Unix epoch.
    pub last_event_at_micros: Option<u64>,
    /// How the last connection, or try to make one, ended.
    pub last_end: Option<LastEnd>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEnd {
    /// Why.
    pub end: End,
    /// For people.
    pub detail: String,
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
}

pub(crate) struct Live {
    pub(crate) name: HostName,
    start: Start,
    machine: Mutex<Machine>,
    tally: Mutex<Arc<Tally>>,
    counts: Counts,
    rate: Mutex<Rate>,
    last_end: Mutex<Option<LastEnd>>,
    pub(crate) saved: Mutex<Saved>,
    /// Wakes the task where it waits for the next try, and is lost where it does not.
    pub(crate) nudged: Notify,
    pub(crate) banned: watch::Sender<bool>,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    bytes: AtomicU64,
    /// Zero for never.
    last_event_at_micros: AtomicU64,
}

/// What the stores hold, as far as we know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    pub(crate) cursor: HostCursor,
    pub(crate) status: HostStatus,
}

#[derive(Default)]
struct Rate {
    events: u64,
    at: Option<Instant>,
    per_second: f64,
}

impl Live {
    pub(crate) fn new(row: Host, start: Start, timing: Timing, now: Instant) -> Live {
        let banned = row.status == HostStatus::Banned;
        Live {
            start,
            machine: Mutex::new(Machine::new(timing, banned, now)),
            tally: Mutex::new(Arc::new(Tally::new(row.cursor.epoch, row.cursor.seq))),
            counts: Counts::default(),
            rate: Mutex::default(),
            last_end: Mutex::default(),
            saved: Mutex::new(Saved { cursor: row.cursor, status: row.status }),
            nudged: Notify::new(),
            banned: watch::Sender::new(banned),
            name: row.name,
        }
    }

    pub(crate) fn step(&self, now: Instant, input: Input, rng: &mut impl Rng) -> Action {
        lock(&self.machine).step(now, input, rng)
    }

    pub(crate) fn status(&self, now: Instant) -> HostStatus {
        lock(&self.machine).status(now)
    }

    /// The mark of the present epoch.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&lock(&self.tally))
    }

    /// How far it has been read, durably.
    pub(crate) fn cursor(&self) -> HostCursor {
        let tally = self.tally();
        HostCursor { epoch: tally.epoch(), seq: tally.cursor() }
    }

    /// Begins a connection: gives the cursor to ask for, `None` for live from now. What is not taken yet will be sent
    /// again after that cursor, so the mark begins anew there; late receipts of what was sent before move nothing.
    pub(crate) fn resume(&self) -> Option<u64> {
        let mut tally = lock(&self.tally);
        *tally = Arc::new(Tally::new(tally.epoch(), tally.cursor()));
        tally.cursor().or(match self.start {
            Start::Live => None,
            Start::Oldest => Some(0),
        })
    }

    /// The host counts anew: receipts of the old count move nothing any more.
    pub(crate) fn begin_epoch(&self) -> Arc<Tally> {
        let mut tally = lock(&self.tally);
        // Two billion resets at one a second take longer than anybody will run this; the last epoch then stays.
        *tally = Arc::new(Tally::new(tally.epoch().saturating_add(1), None));
        Arc::clone(&tally)
    }

    pub(crate) fn count_message(&self, bytes: usize) {
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_event(&self, now_micros: u64) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        self.counts.last_event_at_micros.store(now_micros, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, end: LastEnd) {
        *lock(&self.last_end) = Some(end);
    }

    /// Brings the rate up to now; to be called every second or so.
    pub(crate) fn measure(&self, now: Instant) {
        let events = self.counts.events.load(Ordering::Relaxed);
        let mut rate = lock(&self.rate);
        let Some(at) = rate.at.replace(now) else {
            rate.events = events;
            return;
        };
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds > 0.0 {
            let fresh = (events - rate.events) as f64 / seconds;
            // Half of what is shown is from the last three seconds.
            let weight = 1.0 - 0.5f64.powf(seconds / 3.0);
            rate.per_second += (fresh - rate.per_second) * weight;
            rate.events = events;
        }
    }

    pub(crate) fn view(&self, now: Instant) -> HostView {
        let (status, since, next_try) = {
            let machine = lock(&self.machine);
            (machine.status(now), machine.reading_since(), machine.next_try())
        };
        let last_event_at_micros = self.counts.last_event_at_micros.load(Ordering::Relaxed);
        HostView {
            name: self.name.clone(),
            status,
            cursor: self.cursor(),
            connected_for: since.map(|since| now.duration_since(since)),
            next_try_in: next_try.map(|at| at.duration_since(now)),
            events: self.counts.events.load(Ordering::Relaxed),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            events_per_second: lock(&self.rate).per_second,
            in_flight: self.tally().outstanding(),
            last_event_at_micros: (last_event_at_micros > 0).then_some(last_event_at_micros),
            last_end: lock(&self.last_end).clone(),
        }
    }
}

/// All these are set whole, so a panic elsewhere leaves nothing to repair.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
