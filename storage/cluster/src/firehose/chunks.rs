//! Older events that were read for somebody: whoever comes near takes them from here. Bounded in bytes; the longest unused
//! go first.

use std::{collections::BTreeMap, sync::Arc};

use storage::{log::Published, seq::Seq};

use super::ring::some_of;

/// Events that follow one another.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) events: Vec<Published>,
    pub(super) bytes: usize,
}

struct Kept {
    chunk: Arc<Chunk>,
    last: Seq,
    used: u64,
}

/// By the seq that they follow.
pub(super) struct Chunks {
    kept: BTreeMap<Seq, Kept>,
    bytes: usize,
    bytes_max: usize,
    uses: u64,
}

impl Chunks {
    pub(super) fn new(bytes_max: usize) -> Chunks {
        Chunks { kept: BTreeMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    /// Keeps what was read for `after`.
    pub(super) fn keep(&mut self, after: Seq, chunk: Chunk) {
        let Some(last) = chunk.events.last().map(|event| event.seq) else { return };
        self.uses += 1;
        self.bytes += chunk.bytes;
        let kept = Kept { chunk: Arc::new(chunk), last, used: self.uses };
        if let Some(old) = self.kept.insert(after, kept) {
            self.bytes -= old.chunk.bytes;
        }
        while self.bytes > self.bytes_max && self.kept.len() > 1 {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(after, _)| *after);
            if let Some(gone) = oldest.and_then(|after| self.kept.remove(&after)) {
                self.bytes -= gone.chunk.bytes;
            }
        }
    }

    /// The events after `after`, at least one and about `bytes_max`, if they are here.
    pub(super) fn read(&mut self, after: Seq, bytes_max: usize) -> Option<Vec<Published>> {
        self.uses += 1;
        let (_, kept) = self.kept.range_mut(..=after).next_back().filter(|(_, kept)| kept.last > after)?;
        kept.used = self.uses;
        let events = &kept.chunk.events;
        let from = events.partition_point(|event| event.seq <= after);
        Some(some_of(events[from..].iter(), bytes_max))
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(seqs: std::ops::RangeInclusive<u64>) -> Chunk {
        let frame = Bytes::from_static(&[1; 10]);
        let event = |seq| Published { seq: Seq(seq), account: 1, taken_down: false, frame: frame.clone() };
        let events: Vec<_> = seqs.map(event).collect();
        Chunk { bytes: 10 * events.len(), events }
    }

    fn first(chunks: &mut Chunks, after: u64) -> Option<u64> {
        chunks.read(Seq(after), 0).map(|events| events[0].seq.0)
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut chunks = Chunks::new(300);
        chunks.keep(Seq(0), chunk(1..=10));
        chunks.keep(Seq(10), chunk(11..=20));
        chunks.keep(Seq(100), chunk(120..=129));
        assert_eq!(first(&mut chunks, 9), Some(10));
        chunks.keep(Seq(200), chunk(201..=210));
        assert_eq!(first(&mut chunks, 10), None);
        for (after, found) in
            [(0, Some(1)), (100, Some(120)), (110, Some(120)), (129, None), (205, Some(206)), (50, None)]
        {
            assert_eq!(first(&mut chunks, after), found, "after {after}");
        }
    }
}
