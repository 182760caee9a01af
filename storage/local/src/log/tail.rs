//! The newest events in memory, as they were written: readers that keep up never touch the disk.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use storage::{log::Published, seq::Seq};

/// A ring of groups, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes_max: usize,
    ring: RwLock<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    groups: VecDeque<TailGroup>,
    bytes: usize,
}

/// One group: the buffer that was written to disk, and where in it the frames are.
#[derive(Debug)]
pub(crate) struct TailGroup {
    pub(crate) first: Seq,
    pub(crate) buffer: Bytes,
    pub(crate) frames: Vec<TailFrame>,
}

/// Where a frame stands in its group's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailFrame {
    pub(crate) account: u64,
    pub(crate) taken_down: bool,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl TailGroup {
    fn bytes(&self) -> usize {
        self.buffer.len() + self.frames.len() * size_of::<TailFrame>()
    }

    fn past_last(&self) -> Seq {
        Seq(self.first.0 + self.frames.len() as u64)
    }

    fn published(&self, at: usize) -> Published {
        let frame = self.frames[at];
        Published {
            seq: Seq(self.first.0 + at as u64),
            account: frame.account,
            taken_down: frame.taken_down,
            frame: self.buffer.slice(frame.start as usize..frame.end as usize),
        }
    }
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Tail {
        Tail { bytes_max, ring: RwLock::default() }
    }

    /// Adds a durable group; drops the oldest while there are more bytes than allowed.
    pub(crate) fn push(&self, group: TailGroup) {
        let mut dropped = Vec::new();
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += group.bytes();
        ring.groups.push_back(group);
        while ring.bytes > self.bytes_max && ring.groups.len() > 1 {
            let Some(oldest) = ring.groups.pop_front() else { break };
            ring.bytes -= oldest.bytes();
            dropped.push(oldest);
        }
        drop(ring);
    }

    /// The events after `after`, about `bytes_max`, at least one; `None` where the next one is not in memory.
    pub(crate) fn read(&self, after: Seq, bytes_max: usize) -> Option<Vec<Published>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let next = after.next();
        let start = ring.groups.partition_point(|group| group.past_last() <= next);
        let group = ring.groups.get(start).filter(|group| group.first <= next)?;
        let mut skip = (next.0 - group.first.0) as usize;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for group in ring.groups.range(start..) {
            for at in skip..group.frames.len() {
                if bytes >= bytes_max && !found.is_empty() {
                    return Some(found);
                }
                let published = group.published(at);
                bytes += published.frame.len();
                found.push(published);
            }
            skip = 0;
        }
        Some(found)
    }
}
