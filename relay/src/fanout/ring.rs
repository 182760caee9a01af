//! The newest chunks, in memory, bounded in bytes. Pure: the hub writes it and all subscribers read it.

use std::{collections::VecDeque, sync::Arc};

use storage::seq::Seq;

use super::chunk::Chunk;

/// What a reader finds at its position.
#[derive(Debug)]
pub enum Found {
    /// The next chunks, in order: at least one.
    Chunks(Vec<Arc<Chunk>>),
    /// Nothing newer yet.
    End,
    /// The position is older than what is held: read from the log.
    Behind,
}

/// Chunks that follow each other without a hole, the newest last.
#[derive(Debug)]
pub struct Ring {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
    bytes_max: usize,
    /// The seq before the first chunk.
    after: Seq,
    /// The last seq of the last chunk.
    last: Seq,
}

impl Ring {
    /// An empty ring that begins after `after`.
    pub fn new(after: Seq, bytes_max: usize) -> Ring {
        Ring { chunks: VecDeque::new(), bytes: 0, bytes_max, after, last: after }
    }

    /// Adds a chunk that follows the last one, and forgets the oldest while there are too many bytes.
    pub fn push(&mut self, chunk: Arc<Chunk>) {
        debug_assert_eq!(chunk.after(), self.last, "chunks follow each other");
        self.last = chunk.last();
        self.bytes += chunk.memory_bytes();
        self.chunks.push_back(chunk);
        while self.bytes > self.bytes_max && self.chunks.len() > 1 {
            if let Some(oldest) = self.chunks.pop_front() {
                self.bytes -= oldest.memory_bytes();
                self.after = oldest.last();
            }
        }
    }

    /// The seq before its first one.
    pub fn after(&self) -> Seq {
        self.after
    }

    /// Forgets everything and begins again after `after`.
    pub fn reset(&mut self, after: Seq) {
        *self = Ring::new(after, self.bytes_max);
    }

    /// What comes after `position`: about `bytes_max`.
    pub fn find(&self, position: Seq, bytes_max: usize) -> Found {
        if position >= self.last {
            return Found::End;
        }
        if position < self.after {
            return Found::Behind;
        }
        let first = self.chunks.partition_point(|chunk| chunk.last() <= position);
        let mut bytes = 0;
        let chunks = self.chunks.range(first..).take_while(|chunk| {
            let wire = chunk.frames().wire_bytes();
            let take = bytes == 0 || bytes + wire <= bytes_max;
            bytes += wire;
            take
        });
        Found::Chunks(chunks.cloned().collect())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use storage::log::Published;

    use super::*;
    use crate::fanout::withheld::tests::nothing;

    fn chunk(after: u64, events: u64) -> Arc<Chunk> {
        let events: Vec<_> = (1..=events)
            .map(|i| Published { seq: Seq(after + i), account: 0, taken_down: false, frame: Bytes::from(vec![0; 98]) })
            .collect();
        Arc::new(Chunk::encode(Seq(after), &events, &nothing().filter()))
    }

    fn afters(found: Found) -> Vec<u64> {
        match found {
            Found::Chunks(chunks) => chunks.iter().map(|chunk| chunk.after().0).collect(),
            Found::End | Found::Behind => panic!("{found:?}"),
        }
    }

    #[test]
    fn readers_find_their_place() {
        let each = chunk(0, 3).memory_bytes();
        let mut ring = Ring::new(Seq(100), 3 * each);
        assert!(matches!(ring.find(Seq(100), 1), Found::End));
        assert!(matches!(ring.find(Seq(99), 1), Found::Behind));
        for after in [100, 103, 106] {
            ring.push(chunk(after, 3));
        }
        assert_eq!(ring.bytes(), 3 * each);
        assert_eq!(afters(ring.find(Seq(100), 600)), [100, 103]);
        assert_eq!(afters(ring.find(Seq(104), 1)), [103], "at least one");
        assert!(matches!(ring.find(Seq(109), 1), Found::End));
        assert!(matches!(ring.find(Seq(200), 1), Found::End), "the log may be ahead of the ring");

        ring.push(chunk(109, 3));
        assert_eq!(ring.bytes(), 3 * each);
        assert!(matches!(ring.find(Seq(102), 1), Found::Behind));
        assert_eq!(afters(ring.find(Seq(103), 9999)), [103, 106, 109]);

        ring.push(chunk(112, 20));
        assert_eq!(afters(ring.find(Seq(112), 1)), [112], "one chunk over the bound is kept alone");
        ring.reset(Seq(500));
        assert!(matches!(ring.find(Seq(132), 1), Found::Behind));
    }
}
