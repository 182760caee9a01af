//! The pieces of the log that were read last, bounded in bytes, for all who are near the same place. Pure.
//!
//! What must hold: a piece that was made under another state of what may not be served is never given. The piece that
//! was used longest ago goes first; one that was read ahead counts as used when it was read.
//!
//! One reader that goes through the log alone needs no more than the piece it sends and the next: as long as all pieces
//! are of one line and nobody comes behind it, few are kept, so that their memory is used again while it is in the
//! processor's cache.

use std::{collections::VecDeque, sync::Arc};

use storage::seq::Seq;
use tokio::time::Instant;

use super::chunk::Chunk;

/// Pieces, the one used last at the back.
#[derive(Debug)]
pub struct Pieces {
    held: VecDeque<Held>,
    bytes: usize,
    bytes_max: usize,
    /// The last seq of the piece that was taken in last.
    line_end: Seq,
    /// How many were taken in since, each of which followed the one before and was read by one reader only.
    line_pieces: u32,
}

/// So many pieces of one line make one reader.
const LINE_PIECES: u32 = 8;
/// One reader's part of all bytes.
const LINE_PART: usize = 8;

#[derive(Debug)]
struct Held {
    chunk: Arc<Chunk>,
    used_at: Instant,
    /// The furthest position somebody used it at.
    furthest: Option<Seq>,
    /// Read ahead, and nobody has come for it yet.
    ahead: bool,
}

/// Why a piece was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A reader waits for it.
    Now,
    /// One will probably come.
    Ahead,
}

impl Pieces {
    /// None yet; at most `bytes_max`, unless two alone are more.
    pub fn new(bytes_max: usize) -> Pieces {
        Pieces { held: VecDeque::new(), bytes: 0, bytes_max, line_end: Seq(0), line_pieces: 0 }
    }

    /// The piece in which a reader at `position` goes on: where there are several, the one that leads furthest.
    pub fn find(&mut self, position: Seq, generation: u64, now: Instant) -> Option<Arc<Chunk>> {
        let continues = |held: &Held| held.chunk.generation() == generation && held.chunk.continues(position);
        let candidates = self.held.iter().enumerate().filter(|(_, held)| continues(held));
        let (at, _) = candidates.max_by_key(|(_, held)| held.chunk.last())?;
        let mut held = self.held.remove(at)?;
        if held.furthest.is_some_and(|furthest| position <= furthest) {
            self.line_pieces = 0;
        }
        (held.used_at, held.ahead, held.furthest) = (now, false, held.furthest.max(Some(position)));
        let chunk = Arc::clone(&held.chunk);
        self.held.push_back(held);
        Some(chunk)
    }

    /// Whether there is a piece for a reader at `position`. Uses none.
    pub fn has(&self, position: Seq, generation: u64) -> bool {
        self.held.iter().any(|held| held.chunk.generation() == generation && held.chunk.continues(position))
    }

    /// Whether there is room to read more ahead: half of the bytes are for what was wanted.
    pub fn may_read_ahead(&self) -> bool {
        let ahead = self.held.iter().filter(|held| held.ahead).map(|held| held.chunk.memory_bytes());
        ahead.sum::<usize>() <= self.bytes_max / 2
    }

    /// Takes a piece in. Those that were used longest ago make room, and all of another generation go.
    pub fn insert(&mut self, chunk: Arc<Chunk>, wanted: Wanted, now: Instant) {
        let generation = chunk.generation();
        self.held.retain(|held| held.chunk.generation() == generation);
        self.line_pieces = if chunk.after() == self.line_end { self.line_pieces.saturating_add(1) } else { 0 };
        self.line_end = chunk.last();
        let furthest = (wanted == Wanted::Now).then_some(chunk.after());
        self.held.push_back(Held { chunk, used_at: now, furthest, ahead: wanted == Wanted::Ahead });
        self.bytes = self.held.iter().map(|held| held.chunk.memory_bytes()).sum();
        let bytes_max = if self.line_pieces < LINE_PIECES { self.bytes_max } else { self.bytes_max / LINE_PART };
        while self.bytes > bytes_max && self.held.len() > 2 {
            self.pop();
        }
    }

    /// Lets go of what nobody has used since.
    pub fn forget_unused_since(&mut self, since: Instant) {
        while self.held.front().is_some_and(|held| held.used_at < since) {
            self.pop();
        }
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.held.pop_front() {
            self.bytes -= oldest.chunk.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fanout::chunk::tests::chunk;

    /// Ten events of 100 bytes.
    fn piece(after: u64) -> Arc<Chunk> {
        chunk(after, &[100; 10])
    }

    #[test]
    fn a_position_finds_the_piece_that_leads_furthest() {
        let now = Instant::now();
        let mut pieces = Pieces::new(1 << 20);
        for after in [0, 10, 5] {
            pieces.insert(piece(after), Wanted::Now, now);
        }
        let mut found = |position| pieces.find(Seq(position), 0, now).map(|chunk| chunk.after().0);
        assert_eq!(
            [0, 4, 5, 9, 10, 14, 15, 19, 20].map(&mut found),
            [Some(0), Some(0), Some(5), Some(5), Some(10), Some(10), Some(10), Some(10), None]
        );
        assert!(pieces.has(Seq(19), 0) && !pieces.has(Seq(20), 0) && !pieces.has(Seq(19), 1));
        assert!(pieces.find(Seq(0), 1, now).is_none(), "of another generation");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let now = Instant::now();
        let one = piece(0).memory_bytes();
        let mut pieces = Pieces::new(3 * one);
        for after in [0, 10, 20] {
            pieces.insert(piece(after), Wanted::Now, now);
        }
        assert!(pieces.find(Seq(0), 0, now).is_some());
        pieces.insert(piece(30), Wanted::Now, now);
        assert_eq!([0, 10, 20, 30].map(|after| pieces.has(Seq(after), 0)), [true, false, true, true]);
        assert_eq!(pieces.bytes(), 3 * one);
        let later = now + Duration::from_secs(1);
        assert!(pieces.find(Seq(20), 0, later).is_some());
        pieces.forget_unused_since(later);
        assert_eq!([0, 20, 30].map(|after| pieces.has(Seq(after), 0)), [false, true, false]);
        assert_eq!(pieces.bytes(), one);
        let mut tiny = Pieces::new(1);
        for after in [0, 10, 20] {
            tiny.insert(piece(after), Wanted::Now, now);
        }
        assert_eq!([0, 10, 20].map(|after| tiny.has(Seq(after), 0)), [false, true, true], "one and the next are kept");
    }

    #[test]
    fn one_reader_alone_keeps_little() {
        let now = Instant::now();
        let one = piece(0).memory_bytes();
        let kept = |readers: u64| {
            let mut pieces = Pieces::new(32 * one);
            for number in 0..100 {
                pieces.insert(piece(10 * number), Wanted::Ahead, now);
                for _ in 0..readers {
                    pieces.find(Seq(10 * number), 0, now).unwrap();
                    pieces.find(Seq(10 * number + 5), 0, now).unwrap();
                }
            }
            pieces.bytes() / one
        };
        assert_eq!([1, 2].map(kept), [4, 32]);
        let mut two_lines = Pieces::new(32 * one);
        for number in 0..100 {
            two_lines.insert(piece(10 * number), Wanted::Ahead, now);
            two_lines.insert(piece(100_000 + 10 * number), Wanted::Ahead, now);
        }
        assert_eq!(two_lines.bytes() / one, 32);
    }

    #[test]
    fn half_is_for_what_was_wanted() {
        let now = Instant::now();
        let mut pieces = Pieces::new(4 * piece(0).memory_bytes());
        let mut ahead = 0;
        while pieces.may_read_ahead() {
            pieces.insert(piece(10 * ahead), Wanted::Ahead, now);
            ahead += 1;
        }
        assert_eq!(ahead, 3, "just past the half");
        assert!(pieces.find(Seq(0), 0, now).is_some());
        assert!(pieces.may_read_ahead(), "one was used");
    }
}
