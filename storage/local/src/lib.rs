//! The embedded backend: all four nouns in one process and one directory, with no server beside it.
//!
//! Owns the data directory. Intake is in memory ([`storage::lane_queues`]); the event log is in segment files; Repos,
//! Hosts and the cache of identities are in fjall. What must hold:
//! 1. only one process has the directory;
//! 2. what `append` has answered is on the disk, and nothing else is ever read;
//! 3. Repos is never ahead of the log, and is brought up to it before anything is served;
//! 4. data that is not what was written is never served: opening refuses, or the read does.

mod config;
mod directory;
mod error;
mod log;
mod metrics;
pub mod repair;
mod state;

use std::{iter, sync::Arc};

use atproto::syntax::Did;
use storage::{
    Stores, buffers::Buffers, error::Error, hosts::AllHosts, lane::AllLanes, lane_queues::LaneQueues, log::EventLog,
    repos::RepoState, seq::Seq,
};

pub use config::Config;
pub use error::OpenError;

use crate::{
    directory::{Directory, Format},
    log::{LocalLog, open::Known, record::Record, segments::Segments},
    metrics::Metrics,
    state::{Bounds, State},
};

/// A backend that is open. Dropping it ends it as a crash would; [`Opened::close`] ends it in good order. Stores that
/// outlive it answer [`Error::Closed`].
pub struct Opened {
    intake: Arc<LaneQueues>,
    log: Arc<LocalLog>,
    state: State,
    assignment: Arc<AllLanes>,
    crawled: Arc<AllHosts>,
    /// Held until the rest is closed.
    _directory: Directory,
}

/// Opens a data directory, or makes one. Blocks: it reads the log's newest part, and brings Repos up to its end.
pub fn open(config: Config) -> Result<Opened, OpenError> {
    let directory = Directory::take(&config.dir)?;
    let asked = config.seq_start;
    if let Some(asked) = asked
        && !(1..=Seq::MAX.0).contains(&asked.0)
    {
        return Err(OpenError::SeqStartInvalid { asked });
    }
    let recorded = directory.format()?;
    let format = match recorded {
        Some(format) => format.with_lanes(config.lanes, &config.dir)?,
        None => Format::new(Some(config.lanes), asked.unwrap_or(Seq(1))),
    };
    if recorded != Some(format) {
        directory.set_format(&format)?;
    }
    let metrics = Metrics::register(&config.metrics)?;
    metrics.set_bytes_max(config.window_bytes);
    let state_dir = directory.state();
    let bounds = Bounds {
        recent_bytes: config.repo_cache_bytes,
        overlay_bytes: config.repo_overlay_bytes_max,
        block_cache_bytes: config.block_cache_bytes,
        identities_max: config.identities_max,
    };
    let state =
        State::open(&state_dir, bounds).map_err(|source| OpenError::State { dir: state_dir.clone(), source })?;
    let known = Known {
        salt: format.salt(),
        durable: state.watermark()?.unwrap_or(Seq(0)),
        first: asked.unwrap_or(format.seq_start()),
        // A start that was asked for before is kept to already: a service's settings may name it for ever.
        next: asked.filter(|asked| *asked != format.seq_start()),
    };
    let segments = log::open::open(&directory.log(), known, &config)?;
    if let Some(asked) = asked {
        directory.set_format(&format.with_seq_start(asked))?;
    }
    bring_up(&state, &segments)?;
    metrics.repos.set(i64::try_from(state.repo_count()).unwrap_or(i64::MAX));
    let log = LocalLog::start(segments, state.clone(), &config, metrics)
        .map_err(OpenError::io("start the writer of", directory.log()))?;
    let intake = LaneQueues::new(config.lanes, config.lane_bytes_max, config.host_bytes_max);
    let assignment = Arc::new(AllLanes::new(config.lanes));
    let crawled = Arc::new(AllHosts::default());
    Ok(Opened { intake: Arc::new(intake), log: Arc::new(log), state, assignment, crawled, _directory: directory })
}

/// Applies to Repos what the log has after the watermark.
fn bring_up(state: &State, segments: &Segments) -> Result<(), OpenError> {
    const PIECE_BYTES: usize = 4 << 20;
    let before_first = segments.before_first();
    let end = segments.window().last;
    let mut seen = match state.watermark()? {
        Some(watermark) if watermark < before_first => {
            return Err(OpenError::damaged(format!(
                "the state store has seen events up to {watermark}, but the log keeps only those after {before_first}"
            )));
        }
        Some(watermark) => watermark,
        // The watermark is synced before a log takes its first event.
        None if segments.window().first <= end => {
            return Err(OpenError::damaged("there is a log, but the state store is empty"));
        }
        None => end,
    };
    let (mut count, buffers) = (0_u64, Buffers::new(2 * PIECE_BYTES));
    while seen < end {
        let piece = log::reader::read(segments, seen, PIECE_BYTES, &buffers, |record, _frame| decode(record))?;
        let states: Vec<(Seq, Did, RepoState)> = piece.found.into_iter().collect::<Result<_, _>>()?;
        let Some((last, ..)) = states.last() else { break };
        let last = *last;
        count += states.len() as u64;
        state.note(states.into_iter(), last)?;
        seen = last;
    }
    state.settle()?;
    if state.watermark()? != Some(end) {
        state.note(iter::empty(), end)?;
    }
    state.sync()?;
    if count > 0 {
        tracing::info!(events = count, last_seq = end.0, "brought the repos up to the log's end");
    }
    Ok(())
}

/// Whose state a stored event made, and which.
fn decode(record: &Record<'_>) -> Result<(Seq, Did, RepoState), OpenError> {
    let did = std::str::from_utf8(record.did).ok().and_then(|text| Did::parse(text).ok());
    did.zip(RepoState::decode(record.state))
        .map(|(did, state)| (record.seq, did, state))
        .ok_or_else(|| OpenError::damaged(format!("the state of event {}", record.seq)))
}

impl Opened {
    /// The four nouns.
    pub fn stores(&self) -> Stores {
        Stores {
            intake: Arc::clone(&self.intake) as _,
            log: Arc::clone(&self.log) as _,
            repos: Arc::new(self.state.clone()),
            hosts: Arc::new(self.state.clone()),
            identities: Arc::new(self.state.clone()),
            assignment: Arc::clone(&self.assignment) as _,
            crawled: Arc::clone(&self.crawled) as _,
        }
    }

    /// Takes in repos that another backend knew, before the log has its first event; on disk once [`Opened::close`] has
    /// answered. Taking one in again changes nothing. Blocks.
    pub fn seed(&self, repos: Vec<(Did, RepoState)>) -> Result<(), Error> {
        let window = *self.log.window().borrow();
        if window.first <= window.last {
            return Err(Error::Determinate { what: "take repos in", source: "the log has events already".into() });
        }
        let before_first = window.last;
        self.state.note(repos.into_iter().map(|(did, state)| (before_first, did, state)), before_first)?;
        self.state.settle()
    }

    /// The intake takes no more frames; what it holds can be judged to its end. The first step of a drain.
    pub fn close_intake(&self) {
        self.intake.close();
    }

    /// Writes what was appended, marks the log as closed, makes all durable and lets go of the directory.
    pub async fn close(self) -> Result<(), Error> {
        self.intake.close();
        let closed = self.log.close().await;
        self.state.close();
        closed
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.intake.close();
        self.log.abandon();
        self.state.close();
    }
}
