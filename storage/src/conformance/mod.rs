//! The suite that every backend runs: what the traits' docs promise, as tests.
//!
//! A backend implements [`Backend`] in its tests and calls [`crate::conformance_suite!`] with it; each case becomes a
//! test of its own. The cases know nothing of a backend but its [`Stores`], and start each with an empty one.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite of tests panics where one fails")]

pub mod hosts;
pub mod identities;
pub mod intake;
pub mod log;
pub mod repos;
pub mod sample;

use std::{future::Future, num::NonZeroU32, pin::Pin, task::Poll, time::Duration};

use async_trait::async_trait;

use crate::{
    Stores,
    lane::LaneCount,
    log::{EventLog, Window},
    seq::Seq,
};

/// How long what comes soon may take on a machine that is busy with tests.
const SOON: Duration = Duration::from_secs(60);

/// Makes one kind of backend.
#[async_trait]
pub trait Backend: Send + Sync {
    /// An empty one, of which all lanes are given to this process. Lanes come after a while where several processes share
    /// them, so whoever makes a backend here follows its [`crate::lane::Assignment`]; no case does.
    async fn open(&self, setup: Setup) -> Box<dyn Running>;

    /// What it promises and others need not.
    fn promises(&self) -> Promises {
        Promises::default()
    }
}

/// What some backends promise and others need not: by default, what one process with everything in it does.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The intake holds a frame until it is settled or covered, and tells its receipt then. Where not, the intake is
    /// durable: it holds what is on its way there, and tells the receipt when it has come.
    pub holds_until_cover: bool,
    /// Events of all lanes are in the log in the order in which they were appended. Where not, those of each lane are.
    pub one_order: bool,
    /// What the log may keep past its window, in bytes.
    pub window_excess_bytes: u64,
}

impl Default for Promises {
    fn default() -> Promises {
        Promises { holds_until_cover: true, one_order: true, window_excess_bytes: 0 }
    }
}

/// What a case asks of a backend.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many lanes.
    pub lanes: LaneCount,
    /// What a lane holds at most.
    pub lane_bytes_max: usize,
    /// What the log keeps at most. Whole segments are deleted, so it may keep less by a part.
    pub window_bytes: u64,
    /// The first seq.
    pub seq_start: Seq,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            lanes: LaneCount(NonZeroU32::new(4).unwrap()),
            lane_bytes_max: 1 << 20,
            window_bytes: 1 << 30,
            seq_start: Seq(1),
        }
    }
}

/// A backend that is open.
#[async_trait]
pub trait Running: Send + Sync {
    /// Its nouns. Clones of them must be gone before it is opened again.
    fn stores(&self) -> Stores;

    /// Closes it in good order and opens it again; `None` where nothing outlives the process.
    async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>>;

    /// Ends it as a crash would and opens it again; `None` where nothing outlives the process.
    async fn crash(self: Box<Self>) -> Option<Box<dyn Running>>;
}

/// Polls a future once: what it does at once is done, and whether it waits is seen without a clock.
async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = future;
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// The window, once the log ends with this seq: what was appended can be read soon after, not at once.
async fn until_last(log: &dyn EventLog, last: Seq) -> Window {
    let mut window = log.window();
    let reached = tokio::time::timeout(SOON, window.wait_for(|window| window.last >= last)).await;
    let reached = *reached.unwrap_or_else(|_| panic!("{last} can't be read")).unwrap();
    assert_eq!(reached.last, last);
    reached
}

/// Waits for what others do soon.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waits).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Makes a test of every case, for one backend: an expression that gives a [`Backend`].
#[macro_export]
macro_rules! conformance_suite {
    ($backend:expr) => {
        $crate::conformance_suite!(@cases $backend,
            intake: [
                keeps_the_order_of_each_did, commands_keep_their_place, pulls_about_as_much_as_asked,
                pull_waits_and_may_be_dropped, push_waits_for_cover_when_full, takes_one_frame_larger_than_a_lane,
                lanes_do_not_hold_each_other_back, lets_waiting_pushes_in_in_order, tells_each_receipt_once,
                settled_frames_make_room_and_are_told_once, covers_nothing_that_was_not_pulled,
            ],
            log: [
                starts_empty, assigns_dense_seqs_in_order, writes_the_seq_into_the_frame, reads_after_the_cursor,
                walks_without_gap_or_repeat, reads_blocks_with_room, window_wakes_its_watchers, takes_an_empty_batch, takes_large_frames,
                orders_calls_by_their_first_poll, keeps_the_order_of_each_caller, stays_dense_when_a_call_is_dropped,
                keeps_about_its_window_of_bytes, readers_follow_a_writer, stays_after_reopening, stays_after_a_crash,
            ],
            repos: [
                shows_the_state_of_every_answered_append, keeps_every_field, last_event_of_a_batch_wins, lists_takedowns,
                lists_in_pages, counts_by_host, stays_after_reopening, stays_after_a_crash,
            ],
            hosts: [
                adds_a_host_once, rows_and_cursors_do_not_overwrite_each_other, ignores_unknown_hosts,
                what_is_ordered_stays_whatever_a_crawler_writes,
                lists_in_pages, keeps_the_policy, stays_after_reopening, stays_after_a_crash,
            ],
            identities: [
                finds_the_last_row_put, are_apart_from_repos, stays_after_reopening, are_whole_or_missing_after_a_crash,
            ],
        );
    };
    (@cases $backend:expr, $($noun:ident: [$($case:ident),+ $(,)?]),+ $(,)?) => {
        $(mod $noun {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$noun::$case(&$backend).await;
            })+
        })+
    };
}
