//! All segments of the log, in order, and what of them is kept.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::{log::Window, seq::Seq};

use super::segment::{Reading, Segment};

/// How many full segments stay open for readers.
const READING_MAX: usize = 16;
/// How many places where reads ended are remembered: one for each reader that is about, and some.
const PLACES_MAX: usize = 64;

/// The segments, oldest first; never none.
#[derive(Debug)]
pub(crate) struct Segments {
    list: RwLock<VecDeque<Arc<Segment>>>,
    /// Bytes of all segments but the active one.
    full_bytes: AtomicU64,
    /// First seqs of the full segments that are open, the one longest open first.
    reading: Mutex<VecDeque<Seq>>,
    /// Where the last reads ended, so that who reads on need not search, nor read anything twice.
    places: Mutex<VecDeque<Place>>,
}

/// Where the record after an event begins, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The segment's first.
    segment: Seq,
    after: Seq,
    offset: u64,
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Nothing older than this, microseconds since the Unix epoch, need be kept.
    pub(crate) before_micros: u64,
    pub(crate) bytes_max: u64,
}

impl Segments {
    /// `list` must not be empty.
    pub(crate) fn new(list: Vec<Arc<Segment>>) -> Segments {
        let full = &list[..list.len().saturating_sub(1)];
        let full_bytes = full.iter().map(|segment| segment.extent().end).sum();
        full.iter().for_each(|segment| segment.forget_reading());
        Segments {
            list: RwLock::new(list.into()),
            full_bytes: AtomicU64::new(full_bytes),
            reading: Mutex::default(),
            places: Mutex::default(),
        }
    }

    fn list(&self) -> std::sync::RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is written.
    pub(crate) fn active(&self) -> Arc<Segment> {
        Arc::clone(self.list().back().expect("there is always a segment"))
    }

    /// Adds a new active one. The one before stays open only for whoever reads it right now: a window may have more
    /// segments than a process may have files.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(full) = list.back() {
            self.full_bytes.fetch_add(full.extent().end, Ordering::Relaxed);
            full.forget_reading();
        }
        list.push_back(segment);
    }

    /// The segment that holds the first event after `after`.
    pub(crate) fn holding(&self, after: Seq) -> Option<Arc<Segment>> {
        let list = self.list();
        let start = list.partition_point(|segment| segment.extent().last <= after);
        list.range(start..).find(|segment| !segment.is_empty()).cloned()
    }

    /// Opens a segment for reading; closes the one that was opened longest ago where too many are.
    pub(crate) fn read(&self, segment: &Segment) -> io::Result<Arc<Reading>> {
        let opened = segment.reading()?;
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if !reading.contains(&segment.header.first) {
            reading.push_back(segment.header.first);
        }
        while reading.len() > READING_MAX {
            let Some(longest) = reading.pop_front() else { break };
            let list = self.list();
            // The active one is the writer's too.
            let full = list.iter().rev().skip(1).find(|segment| segment.header.first == longest);
            if let Some(segment) = full {
                segment.forget_reading();
            }
        }
        Ok(opened)
    }

    /// Where in this segment what follows `after` begins, if a read ended there lately.
    pub(crate) fn place_after(&self, segment: &Segment, after: Seq) -> Option<u64> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.iter().rev().find(|place| place.after == after && place.segment == segment.header.first);
        found.map(|place| place.offset)
    }

    /// Notes where a read ended.
    pub(crate) fn note_place(&self, segment: &Segment, after: Seq, offset: u64) {
        let place = Place { segment: segment.header.first, after, offset };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.contains(&place) {
            places.push_back(place);
        }
        while places.len() > PLACES_MAX {
            places.pop_front();
        }
    }

    /// The last seq before the log's oldest segment: what Repos must at least have seen.
    pub(crate) fn before_first(&self) -> Seq {
        self.list().front().map_or(Seq(0), |segment| segment.header.after)
    }

    pub(crate) fn window(&self) -> Window {
        let list = self.list();
        let oldest = list.iter().find(|segment| !segment.is_empty());
        let active = list.back().expect("there is always a segment").extent();
        let last = active.last;
        Window {
            first: oldest.map_or(last.next(), |segment| segment.header.first),
            last,
            bytes: self.full_bytes.load(Ordering::Relaxed) + active.end,
            first_at_micros: oldest.and_then(|segment| segment.extent().first_at_micros),
        }
    }

    /// The oldest segment, if it need not be kept. The last one always is.
    pub(crate) fn superfluous(&self, retention: Retention) -> Option<Arc<Segment>> {
        let bytes = self.window().bytes;
        let list = self.list();
        let oldest = list.front().filter(|_| list.len() > 1)?;
        let is_old = oldest.extent().last_at_micros.is_none_or(|at| at < retention.before_micros);
        (is_old || bytes > retention.bytes_max).then(|| Arc::clone(oldest))
    }

    /// Drops the oldest segment from the list. Its file is to be deleted after: whoever reads must not find it gone.
    pub(crate) fn pop_front(&self) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.len() > 1
            && let Some(oldest) = list.pop_front()
        {
            self.full_bytes.fetch_sub(oldest.extent().end, Ordering::Relaxed);
        }
    }
}
