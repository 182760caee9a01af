//! The memory that groups are written into: a few blocks, taken in turns for ever.
//!
//! A fresh allocation of some hundred KiB costs a page fault and a cleared page for every event that goes into it; a block
//! that was used before costs nothing, and may still be in the processor's cache. What must hold: a block is written
//! anew only when nobody holds a group of its last turn any more. A reader that does holds on to that block alone: it is
//! let go, and goes with its last reader.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Blocks of one size.
#[derive(Debug)]
pub(super) struct Blocks {
    block_bytes: usize,
    /// How many full blocks are remembered.
    full_max: usize,
    /// What is left of the block that is being filled; `None` while a group is written into it.
    current: Option<BytesMut>,
    /// Handles on the full ones, the one that was filled first in front.
    full: VecDeque<BytesMut>,
}

impl Blocks {
    /// Blocks of `block_bytes`, of which readers keep groups of about `kept_bytes` at a time.
    pub(super) fn new(block_bytes: usize, kept_bytes: usize) -> Blocks {
        // Groups do not fill blocks to the last byte, and a reader may lag a little.
        let full_max = kept_bytes.div_ceil(block_bytes) * 2 + 2;
        Blocks { block_bytes, full_max, current: None, full: VecDeque::new() }
    }

    /// An empty buffer with room for a group of `bytes`; to be given back with [`Blocks::finish`]. One that is larger
    /// than a block is made for this group alone.
    pub(super) fn begin(&mut self, bytes: usize) -> BytesMut {
        if bytes > self.block_bytes {
            return BytesMut::with_capacity(bytes);
        }
        match self.current.take() {
            Some(block) if block.capacity() >= bytes => block,
            full => {
                self.full.extend(full);
                let free = self.full.iter_mut().position(|block| block.try_reclaim(self.block_bytes));
                let reused = free.and_then(|at| self.full.remove(at));
                while self.full.len() > self.full_max {
                    self.full.pop_front();
                }
                reused.unwrap_or_else(|| BytesMut::with_capacity(self.block_bytes))
            }
        }
    }

    /// The group that was written. What is left of its block takes the next one.
    pub(super) fn finish(&mut self, mut buffer: BytesMut) -> Bytes {
        let group = buffer.split().freeze();
        if group.len() <= self.block_bytes {
            self.current = Some(buffer);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(blocks: &mut Blocks, bytes: usize, fill: u8) -> Bytes {
        let mut buffer = blocks.begin(bytes);
        assert!(buffer.is_empty() && buffer.capacity() >= bytes);
        buffer.resize(bytes, fill);
        blocks.finish(buffer)
    }

    #[test]
    fn memory_goes_round() {
        let mut blocks = Blocks::new(1_000, 2_400);
        let mut tail = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for number in 0..1_000 {
            let fill = number as u8;
            let group = write(&mut blocks, 300, fill);
            places.insert(group.as_ptr() as usize);
            tail.push_back((group, fill));
            if tail.len() > 8 {
                tail.pop_front();
            }
            assert!(tail.iter().all(|(group, fill)| group.iter().all(|byte| byte == fill)));
        }
        assert!(places.len() <= 5 * 3, "three groups fit a block, nine are held: {} places", places.len());
    }

    #[test]
    fn a_block_that_is_read_is_not_written() {
        let mut blocks = Blocks::new(100, 100);
        let held = write(&mut blocks, 100, 7);
        for fill in 0..50 {
            write(&mut blocks, 100, fill);
        }
        assert!(held.iter().all(|byte| *byte == 7));
        assert!(blocks.full.len() <= 3);
    }

    #[test]
    fn a_group_larger_than_a_block_has_its_own_memory() {
        let mut blocks = Blocks::new(100, 100);
        let small = write(&mut blocks, 10, 1);
        let large = write(&mut blocks, 1_000, 2);
        let next = write(&mut blocks, 10, 3);
        assert_eq!(next.as_ptr() as usize, small.as_ptr() as usize + 10, "the small block goes on");
        assert!(large.iter().all(|byte| *byte == 2));
    }
}
