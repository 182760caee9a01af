//! Stores beside the relay's own intake that cost next to nothing, so that what is measured is the judge.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use storage::{
    Stores,
    error::Error,
    intake::Receipts,
    lane_queues::LaneQueues,
    log::{Accepted, EventLog, LogHealth, Published, ReadError, Window},
    memory,
    seq::Seq,
};
use tokio::sync::watch;

/// Counts what was judged.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn taken(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Receipts for Counter {
    fn taken(&self, _upstream_seq: u64) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Takes batches and keeps nothing but their number.
pub(crate) struct ForgetfulLog {
    appended: AtomicU64,
    window: watch::Sender<Window>,
}

impl ForgetfulLog {
    pub(crate) fn new() -> ForgetfulLog {
        ForgetfulLog { appended: AtomicU64::new(0), window: watch::Sender::new(Window::default()) }
    }

    /// How many events it was given.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }
}

#[async_trait]
impl EventLog for ForgetfulLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        self.appended.fetch_add(batch.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    async fn read(&self, _after: Seq, _bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        Ok(Vec::new())
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.window.subscribe()
    }

    fn health(&self) -> LogHealth {
        LogHealth::Ready
    }
}

/// These two, and for the rest the stores in memory: what lanes remember of repos is never looked for there.
pub(crate) fn stores(intake: Arc<LaneQueues>, log: Arc<ForgetfulLog>) -> Stores {
    Stores { intake, log, ..memory::open() }
}
