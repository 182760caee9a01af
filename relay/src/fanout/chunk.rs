//! Chunks: runs of events as the bytes that go over the wire, shared by all who send them.
//!
//! A chunk is made once and never changed. It covers the seqs in `(after, last]`; a seq in that range that has no frame
//! is one that may not be served. [`Outgoing`] is what one subscriber still has to send: parts of chunks, with control
//! frames put in between whole frames.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use bytes::Bytes;
use runtime::ws::{Data, header};
use storage::{log::Published, seq::Seq};

use super::withheld::Filter;

/// The longest header of a frame that a server sends.
const HEADER_BYTES_MAX: usize = 10;

/// A run of events, encoded as WebSocket frames.
#[derive(Debug)]
pub struct Chunk {
    after: Seq,
    last: Seq,
    generation: u64,
    bytes: Bytes,
    marks: Box<[Mark]>,
}

/// Where one event's frame ends.
#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    end: usize,
}

impl Chunk {
    /// Encodes those of the events that may be served. They follow `after` without a hole and must not be empty.
    pub fn encode(after: Seq, events: &[Published], filter: &Filter<'_>) -> Chunk {
        let size = events.iter().map(|event| HEADER_BYTES_MAX + event.frame.len()).sum();
        let mut bytes = Vec::with_capacity(size);
        let mut marks = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| filter.serves(event)) {
            bytes.extend_from_slice(header(Data::Binary, event.frame.len()).as_bytes());
            bytes.extend_from_slice(&event.frame);
            marks.push(Mark { seq: event.seq, end: bytes.len() });
        }
        let last = events.last().map_or(after, |event| event.seq);
        let generation = filter.generation();
        Chunk { after, last, generation, bytes: Bytes::from(bytes), marks: marks.into_boxed_slice() }
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

    /// Its size on the wire, and about its size in memory.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many events it holds.
    pub fn events(&self) -> usize {
        self.marks.len()
    }

    /// Whether a reader whose last seq is `position` goes on in this chunk.
    pub fn continues(&self, position: Seq) -> bool {
        self.after <= position && position < self.last
    }

    /// The offset of the first frame whose seq is above `position`.
    fn offset_after(&self, position: Seq) -> usize {
        match self.marks.partition_point(|mark| mark.seq <= position) {
            0 => 0,
            n => self.marks[n - 1].end,
        }
    }

    /// The seq of the last frame that ends at `offset` or before; the one before the chunk where there is none.
    fn seq_before(&self, offset: usize) -> Seq {
        match self.marks.partition_point(|mark| mark.end <= offset) {
            0 => self.after,
            n => self.marks[n - 1].seq,
        }
    }

    /// The end of the frame that byte `offset` stands in; `offset` itself where a frame begins there.
    fn boundary_from(&self, offset: usize) -> usize {
        match self.marks.partition_point(|mark| mark.end < offset) {
            n if n < self.marks.len() && offset > 0 => self.marks[n].end,
            _ => offset,
        }
    }

    /// How many frames end in `(from, to]`.
    fn frames_ended(&self, from: usize, to: usize) -> usize {
        let upto = |offset| self.marks.partition_point(|mark| mark.end <= offset);
        upto(to) - upto(from)
    }
}

/// What has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of events, with their WebSocket headers.
    pub bytes: u64,
    /// Events whose last byte has left.
    pub events: u64,
}

/// What one subscriber's socket has still to take, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// `chunk.bytes[at..end]`; both lie on frame boundaries but `at` of the front piece, which moves as bytes leave.
    /// What is before `from` was not asked for.
    Events { chunk: Arc<Chunk>, from: Seq, at: usize, end: usize },
    /// A frame of our own; `at` bytes of it have left.
    Own { bytes: Bytes, at: usize },
}

impl Outgoing {
    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether a frame of our own waits.
    pub fn holds_own(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Own { .. }))
    }

    /// Queues what of the chunk is above `position`.
    pub fn push_chunk(&mut self, chunk: Arc<Chunk>, position: Seq) {
        let (at, end) = (chunk.offset_after(position), chunk.len_bytes());
        if at < end {
            self.pieces.push_back(Piece::Events { chunk, from: position, at, end });
        }
    }

    /// Queues a whole frame of our own after everything else.
    pub fn push_last(&mut self, frame: impl Into<Bytes>) {
        self.pieces.push_back(Piece::Own { bytes: frame.into(), at: 0 });
    }

    /// Queues a whole frame of our own (a pong, a ping) as soon as the frame under way has left.
    pub fn push_soon(&mut self, frame: impl Into<Bytes>) {
        let own = Piece::Own { bytes: frame.into(), at: 0 };
        match self.pieces.front_mut() {
            None => self.pieces.push_back(own),
            Some(Piece::Own { at: 0, .. }) => self.pieces.push_front(own),
            Some(Piece::Own { .. }) => self.pieces.insert(1, own),
            Some(Piece::Events { chunk, from, at, end }) => {
                let boundary = chunk.boundary_from(*at);
                if boundary == *at {
                    self.pieces.push_front(own);
                } else if boundary == *end {
                    self.pieces.insert(1, own);
                } else {
                    let rest = Piece::Events { chunk: chunk.clone(), from: *from, at: boundary, end: *end };
                    *end = boundary;
                    self.pieces.insert(1, rest);
                    self.pieces.insert(1, own);
                }
            }
        }
    }

    /// Forgets everything after the frame that is under way.
    pub fn cut(&mut self) {
        self.pieces.truncate(1);
        let nothing_left = match self.pieces.front_mut() {
            None => true,
            Some(Piece::Own { at, .. }) => *at == 0,
            Some(Piece::Events { chunk, at, end, .. }) => {
                *end = chunk.boundary_from(*at);
                at == end
            }
        };
        if nothing_left {
            self.pieces.clear();
        }
    }

    /// Takes back all events of which nothing has left; frames of our own stay. Gives the position to go on from, if
    /// anything was taken back.
    pub fn take_back(&mut self) -> Option<Seq> {
        let mut goes_on_from = None;
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Own { .. } => self.pieces.push_back(piece),
                Piece::Events { chunk, from, at, end } => {
                    // Only the front piece can stand within a frame.
                    let boundary = chunk.boundary_from(at);
                    if boundary < end {
                        goes_on_from.get_or_insert(from.max(chunk.seq_before(boundary)));
                    }
                    if at < boundary {
                        self.pieces.push_back(Piece::Events { chunk, from, at, end: boundary });
                    }
                }
            }
        }
        goes_on_from
    }

    /// Fills `slices` with what comes next and gives how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(match piece {
                Piece::Events { chunk, at, end, .. } => &chunk.bytes[*at..*end],
                Piece::Own { bytes, at } => &bytes[*at..],
            });
            filled += 1;
        }
        filled
    }

    /// `written` more bytes have left.
    pub fn advance(&mut self, written: usize) -> Sent {
        let mut left = written;
        let mut sent = Sent::default();
        while let Some(piece) = self.pieces.front_mut() {
            let done = match piece {
                Piece::Events { chunk, at, end, .. } => {
                    let step = left.min(*end - *at);
                    sent.bytes += step as u64;
                    sent.events += chunk.frames_ended(*at, *at + step) as u64;
                    *at += step;
                    left -= step;
                    at == end
                }
                Piece::Own { bytes, at } => {
                    let step = left.min(bytes.len() - *at);
                    *at += step;
                    left -= step;
                    *at == bytes.len()
                }
            };
            if !done {
                break;
            }
            self.pieces.pop_front();
        }
        debug_assert_eq!(left, 0, "no more can leave than was there");
        sent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fanout::withheld::tests::nothing;

    fn published(seq: u64, size: usize) -> Published {
        Published { seq: Seq(seq), account: 0, taken_down: false, frame: Bytes::from(vec![seq as u8; size]) }
    }

    fn chunk(after: u64, sizes: &[usize]) -> Arc<Chunk> {
        let events: Vec<_> = sizes.iter().enumerate().map(|(i, size)| published(after + 1 + i as u64, *size)).collect();
        Arc::new(Chunk::encode(Seq(after), &events, &nothing().filter()))
    }

    fn drain(outgoing: &mut Outgoing, step: usize) -> (Vec<u8>, Sent) {
        let (mut all, mut total) = (Vec::new(), Sent::default());
        while !outgoing.is_empty() {
            let taken: Vec<u8> = {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = outgoing.slices(&mut slices);
                slices[..filled].iter().flat_map(|slice| slice.iter().copied()).take(step).collect()
            };
            let sent = outgoing.advance(taken.len());
            total = Sent { bytes: total.bytes + sent.bytes, events: total.events + sent.events };
            all.extend(taken);
        }
        (all, total)
    }

    #[test]
    fn a_position_inside_gives_the_rest() {
        let chunk = chunk(10, &[5, 200, 70_000]);
        assert_eq!(chunk.len_bytes(), (2 + 5) + (4 + 200) + (10 + 70_000));
        assert!(chunk.continues(Seq(10)) && chunk.continues(Seq(12)) && !chunk.continues(Seq(13)));
        assert!(!chunk.continues(Seq(9)));
        let mut outgoing = Outgoing::default();
        outgoing.push_chunk(chunk.clone(), Seq(11));
        let (bytes, sent) = drain(&mut outgoing, 1000);
        assert_eq!(bytes, chunk.bytes[7..]);
        assert_eq!(sent, Sent { bytes: 204 + 70_010, events: 2 });
        outgoing.push_chunk(chunk, Seq(13));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_pong_waits_for_the_frame_under_way_only() {
        let chunk = chunk(0, &[4, 4, 4]);
        for already in 0..18 {
            let mut outgoing = Outgoing::default();
            outgoing.push_chunk(chunk.clone(), Seq(0));
            let mut bytes = chunk.bytes[..already].to_vec();
            outgoing.advance(already);
            outgoing.push_soon(Bytes::from_static(b"PONG"));
            bytes.extend(drain(&mut outgoing, 5).0);
            let place = bytes.windows(4).position(|window| window == b"PONG").expect("it is there");
            assert_eq!(place, already.next_multiple_of(6), "after {already} bytes");
            bytes.drain(place..place + 4);
            assert_eq!(bytes, chunk.bytes[..]);
        }
    }

    #[test]
    fn a_cut_leaves_whole_frames() {
        let chunk = chunk(0, &[4, 4, 4]);
        for already in 0..18 {
            let mut outgoing = Outgoing::default();
            outgoing.push_chunk(chunk.clone(), Seq(0));
            outgoing.push_chunk(chunk.clone(), Seq(0));
            outgoing.advance(already);
            outgoing.cut();
            let rest = drain(&mut outgoing, 100).0.len();
            assert_eq!(already + rest, already.next_multiple_of(6));
        }
    }

    #[test]
    fn what_is_withheld_leaves_a_gap_that_positions_go_over() {
        let withheld = nothing();
        let mut events: Vec<_> = (11..=16).map(|seq| published(seq, 4)).collect();
        for event in &mut events {
            event.account = u64::from([12, 13, 16].contains(&event.seq.0));
        }
        withheld.fold(&[Published { account: 1, taken_down: true, ..published(9, 4) }]);
        let chunk = Arc::new(Chunk::encode(Seq(10), &events, &withheld.filter()));
        assert_eq!((chunk.events(), chunk.last(), chunk.generation()), (3, Seq(16), 1));
        for (position, expected) in [(10, 18), (11, 12), (12, 12), (13, 12), (14, 6), (15, 0)] {
            let mut outgoing = Outgoing::default();
            outgoing.push_chunk(chunk.clone(), Seq(position));
            assert_eq!(drain(&mut outgoing, 100).0.len(), expected, "after {position}");
        }
    }

    #[test]
    fn what_has_not_left_is_taken_back() {
        let chunks = [chunk(0, &[4, 4, 4]), chunk(3, &[4, 4, 4])];
        for already in 0..36 {
            let mut outgoing = Outgoing::default();
            outgoing.push_chunk(chunks[0].clone(), Seq(0));
            outgoing.push_chunk(chunks[1].clone(), Seq(3));
            outgoing.advance(already);
            outgoing.push_soon(Bytes::from_static(b"PONG"));
            let goes_on_from = outgoing.take_back();
            let rest = drain(&mut outgoing, 5).0;
            assert_eq!(already + rest.len(), already.next_multiple_of(6) + 4, "the frame under way, and the pong");
            assert!(rest.ends_with(b"PONG"));
            let frames = already.div_ceil(6) as u64;
            assert_eq!(goes_on_from, (frames < 6).then_some(Seq(frames)), "after {already} bytes");
        }
        let mut outgoing = Outgoing::default();
        outgoing.push_chunk(chunks[1].clone(), Seq(5));
        assert_eq!(outgoing.take_back(), Some(Seq(5)), "not to what was never asked for");
    }

    proptest! {
        #[test]
        fn whatever_the_steps_the_bytes_are_the_same(
            sizes in prop::collection::vec(0usize..300, 1..20), step in 1usize..400, after in 0u64..20, pong_at in 0usize..3000,
        ) {
            let chunk = chunk(0, &sizes);
            let mut outgoing = Outgoing::default();
            outgoing.push_chunk(chunk.clone(), Seq(after));
            let expected = chunk.bytes[chunk.offset_after(Seq(after))..].to_vec();
            let first = pong_at.min(expected.len());
            let sent_first = outgoing.advance(first);
            outgoing.push_soon(Bytes::from_static(b"PONG"));
            let (rest, sent) = drain(&mut outgoing, step);
            prop_assert_eq!(rest.len(), expected.len() - first + 4);
            prop_assert_eq!(sent_first.events + sent.events, (sizes.len() as u64).saturating_sub(after));
            prop_assert_eq!(sent_first.bytes + sent.bytes, expected.len() as u64);
        }
    }
}
