//! The intake in the process's memory: one bounded queue a lane.
//!
//! Owns the frames between push and cover, and the wait when there are too many. Nothing here outlives the process: a
//! host's durable cursor is where reading starts again. Both the memory backend and the embedded one use it.
//!
//! What must hold: a lane never holds more than its limit in bytes but for one frame, and of one host no more than that
//! host's share of it, so that a host whose events can't be judged for now fills no lane; positions rise by one a lane;
//! each receipt is told once; pushes that wait for the lane are let in in the order in which they began to wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use atproto::syntax::HostName;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::{
    error::Error,
    intake::{Command, Intake, Position, RawFrame, Receipts, Taken, Work},
    lane::{Lane, LaneCount},
};

/// What a frame is counted as beside its bytes, so that a flood of tiny frames is bounded too. Little for one that is
/// judged at once; one that waits for its account's identity is kept track of here, in its lane and at the resolver.
pub const FRAME_OVERHEAD_BYTES: usize = 768;

/// Ordered queues in memory.
#[derive(Debug)]
pub struct LaneQueues {
    count: LaneCount,
    queues: Box<[Queue]>,
    closed: AtomicBool,
}

impl LaneQueues {
    /// Empty queues, each with room for `lane_bytes_max` (between one byte and 4 GiB), of which one host may take
    /// `host_bytes_max`.
    pub fn new(count: LaneCount, lane_bytes_max: usize, host_bytes_max: usize) -> LaneQueues {
        let bytes = |max: usize| u32::try_from(max.max(1)).unwrap_or(u32::MAX);
        let (lane, host) = (bytes(lane_bytes_max), bytes(host_bytes_max.min(lane_bytes_max)));
        let queues = count.all().map(|_| Queue::new(lane, host)).collect();
        LaneQueues { count, queues, closed: AtomicBool::new(false) }
    }

    /// Takes no more frames: pushes answer [`Error::Closed`], those that wait too. What is held can still be pulled and
    /// covered; a pull of a lane that has nothing left answers [`Error::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for queue in &self.queues {
            queue.room.close();
            queue.held().shares.values().for_each(|share| share.room.close());
            queue.pushed.notify_one();
        }
    }

    async fn put(&self, work: Work) -> Result<(), Error> {
        let queue = self.queue(self.count.lane_of(work.did()));
        let cost = queue.cost(&work);
        if let Some((work, mut place)) = queue.enter(work, cost) {
            // First the host's own share, so that who has used it up does not stand in the others' way.
            if let Some(place) = &mut place {
                place.acquire(queue.share_of(cost)).await?;
            }
            // The semaphore is fair, so a large frame is not overtaken for ever by small ones.
            queue.room.acquire_many(cost).await.map_err(|_closed| Error::Closed)?.forget();
            let share = place.and_then(Place::keep);
            queue.held().hold(Waiting { work, cost, share });
        }
        queue.pushed.notify_one();
        Ok(())
    }

    /// Gives back the room of what is done with, and tells the receipts.
    fn release(&self, lane: Lane, done: Vec<Judging>) {
        let cost: usize = done.iter().map(|judged| judged.cost as usize).sum();
        self.queue(lane).room.add_permits(cost);
        for sent in done.into_iter().filter_map(|judged| judged.sent) {
            sent.receipts.taken(sent.upstream_seq);
        }
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
        let covered = self.queue(lane).forget_through(position);
        self.release(lane, covered);
        Ok(())
    }

    async fn settle(&self, lane: Lane, positions: &[Position]) -> Result<(), Error> {
        let settled = self.queue(lane).forget(positions);
        self.release(lane, settled);
        Ok(())
    }

    fn bytes_held(&self) -> u64 {
        self.queues.iter().map(|queue| queue.held().bytes).sum()
    }
}

/// One lane.
#[derive(Debug)]
struct Queue {
    /// Permits are bytes that may still be taken in.
    room: Semaphore,
    room_bytes: u32,
    share_bytes: u32,
    /// Wakes the one puller.
    pushed: Notify,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// What is held, in bytes.
    bytes: u64,
    /// The position given out last.
    given_out: u64,
    /// Pushed, not given out.
    waiting: VecDeque<Waiting>,
    /// Given out and not covered, in the order of their positions; `None` where it is settled.
    judging: VecDeque<(Position, Option<Judging>)>,
    /// How many of them are settled.
    settled: usize,
    /// The hosts that hold or want room.
    shares: HashMap<HostName, Arc<Share>>,
}

/// What was pushed.
struct Waiting {
    work: Work,
    cost: u32,
    /// Of a frame: its host's.
    share: Option<Arc<Share>>,
}

/// One host's share of a lane.
struct Share {
    host: HostName,
    /// Permits are bytes that may still be taken in of this host.
    room: Semaphore,
    /// Frames that are held or wait to be. Changed under the lane's lock.
    frames: AtomicUsize,
}

/// A frame's place in its host's share. Given up when dropped, unless the frame is held by then.
struct Place<'a> {
    queue: &'a Queue,
    /// `None` once the frame is held: the place is then given up with it.
    share: Option<Arc<Share>>,
    /// What it has taken of the share.
    bytes: u32,
}

/// What is kept of what was given out.
struct Judging {
    cost: u32,
    /// Of a frame. Of a command whoever judges it tells the end.
    sent: Option<Sent>,
}

/// Whose frame it is, and who is told.
struct Sent {
    share: Arc<Share>,
    upstream_seq: u64,
    receipts: Arc<dyn Receipts>,
}

impl Queue {
    fn new(room_bytes: u32, share_bytes: u32) -> Queue {
        let room = Semaphore::new(room_bytes as usize);
        Queue { room, room_bytes, share_bytes, pushed: Notify::new(), held: Mutex::default() }
    }

    /// Takes it, where there is room at once: one lock, nearly always. Otherwise gives it back; a frame with its place in
    /// its host's share, which has taken no room yet.
    fn enter(&self, work: Work, cost: u32) -> Option<(Work, Option<Place<'_>>)> {
        let mut held = self.held();
        let share = match &work {
            Work::Frame(frame) => Some(held.share_of(&frame.host, self)),
            Work::Command(_) => None,
        };
        // Nobody is overtaken: while one waits there is no permit to be had.
        let own = share.as_ref().map(|share| share.room.try_acquire_many(self.share_of(cost))).transpose();
        let has_room = match (own, self.room.try_acquire_many(cost)) {
            (Ok(own), Ok(all)) => {
                own.into_iter().chain([all]).for_each(SemaphorePermit::forget);
                true
            }
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        };
        if !has_room {
            return Some((work, share.map(|share| Place { queue: self, share: Some(share), bytes: 0 })));
        }
        held.hold(Waiting { work, cost, share });
        None
    }

    /// What a frame that costs so much takes of its host's share.
    fn share_of(&self, cost: u32) -> u32 {
        cost.min(self.share_bytes)
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
            .take_while(|waiting| {
                let first = bytes == 0;
                bytes += bytes_of(&waiting.work).max(1);
                first || bytes <= bytes_max
            })
            .count();
        let Held { waiting, judging, given_out, .. } = &mut *held;
        let take = |Waiting { work, cost, share }| {
            *given_out += 1;
            let position = Position(*given_out);
            let sent = match (&work, share) {
                (Work::Frame(frame), Some(share)) => {
                    Some(Sent { share, upstream_seq: frame.upstream_seq, receipts: Arc::clone(&frame.receipts) })
                }
                (Work::Frame(_) | Work::Command(_), _) => None,
            };
            judging.push_back((position, Some(Judging { cost, sent })));
            Taken { position, work }
        };
        waiting.drain(..count).map(take).collect()
    }

    /// Drops what was given out up to `position`; what was not given out stays, whatever the position says.
    fn forget_through(&self, position: Position) -> Vec<Judging> {
        let mut held = self.held();
        let through = held.judging.partition_point(|(at, _)| *at <= position);
        let covered: Vec<Judging> = held.judging.drain(..through).filter_map(|(_, judging)| judging).collect();
        held.settled -= through - covered.len();
        self.give_back(&mut held, &covered);
        covered
    }

    /// Drops these, as far as they were given out.
    fn forget(&self, positions: &[Position]) -> Vec<Judging> {
        let mut held = self.held();
        let settle = |position: &Position| {
            let at = held.judging.binary_search_by_key(position, |(at, _)| *at).ok()?;
            held.judging[at].1.take()
        };
        let settled: Vec<Judging> = positions.iter().filter_map(settle).collect();
        held.settled += settled.len();
        // One that waits for long must not keep the places of all that came after it.
        if held.settled > held.judging.len() / 2 {
            held.judging.retain(|(_, judging)| judging.is_some());
            held.settled = 0;
        }
        self.give_back(&mut held, &settled);
        settled
    }

    /// Gives the hosts back what frames took of their shares.
    fn give_back(&self, held: &mut Held, done: &[Judging]) {
        for judging in done {
            held.bytes -= u64::from(judging.cost);
            if let Some(sent) = &judging.sent {
                held.leave(&sent.share, self.share_of(judging.cost));
            }
        }
    }
}

impl Held {
    fn hold(&mut self, pushed: Waiting) {
        self.bytes += u64::from(pushed.cost);
        self.waiting.push_back(pushed);
    }

    /// The host's share of `queue`, with one frame more in it.
    fn share_of(&mut self, host: &HostName, queue: &Queue) -> Arc<Share> {
        if let Some(share) = self.shares.get(host) {
            share.frames.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(share);
        }
        let room = Semaphore::new(queue.share_bytes as usize);
        if queue.room.is_closed() {
            room.close();
        }
        let share = Arc::new(Share { host: host.clone(), room, frames: AtomicUsize::new(1) });
        self.shares.insert(host.clone(), Arc::clone(&share));
        share
    }

    /// A frame of this host is no longer held, nor does it wait to be.
    fn leave(&mut self, share: &Share, bytes: u32) {
        share.room.add_permits(bytes as usize);
        if share.frames.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shares.remove(&share.host);
        }
    }
}

impl Place<'_> {
    /// Waits for so much of the share.
    async fn acquire(&mut self, bytes: u32) -> Result<(), Error> {
        if let Some(share) = &self.share {
            share.room.acquire_many(bytes).await.map_err(|_closed| Error::Closed)?.forget();
            self.bytes = bytes;
        }
        Ok(())
    }

    /// The share, for a frame that is held from now on.
    fn keep(mut self) -> Option<Arc<Share>> {
        self.share.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            self.queue.held().leave(&share, self.bytes);
        }
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
            .field("given_out", &self.given_out)
            .field("waiting", &self.waiting.len())
            .field("judging", &self.judging.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use atproto::{event::Kind, syntax::Did};

    use super::*;
    use crate::conformance::sample;

    struct Deaf;

    impl Receipts for Deaf {
        fn taken(&self, _upstream_seq: u64) {}
    }

    fn frame(host: u64, number: u64) -> RawFrame {
        let did: Did = sample::did(number);
        let (bytes, seq_slot) = sample::frame(&did, number, 1_000);
        RawFrame {
            host: sample::host(host),
            host_epoch: 0,
            upstream_seq: number,
            received_at_micros: 0,
            did,
            kind: Kind::Identity,
            seq_slot,
            bytes,
            receipts: Arc::new(Deaf),
        }
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn is_taken(queues: &LaneQueues, host: u64, number: u64) -> bool {
        poll(pin!(queues.push(frame(host, number)))).is_ready()
    }

    #[test]
    fn a_host_takes_its_share_of_a_lane_and_no_more() {
        let lane = Lane(0);
        let queues = LaneQueues::new(LaneCount(NonZeroU32::MIN), 100_000, 10_000);
        let taken = (0..20).filter(|&number| is_taken(&queues, 1, number)).count();
        assert!((5..10).contains(&taken), "{taken} frames of 1,000 bytes for 10,000");
        assert!(is_taken(&queues, 2, 100), "another host is let in");
        {
            let mut waiting = pin!(queues.push(frame(1, 50)));
            assert!(poll(waiting.as_mut()).is_pending());
            let Poll::Ready(Ok(pulled)) = poll(pin!(queues.pull(lane, 3_000))) else { panic!("there are frames") };
            assert!(poll(pin!(queues.settle(lane, &[pulled[1].position]))).is_ready());
            assert!(poll(waiting).is_ready(), "a settled frame makes room, though the one before it waits");
        }
        assert!(!is_taken(&queues, 1, 51), "a push that was dropped while it waited took nothing");
        let Poll::Ready(Ok(pulled)) = poll(pin!(queues.pull(lane, 1 << 20))) else { panic!("there are frames") };
        let last = pulled.last().unwrap().position;
        assert!(poll(pin!(queues.cover(lane, last))).is_ready());
        assert_eq!(queues.bytes_held(), 0);
        assert!(queues.queue(lane).held().shares.is_empty(), "nothing is kept of hosts that hold nothing");
        assert_eq!((0..20).filter(|&number| is_taken(&queues, 1, number)).count(), taken);
    }

    #[test]
    fn one_that_waits_for_long_keeps_no_place_of_those_after_it() {
        let lane = Lane(0);
        let queues = LaneQueues::new(LaneCount(NonZeroU32::MIN), 100_000, 50_000);
        let pull = || match poll(pin!(queues.pull(lane, 1 << 20))) {
            Poll::Ready(Ok(pulled)) => pulled,
            Poll::Ready(Err(_)) | Poll::Pending => panic!("there are frames"),
        };
        assert!(is_taken(&queues, 1, 0));
        let waits = pull()[0].position;
        for number in 1..1_000 {
            assert!(is_taken(&queues, 1, number));
            let position = pull()[0].position;
            assert_eq!(position, Position(waits.0 + number), "positions rise by one");
            // Twice is once.
            assert!(poll(pin!(queues.settle(lane, &[position, position]))).is_ready());
            assert!(queues.queue(lane).held().judging.len() <= 3);
        }
        assert!(queues.bytes_held() > 0);
        assert!(poll(pin!(queues.cover(lane, Position(1_000)))).is_ready());
        assert_eq!(queues.bytes_held(), 0);
        assert!(queues.queue(lane).held().shares.is_empty());
    }

    #[test]
    fn who_waits_for_a_share_hears_of_the_end() {
        let queues = LaneQueues::new(LaneCount(NonZeroU32::MIN), 100_000, 2_000);
        assert!(is_taken(&queues, 1, 1));
        let mut waiting = pin!(queues.push(frame(1, 2)));
        assert!(poll(waiting.as_mut()).is_pending());
        queues.close();
        assert!(matches!(poll(waiting), Poll::Ready(Err(Error::Closed))));
        assert!(matches!(poll(pin!(queues.push(frame(3, 3)))), Poll::Ready(Err(Error::Closed))));
    }
}
