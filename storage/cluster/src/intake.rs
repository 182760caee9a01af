//! The intake: frames and commands into `raw`, and out of it by lane.
//!
//! A frame is taken when all replicas that count have it: its receipt is told then. What is under way is bounded in
//! bytes, and so is what `raw` holds ([`Room`]); waiting for either is the back-pressure on the hosts' sockets. Commands
//! don't wait for room in `raw`: they are few, and an operator's word is not to wait behind a network's events.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use storage::{
    error::Error,
    intake::{Command, CommandReceipt, Intake, Position, RawFrame, Taken},
    lane::{Lane, LaneCount},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    kafka::{client::partition, producer::Producer},
    lanes::Lanes,
    metrics::Metrics,
    room::{RawRoom, Room},
    rows::LaneRows,
    wire::raw::{self, CommandId},
};

/// What a record is counted as beside its frame.
const RECORD_OVERHEAD_BYTES: usize = 768;
/// How soon a command's end is looked for, and how seldom at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long a command's end is waited for. Its row ends after an hour.
const COMMAND_ENDS_WITHIN: Duration = Duration::from_secs(30 * 60);

/// What the intake works with.
pub(crate) struct Parts {
    pub(crate) topic: String,
    pub(crate) lanes: LaneCount,
    pub(crate) producer: Arc<Producer>,
    pub(crate) rows: Arc<dyn LaneRows>,
    pub(crate) metrics: Metrics,
    /// Bytes that may be under way.
    pub(crate) bytes_max: usize,
    /// What `raw` may hold; `None` where no frames are pushed.
    pub(crate) raw: Option<Room>,
    /// The lanes that are judged here, if any are.
    pub(crate) judged: Option<Arc<Lanes>>,
}

/// See the module's documentation.
pub(crate) struct RawIntake {
    parts: Parts,
    /// For what is under way.
    room: Arc<Semaphore>,
    room_bytes: u32,
    closed: CancellationToken,
    /// Wait for the ends of commands.
    waiting: Mutex<JoinSet<()>>,
}

impl RawIntake {
    pub(crate) fn new(parts: Parts) -> RawIntake {
        let room_bytes = u32::try_from(parts.bytes_max.max(1)).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        RawIntake { parts, room, room_bytes, closed: CancellationToken::new(), waiting: Mutex::default() }
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.room.close();
    }

    /// What `raw` holds.
    pub(crate) fn raw(&self) -> Option<watch::Receiver<RawRoom>> {
        self.parts.raw.as_ref().map(Room::room)
    }

    async fn enter(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let cost = u32::try_from(bytes + RECORD_OVERHEAD_BYTES).unwrap_or(u32::MAX).min(self.room_bytes);
        Arc::clone(&self.room).acquire_many_owned(cost).await.map_err(|_closed| Error::Closed)
    }

    fn send(
        &self,
        lane: Lane,
        record: &[u8],
        permit: OwnedSemaphorePermit,
        taken: impl FnOnce() + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (began, seconds) = (Instant::now(), self.parts.metrics.push_seconds.clone());
        let delivered = Box::new(move |delivered: Result<i64, _>| {
            // Of what can't be delivered nobody is told: its host sends it again.
            if delivered.is_ok() {
                seconds.observe(began.elapsed().as_secs_f64());
                taken();
            }
            drop(permit);
        });
        self.parts.producer.send(&self.parts.topic, partition(lane), record, delivered)
    }

    fn judged(&self) -> Result<&Arc<Lanes>, Error> {
        self.parts.judged.as_ref().ok_or(Error::Closed)
    }
}

#[async_trait]
impl Intake for RawIntake {
    fn lanes(&self) -> LaneCount {
        self.parts.lanes
    }

    async fn push(&self, frame: RawFrame) -> Result<(), Error> {
        if let Some(raw) = &self.parts.raw {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return Err(Error::Closed),
                waited = raw.wait() => waited?,
            }
        }
        let permit = self.enter(frame.bytes.len()).await?;
        let mut record = Vec::new();
        raw::write_frame(&mut record, &frame);
        let lane = self.parts.lanes.lane_of(&frame.did);
        let RawFrame { receipts, upstream_seq, .. } = frame;
        if let Some(raw) = &self.parts.raw {
            raw.pushed(record.len());
        }
        self.send(lane, &record, permit, move || receipts.taken(upstream_seq))
    }

    async fn push_command(&self, command: Command) -> Result<(), Error> {
        let permit = self.enter(0).await?;
        let id: CommandId = rand::random();
        let mut record = Vec::new();
        raw::write_command(&mut record, &command, &id);
        let lane = self.parts.lanes.lane_of(&command.did);
        self.send(lane, &record, permit, || {})?;
        let rows = Arc::clone(&self.parts.rows);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.try_join_next().is_some() {}
        waiting.spawn(tell_when_ended(rows, id, command.receipt));
        Ok(())
    }

    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error> {
        let held = self.judged()?.held(lane).await?;
        tokio::select! {
            biased;
            () = held.appender().fenced().cancelled() => Err(Error::Fenced { what: "pull from a lane" }),
            pulled = held.pull(bytes_max) => pulled,
        }
    }

    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error> {
        let held = self.judged()?.held_now(lane).ok_or(Error::Fenced { what: "cover a lane" })?;
        held.cover(position);
        Ok(())
    }

    async fn settle(&self, _lane: Lane, _positions: &[Position]) -> Result<(), Error> {
        // The records in `verified` say so.
        Ok(())
    }

    fn bytes_held(&self) -> u64 {
        u64::from(self.room_bytes) - self.room.available_permits() as u64
    }
}

async fn tell_when_ended(rows: Arc<dyn LaneRows>, id: CommandId, receipt: Arc<dyn CommandReceipt>) {
    let (until, mut wait) = (Instant::now() + COMMAND_ENDS_WITHIN, LOOKS.0);
    while Instant::now() < until {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOKS.1);
        match rows.find(&id).await {
            Ok(Some(answer)) => return receipt.settled(answer),
            Ok(None) => {}
            Err(error) => warn!(error = &error as &dyn std::error::Error, "a command's end can't be looked for"),
        }
    }
    warn!("a command has not ended; nobody is told");
}
