//! Chunks deflated for the subscribers that take them so: each once for all, off the async threads, a few at a time.
//!
//! What must hold: nothing is deflated that nobody wants, and what waits to be deflated is in memory anyway or bounded.
//! A chunk's deflated form is never longer than the plain one, and goes with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::ws::Deflater;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::error;

use super::{
    chunk::{Chunk, Deflated},
    metrics::Metrics,
};

/// How hard it is tried. Level 1 makes real frames about as small as the higher ones, in a fraction of the time:
/// `cargo bench --bench deflating` shows it.
pub const LEVEL: u32 = 1;

/// The means to deflate chunks.
pub struct Deflating {
    jobs: Semaphore,
    /// Readers behind the ring that hold a piece to be deflated.
    behind: Semaphore,
    idle: Mutex<Vec<Deflater>>,
    metrics: Metrics,
}

impl Deflating {
    /// At most `jobs_max` at once: so many threads, and so many [`Deflater`]s in memory.
    pub fn new(jobs_max: usize, metrics: Metrics) -> Deflating {
        let jobs_max = jobs_max.max(1);
        Deflating { jobs: Semaphore::new(jobs_max), behind: Semaphore::new(jobs_max), idle: Mutex::default(), metrics }
    }

    /// The right to hold a piece that is not kept in memory for others.
    pub async fn turn_behind(&self) -> Option<SemaphorePermit<'_>> {
        self.behind.acquire().await.ok()
    }

    /// Deflates a chunk, or waits for who does. Where that fails, it stays plain, as which it may be sent, too.
    pub async fn deflate(self: &Arc<Self>, chunk: &Arc<Chunk>) {
        chunk.deflate(|| self.make(Arc::clone(chunk))).await;
    }

    async fn make(self: &Arc<Self>, chunk: Arc<Chunk>) -> Option<Deflated> {
        let _job = self.jobs.acquire().await.ok()?;
        let this = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let mut deflater = this.idle().pop().unwrap_or_else(|| Deflater::new(LEVEL));
            let frames = chunk.frames().deflate(&mut deflater);
            this.idle().push(deflater);
            this.metrics.deflate_read_bytes.inc_by(chunk.frames().wire_bytes() as u64);
            this.metrics.deflate_made_bytes.inc_by(frames.wire_bytes() as u64);
            Deflated::new(frames, this.metrics.deflated_bytes.clone())
        });
        // It panics, or the runtime ends.
        made.await.inspect_err(|error| error!(%error, "failed to deflate a chunk")).ok()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Deflater>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use runtime::ws::{Decoder, Event, Role};

    use super::*;
    use crate::fanout::chunk::tests::{chunk, spread};

    /// The messages of some frames, and how many of them were deflated.
    fn messages(frames: &crate::fanout::chunk::Frames) -> (Vec<Vec<u8>>, usize) {
        let mut decoder = Decoder::new(Role::Client, 1 << 20).taking_deflated(true);
        let mut deflated = 0;
        let messages = frames.marks().iter().map(|mark| {
            let mut bytes = frames.bytes(mark.start, mark.end);
            deflated += usize::from(bytes[0] & 0x40 != 0);
            match decoder.next(&mut bytes) {
                Ok(Some(Event::Message { payload, .. })) => payload.to_vec(),
                other => panic!("{other:?}"),
            }
        });
        (messages.collect(), deflated)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_chunk_is_deflated_once_for_all() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let deflating = Arc::new(Deflating::new(2, metrics.clone()));
        let adjacent = chunk(10, &[0, 1, 200, 2_000, 70_000]);
        for chunk in [spread(&adjacent), adjacent] {
            let before = metrics.deflate_read_bytes.get();
            assert!(chunk.deflated().is_none());
            tokio::join!(deflating.deflate(&chunk), deflating.deflate(&chunk), deflating.deflate(&chunk));
            let deflated = chunk.deflated().expect("it was made");
            let (plain, none) = messages(chunk.frames());
            assert_eq!(
                (messages(deflated), none),
                ((plain, 3), 0),
                "the long ones are shorter so, the short ones are not"
            );
            let accounts = |frames: &crate::fanout::chunk::Frames| {
                frames.marks().iter().map(|mark| (mark.seq, mark.account)).collect::<Vec<_>>()
            };
            assert_eq!(accounts(deflated), accounts(chunk.frames()));
            assert!(deflated.are_adjacent() && deflated.wire_bytes() < 1_000, "{}", deflated.wire_bytes());
            assert_eq!(metrics.deflate_read_bytes.get() - before, chunk.frames().wire_bytes() as u64, "once");
            assert!(metrics.deflated_bytes.get() > 0);
        }
        assert_eq!(metrics.deflated_bytes.get(), 0, "what was let go of is not counted");
    }
}
