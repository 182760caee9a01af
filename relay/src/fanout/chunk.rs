//! Chunks: runs of events as the bytes that go over the wire, shared by all who send them.
//!
//! A chunk is made once and never changed. It covers the seqs in `(after, last]`; a seq in that range that has no frame
//! is one that may not be served. Its bytes are one buffer, in which the marks say where each event's frame stands, so
//! that a piece of the log can be sent from where it was read to: what lies between two frames is nobody's business. The
//! same frames with their payloads deflated are made beside it when the first subscriber asks that takes them so.

use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntGauge;
use runtime::ws::{self, Data, Deflater, header};
use storage::{log::Published, seq::Seq};
use tokio::sync::OnceCell;

use super::withheld::Filter;

/// The longest header of a frame that a server sends.
pub const HEADER_BYTES_MAX: usize = 10;

/// A run of events, encoded as WebSocket frames.
#[derive(Debug)]
pub struct Chunk {
    after: Seq,
    last: Seq,
    generation: u64,
    frames: Frames,
    deflated: OnceCell<Deflated>,
}

/// Frames with deflated payloads, counted for as long as they are in memory.
#[derive(Debug)]
pub struct Deflated {
    frames: Frames,
    in_memory: IntGauge,
}

/// WebSocket frames in a buffer, in the order of their seqs.
#[derive(Debug)]
pub struct Frames {
    buffer: Bytes,
    marks: Box<[Mark]>,
    /// Whether each frame begins where the one before ends.
    adjacent: bool,
}

/// Where one event's frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The event's seq.
    pub seq: Seq,
    /// Whose it is, as [`Published::account`].
    pub account: u64,
    /// Where its WebSocket frame begins, header and all.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
}

impl Mark {
    /// The frame's bytes, header and all.
    pub fn wire_bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Chunk {
    /// Copies those of the events that may be served. They follow `after` without a hole and must not be empty.
    pub fn encode(after: Seq, events: &[Published], filter: &Filter<'_>) -> Chunk {
        let size = events.iter().map(|event| HEADER_BYTES_MAX + event.frame.len()).sum();
        let mut buffer = Vec::with_capacity(size);
        let mut marks = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| filter.serves(event)) {
            let start = offset(buffer.len());
            buffer.extend_from_slice(header(Data::Binary, event.frame.len()).as_bytes());
            buffer.extend_from_slice(&event.frame);
            marks.push(Mark { seq: event.seq, account: event.account, start, end: offset(buffer.len()) });
        }
        let last = events.last().map_or(after, |event| event.seq);
        Chunk::new(after, last, filter.generation(), Frames::new(buffer.into(), marks))
    }

    /// Of frames that cover `(after, last]` but for what was withheld in `generation`.
    pub fn new(after: Seq, last: Seq, generation: u64, frames: Frames) -> Chunk {
        Chunk { after, last, generation, frames, deflated: OnceCell::new() }
    }

    /// The seq before its first one.
    pub fn after(&self) -> Seq {
        self.after
    }

    /// Its last seq.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// The state of what is withheld that it was encoded under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its frames.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The same frames, deflated where that makes them shorter, if somebody has asked for that.
    pub fn deflated(&self) -> Option<&Frames> {
        self.deflated.get().map(|deflated| &deflated.frames)
    }

    /// Gives it its deflated frames, by who comes first; the others wait for that.
    pub(super) async fn deflate(&self, make: impl AsyncFnOnce() -> Option<Deflated>) {
        let _made = self.deflated.get_or_try_init(async || make().await.ok_or(())).await;
    }

    /// What it takes in memory, about, but for its deflated frames, which may take as much again at most.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Arc<Chunk>>() + size_of::<Chunk>() + self.frames.memory_bytes()
    }

    /// How many events it holds.
    pub fn events(&self) -> usize {
        self.frames.marks.len()
    }

    /// Whether a reader whose last seq is `position` goes on in this chunk.
    pub fn continues(&self, position: Seq) -> bool {
        self.after <= position && position < self.last
    }
}

impl Frames {
    /// Frames that stand in `buffer` where `marks` say, which rise in seq and place.
    pub fn new(buffer: Bytes, marks: Vec<Mark>) -> Frames {
        debug_assert!(marks.windows(2).all(|pair| pair[0].seq < pair[1].seq && pair[0].end <= pair[1].start));
        debug_assert!(marks.last().is_none_or(|mark| mark.end as usize <= buffer.len()));
        let adjacent = marks.windows(2).all(|pair| pair[0].end == pair[1].start);
        Frames { buffer, marks: marks.into_boxed_slice(), adjacent }
    }

    /// Where each frame stands.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The bytes from `start` to `end`.
    pub fn bytes(&self, start: u32, end: u32) -> &[u8] {
        &self.buffer[start as usize..end as usize]
    }

    /// Whether each frame begins where the one before ends.
    pub fn are_adjacent(&self) -> bool {
        self.adjacent
    }

    /// The place among the marks of the first one whose seq is above `position`.
    pub fn first_after(&self, position: Seq) -> usize {
        self.marks.partition_point(|mark| mark.seq <= position)
    }

    /// What they are on the wire.
    pub fn wire_bytes(&self) -> usize {
        match (self.adjacent, self.marks.first(), self.marks.last()) {
            (true, Some(first), Some(last)) => (last.end - first.start) as usize,
            _ => self.marks.iter().map(Mark::wire_bytes).sum(),
        }
    }

    /// The same with payloads deflated where that makes them shorter. It takes a CPU a while.
    pub fn deflate(&self, deflater: &mut Deflater) -> Frames {
        let mut buffer = Vec::with_capacity(self.wire_bytes() / 2);
        let mut marks = Vec::with_capacity(self.marks.len());
        let mut payload = Vec::new();
        for mark in &self.marks {
            let frame = self.bytes(mark.start, mark.end);
            let start = offset(buffer.len());
            if deflater.deflate(ws::payload(frame), &mut payload) {
                buffer.extend_from_slice(ws::deflated_header(Data::Binary, payload.len()).as_bytes());
                buffer.extend_from_slice(&payload);
            } else {
                buffer.extend_from_slice(frame);
            }
            marks.push(Mark { start, end: offset(buffer.len()), ..*mark });
        }
        buffer.shrink_to_fit();
        Frames::new(buffer.into(), marks)
    }

    fn memory_bytes(&self) -> usize {
        self.buffer.len() + size_of_val(&*self.marks)
    }
}

impl Deflated {
    /// Counts them in `in_memory`.
    pub(super) fn new(frames: Frames, in_memory: IntGauge) -> Deflated {
        in_memory.add(frames.memory_bytes() as i64);
        Deflated { frames, in_memory }
    }
}

impl Drop for Deflated {
    fn drop(&mut self) {
        self.in_memory.sub(self.frames.memory_bytes() as i64);
    }
}

/// A place in a chunk's buffer.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a chunk is some MiB, and one frame at most")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fanout::withheld::tests::nothing;

    pub(in crate::fanout) fn published(seq: u64, size: usize) -> Published {
        Published { seq: Seq(seq), account: seq % 3, taken_down: false, frame: Bytes::from(vec![seq as u8; size]) }
    }

    /// Events after `after` of so many bytes each; account `seq % 3`.
    pub(in crate::fanout) fn chunk(after: u64, sizes: &[usize]) -> Arc<Chunk> {
        let events: Vec<_> = sizes.iter().enumerate().map(|(i, size)| published(after + 1 + i as u64, *size)).collect();
        Arc::new(Chunk::encode(Seq(after), &events, &nothing().filter()))
    }

    /// The same events with three bytes of another's before each frame.
    pub(in crate::fanout) fn spread(chunk: &Chunk) -> Arc<Chunk> {
        let (mut buffer, mut marks) = (Vec::new(), Vec::new());
        for mark in chunk.frames().marks() {
            buffer.extend_from_slice(b"xyz");
            let start = offset(buffer.len());
            buffer.extend_from_slice(chunk.frames().bytes(mark.start, mark.end));
            marks.push(Mark { start, end: offset(buffer.len()), ..*mark });
        }
        let frames = Frames::new(buffer.into(), marks);
        Arc::new(Chunk::new(chunk.after(), chunk.last(), chunk.generation(), frames))
    }

    /// Gives a chunk its deflated frames.
    pub(in crate::fanout) fn deflate(chunk: &Chunk) {
        let deflated = Deflated::new(chunk.frames().deflate(&mut Deflater::new(1)), IntGauge::new("x", "x").unwrap());
        chunk.deflated.set(deflated).unwrap();
    }

    #[test]
    fn frames_are_found_by_seq() {
        let chunk = chunk(10, &[5, 200, 70_000]);
        assert!(chunk.continues(Seq(10)) && chunk.continues(Seq(12)) && !chunk.continues(Seq(13)));
        assert!(!chunk.continues(Seq(9)));
        let frames = chunk.frames();
        assert_eq!([9, 10, 11, 12, 13].map(|seq| frames.first_after(Seq(seq))), [0, 0, 1, 2, 3]);
        let wire = (2 + 5) + (4 + 200) + (10 + 70_000);
        assert_eq!((frames.wire_bytes(), frames.are_adjacent()), (wire, true));
        let spread = spread(&chunk);
        assert_eq!((spread.frames().wire_bytes(), spread.frames().are_adjacent()), (wire, false));
        assert!(spread.memory_bytes() > chunk.memory_bytes() && chunk.memory_bytes() > wire);
    }

    #[test]
    fn what_is_withheld_has_no_frame_and_its_seq_is_covered() {
        let withheld = nothing();
        let mut events: Vec<_> = (11..=16).map(|seq| published(seq, 4)).collect();
        for event in &mut events {
            event.account = u64::from([12, 13, 16].contains(&event.seq.0));
        }
        withheld.fold(&[Published { account: 1, taken_down: true, ..published(9, 4) }]);
        let chunk = Chunk::encode(Seq(10), &events, &withheld.filter());
        assert_eq!((chunk.events(), chunk.last(), chunk.generation()), (3, Seq(16), 1));
        assert_eq!([10, 11, 13, 14, 15].map(|seq| chunk.frames().first_after(Seq(seq))), [0, 1, 1, 2, 3]);
    }
}
