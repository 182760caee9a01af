//! A node in memory, and the moves that keep a tree in its one shape: split, merge, lift.
//!
//! What must hold: a branch on layer n has subtrees on layer n - 1 only; one without keys has a left subtree. Depth is
//! bounded by [`LAYER_MAX`](super::LAYER_MAX), and so is every recursion here.

use std::{mem, sync::Arc};

use super::{MstError, node};
use crate::cid::Cid;

/// A subtree's place.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// No key stands there.
    None,
    /// A subtree whose node is not at hand.
    Unknown(Cid),
    /// A subtree. Shared with other trees that were cloned from this one, and copied when it changes.
    Known(Arc<Branch>),
}

/// A node in memory.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) layer: u32,
    /// Its block's CID; `None` once it has changed, until it is sealed.
    pub(super) cid: Option<Cid>,
    /// All keys, one after the other: one allocation a node instead of one a key.
    pub(super) keys: Vec<u8>,
    pub(super) left: Link,
    pub(super) slots: Vec<Slot>,
}

/// A record in a branch.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Where its key ends in `keys`; it begins where the one before ends.
    pub(super) key_end: usize,
    pub(super) value: Cid,
    pub(super) right: Link,
}

impl Branch {
    fn new(layer: u32, left: Link) -> Branch {
        Branch { layer, cid: None, keys: Vec::new(), left, slots: Vec::new() }
    }

    /// A branch with one record.
    pub(super) fn single(layer: u32, key: &[u8], value: Cid, left: Link, right: Link) -> Branch {
        let slot = Slot { key_end: key.len(), value, right };
        Branch { layer, cid: None, keys: key.to_vec(), left, slots: vec![slot] }
    }

    fn key_start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.slots[at - 1].key_end }
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        &self.keys[self.key_start(at)..self.slots[at].key_end]
    }

    /// Where a key stands, or else the gap it belongs in: gap n is left of slot n.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.slots.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(super) fn gap(&self, at: usize) -> &Link {
        if at == 0 { &self.left } else { &self.slots[at - 1].right }
    }

    pub(super) fn gap_mut(&mut self, at: usize) -> &mut Link {
        if at == 0 { &mut self.left } else { &mut self.slots[at - 1].right }
    }

    pub(super) fn last_gap(&self) -> &Link {
        self.gap(self.slots.len())
    }

    /// Puts a record into gap `at`, the gap's subtree having been split around it.
    fn put(&mut self, at: usize, key: &[u8], value: Cid, (left, right): (Link, Link)) {
        let start = self.key_start(at);
        self.keys.extend_from_slice(key);
        self.keys[start..].rotate_right(key.len());
        *self.gap_mut(at) = left;
        self.slots.insert(at, Slot { key_end: start, value, right });
        for slot in &mut self.slots[at..] {
            slot.key_end += key.len();
        }
    }

    /// Takes a record out and joins the subtrees beside it.
    fn take(&mut self, at: usize) -> Result<Cid, MstError> {
        let start = self.key_start(at);
        let slot = self.slots.remove(at);
        self.keys.drain(start..slot.key_end);
        for later in &mut self.slots[at..] {
            later.key_end -= slot.key_end - start;
        }
        let left = self.gap_mut(at).take();
        *self.gap_mut(at) = merge(left, slot.right)?;
        Ok(slot.value)
    }

    /// Cuts off all from slot `at` on; the last gap of what stays is empty.
    fn split_off(&mut self, at: usize, left: Link) -> Branch {
        let start = self.key_start(at);
        let keys = self.keys.split_off(start);
        let mut slots = self.slots.split_off(at);
        for slot in &mut slots {
            slot.key_end -= start;
        }
        Branch { layer: self.layer, cid: None, keys, left, slots }
    }

    /// Replaces `out` by the block. All subtrees must be sealed.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        node::begin(out, self.slots.len());
        let mut before: &[u8] = &[];
        for (at, slot) in self.slots.iter().enumerate() {
            let key = self.key(at);
            let prefix_len = common_prefix(before, key);
            let entry =
                node::Entry { prefix_len, suffix: &key[prefix_len..], value: slot.value, right: slot.right.cid() };
            node::write_entry(out, &entry);
            before = key;
        }
        node::end(out, self.left.cid());
    }
}

impl Link {
    pub(super) fn branch(branch: Branch) -> Link {
        Link::Known(Arc::new(branch))
    }

    /// The subtree's CID; it must be sealed.
    fn cid(&self) -> Option<Cid> {
        match self {
            Link::None => None,
            Link::Unknown(cid) => Some(*cid),
            Link::Known(branch) => Some(branch.cid.expect("subtrees are sealed before the branch above them")),
        }
    }

    pub(super) fn take(&mut self) -> Link {
        mem::replace(self, Link::None)
    }

    /// Sets a record in the subtree whose place is on layer `at`; `layer` is the key's, and not above that.
    pub(super) fn insert(&mut self, at: u32, key: &[u8], layer: u32, value: Cid) -> Result<(), MstError> {
        match self {
            Link::None => {
                let branch = Branch::single(layer, key, value, Link::None, Link::None);
                *self = Link::branch(branch).lift(layer, at);
                Ok(())
            }
            Link::Unknown(cid) => Err(MstError::MissingBlock { cid: *cid }),
            Link::Known(branch) => {
                let branch = Arc::make_mut(branch);
                branch.cid = None;
                match branch.find(key) {
                    Ok(found) => branch.slots[found].value = value,
                    Err(gap) if layer < branch.layer => {
                        let below = branch.layer - 1;
                        branch.gap_mut(gap).insert(below, key, layer, value)?;
                    }
                    Err(gap) => {
                        let sides = branch.gap_mut(gap).take().split(key)?;
                        branch.put(gap, key, value, sides);
                    }
                }
                Ok(())
            }
        }
    }

    /// Takes out a record that is known to be in this subtree; nodes that are left without keys go too.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<Option<Cid>, MstError> {
        let branch = match self {
            Link::None => return Ok(None),
            Link::Unknown(cid) => return Err(MstError::MissingBlock { cid: *cid }),
            Link::Known(branch) => Arc::make_mut(branch),
        };
        branch.cid = None;
        let removed = match branch.find(key) {
            Ok(found) => Some(branch.take(found)?),
            Err(gap) => branch.gap_mut(gap).remove(key)?,
        };
        if branch.slots.is_empty() && matches!(branch.left, Link::None) {
            *self = Link::None;
        }
        Ok(removed)
    }

    /// Parts what is below a key from what is above it. A subtree that lies on one side only stays as it is and keeps
    /// its CID.
    pub(super) fn split(self, key: &[u8]) -> Result<(Link, Link), MstError> {
        let branch = match self {
            Link::None => return Ok((Link::None, Link::None)),
            Link::Unknown(cid) => return Err(MstError::MissingBlock { cid }),
            Link::Known(branch) => branch,
        };
        let mut low = Arc::unwrap_or_clone(branch);
        let Err(gap) = low.find(key) else {
            return Err(MstError::Malformed { why: "a key stands on its own layer" });
        };
        let (gap_low, gap_high) = low.gap_mut(gap).take().split(key)?;
        if gap == low.slots.len() && matches!(gap_high, Link::None) {
            *low.gap_mut(gap) = gap_low;
            return Ok((Link::branch(low), Link::None));
        }
        if gap == 0 && matches!(gap_low, Link::None) {
            low.left = gap_high;
            return Ok((Link::None, Link::branch(low)));
        }
        let high = low.split_off(gap, gap_high);
        *low.gap_mut(gap) = gap_low;
        low.cid = None;
        Ok((Link::branch(low), Link::branch(high)))
    }

    /// Puts nodes without keys above a subtree, so that its top moves from layer `from` to layer `to`.
    pub(super) fn lift(self, from: u32, to: u32) -> Link {
        match self {
            Link::None => Link::None,
            known @ (Link::Unknown(_) | Link::Known(_)) => {
                (from..to).fold(known, |link, layer| Link::branch(Branch::new(layer + 1, link)))
            }
        }
    }

    /// Hashes what has changed, deepest first; `emit` gets each new block. Gives the CID, if there is a subtree.
    pub(super) fn seal(&mut self, block: &mut Vec<u8>, emit: &mut impl FnMut(Cid, &[u8])) -> Option<Cid> {
        let branch = match self {
            Link::None => return None,
            Link::Unknown(cid) => return Some(*cid),
            Link::Known(branch) => branch,
        };
        if let Some(cid) = branch.cid {
            return Some(cid);
        }
        let branch = Arc::make_mut(branch);
        branch.left.seal(block, emit);
        for slot in &mut branch.slots {
            slot.right.seal(block, emit);
        }
        branch.encode(block);
        let cid = Cid::of_cbor(block);
        branch.cid = Some(cid);
        emit(cid, block);
        Some(cid)
    }
}

/// Joins two neighbouring subtrees of the same layer.
fn merge(low: Link, high: Link) -> Result<Link, MstError> {
    let (low, high) = match (low, high) {
        (Link::None, one) | (one, Link::None) => return Ok(one),
        (Link::Unknown(cid), _) | (_, Link::Unknown(cid)) => return Err(MstError::MissingBlock { cid }),
        (Link::Known(low), Link::Known(high)) => (low, high),
    };
    let (mut low, mut high) = (Arc::unwrap_or_clone(low), Arc::unwrap_or_clone(high));
    let gap = low.slots.len();
    let between = low.gap_mut(gap).take();
    *low.gap_mut(gap) = merge(between, high.left.take())?;
    let shift = low.keys.len();
    low.keys.append(&mut high.keys);
    low.slots.extend(high.slots.into_iter().map(|slot| Slot { key_end: slot.key_end + shift, ..slot }));
    low.cid = None;
    Ok(Link::branch(low))
}

/// How many bytes two keys share at their beginnings: eight at a time, most of a node's keys share twenty or thirty.
pub(super) fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let (ones, _) = one.as_chunks::<8>();
    let (others, _) = other.as_chunks::<8>();
    let mut shared = 0;
    for (one, other) in ones.iter().zip(others) {
        let differs = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differs != 0 {
            return shared + differs.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    shared + one[shared..].iter().zip(&other[shared..]).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_bytes_are_counted_to_the_first_that_differs() {
        let key = b"app.bsky.feed.post/3jui7kd54zh2y";
        for len in 0..=key.len() {
            assert_eq!(common_prefix(key, &key[..len]), len);
            assert_eq!(common_prefix(&key[..len], key), len);
            let mut other = key.to_vec();
            if let Some(byte) = other.get_mut(len) {
                *byte ^= 0x80;
                assert_eq!(common_prefix(key, &other), len);
            }
        }
    }
}
