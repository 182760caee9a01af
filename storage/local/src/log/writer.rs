//! The one thread that writes: the sequencer.

use std::{
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use atproto::{frame::Renumbered, syntax::Did};
use bytes::Bytes;
use storage::{
    error::Error,
    log::{Accepted, LogHealth},
    repos::LocalStatus,
    seq::Seq,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Shared,
    blocks::Blocks,
    record::{GroupHeader, GroupKind, RECORD_HEAD_BYTES, Record, SegmentHeader, write_record},
    segment::{Extent, Reading, Segment},
    segments::Retention,
    tail::{TailFrame, TailGroup},
};
use crate::{
    config::{Config, micros},
    state::State,
};

/// After this long without an append the last group is sealed; also how often old segments are looked for.
const TICK: Duration = Duration::from_secs(1);

/// A group smaller than this waits a moment for company: a sync costs as much CPU as some twenty events.
const SMALL_GROUP_BYTES: usize = 64 << 10;

/// The blocks that groups are written into, unless the tail for readers is smaller. Twice a large group.
const BLOCK_BYTES: usize = 2 << 20;

/// What a record takes at most beside its frame, its DID and its state's host: its head, the state without the host, and
/// a seq that is longer than the host's.
const RECORD_OVERHEAD_BYTES: usize = RECORD_HEAD_BYTES + 96 + 9;

/// What the writer is asked to do, in order.
pub(super) enum Command {
    Append(Pending),
    /// Write what came before, mark the end, and end.
    Close {
        answer: oneshot::Sender<Result<(), Error>>,
    },
    /// End at once.
    Abandon,
}

/// A batch that waits.
pub(super) struct Pending {
    pub(super) batch: Vec<Accepted>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
    /// Gives its bytes back when the batch is answered.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Why the writer ends.
enum End {
    Closed(oneshot::Sender<Result<(), Error>>),
    Abandoned,
    /// A close was asked for while appends waited for room.
    ClosedWhileFull,
    /// Nobody can know what is durable.
    Fatal(String),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    state: State,
    config: Config,
    queue: Receiver<Command>,
    active: Arc<Segment>,
    reading: Arc<Reading>,
    /// Whether the last group is a seal.
    sealed: bool,
    blocks: Blocks,
    synced_at: Instant,
    retained_at: Instant,
}

/// A group ready to be written.
struct Group {
    header: GroupHeader,
    /// Header and records, as they stand on the disk.
    buffer: Bytes,
    /// Where each frame stands in the buffer.
    frames: Vec<TailFrame>,
    /// Where each record begins in the buffer.
    starts: Vec<u32>,
}

impl Writer {
    /// The segments must have been opened: the active one sealed and synced.
    pub(super) fn new(
        shared: Arc<Shared>,
        state: State,
        config: Config,
        queue: Receiver<Command>,
    ) -> io::Result<Writer> {
        let active = shared.segments.active();
        let reading = active.reading()?;
        let block_bytes = BLOCK_BYTES.min(config.tail_bytes_max.max(64 << 10));
        Ok(Writer {
            shared,
            state,
            queue,
            active,
            reading,
            sealed: true,
            blocks: Blocks::new(block_bytes, config.tail_bytes_max),
            config,
            synced_at: Instant::now(),
            retained_at: Instant::now(),
        })
    }

    pub(super) fn run(mut self) {
        let guard = PanicIsFatal(Arc::clone(&self.config.fatal));
        let end = match self.serve() {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.shared.closed.store(true, Ordering::SeqCst);
        match end {
            End::Closed(answer) => {
                // Whoever closes may have stopped waiting.
                let _gone = answer.send(Ok(()));
            }
            End::Abandoned => {}
            End::ClosedWhileFull => self.answer_close(),
            End::Fatal(what) => (self.config.fatal)(&what),
        }
        drop(guard);
    }

    fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let mut pending = Vec::new();
            let close = match self.queue.recv_timeout(TICK) {
                Ok(Command::Append(first)) => self.gather(first, &mut pending),
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.idle()?;
                    None
                }
                Err(RecvTimeoutError::Disconnected) => Some(Command::Abandon),
            };
            if !pending.is_empty() {
                self.append(pending)?;
            }
            match close {
                None => {}
                Some(Command::Append(_)) => unreachable!("gather takes appends"),
                Some(Command::Abandon) => return Err(End::Abandoned),
                Some(Command::Close { answer }) => {
                    // A log that is full has no room for the mark either: it is closed without.
                    match self.seal() {
                        Ok(()) => {}
                        Err(error) if is_full(&error) => tracing::warn!("no room to mark the log as closed"),
                        Err(error) => return Err(fatal("mark the log as closed", &error)),
                    }
                    self.state.sync().map_err(|error| fatal("sync the state store", &error))?;
                    return Err(End::Closed(answer));
                }
            }
            self.retain_if_due()?;
        }
    }

    /// Finds the close that was asked for behind appends that there is no room for.
    fn answer_close(&mut self) {
        tracing::warn!("closed while the disk is full: the log is not marked as closed");
        while let Ok(command) = self.queue.recv() {
            match command {
                Command::Append(pending) => {
                    let _gone = pending.answer.send(Err(Error::Closed));
                }
                Command::Abandon => return,
                Command::Close { answer } => {
                    let _gone = answer.send(self.state.sync());
                    return;
                }
            }
        }
    }

    /// All batches that wait already, up to a group's size; while they are few, those that come soon after the last sync
    /// too. Gives the command that stopped it.
    fn gather(&self, first: Pending, pending: &mut Vec<Pending>) -> Option<Command> {
        let mut bytes = first.bytes;
        pending.push(first);
        while bytes < self.config.group_bytes_max {
            let wait = self.config.linger.saturating_sub(self.synced_at.elapsed());
            let next = match self.queue.try_recv() {
                Err(TryRecvError::Empty) if bytes < SMALL_GROUP_BYTES && !wait.is_zero() => {
                    self.queue.recv_timeout(wait).ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Command::Append(next)) => {
                    bytes += next.bytes;
                    pending.push(next);
                }
                other => return other,
            }
        }
        None
    }

    /// Makes the batches durable and readable, hands their states on and answers them.
    fn append(&mut self, pending: Vec<Pending>) -> Result<(), End> {
        let last = self.active.extent().last;
        let (batches, answers): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|one| (one.batch, (one.answer, one._room))).unzip();
        let count: usize = batches.iter().map(Vec::len).sum();
        if Seq::MAX.0 - last.0 < count as u64 {
            for (answer, _room) in answers {
                let refused = Error::Determinate { what: "append to the log", source: "no seq is left".into() };
                let _gone = answer.send(Err(refused));
            }
            return Ok(());
        }
        let group = self.encode(&batches, last.next());
        match self.write_durably(&group) {
            Err(End::ClosedWhileFull) => {
                for (answer, _room) in answers {
                    let _gone = answer.send(Err(Error::Closed));
                }
                return Err(End::ClosedWhileFull);
            }
            written => written?,
        }
        self.publish(group);
        let events = batches.into_iter().flatten();
        let states = (last.next().0..).zip(events).map(|(seq, event)| (Seq(seq), event.did, event.state));
        self.state.note(states, self.active.extent().last).map_err(|error| fatal("apply states", &error))?;
        self.shared.metrics.events.inc_by(count as u64);
        for (answer, _room) in answers {
            // A caller that went away is not told.
            let _gone = answer.send(Ok(()));
        }
        Ok(())
    }

    fn encode(&mut self, batches: &[Vec<Accepted>], first: Seq) -> Group {
        let salt = self.active.header.salt;
        let events = || batches.iter().flatten();
        let count = batches.iter().map(Vec::len).sum();
        let bytes: usize = events()
            .map(|event| event.frame.len() + event.did.as_str().len() + event.state.host.as_str().len())
            .sum::<usize>()
            + count * RECORD_OVERHEAD_BYTES;
        let mut buffer = self.blocks.begin(GroupHeader::BYTES + bytes);
        buffer.resize(GroupHeader::BYTES, 0);
        let mut state = Vec::with_capacity(256);
        let mut frames = Vec::with_capacity(count);
        let mut starts = Vec::with_capacity(count);
        for (seq, event) in (first.0..).zip(events()) {
            state.clear();
            event.state.encode(&mut state);
            let account = Did::lane_hash(event.did.as_str());
            let did = event.did.as_str().as_bytes();
            let head = Record { seq: Seq(seq), account, did, state: &state, frame: &[] };
            starts.push(offset(buffer.len()));
            let frame = Renumbered::new(&event.frame, event.seq_slot, seq);
            let len = write_record(&mut buffer, salt, &head, &frame.pieces());
            let end = offset(buffer.len());
            let taken_down = event.state.local == LocalStatus::TakenDown;
            frames.push(TailFrame { account, taken_down, start: end - offset(len), end });
        }
        let header = GroupHeader {
            kind: GroupKind::Events,
            count: offset(count),
            body_bytes: (buffer.len() - GroupHeader::BYTES) as u64,
            first,
            synced: Seq(first.0 - 1),
            at_micros: (self.config.now_micros)(),
        };
        buffer[..GroupHeader::BYTES].copy_from_slice(&header.encode(salt));
        Group { header, buffer: self.blocks.finish(buffer), frames, starts }
    }

    // === Writing ===

    /// Writes and syncs the group, waiting for room as long as there is none.
    fn write_durably(&mut self, group: &Group) -> Result<(), End> {
        let mut is_full_since: Option<Instant> = None;
        loop {
            match self.make_room(group.buffer.len() as u64) {
                Ok(()) => match self.write(&group.buffer) {
                    Ok(()) => break,
                    Err(error) if is_full(&error) => self.undo_write()?,
                    Err(error) => return Err(fatal("write to the log", &error)),
                },
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(fatal("write to the log", &error)),
            }
            if is_full_since.is_none() {
                is_full_since = Some(Instant::now());
                tracing::warn!("the disk is full: appends wait");
            }
            self.show_full(group.buffer.len() as u64);
            self.wait_for_room()?;
        }
        if let Some(since) = is_full_since {
            tracing::info!(waited = ?since.elapsed(), "there is room again: appends go on");
            self.shared.set_health(LogHealth::Ready);
        }
        self.sync().map_err(|error| fatal("sync the log", &error))?;
        self.synced_at = Instant::now();
        self.shared.metrics.written_bytes.inc_by(group.buffer.len() as u64);
        self.shared.metrics.group_events.observe(f64::from(group.header.count));
        self.sealed = false;
        Ok(())
    }

    /// Begins a new segment where the active one is full; an error of kind `StorageFull` where the disk is.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let free_bytes = (self.config.free_bytes)()?;
        if free_bytes < self.needed(bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let extent = self.active.extent();
        let age = extent.first_at_micros.map_or(0, |at| (self.config.now_micros)().saturating_sub(at));
        let has_room = extent.end + bytes <= self.config.segment_bytes() && age < self.config.segment_micros();
        if self.active.is_empty() || has_room { Ok(()) } else { self.roll() }
    }

    fn needed(&self, bytes: u64) -> u64 {
        self.config.reserve_bytes.saturating_add(bytes)
    }

    fn roll(&mut self) -> io::Result<()> {
        self.seal()?;
        self.active.write_index()?;
        let last = self.active.extent().last;
        let next = Segment::create(
            self.active.path.parent().expect("a segment is in a directory"),
            SegmentHeader {
                salt: self.active.header.salt,
                first: last.next(),
                after: last,
                created_at_micros: (self.config.now_micros)(),
            },
        )?;
        self.active = Arc::new(next);
        self.reading = self.active.reading()?;
        self.shared.segments.push(Arc::clone(&self.active));
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.reading.file.write_all_at(bytes, self.active.extent().end)
    }

    fn sync(&self) -> io::Result<()> {
        let _timer = self.shared.metrics.sync_seconds.start_timer();
        self.reading.file.sync_data()
    }

    /// A write that found no room may have left a part.
    fn undo_write(&self) -> Result<(), End> {
        self.reading.file.set_len(self.active.extent().end).map_err(|error| fatal("undo a write to the log", &error))
    }

    /// Proves, to whoever opens the log, that all before was synced.
    fn seal(&mut self) -> io::Result<()> {
        if self.sealed {
            return Ok(());
        }
        let extent = self.active.extent();
        let seal = GroupHeader::seal(extent.last.next(), (self.config.now_micros)()).encode(self.active.header.salt);
        if let Err(error) = self.write(&seal).and_then(|()| self.sync()) {
            self.reading.file.set_len(extent.end)?;
            return Err(error);
        }
        self.active.extend(Extent { end: extent.end + seal.len() as u64, ..extent });
        self.sealed = true;
        Ok(())
    }

    /// Nothing was asked for a while.
    fn idle(&mut self) -> Result<(), End> {
        match self.seal() {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Ok(()),
            Err(error) => Err(fatal("seal the log", &error)),
        }
    }

    // === A full disk ===

    fn show_full(&self, bytes: u64) {
        let free_bytes = (self.config.free_bytes)().unwrap_or(0);
        self.shared.set_health(LogHealth::Full { free_bytes, needed_bytes: self.needed(bytes) });
    }

    /// Waits until it is time to look again. A close or a crash need not wait with it: the batch at hand was not
    /// answered.
    fn wait_for_room(&mut self) -> Result<(), End> {
        self.retain()?;
        let until = Instant::now() + self.config.full_retry;
        while Instant::now() < until {
            if self.shared.closed.load(Ordering::SeqCst) {
                return Err(End::Abandoned);
            }
            if self.shared.closing.load(Ordering::SeqCst) {
                return Err(End::ClosedWhileFull);
            }
            std::thread::sleep(self.config.full_retry.min(Duration::from_millis(20)));
        }
        Ok(())
    }

    // === After it is durable ===

    fn publish(&mut self, group: Group) {
        let extent = self.active.extent();
        {
            let mut index = self.reading.index.write().unwrap_or_else(PoisonError::into_inner);
            for (seq, start) in (group.header.first.0..).zip(&group.starts) {
                index.add(Seq(seq), extent.end + u64::from(*start));
            }
        }
        self.active.extend(Extent {
            last: Seq(extent.last.0 + u64::from(group.header.count)),
            end: extent.end + group.buffer.len() as u64,
            first_at_micros: extent.first_at_micros.or(Some(group.header.at_micros)),
            last_at_micros: Some(group.header.at_micros),
        });
        self.shared.tail.push(TailGroup { first: group.header.first, buffer: group.buffer, frames: group.frames });
        self.shared.show_window();
    }

    // === Retention ===

    fn retain_if_due(&mut self) -> Result<(), End> {
        if self.retained_at.elapsed() < TICK && self.retention().bytes_max >= self.shared.segments.window().bytes {
            return Ok(());
        }
        self.retain()
    }

    fn retention(&self) -> Retention {
        let window_micros = self.config.window.map_or(u64::MAX, micros);
        Retention {
            before_micros: (self.config.now_micros)().saturating_sub(window_micros),
            bytes_max: self.config.window_bytes.unwrap_or(u64::MAX),
        }
    }

    fn retain(&mut self) -> Result<(), End> {
        self.retained_at = Instant::now();
        let retention = self.retention();
        while let Some(oldest) = self.shared.segments.superfluous(retention) {
            // After a power cut Repos must not need what is deleted here.
            let through = oldest.extent().last;
            self.state.sync_through(through).map_err(|error| fatal("sync the state store", &error))?;
            self.shared.segments.pop_front();
            self.shared.show_window();
            oldest.delete().map_err(|error| fatal("delete a segment", &error))?;
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn fatal(what: &str, error: &dyn std::error::Error) -> End {
    End::Fatal(format!("failed to {what}: {}", with_causes(error)))
}

/// An error and what it came from, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// An offset in a group's buffer.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch has at most half a GiB, and a group is one batch or some MiB")
}

/// A writer that panics has left something half done.
struct PanicIsFatal(Arc<dyn Fn(&str) + Send + Sync>);

impl Drop for PanicIsFatal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)("the log's writer has panicked");
        }
    }
}
