//! [`Intake`]'s promises.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use atproto::event::Kind;
use bytes::Bytes;

use super::{Backend, Setup, eventually, poll_once, sample};
use crate::{
    intake::{Action, Command, CommandReceipt, Declined, Intake, Position, RawFrame, Receipts, Taken, Work},
    lane::{Lane, LaneCount},
    repos::RepoState,
};

/// Which receipts were told, in order.
#[derive(Default)]
struct Told(Mutex<Vec<u64>>);

impl Told {
    fn sorted(&self) -> Vec<u64> {
        let mut told = self.0.lock().unwrap().clone();
        told.sort_unstable();
        told
    }

    /// All of these are told, each once, and nothing is held: where the intake is durable, soon.
    async fn all(&self, intake: &dyn Intake, expected: &[u64]) {
        eventually("all are told", || self.0.lock().unwrap().len() >= expected.len()).await;
        assert_eq!(self.sorted(), expected);
        eventually("nothing is held", || intake.bytes_held() == 0).await;
    }
}

impl Receipts for Told {
    fn taken(&self, upstream_seq: u64) {
        self.0.lock().unwrap().push(upstream_seq);
    }
}

fn raw(account: u64, upstream_seq: u64, bytes: usize, receipts: &Arc<Told>) -> RawFrame {
    let did = sample::did(account);
    let (frame, seq_slot) = sample::frame(&did, upstream_seq, bytes);
    RawFrame {
        host: sample::host(account),
        host_epoch: 3,
        upstream_seq,
        received_at_micros: 17,
        did,
        kind: Kind::Identity,
        seq_slot,
        bytes: frame,
        receipts: Arc::clone(receipts) as Arc<dyn Receipts>,
    }
}

fn seq_of(taken: &Taken) -> u64 {
    match &taken.work {
        Work::Frame(frame) => frame.upstream_seq,
        Work::Command(command) => panic!("a {} where a frame was pushed", command.action.as_str()),
    }
}

struct NotTold;

impl CommandReceipt for NotTold {
    fn settled(&self, _result: Result<RepoState, Declined>) {}
}

/// An account in this lane.
fn account_in(lanes: LaneCount, lane: Lane) -> u64 {
    (0..).find(|account| lanes.lane_of(&sample::did(*account)) == lane).unwrap()
}

async fn pull_count(intake: &dyn Intake, lane: Lane, count: usize) -> Vec<Taken> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(intake.pull(lane, 1000).await.unwrap());
    }
    assert_eq!(all.len(), count);
    all
}

/// What was pushed for a DID comes out in that order, in its lane, at positions that rise by one, with all its fields.
pub async fn keeps_the_order_of_each_did(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let mut pushed: BTreeMap<Lane, Vec<(u64, Bytes)>> = BTreeMap::new();
    for upstream_seq in 1..=300 {
        let frame = raw(upstream_seq % 13, upstream_seq, 200, &told);
        let lane = intake.lanes().lane_of(&frame.did);
        pushed.entry(lane).or_default().push((upstream_seq, frame.bytes.clone()));
        intake.push(frame).await.unwrap();
    }
    for (lane, pushed) in pushed {
        let taken = pull_count(&*intake, lane, pushed.len()).await;
        for (taken, (upstream_seq, bytes)) in taken.iter().zip(&pushed) {
            let Work::Frame(frame) = &taken.work else { panic!("not what was pushed") };
            assert_eq!(frame.upstream_seq, *upstream_seq);
            assert_eq!(frame.bytes, *bytes);
            assert_eq!(frame.did, sample::did(upstream_seq % 13));
            assert_eq!((frame.host_epoch, frame.received_at_micros), (3, 17));
        }
        assert!(taken.windows(2).all(|pair| pair[1].position.0 == pair[0].position.0 + 1));
    }
}

/// A command stands in its account's lane where it was pushed, between frames, and is held until it is covered.
pub async fn commands_keep_their_place(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told: Arc<Told> = Arc::default();
    let did = sample::did(1);
    let lane = intake.lanes().lane_of(&did);
    intake.push(raw(1, 1, 200, &told)).await.unwrap();
    for action in [Action::Takedown, Action::Restore] {
        let command = Command { did: did.clone(), action, received_at_micros: 18, receipt: Arc::new(NotTold) };
        intake.push_command(command).await.unwrap();
    }
    intake.push(raw(1, 2, 200, &told)).await.unwrap();
    let taken = pull_count(&*intake, lane, 4).await;
    let came: Vec<_> = taken
        .iter()
        .map(|taken| match &taken.work {
            Work::Frame(frame) => (frame.did.clone(), Err(frame.upstream_seq)),
            Work::Command(command) => (command.did.clone(), Ok((command.action, command.received_at_micros))),
        })
        .collect();
    let expected = [Err(1), Ok((Action::Takedown, 18)), Ok((Action::Restore, 18)), Err(2)];
    assert_eq!(came, expected.map(|what| (did.clone(), what)));
    assert!(taken.windows(2).all(|pair| pair[1].position.0 == pair[0].position.0 + 1));
    intake.cover(lane, taken[3].position).await.unwrap();
    told.all(&*intake, &[1, 2]).await;
}

/// A pull gives one frame at least, and about as many bytes as were asked for.
pub async fn pulls_about_as_much_as_asked(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    for upstream_seq in 1..=20 {
        intake.push(raw(1, upstream_seq, 1000, &told)).await.unwrap();
    }
    assert_eq!(intake.pull(lane, 0).await.unwrap().len(), 1);
    let taken = intake.pull(lane, 5000).await.unwrap();
    assert!((1..=6).contains(&taken.len()), "{} frames of 1,000 bytes for 5,000", taken.len());
    assert_eq!(seq_of(&taken[0]), 2);
}

/// A pull of an empty lane waits for a push; dropping it while it waits loses nothing.
pub async fn pull_waits_and_may_be_dropped(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    {
        let mut dropped = pin!(intake.pull(lane, 1000));
        assert!(poll_once(dropped.as_mut()).await.is_pending());
        intake.push(raw(1, 1, 100, &told)).await.unwrap();
    }
    assert_eq!(seq_of(&pull_count(&*intake, lane, 1).await[0]), 1);
    let (taken, pushed) = tokio::join!(intake.pull(lane, 1000), intake.push(raw(1, 2, 100, &told)));
    pushed.unwrap();
    assert_eq!(seq_of(&taken.unwrap()[0]), 2);
}

/// Back-pressure: a push into a full lane waits until something is covered. Pulling alone frees nothing. Where the intake
/// is durable, it waits until something has come there.
pub async fn push_waits_for_cover_when_full(backend: &dyn Backend) {
    let setup = Setup { lane_bytes_max: 64 << 10, ..Setup::default() };
    let running = backend.open(setup).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    if !backend.promises().holds_until_cover {
        for upstream_seq in 1..=500 {
            intake.push(raw(1, upstream_seq, 1024, &told)).await.unwrap();
            assert!(intake.bytes_held() <= 64 << 10);
        }
        let taken = pull_count(&*intake, lane, 500).await;
        assert!((1..).zip(&taken).all(|(upstream_seq, taken)| seq_of(taken) == upstream_seq));
        return told.all(&*intake, &(1..=500).collect::<Vec<_>>()).await;
    }
    let mut upstream_seq = 0;
    let mut waiting = loop {
        upstream_seq += 1;
        assert!(upstream_seq <= 64, "64 KiB hold at most 64 frames of 1,024 bytes");
        let mut push = Box::pin(intake.push(raw(1, upstream_seq, 1024, &told)));
        match poll_once(push.as_mut()).await {
            Poll::Ready(pushed) => pushed.unwrap(),
            Poll::Pending => break push,
        }
    };
    assert!(upstream_seq > 32, "at least half of it is for the frames themselves, not {upstream_seq} KiB");
    assert!(intake.bytes_held() > 32 << 10);
    let taken = pull_count(&*intake, lane, usize::try_from(upstream_seq - 1).unwrap()).await;
    assert!(poll_once(waiting.as_mut()).await.is_pending());
    intake.cover(lane, taken[1].position).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(seq_of(&pull_count(&*intake, lane, 1).await[0]), upstream_seq);
}

/// A frame that is larger than the lane's limit is taken when it is alone.
pub async fn takes_one_frame_larger_than_a_lane(backend: &dyn Backend) {
    let running = backend.open(Setup { lane_bytes_max: 10_000, ..Setup::default() }).await;
    let intake = running.stores().intake;
    let told: Arc<Told> = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    intake.push(raw(1, 1, 100_000, &told)).await.unwrap();
    let mut second = Box::pin(intake.push(raw(1, 2, 100_000, &told)));
    let pushed = poll_once(second.as_mut()).await;
    if backend.promises().holds_until_cover {
        assert!(pushed.is_pending());
    }
    let taken = pull_count(&*intake, lane, 1).await;
    intake.cover(lane, taken[0].position).await.unwrap();
    match pushed {
        Poll::Ready(pushed) => pushed.unwrap(),
        Poll::Pending => second.await.unwrap(),
    }
    let taken = pull_count(&*intake, lane, 1).await;
    intake.cover(lane, taken[0].position).await.unwrap();
    told.all(&*intake, &[1, 2]).await;
}

/// A full lane stops only its own pushes.
pub async fn lanes_do_not_hold_each_other_back(backend: &dyn Backend) {
    let running = backend.open(Setup { lane_bytes_max: 10_000, ..Setup::default() }).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let (full, free) = (account_in(intake.lanes(), Lane(0)), account_in(intake.lanes(), Lane(1)));
    intake.push(raw(full, 1, 100_000, &told)).await.unwrap();
    let mut waiting = Box::pin(intake.push(raw(full, 2, 100, &told)));
    let pushed = poll_once(waiting.as_mut()).await;
    if backend.promises().holds_until_cover {
        assert!(pushed.is_pending());
    }
    intake.push(raw(free, 3, 100, &told)).await.unwrap();
    assert_eq!(seq_of(&pull_count(&*intake, Lane(1), 1).await[0]), 3);
}

/// Pushes that wait for room get it in the order in which they began to wait.
pub async fn lets_waiting_pushes_in_in_order(backend: &dyn Backend) {
    let running = backend.open(Setup { lane_bytes_max: 10_000, ..Setup::default() }).await;
    let intake = running.stores().intake;
    let told = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    intake.push(raw(1, 1, 20_000, &told)).await.unwrap();
    let mut waiting = Vec::new();
    for upstream_seq in 2..=6 {
        let mut push = Box::pin(intake.push(raw(1, upstream_seq, 20_000, &told)));
        let pushed = poll_once(push.as_mut()).await;
        if backend.promises().holds_until_cover {
            assert!(pushed.is_pending());
        }
        waiting.push((push, pushed));
    }
    for (upstream_seq, (push, pushed)) in (1..).zip(waiting) {
        let taken = pull_count(&*intake, lane, 1).await;
        assert_eq!(seq_of(&taken[0]), upstream_seq);
        intake.cover(lane, taken[0].position).await.unwrap();
        match pushed {
            Poll::Ready(pushed) => pushed.unwrap(),
            Poll::Pending => push.await.unwrap(),
        }
    }
}

/// Frames 1 to 10 of one account, pulled: its lane, and where they stand.
async fn ten_pulled(intake: &dyn Intake, told: &Arc<Told>) -> (Lane, Vec<Position>) {
    let lane = intake.lanes().lane_of(&sample::did(1));
    for upstream_seq in 1..=10 {
        intake.push(raw(1, upstream_seq, 100, told)).await.unwrap();
    }
    let taken = pull_count(intake, lane, 10).await;
    (lane, taken.iter().map(|taken| taken.position).collect())
}

/// However they were covered and settled: all are told once, and nothing is held.
async fn ten_told(intake: &dyn Intake, told: &Told) {
    told.all(intake, &(1..=10).collect::<Vec<_>>()).await;
}

/// Every covered frame's receipt is told once, and, where the intake holds it until then, none of a frame that is not
/// covered.
pub async fn tells_each_receipt_once(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told: Arc<Told> = Arc::default();
    let (lane, positions) = ten_pulled(&*intake, &told).await;
    if backend.promises().holds_until_cover {
        assert!(told.sorted().is_empty());
    }
    intake.cover(lane, positions[3]).await.unwrap();
    if backend.promises().holds_until_cover {
        assert_eq!(told.sorted(), [1, 2, 3, 4]);
    }
    intake.cover(lane, positions[3]).await.unwrap();
    intake.cover(lane, positions[1]).await.unwrap();
    intake.cover(lane, positions[9]).await.unwrap();
    ten_told(&*intake, &told).await;
}

/// Frames that are settled out of order are told and make room as if they were covered, and are not told again.
pub async fn settled_frames_make_room_and_are_told_once(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told: Arc<Told> = Arc::default();
    let (lane, positions) = ten_pulled(&*intake, &told).await;
    let before = intake.bytes_held();
    intake.settle(lane, &positions[3..7]).await.unwrap();
    intake.settle(lane, &positions[3..5]).await.unwrap();
    if backend.promises().holds_until_cover {
        assert_eq!(told.sorted(), [4, 5, 6, 7]);
        assert!(intake.bytes_held() < before);
    }
    intake.cover(lane, positions[4]).await.unwrap();
    intake.cover(lane, positions[9]).await.unwrap();
    ten_told(&*intake, &told).await;
}

/// A position past what was given out covers what was given out, and nothing that waits.
pub async fn covers_nothing_that_was_not_pulled(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let intake = running.stores().intake;
    let told: Arc<Told> = Arc::default();
    let lane = intake.lanes().lane_of(&sample::did(1));
    for upstream_seq in 1..=2 {
        intake.push(raw(1, upstream_seq, 100, &told)).await.unwrap();
    }
    let taken = intake.pull(lane, 0).await.unwrap();
    intake.cover(lane, Position(taken[0].position.0 + 1)).await.unwrap();
    if backend.promises().holds_until_cover {
        assert_eq!(told.sorted(), [1]);
    }
    let taken = pull_count(&*intake, lane, 1).await;
    assert_eq!(seq_of(&taken[0]), 2);
    intake.cover(lane, taken[0].position).await.unwrap();
    told.all(&*intake, &[1, 2]).await;
}
