//! Reads behind the ring: large pieces of the log, encoded once for all who are near the same place.
//!
//! The number of reads under way is bounded; who waits for a turn looks first whether another's read has already
//! brought what it wants, so that a herd of subscribers that come back with the same cursor costs one read a piece.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use storage::{
    log::{EventLog, ReadError},
    seq::Seq,
};
use tokio::sync::Semaphore;

use super::{chunk::Chunk, metrics::Metrics, withheld::Withheld};

/// Reads of the log for subscribers that are behind.
pub struct Replay {
    log: Arc<dyn EventLog>,
    withheld: Arc<Withheld>,
    turns: Semaphore,
    recent: Recent,
    piece_bytes: usize,
    metrics: Metrics,
}

impl Replay {
    /// Reads `piece_bytes` at a time, at most `reads_max` at once, and keeps the last `recent_max` pieces to be shared.
    pub fn new(
        log: Arc<dyn EventLog>,
        withheld: Arc<Withheld>,
        piece_bytes: usize,
        reads_max: usize,
        recent_max: usize,
        metrics: Metrics,
    ) -> Replay {
        Replay {
            log,
            withheld,
            turns: Semaphore::new(reads_max),
            recent: Recent::new(recent_max),
            piece_bytes,
            metrics,
        }
    }

    /// The chunk in which a reader at `position` goes on; `None` where the log has nothing newer up to `tail`, the last
    /// event of which the hub knows whether it may be served. A later one might end a takedown: who was sent on past it
    /// without would never hear of it.
    pub async fn read(&self, position: Seq, tail: Seq) -> Result<Option<Arc<Chunk>>, ReadError> {
        if let Some(chunk) = self.shared(position) {
            return Ok(Some(chunk));
        }
        let _turn = self.turns.acquire().await.map_err(|_| storage::error::Error::Closed)?;
        if let Some(chunk) = self.shared(position) {
            return Ok(Some(chunk));
        }
        self.metrics.replay_reads.inc();
        let mut events = self.log.read(position, self.piece_bytes).await?;
        events.truncate(events.partition_point(|event| event.seq <= tail));
        if events.is_empty() {
            return Ok(None);
        }
        let chunk = Arc::new(Chunk::encode(position, &events, &self.withheld.filter()));
        self.recent.push(chunk.clone());
        Ok(Some(chunk))
    }

    /// Forgets what was read, because it may be served no longer.
    pub fn forget(&self) {
        self.recent.clear();
    }

    fn shared(&self, position: Seq) -> Option<Arc<Chunk>> {
        let chunk = self.recent.find(position, self.withheld.generation())?;
        self.metrics.replay_shared.inc();
        Some(chunk)
    }
}

/// The pieces read last, whoever read them.
struct Recent {
    chunks: Mutex<VecDeque<Arc<Chunk>>>,
    max: usize,
}

impl Recent {
    fn new(max: usize) -> Recent {
        Recent { chunks: Mutex::new(VecDeque::new()), max }
    }

    fn find(&self, position: Seq, generation: u64) -> Option<Arc<Chunk>> {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.iter().rev().find(|chunk| chunk.generation() == generation && chunk.continues(position)).cloned()
    }

    fn clear(&self) {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn push(&self, chunk: Arc<Chunk>) {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.push_back(chunk);
        if chunks.len() > self.max {
            chunks.pop_front();
        }
    }
}
