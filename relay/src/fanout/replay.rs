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

use super::{chunk::Chunk, metrics::Metrics};

/// Reads of the log for subscribers that are behind.
pub struct Replay {
    log: Arc<dyn EventLog>,
    turns: Semaphore,
    recent: Recent,
    piece_bytes: usize,
    metrics: Metrics,
}

impl Replay {
    /// Reads `piece_bytes` at a time, at most `reads_max` at once, and keeps the last `recent_max` pieces to be shared.
    pub fn new(
        log: Arc<dyn EventLog>,
        piece_bytes: usize,
        reads_max: usize,
        recent_max: usize,
        metrics: Metrics,
    ) -> Replay {
        Replay { log, turns: Semaphore::new(reads_max), recent: Recent::new(recent_max), piece_bytes, metrics }
    }

    /// The chunk in which a reader at `position` goes on; `None` where the log has nothing newer.
    pub async fn read(&self, position: Seq) -> Result<Option<Arc<Chunk>>, ReadError> {
        if let Some(chunk) = self.shared(position) {
            return Ok(Some(chunk));
        }
        let _turn = self.turns.acquire().await.map_err(|_| storage::error::Error::Closed)?;
        if let Some(chunk) = self.shared(position) {
            return Ok(Some(chunk));
        }
        self.metrics.replay_reads.inc();
        let events = self.log.read(position, self.piece_bytes).await?;
        if events.is_empty() {
            return Ok(None);
        }
        let chunk = Arc::new(Chunk::encode(position, &events));
        self.recent.push(chunk.clone());
        Ok(Some(chunk))
    }

    fn shared(&self, position: Seq) -> Option<Arc<Chunk>> {
        let chunk = self.recent.find(position)?;
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

    fn find(&self, position: Seq) -> Option<Arc<Chunk>> {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.iter().rev().find(|chunk| chunk.continues(position)).cloned()
    }

    fn push(&self, chunk: Arc<Chunk>) {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.push_back(chunk);
        if chunks.len() > self.max {
            chunks.pop_front();
        }
    }
}
