//! The thread that writes to the database what was noted, so that neither the log's writer nor a lane does.

use std::{
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use storage::error::Error;

use super::State;
use crate::metrics::Metrics;

/// How long states wait for company: an account that is busy is then written once for all its events. Also how much of
/// the log a process that was killed has to read again.
const EVERY: Duration = Duration::from_millis(500);
/// How often what was written is synced: how much of the log has to be read again after a power cut.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// The thread, until it is [ended](Settler::end).
pub(crate) struct Settler {
    state: State,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Settler {
    /// `failed` is told, at most once, why the states could not be written; the thread has ended then.
    pub(crate) fn start(
        state: State,
        metrics: Metrics,
        failed: impl FnOnce(&Error) + Send + 'static,
    ) -> std::io::Result<Settler> {
        let settling = state.clone();
        let thread = std::thread::Builder::new().name("repos-writer".into()).spawn(move || {
            match settling.settle_until_ended(&metrics) {
                // Who closes the state does so before or after this thread is ended.
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => failed(&error),
            }
        })?;
        Ok(Settler { state, thread: Mutex::new(Some(thread)) })
    }

    /// Ends it where it stands. What it has not written stays in the overlay.
    pub(crate) fn end(&self) {
        self.state.signal(Signal::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _panicked = thread.map(JoinHandle::join);
    }
}

/// What the thread is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signal {
    /// Nothing new.
    #[default]
    None,
    /// Much waits to be written.
    Grown,
    /// To end.
    End,
}

impl State {
    pub(super) fn signal(&self, signal: Signal) {
        let (told, changed) = &self.0.signal;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told < signal {
            *told = signal;
            changed.notify_one();
        }
    }

    fn settle_until_ended(&self, metrics: &Metrics) -> Result<(), Error> {
        let mut synced_at = Instant::now();
        let mut is_synced = true;
        loop {
            {
                let (told, changed) = &self.0.signal;
                let told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = changed.wait_timeout_while(told, EVERY, |told| *told == Signal::None);
                let (mut told, _) = waited.unwrap_or_else(PoisonError::into_inner);
                match *told {
                    Signal::End => return Ok(()),
                    Signal::None | Signal::Grown => *told = Signal::None,
                }
            }
            if self.0.overlay.through().is_some() {
                let timer = metrics.apply_seconds.start_timer();
                self.settle()?;
                timer.observe_duration();
                metrics.repos.set(i64::try_from(self.repo_count()).unwrap_or(i64::MAX));
                is_synced = false;
            }
            if !is_synced && synced_at.elapsed() >= SYNC_EVERY {
                self.sync_settled()?;
                (synced_at, is_synced) = (Instant::now(), true);
            }
        }
    }
}
