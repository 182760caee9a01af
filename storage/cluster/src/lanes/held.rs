//! A lane that is ours: taking it over, and what is read and appended while it is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::Histogram;
use runtime::clock::Clock;
use storage::{
    error::Error,
    intake::{CommandReceipt, Declined, Position, Receipts, Taken, Work},
    lane::Lane,
    repos::RepoState,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{info, warn};

use super::Parts;
use crate::{
    kafka::{client::partition, reader::Partition},
    recovery::{Recovered, Recovery},
    rows::{Answer, LaneRows},
    tail::{Resume, Tail},
    verified::{self, Appender},
    wire::{
        Malformed,
        raw::{CommandId, Order, Record},
        verified::{Instance, View},
    },
};

/// Bytes of states that are written into rows together while a lane is taken over.
const RECOVERED_AT_ONCE: usize = 2_000;

/// A lane that is ours until it is fenced.
pub(crate) struct Held {
    lane: Lane,
    raw: Partition,
    recovered: Mutex<Recovered>,
    appender: Arc<Appender>,
    /// The position that was given out last, and one.
    pulled_before: AtomicU64,
    answers: mpsc::UnboundedSender<Ended>,
    rows: Arc<dyn LaneRows>,
    clock: Clock,
    wait_seconds: Histogram,
    /// Ends with this value.
    _tasks: JoinSet<()>,
}

/// A command that has ended, or the wish to know that all before are told.
enum Ended {
    Now(CommandId, Answer),
    /// Carried out by who had the lane before.
    Before(Order),
    Flush(oneshot::Sender<()>),
}

impl Held {
    /// Takes a lane over: claims it, reads what came before the claim, and is ready to go on from there.
    pub(crate) async fn take(parts: &Parts, lane: Lane, resume: Resume) -> Result<Held, Error> {
        let began = tokio::time::Instant::now();
        let claim = lay_claim(parts, lane).await?;
        parts.metrics.claims.inc();
        parts.rows.own(lane);
        let recovered = recover(parts, lane, resume, claim).await?;
        let raw = parts.reader.open(&parts.topics.raw, partition(lane), offset(resume.raw))?;
        let tail = Tail::new(claim, resume.raw, recovered.kept.clone());
        let appending = verified::Parts {
            topic: parts.topics.verified.clone(),
            producer: Arc::clone(&parts.producer),
            rows: Arc::clone(&parts.rows),
            clock: parts.clock.clone(),
            bytes_max: parts.limits.appended_bytes_max,
            metrics: parts.metrics.clone(),
        };
        let (appender, settling) = Appender::new(appending, lane, claim, tail);
        let (answers, ended) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(settling.run(Arc::clone(&appender)));
        tasks.spawn(answer_commands(Arc::clone(&parts.rows), ended));
        parts.metrics.take_seconds.observe(began.elapsed().as_secs_f64());
        info!(lane = lane.0, claim, raw = resume.raw, settled = recovered.settled.len(), "took the lane over");
        Ok(Held {
            lane,
            raw,
            recovered: Mutex::new(recovered),
            appender,
            pulled_before: AtomicU64::new(resume.raw),
            answers,
            rows: Arc::clone(&parts.rows),
            clock: parts.clock.clone(),
            wait_seconds: parts.metrics.wait_seconds.clone(),
            _tasks: tasks,
        })
    }

    /// Where events go.
    pub(crate) fn appender(&self) -> &Arc<Appender> {
        &self.appender
    }

    /// What comes next. Cancel-safe.
    pub(crate) async fn pull(&self, bytes_max: usize) -> Result<Vec<Taken>, Error> {
        let mut bytes = 0;
        let mut all = Vec::new();
        while all.is_empty() {
            // Nothing is waited for once something is taken.
            let first = self.raw.next(|offset, record| self.receive(offset, record, &mut bytes)).await?;
            all.extend(first);
            while bytes < bytes_max
                && let Some(next) = self.raw.next_if_here(|offset, record| self.receive(offset, record, &mut bytes))
            {
                all.extend(next?);
            }
        }
        Ok(all)
    }

    /// All up to this position, as far as it was given out, is settled.
    pub(crate) fn cover(&self, position: Position) {
        if let Some(last) = self.pulled_before.load(Ordering::Relaxed).checked_sub(1) {
            self.appender.cover(position.min(Position(last)));
        }
    }

    /// Waits until all answers to commands are in rows, or can't be.
    pub(crate) async fn flush(&self) {
        let (flushed, done) = oneshot::channel();
        if self.answers.send(Ended::Flush(flushed)).is_ok() {
            let _gone = done.await;
        }
    }

    fn receive(&self, offset: i64, record: &[u8], bytes: &mut usize) -> Result<Option<Taken>, Error> {
        let position = Position(u64::try_from(offset).map_err(|_| damaged(self.lane, offset))?);
        let record = Record::decode(record).map_err(|_| damaged(self.lane, offset))?;
        self.pulled_before.store(position.0 + 1, Ordering::Relaxed);
        let mut recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match record {
            Record::Frame(_) if recovered.takes(position) => return Ok(None),
            Record::Command(order) if recovered.takes_command(position, &order.did) => {
                // Whoever waits may not have been told.
                let _ends = self.answers.send(Ended::Before(order));
                return Ok(None);
            }
            Record::Frame(frame) => frame.into_work(Arc::new(TakenBefore)),
            Record::Command(order) => {
                self.appender.expect_command(position);
                let receipt = Teller { id: order.id, answers: self.answers.clone() };
                order.into_work(Arc::new(receipt))
            }
        };
        drop(recovered);
        *bytes += match &work {
            Work::Frame(frame) => {
                // The crawler's clock may be ahead of ours.
                let waited = self.clock.now_micros().saturating_sub(frame.received_at_micros);
                self.wait_seconds.observe(Duration::from_micros(waited).as_secs_f64());
                frame.bytes.len().max(1)
            }
            Work::Command(_) => 1,
        };
        Ok(Some(Taken { position, work }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.appender.fence();
        self.rows.disown(self.lane);
    }
}

async fn lay_claim(parts: &Parts, lane: Lane) -> Result<i64, Error> {
    let what = "lay claim to a lane";
    let (told, delivered) = oneshot::channel();
    let instance: Instance = rand::random();
    let record = View::Claim(instance).encode();
    let tell = Box::new(move |delivered| {
        let _gone = told.send(delivered);
    });
    parts.producer.send(&parts.topics.verified, partition(lane), &record, tell)?;
    match delivered.await {
        Ok(Ok(offset)) => Ok(offset),
        Ok(Err(undelivered)) => Err(undelivered.during(what)),
        Err(_) => Err(Error::Closed),
    }
}

/// Reads what may matter before our claim, and writes the rows that may be missing.
async fn recover(parts: &Parts, lane: Lane, resume: Resume, claim: i64) -> Result<Recovered, Error> {
    let topic = &parts.topics.verified;
    let mut recovery = Recovery::new(resume);
    if resume.verified < claim {
        let reading = parts.reader.open(topic, partition(lane), resume.verified)?;
        let mut states = Vec::new();
        let mut at = resume.verified;
        while at < claim {
            let (offset, state) = reading
                .next(|offset, record| {
                    if offset >= claim {
                        return Ok((offset, None));
                    }
                    let state = recovery.take(offset, record);
                    Ok((offset, state.map_err(|malformed| unreadable(lane, offset, malformed))?))
                })
                .await?;
            parts.metrics.recovered.inc();
            states.extend(state.map(|(did, state)| (did, state, offset)));
            if states.len() >= RECOVERED_AT_ONCE {
                parts.rows.apply(lane, &states).await?;
                states.clear();
            }
            at = offset + 1;
        }
        parts.rows.apply(lane, &states).await?;
    }
    Ok(recovery.finish())
}

fn offset(position: u64) -> i64 {
    i64::try_from(position).expect("positions are offsets")
}

fn damaged(lane: Lane, offset: i64) -> Error {
    Error::Damaged { what: format!("record {offset} of lane {} of raw", lane.0) }
}

fn unreadable(lane: Lane, offset: i64, malformed: Malformed) -> Error {
    Error::Damaged { what: format!("record {offset} of lane {} of verified: {malformed}", lane.0) }
}

/// A frame's receipt was told when it came into `raw`.
struct TakenBefore;

impl Receipts for TakenBefore {
    fn taken(&self, _upstream_seq: u64) {}
}

/// Tells how a command ended through its row.
struct Teller {
    id: CommandId,
    answers: mpsc::UnboundedSender<Ended>,
}

impl CommandReceipt for Teller {
    fn settled(&self, result: Result<RepoState, Declined>) {
        // Where the lane is gone, its next owner tells.
        let _gone = self.answers.send(Ended::Now(self.id, result));
    }
}

async fn answer_commands(rows: Arc<dyn LaneRows>, mut ended: mpsc::UnboundedReceiver<Ended>) {
    while let Some(ended) = ended.recv().await {
        let (id, answer) = match ended {
            Ended::Flush(flushed) => {
                let _gone = flushed.send(());
                continue;
            }
            Ended::Now(id, answer) => (id, Ok(answer)),
            Ended::Before(order) => {
                (order.id, rows.state(&order.did).await.map(|state| state.ok_or(Declined::UnknownAccount)))
            }
        };
        let told = match answer {
            Ok(answer) => rows.answer(&id, &answer).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            warn!(error = &error as &dyn std::error::Error, "nobody hears how a command ended");
        }
    }
}
