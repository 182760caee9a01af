//! What one subscriber's socket has still to take: parts of shared chunks, with frames of our own in between. Pure.
//!
//! What must hold: bytes leave in the order of their events, each wanted event's frame once and whole, and a frame of
//! our own stands between two of them even where the last write ended within one.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use bytes::Bytes;
use storage::seq::Seq;

use super::{
    chunk::{Chunk, Frames, Mark},
    shard::Shard,
};

/// What a subscriber reads, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// The part of all accounts that it asked for; `None` for all.
    pub shard: Option<Shard>,
    /// Whether it takes messages deflated.
    pub deflated: bool,
}

/// What has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of events, with their WebSocket headers.
    pub bytes: u64,
    /// Events whose last byte has left.
    pub events: u64,
}

/// What has still to leave, in order.
#[derive(Debug)]
pub struct Outgoing {
    reader: Reader,
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
enum Piece {
    Events(Run),
    /// The rest of an event's frame, copied so that its chunk need not be kept; `at` bytes of it have left.
    Rest {
        bytes: Bytes,
        at: usize,
    },
    /// A frame of our own; `at` bytes of it have left.
    Own {
        bytes: Bytes,
        at: usize,
    },
}

/// Events of one chunk.
#[derive(Debug)]
struct Run {
    chunk: Arc<Chunk>,
    /// Whether its deflated frames leave.
    deflated: bool,
    /// The place among the chunk's marks of the frame that leaves next, which is a wanted one.
    next: usize,
    /// The place after the last.
    end: usize,
    /// How much of the next frame has left; more than nothing in the front piece alone.
    at: u32,
    /// What is not above it was not asked for.
    from: Seq,
}

impl Outgoing {
    /// Nothing yet, for such a reader.
    pub fn new(reader: Reader) -> Outgoing {
        Outgoing { reader, pieces: VecDeque::new() }
    }

    /// The part of all accounts that its reader asked for.
    pub fn shard(&self) -> Option<Shard> {
        self.reader.shard
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether events wait of which nothing has left, or the rest of one that keeps its chunk.
    pub fn holds_events(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Events(_)))
    }

    /// Whether a frame of our own waits.
    pub fn holds_own(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Own { .. }))
    }

    /// Queues what of the chunk is above `position`: its deflated frames for a reader that takes them, if they are there.
    pub fn push_chunk(&mut self, chunk: Arc<Chunk>, position: Seq) {
        let (first, end) = (chunk.frames().first_after(position), chunk.events());
        let next = self.wanted(&chunk, first, end);
        if next < end {
            let deflated = self.reader.deflated && chunk.deflated().is_some();
            self.pieces.push_back(Piece::Events(Run { chunk, deflated, next, end, at: 0, from: position }));
        }
    }

    /// Queues a whole frame of our own after everything else.
    pub fn push_last(&mut self, frame: impl Into<Bytes>) {
        self.pieces.push_back(Piece::Own { bytes: frame.into(), at: 0 });
    }

    /// Queues a whole frame of our own (a pong, a ping) as soon as the frame under way has left, and those of our own
    /// that wait for the same.
    pub fn push_soon(&mut self, frame: impl Into<Bytes>) {
        let own = Piece::Own { bytes: frame.into(), at: 0 };
        let under_way = self.pieces.front().is_some_and(Piece::is_under_way);
        if under_way
            && let Some(Piece::Events(run)) = self.pieces.front_mut()
            && let Some(rest) = run.split_off_rest(self.reader.shard)
        {
            self.pieces.insert(1, Piece::Events(rest));
        }
        let behind = usize::from(under_way);
        let waiting = self.pieces.range(behind..).take_while(|piece| matches!(piece, Piece::Own { .. })).count();
        self.pieces.insert(behind + waiting, own);
    }

    /// Forgets everything after the frame that is under way.
    pub fn cut(&mut self) {
        self.pieces.truncate(1);
        match self.pieces.front_mut() {
            Some(front) if !front.is_under_way() => self.pieces.clear(),
            Some(Piece::Events(run)) => run.end = run.next + 1,
            Some(Piece::Rest { .. } | Piece::Own { .. }) | None => {}
        }
    }

    /// Takes back all events of which nothing has left; frames of our own stay. Gives the position to go on from, if
    /// anything was taken back.
    pub fn take_back(&mut self) -> Option<Seq> {
        let mut goes_on_from = None;
        for piece in std::mem::take(&mut self.pieces) {
            let Piece::Events(mut run) = piece else {
                self.pieces.push_back(piece);
                continue;
            };
            if run.at == 0 {
                goes_on_from.get_or_insert(run.position());
                continue;
            }
            if let Some(rest) = run.split_off_rest(self.reader.shard) {
                goes_on_from = Some(rest.position());
            }
            self.pieces.push_back(Piece::Events(run));
        }
        goes_on_from
    }

    /// Lets go of all chunks: [`Outgoing::take_back`], and the rest of the frame that is under way is copied.
    pub fn park(&mut self) -> Option<Seq> {
        let goes_on_from = self.take_back();
        if let Some(Piece::Events(run)) = self.pieces.front() {
            let mark = run.mark();
            let rest = run.frames().bytes(mark.start + run.at, mark.end);
            self.pieces[0] = Piece::Rest { bytes: Bytes::copy_from_slice(rest), at: 0 };
        }
        goes_on_from
    }

    /// Fills `slices` with what comes next and gives how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for piece in &self.pieces {
            let left = &mut slices[filled..];
            let Some(slot) = left.first_mut() else { break };
            filled += match piece {
                Piece::Events(run) => run.slices(self.reader.shard, left),
                Piece::Rest { bytes, at } | Piece::Own { bytes, at } => {
                    *slot = IoSlice::new(&bytes[*at..]);
                    1
                }
            };
        }
        filled
    }

    /// `written` more bytes have left.
    pub fn advance(&mut self, written: usize) -> Sent {
        let mut left = written;
        let mut sent = Sent::default();
        while let Some(piece) = self.pieces.front_mut() {
            let done = match piece {
                Piece::Events(run) => run.advance(self.reader.shard, &mut left, &mut sent),
                Piece::Rest { bytes, at } => {
                    let step = left.min(bytes.len() - *at);
                    (*at, left) = (*at + step, left - step);
                    let done = *at == bytes.len();
                    sent.bytes += step as u64;
                    sent.events += u64::from(done);
                    done
                }
                Piece::Own { bytes, at } => {
                    let step = left.min(bytes.len() - *at);
                    (*at, left) = (*at + step, left - step);
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

    fn wanted(&self, chunk: &Chunk, from: usize, end: usize) -> usize {
        wanted(chunk.frames().marks(), self.reader.shard, from, end)
    }
}

impl Piece {
    /// Whether a part of its first frame has left.
    fn is_under_way(&self) -> bool {
        match self {
            Piece::Events(run) => run.at > 0,
            Piece::Rest { .. } => true,
            Piece::Own { at, .. } => *at > 0,
        }
    }
}

impl Run {
    fn frames(&self) -> &Frames {
        frames(&self.chunk, self.deflated)
    }

    /// Where the frame that leaves next stands.
    fn mark(&self) -> Mark {
        self.frames().marks()[self.next]
    }

    /// The seq to go on from for one who has none of these events.
    fn position(&self) -> Seq {
        let before = self.next.checked_sub(1).map_or(self.chunk.after(), |at| self.chunk.frames().marks()[at].seq);
        before.max(self.from)
    }

    /// Ends with the frame that leaves next. Gives what comes after it, if anything does.
    fn split_off_rest(&mut self, shard: Option<Shard>) -> Option<Run> {
        let next = wanted(self.chunk.frames().marks(), shard, self.next + 1, self.end);
        let (chunk, deflated) = (Arc::clone(&self.chunk), self.deflated);
        let rest = Run { chunk, deflated, next, end: self.end, at: 0, from: self.from };
        self.end = self.next + 1;
        (rest.next < rest.end).then_some(rest)
    }

    /// Fills one slice or more, of which there is at least one.
    fn slices<'a>(&'a self, shard: Option<Shard>, slices: &mut [IoSlice<'a>]) -> usize {
        let frames = self.frames();
        let marks = frames.marks();
        let (mut start, mut end) = (marks[self.next].start + self.at, marks[self.next].end);
        if shard.is_none() && frames.are_adjacent() {
            slices[0] = IoSlice::new(frames.bytes(start, marks[self.end - 1].end));
            return 1;
        }
        let mut filled = 0;
        let mut next = self.next;
        loop {
            next = wanted(marks, shard, next + 1, self.end);
            let mark = marks[..self.end].get(next);
            if let Some(mark) = mark
                && mark.start == end
            {
                end = mark.end;
                continue;
            }
            slices[filled] = IoSlice::new(frames.bytes(start, end));
            filled += 1;
            match mark {
                Some(mark) if filled < slices.len() => (start, end) = (mark.start, mark.end),
                _ => return filled,
            }
        }
    }

    /// Takes up to `left` bytes off. Gives whether nothing is left of it.
    fn advance(&mut self, shard: Option<Shard>, left: &mut usize, sent: &mut Sent) -> bool {
        let marks = frames(&self.chunk, self.deflated).marks();
        while self.next < self.end {
            let rest = marks[self.next].wire_bytes() - self.at as usize;
            if *left < rest {
                // Less than a frame.
                self.at += *left as u32;
                sent.bytes += *left as u64;
                *left = 0;
                return false;
            }
            *left -= rest;
            sent.bytes += rest as u64;
            sent.events += 1;
            self.at = 0;
            self.next = wanted(marks, shard, self.next + 1, self.end);
        }
        true
    }
}

/// The frames that leave of a chunk. Once the deflated ones are there, they stay.
fn frames(chunk: &Chunk, deflated: bool) -> &Frames {
    chunk.deflated().filter(|_| deflated).unwrap_or(chunk.frames())
}

/// The first place in `from..end` whose event is wanted; `end` where none is.
fn wanted(marks: &[Mark], shard: Option<Shard>, from: usize, end: usize) -> usize {
    match shard {
        None => from.min(end),
        Some(shard) => (from..end).find(|at| shard.holds(marks[*at].account)).unwrap_or(end),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fanout::chunk::tests::{chunk, deflate, spread};

    fn drain(outgoing: &mut Outgoing, step: usize) -> (Vec<u8>, Sent) {
        let (mut all, mut total) = (Vec::new(), Sent::default());
        while !outgoing.is_empty() {
            let taken: Vec<u8> = {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = outgoing.slices(&mut slices);
                slices[..filled].iter().flat_map(|slice| slice.iter().copied()).take(step).collect()
            };
            assert!(!taken.is_empty(), "an empty write would never end");
            let sent = outgoing.advance(taken.len());
            total = Sent { bytes: total.bytes + sent.bytes, events: total.events + sent.events };
            all.extend(taken);
        }
        (all, total)
    }

    /// All frames of a chunk above `position` and of the shard.
    fn wire(chunk: &Chunk, position: u64, shard: Option<Shard>) -> Vec<Vec<u8>> {
        let frames = chunk.deflated().unwrap_or(chunk.frames());
        let wanted = |mark: &&Mark| mark.seq.0 > position && shard.is_none_or(|shard| shard.holds(mark.account));
        frames.marks().iter().filter(wanted).map(|mark| frames.bytes(mark.start, mark.end).to_vec()).collect()
    }

    #[test]
    fn a_position_inside_gives_the_rest() {
        let chunk = chunk(10, &[5, 200, 70_000]);
        let mut outgoing = Outgoing::new(Reader::default());
        outgoing.push_chunk(chunk.clone(), Seq(11));
        let (bytes, sent) = drain(&mut outgoing, 1000);
        assert_eq!(bytes, wire(&chunk, 11, None).concat());
        assert_eq!(sent, Sent { bytes: 204 + 70_010, events: 2 });
        outgoing.push_chunk(chunk, Seq(13));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_shard_without_an_event_in_a_chunk_queues_nothing() {
        let mut outgoing = Outgoing::new(Reader { shard: Shard::new(2, 3).ok(), ..Reader::default() });
        outgoing.push_chunk(chunk(2, &[4, 4]), Seq(2));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_pong_waits_for_the_frame_under_way_only() {
        let chunk = chunk(0, &[4, 4, 4]);
        let whole = wire(&chunk, 0, None).concat();
        for already in 0..18 {
            let mut outgoing = Outgoing::new(Reader::default());
            outgoing.push_chunk(chunk.clone(), Seq(0));
            let mut bytes = whole[..already].to_vec();
            outgoing.advance(already);
            outgoing.push_soon(Bytes::from_static(b"PONG"));
            bytes.extend(drain(&mut outgoing, 5).0);
            let place = bytes.windows(4).position(|window| window == b"PONG").expect("it is there");
            assert_eq!(place, already.next_multiple_of(6), "after {already} bytes");
            bytes.drain(place..place + 4);
            assert_eq!(bytes, whole);
        }
    }

    #[test]
    fn pongs_keep_their_order() {
        let chunk = chunk(0, &[4, 4, 4]);
        for already in 0..18 {
            let mut outgoing = Outgoing::new(Reader::default());
            outgoing.push_chunk(chunk.clone(), Seq(0));
            outgoing.advance(already);
            outgoing.push_soon(Bytes::from_static(b"PON1"));
            outgoing.push_soon(Bytes::from_static(b"PON2"));
            let mut bytes = drain(&mut outgoing, 3).0;
            outgoing.push_soon(Bytes::from_static(b"PON3"));
            bytes.extend(drain(&mut outgoing, 3).0);
            let under_way = already.next_multiple_of(6) - already;
            assert_eq!(bytes[under_way..][..8], *b"PON1PON2", "after {already} bytes");
            assert!(bytes.ends_with(b"PON3"));
        }
    }

    #[test]
    fn a_cut_leaves_whole_frames() {
        let chunk = chunk(0, &[4, 4, 4]);
        for already in 0..18 {
            let mut outgoing = Outgoing::new(Reader::default());
            outgoing.push_chunk(chunk.clone(), Seq(0));
            outgoing.push_chunk(chunk.clone(), Seq(0));
            outgoing.advance(already);
            outgoing.cut();
            let rest = drain(&mut outgoing, 100).0.len();
            assert_eq!(already + rest, already.next_multiple_of(6));
        }
    }

    #[test]
    fn what_has_not_left_is_taken_back() {
        let chunks = [chunk(0, &[4, 4, 4]), chunk(3, &[4, 4, 4])];
        for (already, park) in (0..36).flat_map(|already| [(already, false), (already, true)]) {
            let mut outgoing = Outgoing::new(Reader::default());
            outgoing.push_chunk(chunks[0].clone(), Seq(0));
            outgoing.push_chunk(chunks[1].clone(), Seq(3));
            outgoing.advance(already);
            outgoing.push_soon(Bytes::from_static(b"PONG"));
            let goes_on_from = if park { outgoing.park() } else { outgoing.take_back() };
            if park {
                assert_eq!(chunks.iter().map(Arc::strong_count).sum::<usize>(), 2, "no chunk is kept");
                assert_eq!(outgoing.park(), None, "there is nothing more to take back");
            }
            let (rest, sent) = drain(&mut outgoing, 5);
            assert_eq!(already + rest.len(), already.next_multiple_of(6) + 4, "the frame under way, and the pong");
            assert_eq!(sent.events, u64::from(already % 6 != 0));
            assert!(rest.ends_with(b"PONG"));
            let frames = already.div_ceil(6) as u64;
            assert_eq!(goes_on_from, (frames < 6).then_some(Seq(frames)), "after {already} bytes");
        }
        let mut outgoing = Outgoing::new(Reader::default());
        outgoing.push_chunk(chunks[1].clone(), Seq(5));
        assert_eq!(outgoing.take_back(), Some(Seq(5)), "not to what was never asked for");
    }

    proptest! {
        #[test]
        fn whatever_happens_on_the_way_the_frames_are_the_same(
            sizes in prop::collection::vec(0usize..300, 1..20), step in 1usize..400, position in 0u64..20,
            shard in prop::option::of((0u32..3, 1u32..4)), apart: bool, deflated: bool, steps in prop::collection::vec((0usize..500, 0u8..4), 0..8),
        ) {
            let chunk = chunk(0, &sizes);
            let chunk = if apart { spread(&chunk) } else { chunk };
            let shard = shard.and_then(|(index, count)| Shard::new(index, count).ok());
            if deflated {
                deflate(&chunk);
            }
            let expected = wire(&chunk, position, shard);
            let mut outgoing = Outgoing::new(Reader { shard, deflated });
            outgoing.push_chunk(chunk.clone(), Seq(position));
            let (mut bytes, mut events) = (Vec::new(), 0);
            for (taken, then) in steps {
                let some: Vec<u8> = {
                    let mut slices = [IoSlice::new(&[]); 4];
                    let filled = outgoing.slices(&mut slices);
                    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).take(taken).collect()
                };
                events += outgoing.advance(some.len()).events;
                bytes.extend(some);
                let goes_on_from = match then {
                    0 => outgoing.take_back(),
                    1 => outgoing.park(),
                    2 => { outgoing.push_soon(Bytes::from_static(&[0xfe; 4])); None }
                    _ => None,
                };
                if let Some(goes_on_from) = goes_on_from {
                    outgoing.push_chunk(chunk.clone(), goes_on_from);
                }
            }
            let (rest, sent) = drain(&mut outgoing, step);
            bytes.extend(rest);
            prop_assert_eq!(events + sent.events, expected.len() as u64);
            // A frame of ours stands where one of an event would begin; those begin with another byte.
            let mut left = bytes.as_slice();
            for frame in &expected {
                while left.starts_with(&[0xfe; 4]) { left = &left[4..]; }
                prop_assert!(left.starts_with(frame));
                left = &left[frame.len()..];
            }
            prop_assert!(left.chunks(4).all(|own| own == [0xfe; 4]));
        }
    }
}
