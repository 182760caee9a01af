//! The intake in the process's memory: one bounded queue a lane.
//!
//! Owns the frames between push and cover, and the wait when there are too many. Nothing here outlives the process: a
//! host's durable cursor is where reading starts again. Both the memory backend and the embedded one use it.
//!
//! What must hold: a lane never holds more than its limit in bytes but for one frame; positions rise by one a lane;
//! each receipt is told once; waiting pushes are let in in the order in which they began to wait.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use crate::{
    error::Error,
    intake::{Command, Intake, Position, RawFrame, Receipts, Taken, Work},
    lane::{Lane, LaneCount},
};

/// What a frame is counted as beside its bytes, so that a flood of tiny frames is bounded too.
pub const FRAME_OVERHEAD_BYTES: usize = 256;

/// Ordered queues in memory.
#[derive(Debug)]
pub struct LaneQueues {
    count: LaneCount,
    queues: Box<[Queue]>,
    bytes_held: AtomicU64,
    closed: AtomicBool,
}

impl LaneQueues {
    /// Empty queues, each with room for `lane_bytes_max` (between one byte and 4 GiB).
    pub fn new(count: LaneCount, lane_bytes_max: usize) -> LaneQueues {
        let room = u32::try_from(lane_bytes_max.max(1)).unwrap_or(u32::MAX);
        let queues = count.all().map(|_| Queue::new(room)).collect();
        LaneQueues { count, queues, bytes_held: AtomicU64::new(0), closed: AtomicBool::new(false) }
    }

    /// Takes no more frames: pushes answer [`Error::Closed`], those that wait too. What is held can still be pulled and
    /// covered; a pull of a lane that has nothing left answers [`Error::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for queue in &self.queues {
            queue.room.close();
            queue.pushed.notify_one();
        }
    }

    async fn put(&self, work: Work) -> Result<(), Error> {
        let queue = self.queue(self.count.lane_of(work.did()));
        let cost = queue.cost(&work);
        // The semaphore is fair, so a large frame is not overtaken for ever by small ones.
        queue.room.acquire_many(cost).await.map_err(|_closed| Error::Closed)?.forget();
        self.bytes_held.fetch_add(u64::from(cost), Ordering::Relaxed);
        let mut held = queue.held();
        held.last_position += 1;
        let position = Position(held.last_position);
        held.waiting.push_back(Taken { position, work });
        drop(held);
        queue.pushed.notify_one();
        Ok(())
    }

    /// A lane that is not one of ours is the caller's bug: its `LaneCount` is another than the intake's.
    fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[lane.0 as usize]
    }
}

#[async_trait]
impl Intake for LaneQueues {
    fn lanes(&self) -> LaneCount {
        self.count
    }

    async fn push(&self, frame: RawFrame) -> Result<(), Error> {
        self.put(Work::Frame(frame)).await
    }

    async fn push_command(&self, command: Command) -> Result<(), Error> {
        self.put(Work::Command(command)).await
    }

    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error> {
        let queue = self.queue(lane);
        loop {
            let taken = queue.take(bytes_max);
            if !taken.is_empty() {
                return Ok(taken);
            }
            if self.closed.load(Ordering::SeqCst) {
                // Whoever pulls again must not sleep on a wake-up that this call has used.
                queue.pushed.notify_one();
                return Err(Error::Closed);
            }
            queue.pushed.notified().await;
        }
    }

    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error> {
        let queue = self.queue(lane);
        let covered = queue.forget(position);
        let cost: usize = covered.iter().map(|judged| judged.cost as usize).sum();
        self.bytes_held.fetch_sub(cost as u64, Ordering::Relaxed);
        queue.room.add_permits(cost);
        for (upstream_seq, receipts) in covered.into_iter().filter_map(|judged| judged.receipt) {
            receipts.taken(upstream_seq);
        }
        Ok(())
    }

    fn bytes_held(&self) -> u64 {
        self.bytes_held.load(Ordering::Relaxed)
    }
}

/// One lane.
#[derive(Debug)]
struct Queue {
    /// Permits are bytes that may still be taken in.
    room: Semaphore,
    room_bytes: u32,
    /// Wakes the one puller.
    pushed: Notify,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    last_position: u64,
    /// Pushed, not given out.
    waiting: VecDeque<Taken>,
    /// Given out, not covered.
    judging: VecDeque<Judging>,
}

/// What is kept of what was given out.
struct Judging {
    position: Position,
    cost: u32,
    /// Of a frame: its host's seq, and who is told. Of a command whoever judges it tells the end.
    receipt: Option<(u64, Arc<dyn Receipts>)>,
}

impl Queue {
    fn new(room_bytes: u32) -> Queue {
        let room = Semaphore::new(room_bytes as usize);
        Queue { room, room_bytes, pushed: Notify::new(), held: Mutex::default() }
    }

    /// What a frame or command takes of the room: a frame larger than the lane takes all of it.
    fn cost(&self, work: &Work) -> u32 {
        u32::try_from(bytes_of(work).saturating_add(FRAME_OVERHEAD_BYTES)).unwrap_or(u32::MAX).min(self.room_bytes)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes_max: usize) -> Vec<Taken> {
        let mut held = self.held();
        let mut bytes = 0;
        let count = held
            .waiting
            .iter()
            .take_while(|taken| {
                let first = bytes == 0;
                bytes += bytes_of(&taken.work).max(1);
                first || bytes <= bytes_max
            })
            .count();
        let Held { waiting, judging, .. } = &mut *held;
        let taken: Vec<Taken> = waiting.drain(..count).collect();
        judging.extend(taken.iter().map(|taken| Judging {
            position: taken.position,
            cost: self.cost(&taken.work),
            receipt: match &taken.work {
                Work::Frame(frame) => Some((frame.upstream_seq, Arc::clone(&frame.receipts))),
                Work::Command(_) => None,
            },
        }));
        taken
    }

    /// Drops what was given out up to `position`; what was not given out stays, whatever the position says.
    fn forget(&self, position: Position) -> Vec<Judging> {
        let mut held = self.held();
        let count = held.judging.partition_point(|judging| judging.position <= position);
        held.judging.drain(..count).collect()
    }
}

fn bytes_of(work: &Work) -> usize {
    match work {
        Work::Frame(frame) => frame.bytes.len(),
        Work::Command(_) => 0,
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("last_position", &self.last_position)
            .field("waiting", &self.waiting.len())
            .field("judging", &self.judging.len())
            .finish()
    }
}
