//! The event log in segment files.
//!
//! Owns `DATA/log`: the bytes, the one thread that writes them, the newest events in memory, and which segments are
//! kept. Bringing Repos up to the log's end is the opener's; mending what is damaged is `repair`'s.
//!
//! ```text
//!   00000000000000000001.seg   header │ group │ group │ seal │
//!   00000000000000000001.idx   its sparse index: a help, made anew where it is missing
//!   00000000000000045210.seg   header │ group │ group │ ▒▒▒   ◀ the last one: a tail that was never synced is cut
//! ```
//!
//! - The writer takes all batches that wait, writes them as one group, syncs, shows them to readers, gives their states
//!   to Repos, and answers. There is never more than one group that is not synced.
//! - So a whole group header proves that all before it was synced. The next group does that, or a **seal**: an empty
//!   group, written when the log is opened, when it has been idle for a second, when a segment is full and when it is
//!   closed. A last group that can't be read is a torn tail when no header follows it, and damage when one does, or when
//!   Repos has seen its events. The price: a bit that flips in the very last group, within a second of a crash, is taken
//!   for a torn tail.
//! - The log knows no hole but between two segments, where the later one's header says so: an operator made the log
//!   jump, or mended it.
//! - The last segment is never deleted, so the next seq is always known.
//! - A write that found no room is undone and tried again. Any other failed write, and every failed sync, ends the
//!   process: what is on the disk is then unknown, and a seq might be used twice.

mod blocks;
mod index;
pub(crate) mod open;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod segments;
mod tail;
mod writer;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use async_trait::async_trait;
use storage::{
    buffers::Buffers,
    error::Error,
    log::{Accepted, Block, EventLog, LogHealth, Published, ReadError, Window},
    seq::Seq,
};
use tokio::sync::{Semaphore, oneshot, watch};

use self::{
    segments::Segments,
    tail::Tail,
    writer::{Command, Pending, Writer},
};
use crate::{
    config::Config,
    metrics::Metrics,
    state::{Settler, State},
};

pub(crate) use record::Salt;

/// The largest batch, in bytes of frames: one write must fit into memory.
const BATCH_BYTES_MAX: usize = 512 << 20;
/// Memory of reads that is kept to be read into again.
const READ_BYTES_KEPT_MAX: usize = 8 << 20;
/// What an event is counted as beside its frame.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// The log's public side.
pub(crate) struct LocalLog {
    shared: Arc<Shared>,
    commands: std::sync::mpsc::Sender<Command>,
    /// Taken while a call takes its place in the queue: places are given in the order in which they were asked for.
    turn: tokio::sync::Mutex<()>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    room_bytes: u32,
    thread: Mutex<Option<JoinHandle<()>>>,
    settler: Settler,
}

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub(crate) segments: Segments,
    tail: Tail,
    /// What blocks are read into.
    buffers: Buffers,
    window: watch::Sender<Window>,
    health: Mutex<LogHealth>,
    /// Set when a close is asked for: a writer that waits for room gives up.
    closing: AtomicBool,
    closed: AtomicBool,
    metrics: Metrics,
}

impl Shared {
    fn set_health(&self, health: LogHealth) {
        self.metrics.log_full.set(i64::from(health != LogHealth::Ready));
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn show_window(&self) {
        let window = self.segments.window();
        self.metrics.set_window(&window);
        self.window.send_replace(window);
    }
}

impl LocalLog {
    /// Starts the writer on segments that were opened, with a state that is up to their end.
    pub(crate) fn start(
        segments: Segments,
        state: State,
        config: &Config,
        metrics: Metrics,
    ) -> std::io::Result<LocalLog> {
        let shared = Arc::new(Shared {
            tail: Tail::new(config.tail_bytes_max),
            buffers: Buffers::new(READ_BYTES_KEPT_MAX),
            window: watch::Sender::new(segments.window()),
            health: Mutex::new(LogHealth::Ready),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            metrics,
            segments,
        });
        shared.show_window();
        let room_bytes = u32::try_from(config.append_bytes_max.max(1)).unwrap_or(u32::MAX);
        let (commands, queue) = std::sync::mpsc::channel();
        let settler = {
            let (shared, fatal) = (Arc::clone(&shared), Arc::clone(&config.fatal));
            Settler::start(state.clone(), shared.metrics.clone(), move |error| {
                shared.closed.store(true, Ordering::SeqCst);
                fatal(&format!("failed to apply states: {}", writer::with_causes(error)));
            })?
        };
        let writer = Writer::new(Arc::clone(&shared), state, config.clone(), queue)?;
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run())?;
        Ok(LocalLog {
            shared,
            commands,
            turn: tokio::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            thread: Mutex::new(Some(thread)),
            settler,
        })
    }

    /// Writes what is queued, marks the log as closed and ends the writer. What is appended later answers
    /// [`Error::Closed`].
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.shared.closing.store(true, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        let closing = self.commands.send(Command::Close { answer });
        let closed = match closing {
            Ok(()) => answered.await.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Closed),
        };
        self.end();
        closed
    }

    /// Ends the writer where it stands, as a crash would: what waits is not written.
    pub(crate) fn abandon(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // It may have ended already.
        let _ended = self.commands.send(Command::Abandon);
        self.end();
    }

    /// Whether something follows a cursor.
    fn can_follow(&self, after: Seq) -> Result<bool, ReadError> {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed.into());
        }
        let Window { first, last, .. } = *self.shared.window.borrow();
        if after < last && after.next() < first {
            return Err(ReadError::Outdated { after, first });
        }
        Ok(after < last)
    }

    /// What follows a cursor that is in the window and not in memory.
    async fn read_files(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        self.shared.metrics.disk_reads.inc();
        let shared = Arc::clone(&self.shared);
        let read = move || reader::read_block(&shared.segments, after, bytes_max, &shared.buffers);
        let found = match tokio::task::spawn_blocking(read).await {
            Ok(found) => found,
            Err(panic) => Err(Error::Determinate { what: "read the log", source: panic.into() }),
        };
        // Retention may have overtaken the read: its segment is gone, or the next one answered in its place.
        let first = self.shared.window.borrow().first;
        if after.next() < first {
            return Err(ReadError::Outdated { after, first });
        }
        let (block, read_bytes) = found?;
        self.shared.metrics.disk_read_bytes.inc_by(read_bytes);
        Ok(block)
    }

    fn end(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.room.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic has been told by the writer itself, through `fatal`.
        let _told = thread.map(JoinHandle::join);
        self.settler.end();
    }
}

#[async_trait]
impl EventLog for LocalLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = check(&batch)?;
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes);
        let (answer, answered) = oneshot::channel();
        {
            let _turn = self.turn.lock().await;
            let room = Arc::clone(&self.room).acquire_many_owned(cost).await.map_err(|_closed| Error::Closed)?;
            let pending = Pending { batch, bytes, answer, _room: room };
            self.commands.send(Command::Append(pending)).map_err(|_ended| Error::Closed)?;
        }
        answered.await.unwrap_or_else(|_ended| {
            Err(Error::Indeterminate { what: "append to the log", source: "the writer has ended".into() })
        })
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        if !self.can_follow(after)? {
            return Ok(Vec::new());
        }
        if let Some(found) = self.shared.tail.read(after, bytes_max) {
            return Ok(found);
        }
        self.read_files(after, bytes_max).await.map(Block::into_published)
    }

    async fn read_block(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        if !self.can_follow(after)? {
            return Ok(Block::default());
        }
        if let Some(found) = self.shared.tail.read(after, bytes_max) {
            return Ok(Block::copy_of(&found, &self.shared.buffers));
        }
        self.read_files(after, bytes_max).await
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.shared.window.subscribe()
    }

    fn health(&self) -> LogHealth {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a batch takes of the queue's room. Refuses what the writer could not write.
fn check(batch: &[Accepted]) -> Result<usize, Error> {
    let refuse = |why: &str| Error::Determinate { what: "append to the log", source: why.into() };
    let mut bytes = 0_usize;
    for accepted in batch {
        let slot = accepted.seq_slot;
        if slot.start > slot.end || slot.end as usize > accepted.frame.len() {
            return Err(refuse("the seq's place is not in its frame"));
        }
        bytes = bytes.saturating_add(accepted.frame.len() + EVENT_OVERHEAD_BYTES);
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(refuse("the batch is too large"));
    }
    Ok(bytes)
}
