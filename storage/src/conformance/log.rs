//! [`EventLog`]'s promises.

use std::{collections::BTreeMap, task::Poll};

use atproto::{frame, syntax::Did};
use tokio::task::JoinSet;

use super::{Backend, Running, SOON, Setup, poll_once, sample, until_last};
use crate::{
    Stores,
    lane::LaneCount,
    log::{Accepted, Block, EventLog, LogHealth, Published, ReadError, Window},
    repos::LocalStatus,
    seq::Seq,
};

fn window(log: &dyn EventLog) -> Window {
    *log.window().borrow()
}

/// What must be published of these events, the first at `first`.
fn published(first: u64, events: &[Accepted]) -> Vec<Published> {
    (first..)
        .zip(events)
        .map(|(seq, event)| {
            let mut bytes = Vec::new();
            frame::write_with_seq(&mut bytes, &event.frame, event.seq_slot, seq);
            let taken_down = event.state.local == LocalStatus::TakenDown;
            let account = Did::lane_hash(event.did.as_str());
            Published { seq: Seq(seq), account, taken_down, frame: bytes.into() }
        })
        .collect()
}

/// Everything after `after`, in steps of about `bytes_max`.
async fn read_all(log: &dyn EventLog, after: Seq, bytes_max: usize) -> Vec<Published> {
    let (mut all, mut cursor) = (Vec::new(), after);
    loop {
        let some = log.read(cursor, bytes_max).await.unwrap();
        let Some(last) = some.last() else { return all };
        cursor = last.seq;
        all.extend(some);
    }
}

/// Everything, once the log, which begins at `first`, has all of these events; they must be what was appended, in order.
async fn check_all(
    backend: &dyn Backend,
    stores: &Stores,
    first: Seq,
    appended: &[Accepted],
    bytes_max: usize,
) -> Vec<Published> {
    let Stores { log, intake, .. } = stores;
    until_last(&**log, Seq(first.0 + appended.len() as u64 - 1)).await;
    let all = read_all(&**log, Seq(first.0 - 1), bytes_max).await;
    check(backend, intake.lanes(), first, appended, &all);
    all
}

/// These are the events, from `first` on, in an order that was promised.
fn check(backend: &dyn Backend, lanes: LaneCount, first: Seq, appended: &[Accepted], found: &[Published]) {
    if backend.promises().one_order {
        return assert!(found == published(first.0, appended), "what is read is not what was appended");
    }
    assert_eq!(found.len(), appended.len());
    assert!((first.0..).zip(found).all(|(seq, event)| event.seq == Seq(seq)));
    for lane in lanes.all() {
        let appended = appended.iter().filter(|event| lanes.lane_of(&event.did) == lane);
        let mut found = found.iter().filter(|event| event.account % u64::from(lanes.0.get()) == u64::from(lane.0));
        for event in appended {
            let found = found.next().expect("as many in each lane");
            assert!(*found == published(found.seq.0, std::slice::from_ref(event))[0], "{} is not its event", found.seq);
        }
    }
}

/// A new log is empty, at the seq it was told to start with.
pub async fn starts_empty(backend: &dyn Backend) {
    for seq_start in [1, 5_000] {
        let running = backend.open(Setup { seq_start: Seq(seq_start), ..Setup::default() }).await;
        let stores = running.stores();
        let log = &stores.log;
        let empty = window(&**log);
        assert_eq!((empty.first, empty.last), (Seq(seq_start), Seq(seq_start - 1)));
        assert_eq!(empty.first_at_micros, None);
        assert_eq!(log.health(), LogHealth::Ready);
        assert_eq!(log.read(empty.last, 1000).await.unwrap(), []);
        assert_eq!(log.read(Seq(seq_start + 10), 1000).await.unwrap(), []);
        let events = sample::batch(1, 3, 200);
        log.append(events.clone()).await.unwrap();
        check_all(backend, &stores, Seq(seq_start), &events, 1000).await;
        assert!(window(&**log).first_at_micros.is_some());
    }
}

/// Seqs rise by one, in the order of the batches and within each.
pub async fn assigns_dense_seqs_in_order(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let mut all = Vec::new();
    for number in 0..20 {
        let events = sample::batch(number * 10, 1 + number % 10, 300);
        all.extend(events.iter().cloned());
        stores.log.append(events).await.unwrap();
        until_last(&*stores.log, Seq(all.len() as u64)).await;
    }
    check_all(backend, &stores, Seq(1), &all, 10_000).await;
}

/// The frame that is read carries our seq, through every length that a seq has in CBOR, and is else the host's.
pub async fn writes_the_seq_into_the_frame(backend: &dyn Backend) {
    for seq_start in [1, 20, 250, 65_530, u64::from(u32::MAX) - 5, Seq::MAX.0 - 20] {
        let running = backend.open(Setup { seq_start: Seq(seq_start), ..Setup::default() }).await;
        let stores = running.stores();
        let events = sample::batch(77_777_777, 12, 200);
        stores.log.append(events.clone()).await.unwrap();
        for read in check_all(backend, &stores, Seq(seq_start), &events, 1000).await {
            let is_it = |event: &&Accepted| Did::lane_hash(event.did.as_str()) == read.account;
            let event = events.iter().find(is_it).unwrap();
            let start = event.seq_slot.start as usize;
            let tail = event.frame.len() - event.seq_slot.end as usize;
            assert_eq!(read.frame[..start], event.frame[..start]);
            assert_eq!(read.frame[read.frame.len() - tail..], event.frame[event.frame.len() - tail..]);
        }
    }
}

/// `read` is exclusive of its cursor, gives nothing at or past the end, and at least one event before it.
pub async fn reads_after_the_cursor(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let log = &stores.log;
    let events = sample::batch(1, 50, 1000);
    log.append(events.clone()).await.unwrap();
    let all = check_all(backend, &stores, Seq(1), &events, 10_000).await;
    for after in 0..50 {
        assert_eq!(log.read(Seq(after), 0).await.unwrap(), all[after as usize..][..1]);
        let some = log.read(Seq(after), 10_000).await.unwrap();
        assert_eq!(some, all[after as usize..][..some.len()]);
        assert!(some.len() <= 12, "{} events of 1,000 bytes for 10,000", some.len());
    }
    assert_eq!(log.read(Seq(50), 1000).await.unwrap(), []);
    assert_eq!(log.read(Seq(51), 1000).await.unwrap(), []);
    assert_eq!(log.read(Seq::MAX, 1000).await.unwrap(), []);
}

/// Whatever the step, a walk meets every event once.
pub async fn walks_without_gap_or_repeat(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let log = &stores.log;
    let mut all = Vec::new();
    for number in 0..40 {
        // Sizes from tiny to larger than a step.
        let events: Vec<_> = (0..25).map(|at| sample::accepted(at, number * 25 + at, 100 << (at % 8))).collect();
        all.extend(events.iter().cloned());
        log.append(events).await.unwrap();
    }
    let all = check_all(backend, &stores, Seq(1), &all, 1 << 24).await;
    for bytes_max in [0, 777, 4096, 70_000] {
        assert!(read_all(&**log, Seq(0), bytes_max).await == all, "in steps of {bytes_max}");
    }
}

/// Blocks hold what `read` gives, whatever the step and the start, and leave room before each frame: who writes there
/// changes no frame, and nobody else sees it.
pub async fn reads_blocks_with_room(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let log = &stores.log;
    assert!(log.read_block(Seq(0), 1000).await.unwrap().events.is_empty());
    let mut all = Vec::new();
    for number in 0..40 {
        let events: Vec<_> = (0..25)
            .map(|at| {
                let mut event = sample::accepted(at, number * 25 + at, 100 << (at % 8));
                if at % 5 == 0 {
                    event.state.local = LocalStatus::TakenDown;
                }
                event
            })
            .collect();
        all.extend(events.iter().cloned());
        log.append(events).await.unwrap();
    }
    let all = check_all(backend, &stores, Seq(1), &all, 1 << 24).await;
    for (bytes_max, start) in [(0, 990), (777, 0), (4096, 501), (70_000, 13), (1 << 24, 0), (70_000, 13)] {
        let (mut got, mut cursor) = (Vec::new(), Seq(start));
        loop {
            let mut block = log.read_block(cursor, bytes_max).await.unwrap();
            let Some(last) = block.events.last() else { break };
            cursor = last.seq;
            let mut free_from = 0;
            for event in &block.events {
                let room = event.frame.start - Block::ROOM_BYTES;
                assert!(room >= free_from, "room before {}", event.seq);
                block.buffer[room..event.frame.start].fill(0xee);
                free_from = event.frame.end;
            }
            got.extend(block.into_published());
        }
        assert!(got == all[start as usize..], "in steps of {bytes_max} from {start}");
    }
    for after in [1000, 1001, Seq::MAX.0] {
        assert!(log.read_block(Seq(after), 1000).await.unwrap().events.is_empty());
    }
}

/// The window's receiver wakes for what is appended.
pub async fn window_wakes_its_watchers(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let log = running.stores().log;
    let mut watcher = log.window();
    watcher.mark_unchanged();
    let (appended, changed) = tokio::join!(log.append(sample::batch(1, 2, 200)), watcher.changed());
    appended.unwrap();
    changed.unwrap();
    until_last(&*log, Seq(2)).await;
    watcher.mark_unchanged();
    let (appended, changed) = tokio::join!(log.append(sample::batch(3, 2, 200)), watcher.changed());
    appended.unwrap();
    changed.unwrap();
    let now = until_last(&*log, Seq(4)).await;
    assert_eq!((now.first, now.last), (Seq(1), Seq(4)));
    assert!(now.bytes > 4 * 150);
}

/// Nothing to append is no failure and uses no seq.
pub async fn takes_an_empty_batch(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let log = running.stores().log;
    log.append(Vec::new()).await.unwrap();
    assert_eq!(window(&*log).last, Seq(0));
    log.append(sample::batch(1, 1, 200)).await.unwrap();
    log.append(Vec::new()).await.unwrap();
    until_last(&*log, Seq(1)).await;
    log.append(sample::batch(2, 1, 200)).await.unwrap();
    until_last(&*log, Seq(2)).await;
}

/// The stream's largest frames go in and come out.
pub async fn takes_large_frames(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let mut events = sample::batch(1, 3, frame::FRAME_BYTES_MAX - 64);
    events.extend(sample::batch(4, 3, 300));
    stores.log.append(events.clone()).await.unwrap();
    check_all(backend, &stores, Seq(1), &events, 1 << 16).await;
}

/// Calls that are under way at once are appended in the order in which they were first polled.
pub async fn orders_calls_by_their_first_poll(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let log = &stores.log;
    let mut calls = Vec::new();
    let mut all = Vec::new();
    for number in 0..50 {
        let events = sample::batch(number * 10, 1 + number % 3, 5000);
        all.extend(events.iter().cloned());
        let mut call = Box::pin(log.append(events));
        match poll_once(call.as_mut()).await {
            Poll::Ready(appended) => appended.unwrap(),
            Poll::Pending => calls.push(call),
        }
    }
    for call in calls.into_iter().rev() {
        call.await.unwrap();
    }
    check_all(backend, &stores, Seq(1), &all, 1 << 20).await;
}

/// Callers at the same time: seqs are dense, each event is there once, each caller's are in its order.
pub async fn keeps_the_order_of_each_caller(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let log = running.stores().log;
        callers.spawn(async move {
            for number in 0..30 {
                let events = (0..1 + number % 4).map(|at| sample::accepted(caller, number * 10 + at, 400)).collect();
                log.append(events).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    let log = running.stores().log;
    let count = 8 * (0..30).map(|number| 1 + number % 4).sum::<u64>();
    until_last(&*log, Seq(count)).await;
    let all = read_all(&*log, Seq(0), 50_000).await;
    assert!((1..).zip(&all).all(|(seq, event)| event.seq == Seq(seq)));
    let mut by_account: BTreeMap<u64, Vec<Published>> = BTreeMap::new();
    for event in all {
        by_account.entry(event.account).or_default().push(event);
    }
    for caller in 0..8 {
        let got = &by_account[&Did::lane_hash(sample::did(caller).as_str())];
        let sent = (0..30).flat_map(|number| (0..1 + number % 4).map(move |at| number * 10 + at));
        let sent: Vec<_> = sent.map(|number| sample::accepted(caller, number, 400)).collect();
        assert_eq!(got.len(), sent.len());
        for (got, sent) in got.iter().zip(&sent) {
            assert_eq!(*got, published(got.seq.0, std::slice::from_ref(sent))[0]);
        }
    }
}

/// A caller that goes away leaves either all of its batch or none, and no hole.
pub async fn stays_dense_when_a_call_is_dropped(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let log = running.stores().log;
    for number in 0..20 {
        let mut dropped = Box::pin(log.append(sample::batch(1000 + number * 2, 2, 3000)));
        let _ = poll_once(dropped.as_mut()).await;
        drop(dropped);
        log.append(sample::batch(number, 1, 300)).await.unwrap();
    }
    // Of what was dropped nobody knows when it is there.
    let waits = async {
        let mut window = log.window();
        loop {
            window.borrow_and_update();
            let all = read_all(&*log, Seq(0), 100_000).await;
            assert!((1..).zip(&all).all(|(seq, event)| event.seq == Seq(seq)));
            let answered = all.iter().filter(|event| event.frame.len() < 1000).count();
            if answered == 20 && (all.len() - answered) % 2 == 0 {
                return;
            }
            window.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, waits).await.expect("all that was answered, and of the rest all or none");
}

/// Old events go when there are more bytes than the window may have; a cursor before it is told so.
pub async fn keeps_about_its_window_of_bytes(backend: &dyn Backend) {
    let window_bytes = 1 << 20;
    let running = backend.open(Setup { window_bytes, ..Setup::default() }).await;
    let stores = running.stores();
    let log = &stores.log;
    let mut all = Vec::new();
    for number in 0..60 {
        let events = sample::batch(number * 20, 20, 4000);
        all.extend(events.iter().cloned());
        log.append(events).await.unwrap();
    }
    // Deleting may trail appending.
    let bytes_max = window_bytes + backend.promises().window_excess_bytes;
    let mut watcher = log.window();
    let is_kept = |window: &Window| window.last == Seq(1200) && window.first > Seq(1) && window.bytes <= bytes_max;
    let kept = tokio::time::timeout(SOON, watcher.wait_for(is_kept)).await;
    let kept = *kept.expect("the window shrinks to its limit").unwrap();
    assert!(kept.bytes >= window_bytes / 2, "{} of {window_bytes} bytes are kept", kept.bytes);
    let first = kept.first;
    let outdated = log.read(Seq(first.0 - 2), 1000).await;
    assert!(
        matches!(outdated, Err(ReadError::Outdated { after, first: said }) if after.0 == first.0 - 2 && said == first)
    );
    assert!(matches!(log.read(Seq(0), 1000).await, Err(ReadError::Outdated { .. })));
    assert!(matches!(log.read_block(Seq(0), 1000).await, Err(ReadError::Outdated { .. })));
    let found = read_all(&**log, Seq(first.0 - 1), 50_000).await;
    if backend.promises().one_order {
        return check(backend, stores.intake.lanes(), first, &all[first.0 as usize - 1..], &found);
    }
    // Of each lane the end is kept.
    let lanes = stores.intake.lanes();
    let mut kept = Vec::new();
    for lane in lanes.all() {
        let count = found.iter().filter(|event| event.account % u64::from(lanes.0.get()) == u64::from(lane.0)).count();
        let appended: Vec<_> = all.iter().filter(|event| lanes.lane_of(&event.did) == lane).cloned().collect();
        kept.extend_from_slice(&appended[appended.len() - count..]);
    }
    check(backend, lanes, first, &kept, &found);
}

/// Readers that follow the window while events are appended meet each one once.
pub async fn readers_follow_a_writer(backend: &dyn Backend) {
    const LAST: Seq = Seq(2000);
    let running = backend.open(Setup::default()).await;
    let mut readers = JoinSet::new();
    for reader in 0..3 {
        let log = running.stores().log;
        readers.spawn(async move {
            let (mut watcher, mut cursor) = (log.window(), Seq(0));
            while cursor < LAST {
                watcher.wait_for(|window| window.last > cursor).await.unwrap();
                let some = log.read(cursor, 500 << (4 * reader)).await.unwrap();
                assert!(!some.is_empty(), "the window's last is past {cursor}");
                for event in some {
                    assert_eq!(event.seq, cursor.next());
                    cursor = event.seq;
                }
            }
        });
    }
    let log = running.stores().log;
    for number in 0..200 {
        log.append(sample::batch(number * 10, 10, 600)).await.unwrap();
    }
    readers.join_all().await;
}

/// A clean close keeps everything, and the next seq follows the last.
pub async fn stays_after_reopening(backend: &dyn Backend) {
    let mut running = backend.open(Setup { seq_start: Seq(100), ..Setup::default() }).await;
    let mut all = Vec::new();
    for round in 0..4 {
        all.extend(append_round(&*running, round).await);
        let Some(reopened) = running.reopen().await else { return };
        running = reopened;
        check_kept(backend, &running.stores(), &all).await;
    }
}

/// So does a crash: what was answered is there.
pub async fn stays_after_a_crash(backend: &dyn Backend) {
    let mut running = backend.open(Setup { seq_start: Seq(100), ..Setup::default() }).await;
    let mut all = Vec::new();
    for round in 0..4 {
        all.extend(append_round(&*running, round).await);
        let Some(reopened) = running.crash().await else { return };
        running = reopened;
        check_kept(backend, &running.stores(), &all).await;
    }
}

async fn append_round(running: &dyn Running, round: u64) -> Vec<Accepted> {
    let log = running.stores().log;
    let mut all = Vec::new();
    for number in 0..5 {
        let events = sample::batch(round * 1000 + number * 10, 10, 700);
        all.extend(events.iter().cloned());
        log.append(events).await.unwrap();
    }
    all
}

/// A log that began at 100 has these events.
async fn check_kept(backend: &dyn Backend, stores: &Stores, all: &[Accepted]) {
    check_all(backend, stores, Seq(100), all, 20_000).await;
    let now = window(&*stores.log);
    assert_eq!(now.first, Seq(100));
    assert!(now.first_at_micros.is_some());
}
