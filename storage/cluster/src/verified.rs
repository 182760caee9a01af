//! Appending to a lane: into `verified`, delivered without a hole, into rows, answered.
//!
//! ```text
//!   append ─▶ waiting ─▶ under way to kafka ─▶ delivered without a hole ─▶ rows ─▶ answered
//! ```
//!
//! What must hold: batches go through in the order in which they were given, whole, whether or not somebody still waits
//! for the answer; a state comes into rows only when all offsets from our claim to its record are ours; after a hole
//! nothing more is appended or written.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::syntax::Did;
use runtime::clock::Clock;
use storage::{error::Error, intake::Position, lane::Lane, log::Accepted, repos::RepoState};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    kafka::{
        client::partition,
        producer::{Producer, Undelivered},
    },
    metrics::Metrics,
    rows::LaneRows,
    tail::{Resume, Tail},
    wire::verified::write_event,
};

const WHAT: &str = "append to the log";
/// How long rows are left alone after they could not be written.
const ROWS_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Rows of all lanes are written together, so often: what the servers and the client pay for is the burst, not the row. Only
/// positions wait for them, no event does.
const ROWS_EVERY: Duration = Duration::from_millis(50);
/// Events that are written into rows together.
const ROWS_AT_ONCE: usize = 2_000;
/// What a record takes beside its frame.
const RECORD_OVERHEAD_BYTES: usize = 400;

/// What appending works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) topic: String,
    pub(crate) producer: Arc<Producer>,
    pub(crate) rows: Arc<dyn LaneRows>,
    pub(crate) clock: Clock,
    pub(crate) bytes_max: usize,
    pub(crate) metrics: Metrics,
}

/// One lane's, under one claim. See the module's documentation.
pub(crate) struct Appender {
    parts: Parts,
    lane: Lane,
    claim: i64,
    state: Mutex<State>,
    /// Cancelled when the lane is another's, or may be.
    fenced: CancellationToken,
}

struct State {
    tail: Tail,
    /// Positions of commands that were given out and are not covered.
    commands: BTreeSet<u64>,
    waiting: VecDeque<Batch>,
    under_way: VecDeque<Batch>,
    /// Of batches that are under way or going into rows.
    bytes: usize,
    delivered: mpsc::UnboundedSender<Batch>,
}

/// What one call appends.
struct Batch {
    events: Vec<Accepted>,
    bytes: usize,
    /// Its states, each with its offset, as they are delivered.
    states: Vec<(Did, RepoState, i64)>,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// Writes what is delivered into rows.
pub(crate) struct Settling {
    delivered: mpsc::UnboundedReceiver<Batch>,
}

impl Appender {
    /// Under the claim that the tail begins after.
    pub(crate) fn new(parts: Parts, lane: Lane, claim: i64, tail: Tail) -> (Arc<Appender>, Settling) {
        let (send, delivered) = mpsc::unbounded_channel();
        let state = State {
            tail,
            commands: BTreeSet::new(),
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            bytes: 0,
            delivered: send,
        };
        let fenced = CancellationToken::new();
        let appender = Appender { parts, lane, claim, state: Mutex::new(state), fenced };
        (Arc::new(appender), Settling { delivered })
    }

    /// Takes a batch in; the answer comes when its rows are in.
    pub(crate) fn append(self: &Arc<Self>, events: Vec<Accepted>) -> oneshot::Receiver<Result<(), Error>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state();
        if self.fenced.is_cancelled() {
            // Nobody may wait any more.
            let _gone = answer.send(Err(Error::Fenced { what: WHAT }));
            return answered;
        }
        let bytes = events.iter().map(|event| event.frame.len() + RECORD_OVERHEAD_BYTES).sum();
        let states = Vec::with_capacity(events.len());
        state.waiting.push_back(Batch { events, bytes, states, answer });
        self.send(&mut state);
        answered
    }

    /// A command stands there: what settles it says so.
    pub(crate) fn expect_command(&self, position: Position) {
        self.state().commands.insert(position.0);
    }

    /// All of `raw` up to this position is settled.
    pub(crate) fn cover(&self, position: Position) {
        let mut state = self.state();
        state.tail.cover(position);
        state.commands = state.commands.split_off(&(position.0 + 1));
    }

    /// From where a successor looks.
    pub(crate) fn resume(&self) -> Resume {
        self.state().tail.resume()
    }

    /// Cancelled when the lane is another's, or may be.
    pub(crate) fn fenced(&self) -> &CancellationToken {
        &self.fenced
    }

    /// The lane is another's, or may be: nothing more is appended or written.
    pub(crate) fn fence(&self) {
        self.end(&mut self.state(), || Error::Fenced { what: WHAT });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between lock and unlock would be ours; what is delivered is on record either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what there is room for, in order.
    fn send(self: &Arc<Self>, state: &mut State) {
        let bytes_max = self.parts.bytes_max;
        let mut record = Vec::new();
        loop {
            let fits = |batch: &Batch| state.bytes == 0 || state.bytes + batch.bytes <= bytes_max;
            if !state.waiting.front().is_some_and(fits) {
                return;
            }
            let Some(batch) = state.waiting.pop_front() else { return };
            state.bytes += batch.bytes;
            let at_micros = self.parts.clock.now_micros();
            self.parts.metrics.batch_events.observe(batch.events.len() as f64);
            for event in &batch.events {
                record.clear();
                let command = event.position.is_some_and(|position| state.commands.contains(&position.0));
                write_event(&mut record, event, command, self.claim, at_micros);
                let this = Arc::clone(self);
                let delivered = Box::new(move |delivered| this.delivered(delivered));
                let sent = self.parts.producer.send(&self.parts.topic, partition(self.lane), &record, delivered);
                if let Err(error) = sent {
                    let mut first = Some(error);
                    state.under_way.push_back(batch);
                    return self.end(state, || first.take().unwrap_or(Error::Fenced { what: WHAT }));
                }
            }
            state.under_way.push_back(batch);
        }
    }

    /// The next record is delivered. On the producer's thread.
    fn delivered(&self, delivered: Result<i64, Undelivered>) {
        let mut guard = self.state();
        if self.fenced.is_cancelled() {
            return;
        }
        let offset = match delivered {
            Ok(offset) => offset,
            Err(undelivered) => return self.end(&mut guard, || undelivered.clone().during(WHAT)),
        };
        let state = &mut *guard;
        let Some(batch) = state.under_way.front_mut() else { return };
        let Some(event) = batch.events.get(batch.states.len()) else { return };
        if let Err(hole) = state.tail.delivered(offset, event.position) {
            warn!(lane = self.lane.0, claim = self.claim, %hole, "another writes to the lane");
            self.parts.metrics.holes.inc();
            return self.end(state, || Error::Fenced { what: WHAT });
        }
        batch.states.push((event.did.clone(), event.state.clone(), offset));
        if batch.states.len() == batch.events.len()
            && let Some(mut batch) = state.under_way.pop_front()
        {
            // The frames are not needed any more.
            batch.events = Vec::new();
            // Where nobody writes rows any more, nobody is answered either.
            let _gone = state.delivered.send(batch);
        }
    }

    fn end(&self, state: &mut State, mut error: impl FnMut() -> Error) {
        self.fenced.cancel();
        let batches = mem::take(&mut state.under_way).into_iter().chain(mem::take(&mut state.waiting));
        for batch in batches {
            let _gone = batch.answer.send(Err(error()));
        }
    }
}

impl Settling {
    /// Until the lane is another's.
    pub(crate) async fn run(self, appender: Arc<Appender>) {
        let fenced = appender.fenced.clone();
        // What is not answered is dropped: whoever waits is told that the lane is another's.
        fenced.run_until_cancelled(self.settle(&appender)).await;
    }

    async fn settle(mut self, appender: &Arc<Appender>) {
        while let Some(first) = self.delivered.recv().await {
            tokio::time::sleep(until_next(ROWS_EVERY, appender.parts.clock.now_micros())).await;
            let mut batches = vec![first];
            let mut events = mem::take(&mut batches[0].states);
            while events.len() < ROWS_AT_ONCE
                && let Ok(mut next) = self.delivered.try_recv()
            {
                events.append(&mut next.states);
                batches.push(next);
            }
            let timer = appender.parts.metrics.rows_seconds.start_timer();
            while let Err(error) = appender.parts.rows.apply(appender.lane, &events).await {
                warn!(lane = appender.lane.0, error = &error as &dyn std::error::Error, "rows can't be written");
                tokio::time::sleep(ROWS_AGAIN_AFTER).await;
            }
            timer.observe_duration();
            let mut state = appender.state();
            if let Some((.., offset)) = events.last() {
                state.tail.rows_in(*offset);
            }
            state.bytes -= batches.iter().map(|batch| batch.bytes).sum::<usize>();
            appender.send(&mut state);
            drop(state);
            for batch in batches {
                let _gone = batch.answer.send(Ok(()));
            }
        }
    }
}

/// How long it is until the next whole multiple of a time.
fn until_next(every: Duration, now_micros: u64) -> Duration {
    let every = u64::try_from(every.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(every - now_micros % every)
}

/// What became of a batch.
pub(crate) async fn answer(answered: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    answered.await.unwrap_or(Err(Error::Fenced { what: WHAT }))
}
