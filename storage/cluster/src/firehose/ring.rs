//! The newest events in memory, bounded in bytes.

use std::collections::VecDeque;

use storage::{log::Published, seq::Seq};

/// What an event is counted as beside its frame.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// Events in order; the oldest go first.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Published>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(bytes_max: usize) -> Ring {
        Ring { events: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the next event; one alone is always kept.
    pub(super) fn push(&mut self, event: Published) {
        self.bytes += EVENT_OVERHEAD_BYTES + event.frame.len();
        self.events.push_back(event);
        while self.bytes > self.bytes_max && self.events.len() > 1 {
            if let Some(gone) = self.events.pop_front() {
                self.bytes -= EVENT_OVERHEAD_BYTES + gone.frame.len();
            }
        }
    }

    /// The newest event.
    pub(super) fn last(&self) -> Option<Seq> {
        self.events.back().map(|event| event.seq)
    }

    /// The oldest event.
    pub(super) fn first(&self) -> Option<Seq> {
        self.events.front().map(|event| event.seq)
    }

    /// The events after `after`, at least one and about `bytes_max`; `None` where the next one is not here.
    pub(super) fn read(&self, after: Seq, bytes_max: usize) -> Option<Vec<Published>> {
        if self.first()? > after.next() {
            return None;
        }
        let from = self.events.partition_point(|event| event.seq <= after);
        Some(some_of(self.events.range(from..), bytes_max)).filter(|found| !found.is_empty())
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }
}

/// At least one, and about so many bytes of frames.
pub(super) fn some_of<'a>(events: impl Iterator<Item = &'a Published>, bytes_max: usize) -> Vec<Published> {
    let mut bytes = 0;
    events
        .take_while(|event| {
            let takes = bytes == 0 || bytes + event.frame.len() <= bytes_max;
            bytes += event.frame.len();
            takes
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(seq: u64, len: usize) -> Published {
        Published { seq: Seq(seq), account: 1, taken_down: false, frame: Bytes::from(vec![1; len]) }
    }

    fn seqs(found: Option<Vec<Published>>) -> Option<Vec<u64>> {
        found.map(|events| events.iter().map(|event| event.seq.0).collect())
    }

    #[test]
    fn keeps_the_newest_within_its_bytes() {
        let mut ring = Ring::new(4 * (100 + EVENT_OVERHEAD_BYTES));
        assert_eq!(seqs(ring.read(Seq(0), 1000)), None);
        (11..=20).for_each(|seq| ring.push(event(seq, 100)));
        assert_eq!((ring.first(), ring.last()), (Some(Seq(17)), Some(Seq(20))));
        let table: [(u64, usize, Option<&[u64]>); 7] = [
            (15, 1000, None),
            (16, 1000, Some(&[17, 18, 19, 20])),
            (16, 250, Some(&[17, 18])),
            (17, 0, Some(&[18])),
            (19, 1000, Some(&[20])),
            (20, 1000, None),
            (99, 1000, None),
        ];
        for (after, bytes_max, found) in table {
            assert_eq!(seqs(ring.read(Seq(after), bytes_max)).as_deref(), found, "after {after}");
        }
        ring.push(event(21, 10_000));
        assert_eq!(seqs(ring.read(Seq(20), 1)), Some(vec![21]));
        assert_eq!(ring.first(), Some(Seq(21)));
    }

    #[test]
    fn a_jump_is_gone_over() {
        let mut ring = Ring::new(1 << 20);
        [event(1, 5), event(2, 5), event(100, 5)].into_iter().for_each(|event| ring.push(event));
        assert_eq!(seqs(ring.read(Seq(2), 1000)), Some(vec![100]));
        assert_eq!(seqs(ring.read(Seq(50), 1000)), Some(vec![100]));
    }
}
