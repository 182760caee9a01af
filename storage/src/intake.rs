//! Intake: raw frames from their host's socket until they are judged.

use std::sync::Arc;

use async_trait::async_trait;
use atproto::{
    event::Kind,
    frame::SeqSlot,
    syntax::{Did, HostName},
};
use bytes::Bytes;

use crate::{
    error::Error,
    lane::{Lane, LaneCount},
};

/// A frame as it came, with what routing has read of it.
#[derive(Clone)]
pub struct RawFrame {
    /// The host it came from.
    pub host: HostName,
    /// That host's epoch.
    pub host_epoch: u32,
    /// The host's seq.
    pub upstream_seq: u64,
    /// When it was read, microseconds since the Unix epoch.
    pub received_at_micros: u64,
    /// The account.
    pub did: Did,
    /// What it is.
    pub kind: Kind,
    /// Where its seq stands.
    pub seq_slot: SeqSlot,
    /// All its bytes.
    pub bytes: Bytes,
    /// Who is told when it is durably taken.
    pub receipts: Arc<dyn Receipts>,
}

/// Told, once for each frame and in no particular order, that the frame need never be sent again: it is judged, and in
/// the log if it was accepted (embedded), or replicated in the intake (cluster). Must not block.
pub trait Receipts: Send + Sync {
    /// The frame with this seq of the host is taken.
    fn taken(&self, upstream_seq: u64);
}

/// A frame's place in its lane, rising by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A frame given out to be judged.
#[derive(Clone)]
pub struct Taken {
    /// Its place.
    pub position: Position,
    /// The frame.
    pub frame: RawFrame,
}

/// Ordered queues, one a lane.
///
/// ```text
///   push ──▶ │ p+3 │ p+2 │ p+1 │ ──pull──▶ being judged ──cover──▶ forgotten, receipts told
/// ```
///
/// Frames of one DID come out in the order they were pushed. A frame that was pulled but not covered is held (or can be
/// read again after a restart, from its host or from the queue).
#[async_trait]
pub trait Intake: Send + Sync {
    /// The number of lanes.
    fn lanes(&self) -> LaneCount;

    /// Puts a frame into its DID's lane. Waits while the lane holds its limit in bytes, counting frames that are not
    /// covered yet: this wait is the back-pressure on the host's socket. One frame alone is always taken.
    async fn push(&self, frame: RawFrame) -> Result<(), Error>;

    /// The next frames of a lane, in order: at least one (waits), then no more than are there and about `bytes_max`.
    /// One caller a lane. Cancel-safe.
    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error>;

    /// All frames of the lane up to and including `position` are judged, and those accepted are durable in the log.
    /// Tells their receipts.
    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error>;

    /// Bytes held now (pushed and not covered), all lanes.
    fn bytes_held(&self) -> u64;
}
