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
use storage::{
    hosts::{AddedBy, Domain, Host, HostCursor, HostStatus, Notes, Reset, ResetCause, Rewind},
    limits::{Change, HostLimits, Limits, Source},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    crawler::Start,
    cursor::Tally,
    host::{Action, End, Input, Machine, Phase, Timing},
    throttle::{Held, Rate},
};

/// A host as a page shows it.
#[derive(Clone, Debug)]
pub struct HostView {
    /// Where it listens.
    pub name: HostName,
    /// Whether this process reads it. Where another does, what only the connection knows is not known here, and left at
    /// nothing: times, counts, rates, ends.
    pub read_here: bool,
    /// How it is, in the lexicon's words.
    pub status: HostStatus,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is banned.
    pub banned_by: Option<BannedBy>,
    /// How far it has been read, durably.
    pub cursor: HostCursor,
    /// When it was first known, microseconds since the Unix epoch.
    pub added_at_micros: u64,
    /// Who made it known.
    pub added_by: AddedBy,
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
    /// Tries to connect since the process began.
    pub tries: u64,
    /// Connections made since the process began.
    pub connections: u64,
    /// How tries and connections ended since the process began; causes that were seen.
    pub ends: Vec<(End, u64)>,
    /// Failures in a row, since it last worked.
    pub failures: u32,
    /// That it is over a rate now, and which.
    pub throttled: Option<Throttled>,
    /// What it may do.
    pub limits: HostLimits,
    /// Which rule says so.
    pub limits_from: Source,
    /// The operator's exception for it, over that rule.
    pub limits_exception: Option<Change>,
    /// The last time that its reading did not go on from its cursor.
    pub last_reset: Option<Reset>,
}

/// A host is read more slowly than it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// The rate it is over.
    pub by: Rate,
    /// What that rate is.
    pub limit: u64,
    /// How long until its next message is taken.
    pub next_in: Duration,
    /// How long until its whole allowance is there again, if it sends nothing meanwhile.
    pub restored_in: Duration,
}

/// Why a host is banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BannedBy {
    /// It is banned itself.
    Host,
    /// All hosts of this domain are.
    Domain(Domain),
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
    rate: Mutex<Speed>,
    last_end: Mutex<Option<LastEnd>>,
    ends: [AtomicU64; End::ALL.len()],
    held: Mutex<Option<Held>>,
    added_at_micros: u64,
    notes: Mutex<Notes>,
    pub(crate) saved: Mutex<Saved>,
    bans: Mutex<Bans>,
    /// Wakes the task where it waits for the next try, and is lost where it does not.
    pub(crate) nudged: Notify,
    /// Has the task connect anew, whatever it does.
    pub(crate) restarted: Notify,
    /// Ends the task.
    pub(crate) stop: CancellationToken,
    /// The task has ended.
    pub(crate) ended: CancellationToken,
    /// Whether any ban holds.
    pub(crate) banned: watch::Sender<bool>,
}

/// The bans over a host.
#[derive(Clone, Debug, Default)]
struct Bans {
    host: bool,
    domain: Option<Domain>,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    bytes: AtomicU64,
    tries: AtomicU64,
    connections: AtomicU64,
    /// Zero for never.
    last_event_at_micros: AtomicU64,
}

/// What the stores hold, as far as we know.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) cursor: HostCursor,
    pub(crate) status: HostStatus,
    pub(crate) notes: Notes,
}

#[derive(Default)]
struct Speed {
    events: u64,
    at: Option<Instant>,
    per_second: f64,
}

impl Live {
    /// From its row, and the ban of its domain; due now. `stop` is its own.
    pub(crate) fn new(
        row: Host,
        start: Start,
        timing: Timing,
        domain_ban: Option<Domain>,
        stop: CancellationToken,
    ) -> Live {
        let bans = Bans { host: row.status == HostStatus::Banned, domain: domain_ban };
        let banned = bans.hold();
        Live {
            start,
            machine: Mutex::new(Machine::new(timing, banned, Instant::now())),
            tally: Mutex::new(Arc::new(Tally::new(row.cursor.epoch, row.cursor.seq))),
            counts: Counts::default(),
            rate: Mutex::default(),
            last_end: Mutex::default(),
            ends: Default::default(),
            held: Mutex::default(),
            added_at_micros: row.added_at_micros,
            saved: Mutex::new(Saved { cursor: row.cursor, status: row.status, notes: row.notes.clone() }),
            notes: Mutex::new(row.notes),
            bans: Mutex::new(bans),
            nudged: Notify::new(),
            restarted: Notify::new(),
            stop,
            ended: CancellationToken::new(),
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

    /// The host counts anew: receipts of the old count move nothing any more. `of` is the mark of the connection that
    /// has seen it; where an operator has moved the cursor meanwhile, nothing is done.
    pub(crate) fn begin_epoch(&self, of: &Arc<Tally>, cause: ResetCause, at_micros: u64) -> Option<Arc<Tally>> {
        let mut tally = lock(&self.tally);
        if !Arc::ptr_eq(&tally, of) {
            return None;
        }
        let from = HostCursor { epoch: tally.epoch(), seq: tally.cursor() };
        // Four billion resets at one a second take longer than anybody will run this; the last epoch then stays.
        let to = HostCursor { epoch: from.epoch.saturating_add(1), seq: None };
        *tally = Arc::new(Tally::new(to.epoch, to.seq));
        lock(&self.notes).last_reset = Some(Reset { cause, at_micros, from, to });
        Some(Arc::clone(&tally))
    }

    /// Reading goes on after `seq` of the present count. What was accepted once is known by its seq and is a repeat, so
    /// the epoch stays.
    pub(crate) fn rewind(&self, seq: u64, at_micros: u64) -> Reset {
        let mut tally = lock(&self.tally);
        let from = HostCursor { epoch: tally.epoch(), seq: tally.cursor() };
        let to = HostCursor { seq: Some(seq), ..from };
        *tally = Arc::new(Tally::new(to.epoch, to.seq));
        let reset = Reset { cause: ResetCause::Rewound, at_micros, from, to };
        lock(&self.notes).last_reset = Some(reset);
        reset
    }

    /// What an operator has asked another process for: reading goes on there, unless the host counts anew since, or is not
    /// read as far.
    pub(crate) fn carry_out(&self, rewind: Rewind) -> Option<Reset> {
        let Rewind { at_micros, to } = rewind;
        let mut tally = lock(&self.tally);
        let from = HostCursor { epoch: tally.epoch(), seq: tally.cursor() };
        let mut notes = lock(&self.notes);
        notes.rewound_at_micros = at_micros;
        if to.epoch != from.epoch || to.seq.unwrap_or(0) > from.seq.unwrap_or(0) {
            return None;
        }
        *tally = Arc::new(Tally::new(to.epoch, to.seq));
        let reset = Reset { cause: ResetCause::Rewound, at_micros, from, to };
        notes.last_reset = Some(reset);
        Some(reset)
    }

    /// Takes over what operators have ordered in the row.
    pub(crate) fn heed(&self, orders: &Notes) {
        let mut notes = lock(&self.notes);
        *notes = notes.clone().with_orders_of(orders);
    }

    /// Somebody else may have written it.
    pub(crate) fn forget_saved_cursor(&self) {
        lock(&self.saved).cursor = HostCursor::default();
    }

    /// Its row, as far as we know.
    pub(crate) fn row(&self) -> Host {
        let Saved { cursor, status, notes } = lock(&self.saved).clone();
        Host { name: self.name.clone(), status, cursor, added_at_micros: self.added_at_micros, notes }
    }

    /// Whether somebody else may have written this row.
    pub(crate) fn differs(&self, row: &Host) -> bool {
        row.notes != lock(&self.saved).notes || (row.status == HostStatus::Banned) != self.is_host_banned()
    }

    pub(crate) fn notes(&self) -> Notes {
        lock(&self.notes).clone()
    }

    pub(crate) fn set_exception(&self, change: Change) {
        lock(&self.notes).limits = change;
    }

    pub(crate) fn ban_host(&self, banned: bool) {
        self.set_bans(|bans| bans.host = banned);
    }

    pub(crate) fn is_host_banned(&self) -> bool {
        lock(&self.bans).host
    }

    pub(crate) fn ban_domain(&self, domain: Option<Domain>) {
        self.set_bans(|bans| bans.domain = domain);
    }

    fn set_bans(&self, change: impl FnOnce(&mut Bans)) {
        let mut bans = lock(&self.bans);
        change(&mut bans);
        let banned = bans.hold();
        self.banned.send_if_modified(|was| std::mem::replace(was, banned) != banned);
    }

    pub(crate) fn hold(&self, held: Option<Held>) {
        *lock(&self.held) = held;
    }

    pub(crate) fn count_try(&self) {
        self.counts.tries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_connection(&self) {
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_message(&self, bytes: usize) {
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_event(&self, now_micros: u64) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        self.counts.last_event_at_micros.store(now_micros, Ordering::Relaxed);
    }

    pub(crate) fn count_end(&self, end: LastEnd) {
        self.ends[end.end as usize].fetch_add(1, Ordering::Relaxed);
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

    pub(crate) fn view(&self, limits: &Limits, now: Instant) -> HostView {
        let machine = lock(&self.machine).clone();
        let held = lock(&self.held).filter(|held| machine.reading_since().is_some() && held.until > now);
        let bans = lock(&self.bans).clone();
        let (host_limits, limits_from, limits_exception) = limits.explain(&self.name);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let ends = End::ALL.into_iter().map(|end| (end, count(&self.ends[end as usize])));
        let notes = self.notes();
        let last_event_at_micros = self.counts.last_event_at_micros.load(Ordering::Relaxed);
        HostView {
            name: self.name.clone(),
            read_here: true,
            status: machine.status(now),
            phase: machine.phase(now),
            banned_by: match bans {
                Bans { host: true, .. } => Some(BannedBy::Host),
                Bans { host: false, domain } => domain.map(BannedBy::Domain),
            },
            cursor: self.cursor(),
            added_at_micros: self.added_at_micros,
            added_by: notes.added_by,
            connected_for: machine.reading_since().map(|since| now.duration_since(since)),
            next_try_in: machine.next_try().map(|at| at.duration_since(now)),
            events: self.counts.events.load(Ordering::Relaxed),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            events_per_second: lock(&self.rate).per_second,
            in_flight: self.tally().outstanding(),
            last_event_at_micros: (last_event_at_micros > 0).then_some(last_event_at_micros),
            last_end: lock(&self.last_end).clone(),
            tries: count(&self.counts.tries),
            connections: count(&self.counts.connections),
            ends: ends.filter(|(_, count)| *count > 0).collect(),
            failures: machine.failures(),
            throttled: held.map(|held| Throttled {
                by: held.by,
                limit: held.limit,
                next_in: held.until - now,
                restored_in: held.restored_at.saturating_duration_since(now),
            }),
            limits: host_limits,
            limits_from,
            limits_exception,
            last_reset: notes.last_reset,
        }
    }
}

impl Bans {
    fn hold(&self) -> bool {
        self.host || self.domain.is_some()
    }
}

/// All these are set whole, so a panic elsewhere leaves nothing to repair.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
