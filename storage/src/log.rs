//! EventLog: the merged firehose, one total order, for the length of the retention window.

use std::ops::Range;

use async_trait::async_trait;
use atproto::{frame::SeqSlot, syntax::Did};
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    buffers::{Buffer, Buffers},
    error::Error,
    intake::Position,
    repos::RepoState,
    seq::Seq,
};

/// An event that was judged good, to be given a seq.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The account.
    pub did: Did,
    /// The repo's state after it.
    pub state: RepoState,
    /// The frame as its host sent it.
    pub frame: Bytes,
    /// Where to put our seq.
    pub seq_slot: SeqSlot,
    /// What of the intake this settles: once it is in the log, the frame or command there is judged. `None` for an event
    /// of our own that goes before one. A durable intake knows by it what is not to be judged again.
    pub position: Option<Position>,
}

/// An event of the firehose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its seq, which is also in the frame.
    pub seq: Seq,
    /// [`Did::lane_hash`] of its account: for shards and for what may not be served.
    pub account: u64,
    /// Whether we have taken its account down, by the state after it.
    pub taken_down: bool,
    /// The finished frame.
    pub frame: Bytes,
}

/// A stretch of the firehose in one buffer, which is its reader's alone.
///
/// ```text
///   ▒▒▒▒ room │ frame │ ▒▒▒▒▒▒ room │ frame │ ▒▒ room │ frame │ ▒▒
/// ```
///
/// Right before each frame are at least [`Block::ROOM_BYTES`] that belong to no frame: whoever sends the frames on may
/// write what a frame needs before it there, and need not copy them. What else is between frames is the store's.
#[derive(Debug, Default)]
pub struct Block {
    /// The bytes.
    pub buffer: Buffer,
    /// The events, in order.
    pub events: Vec<Placed>,
}

/// Where an event stands in a [`Block`]; else as [`Published`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its seq.
    pub seq: Seq,
    /// [`Did::lane_hash`] of its account.
    pub account: u64,
    /// Whether we have taken its account down, by the state after it.
    pub taken_down: bool,
    /// Its frame's place in the buffer.
    pub frame: Range<usize>,
}

impl Block {
    /// What is free before each frame, at least: the longest WebSocket header, with its mask.
    pub const ROOM_BYTES: usize = 14;

    /// A copy of these events.
    pub fn copy_of(events: &[Published], buffers: &Buffers) -> Block {
        let len = events.iter().map(|event| Block::ROOM_BYTES + event.frame.len()).sum();
        let mut buffer = buffers.take(len);
        let mut at = 0;
        let place = |event: &Published| {
            let start = at + Block::ROOM_BYTES;
            at = start + event.frame.len();
            buffer[start..at].copy_from_slice(&event.frame);
            Placed { seq: event.seq, account: event.account, taken_down: event.taken_down, frame: start..at }
        };
        let events = events.iter().map(place).collect();
        Block { buffer, events }
    }

    /// Its events, each by itself; they share its buffer.
    pub fn into_published(self) -> Vec<Published> {
        let bytes = self.buffer.freeze();
        let publish = |event: Placed| {
            let Placed { seq, account, taken_down, frame } = event;
            Published { seq, account, taken_down, frame: bytes.slice(frame) }
        };
        self.events.into_iter().map(publish).collect()
    }
}

/// What can be read now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The oldest event kept; `last + 1` where none is.
    pub first: Seq,
    /// The newest durable event; where none was appended since the log was made, or was made to jump, the seq before the
    /// one that comes next.
    pub last: Seq,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the oldest event was appended, microseconds since the Unix epoch; `None` where there is none.
    pub first_at_micros: Option<u64>,
}

/// Whether the log takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// It does.
    Ready,
    /// No room: appends wait, reads go on.
    Full {
        /// Bytes that are free where it writes.
        free_bytes: u64,
        /// Bytes that must be free for it to go on.
        needed_bytes: u64,
    },
}

/// Why events can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The events after the cursor are no longer kept.
    #[error("cursor {after} is before the window, which begins at {first}")]
    Outdated {
        /// The cursor.
        after: Seq,
        /// The first event kept.
        first: Seq,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The merged firehose.
///
/// ```text
///   one process   append(batch) ─▶ seqs assigned ─▶ durable ─▶ window.last moves ─▶ repos updated ─▶ answered
///   a cluster     append(batch) ─▶ durable in their lanes ─▶ repos updated ─▶ answered
///                                        └─▶ seqs assigned, elsewhere ─▶ window.last moves, in each process
/// ```
///
/// Seqs are dense: `last + 1`, `last + 2`, … A hole is there only where an operator made one after a loss: the log was
/// mended, or told to jump; reads go over it. The events of a lane keep the order of the calls, and within a call that of
/// the batch; those of different lanes may come into the log in any order.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends events of lanes that are this process's ([`crate::lane::Assignment`]). When it answers Ok they are durable,
    /// will be read once and in their lanes' order by everybody, and their states are in Repos. They can be read soon
    /// after, if not before: [`EventLog::window`] shows when. Waits while there is no room ([`LogHealth::Full`]). Several
    /// calls may be under way at once; each lane's events become durable in the order in which the calls were first
    /// polled. Who does not wait for the answer has appended all of them or none.
    ///
    /// [`Error::Fenced`] says that a lane is another's by now: none, some or all of the batch may be in the log, as the
    /// other has found out.
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error>;

    /// The events after `after` (exclusive), in order: none where `after` is the last, else at least one and about
    /// `bytes_max`. Recent events come from memory. `after` past the last gives none.
    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError>;

    /// As [`EventLog::read`], for who reads much and sends it on: the same events in one buffer, which the caller may
    /// write. A store whose records leave the room gives what it has read as it stands; by default it is a copy.
    async fn read_block(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        let events = self.read(after, bytes_max).await?;
        Ok(Block::copy_of(&events, &Buffers::new(0)))
    }

    /// What can be read now, in this process; the receiver wakes when it changes.
    fn window(&self) -> watch::Receiver<Window>;

    /// Waits until [`EventLog::window`] shows all that anybody could read before the call: whoever has seen an event
    /// elsewhere may know more than this process does. Where a log has one process there is nothing to wait for.
    async fn catch_up(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether it takes events.
    fn health(&self) -> LogHealth;
}
