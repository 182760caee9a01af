//! A log whose appends a test lets through, or fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use storage::{
    error::Error,
    log::{Accepted, EventLog, LogHealth, Published, ReadError, Window},
    seq::Seq,
};
use tokio::sync::{Mutex, watch};

/// Closed at first.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    fails: AtomicBool,
}

impl Gate {
    /// Appends go on.
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Appends fail.
    pub(crate) fn fail(&self) {
        self.0.fails.store(true, Ordering::SeqCst);
        self.open();
    }

    /// Appends that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }
}

/// A log behind a gate.
pub(crate) struct GatedLog {
    log: Arc<dyn EventLog>,
    gate: Gate,
    /// Keeps the order of first polls.
    turn: Mutex<()>,
}

impl GatedLog {
    pub(crate) fn around(log: Arc<dyn EventLog>, gate: Gate) -> Arc<dyn EventLog> {
        Arc::new(GatedLog { log, gate, turn: Mutex::default() })
    }
}

#[async_trait]
impl EventLog for GatedLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        let gate = &*self.gate.0;
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        let _turn = self.turn.lock().await;
        gate.open.subscribe().wait_for(|open| *open).await.unwrap();
        if gate.fails.load(Ordering::SeqCst) {
            return Err(Error::Indeterminate { what: "append to the log", source: "no disk".into() });
        }
        self.log.append(batch).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        self.log.read(after, bytes_max).await
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.log.window()
    }

    fn health(&self) -> LogHealth {
        self.log.health()
    }
}
