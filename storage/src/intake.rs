//! Intake: what lanes have to judge (frames as their hosts sent them, and operators' commands) until it is judged.

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
    repos::RepoState,
};

/// What a lane is given to judge.
#[derive(Clone)]
pub enum Work {
    /// An event, as its host sent it.
    Frame(RawFrame),
    /// What an operator wants done with an account.
    Command(Command),
}

impl Work {
    /// The account.
    pub fn did(&self) -> &Did {
        match self {
            Work::Frame(frame) => &frame.did,
            Work::Command(command) => &command.did,
        }
    }
}

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

/// What an operator wants done with an account. It takes the account's lane like an event, so that a repo has one writer,
/// and comes out of the log as an `#account` event of our own.
#[derive(Clone)]
pub struct Command {
    /// The account.
    pub did: Did,
    /// What to do.
    pub action: Action,
    /// When it was given, microseconds since the Unix epoch.
    pub received_at_micros: u64,
    /// Who is told how it ended.
    pub receipt: Arc<dyn CommandReceipt>,
}

/// What a command does. Doing it again changes nothing, and puts nothing into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing of the account is served any more.
    Takedown,
    /// The end of a takedown: what its host says counts again.
    Restore,
}

impl Action {
    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Takedown => "takedown",
            Action::Restore => "restore",
        }
    }
}

/// Told once how a command ended, unless the process ends before. Must not block.
pub trait CommandReceipt: Send + Sync {
    /// The repo's state after it, which is durable; or why it could not be done.
    fn settled(&self, result: Result<RepoState, Declined>);
}

/// Why a command can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// There is nothing of the account that could be restored.
    #[error("the account is not known here")]
    UnknownAccount,
    /// We have seen no event of the account, and it certainly has no identity.
    #[error("the account is not known here, and its identity can't be resolved: {why}")]
    NoIdentity {
        /// What is wrong with it.
        why: String,
    },
    /// We have seen no event of the account, and its DID document names no host.
    #[error("the account is not known here, and its did document names no host")]
    NoPds,
}

/// The place of a frame or command in its lane, rising by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Work given out to be judged.
#[derive(Clone)]
pub struct Taken {
    /// Its place.
    pub position: Position,
    /// The frame or command.
    pub work: Work,
}

/// Ordered queues, one a lane.
///
/// ```text
///   push ──▶ │ p+3 │ p+2 │ p+1 │ ──pull──▶ being judged ──settle, cover──▶ forgotten, receipts told
/// ```
///
/// Frames and commands of one DID come out in the order they were pushed. A frame that was pulled but not covered is
/// held, and comes again after a restart: from its host, or, where the intake itself is durable, from there. A command
/// lives at least as long as the process: whoever gave it and was not told its end gives it again.
///
/// Only the lanes that are this process's ([`crate::lane::Assignment`]) can be pulled, covered and settled; into all can be
/// pushed.
#[async_trait]
pub trait Intake: Send + Sync {
    /// The number of lanes.
    fn lanes(&self) -> LaneCount;

    /// Puts a frame into its DID's lane. Waits while there is no room: this wait is the back-pressure on the host's
    /// socket. Where the intake holds frames itself, there is none while the lane holds its limit in bytes, or the
    /// frame's host its share of it, of frames that are neither settled nor covered yet. Where it is durable, there is
    /// none while its limit in bytes is on its way there, or the whole of it holds more than it may. One frame alone is
    /// always taken.
    ///
    /// When it answers, the frame's place among those of its DID is settled, and no more: its receipt says that it is
    /// taken, perhaps before this answers.
    async fn push(&self, frame: RawFrame) -> Result<(), Error>;

    /// Puts a command into its DID's lane. Waits as [`Intake::push`] does.
    async fn push_command(&self, command: Command) -> Result<(), Error>;

    /// What comes next in a lane, in order: at least one (waits, for the lane to be ours too), then no more than are there
    /// and about `bytes_max`. One caller a lane. Cancel-safe.
    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error>;

    /// Everything in the lane up to and including `position` is judged, and what was accepted is durable in the log.
    /// Tells the frames' receipts that were not told yet: where the intake is durable, all were when they came. (A
    /// command's is told by whoever judges it.)
    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error>;

    /// These frames of the lane are judged, and those accepted are durable in the log, though frames before them are
    /// not: one that waits for its account's identity holds up neither the room nor the receipts of those after it. An
    /// intake that holds nothing of what was taken has nothing to do; [`Intake::cover`] follows in time.
    async fn settle(&self, lane: Lane, positions: &[Position]) -> Result<(), Error>;

    /// Bytes held in this process now, all lanes: pushed, and neither settled nor covered; where the intake is durable,
    /// not taken yet.
    fn bytes_held(&self) -> u64;
}
