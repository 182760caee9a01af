//! Trees from outside: every node that can be reached and is there is judged before any of it is used.

use std::sync::Arc;

use super::{
    KEY_BYTES_MAX, LAYER_MAX, MstError,
    branch::{Branch, Link, Slot},
    node::{Reader, layer},
};
use crate::{car::Car, cid::Cid};

/// Builds the part of a tree that `blocks` hold, as [`Tree::load`](super::Tree::load) promises.
pub(super) fn load(root: Cid, blocks: &Car<'_>) -> Result<Link, MstError> {
    if root == super::EMPTY {
        return Ok(Link::None);
    }
    let Some(block) = blocks.get(&root) else {
        return Ok(Link::Unknown(root));
    };
    // A subtree holds its keys' whole range, so no block can stand in two places of one tree. Counting is enough to
    // refuse those that do, before they make a few blocks look like millions.
    let mut loader = Loader { blocks, nodes_left: blocks.len() };
    let branch = loader.branch(root, block, Place { layer: None, after: None, before: None })?;
    Ok(Link::branch(branch))
}

struct Loader<'c, 'b> {
    blocks: &'c Car<'b>,
    nodes_left: usize,
}

/// What a node's place in the tree asks of it.
#[derive(Clone, Copy)]
struct Place<'k> {
    /// `None` for the root, whose first key decides.
    layer: Option<u32>,
    after: Option<&'k [u8]>,
    before: Option<&'k [u8]>,
}

impl Loader<'_, '_> {
    /// Goes at most [`LAYER_MAX`] deep: each step is one layer down.
    fn branch(&mut self, cid: Cid, block: &[u8], place: Place<'_>) -> Result<Branch, MstError> {
        self.nodes_left =
            self.nodes_left.checked_sub(1).ok_or(MstError::Malformed { why: "a node stands in one place" })?;
        let mut branch = read(cid, block, place.layer)?;
        let (Some(first), Some(last)) = (branch.slots.first(), branch.slots.last()) else {
            if let Link::None = branch.left {
                return Err(MstError::Malformed { why: "a node without keys has a left subtree" });
            }
            self.descend(&mut branch.left, branch.layer, place.after, place.before)?;
            return Ok(branch);
        };
        let (first, last_len) = (&branch.keys[..first.key_end], last.key_end);
        let last = &branch.keys[branch.slots.iter().rev().nth(1).map_or(0, |slot| slot.key_end)..last_len];
        if place.after.is_some_and(|after| after >= first) || place.before.is_some_and(|before| last >= before) {
            return Err(MstError::Malformed { why: "a subtree's keys lie between its neighbours" });
        }
        self.descend(&mut branch.left, branch.layer, place.after, Some(first))?;
        let mut start = 0;
        for at in 0..branch.slots.len() {
            let before = match branch.slots.get(at + 1) {
                Some(next) => Some(&branch.keys[branch.slots[at].key_end..next.key_end]),
                None => place.before,
            };
            let slot = &mut branch.slots[at];
            let after = &branch.keys[start..slot.key_end];
            start = slot.key_end;
            self.descend(&mut slot.right, branch.layer, Some(after), before)?;
        }
        Ok(branch)
    }

    /// Loads a subtree of a node on `layer`, if it is among the blocks.
    fn descend(
        &mut self,
        link: &mut Link,
        layer: u32,
        after: Option<&[u8]>,
        before: Option<&[u8]>,
    ) -> Result<(), MstError> {
        let Link::Unknown(cid) = *link else {
            return Ok(());
        };
        let Some(below) = layer.checked_sub(1) else {
            return Err(MstError::Malformed { why: "nothing stands below layer 0" });
        };
        if let Some(block) = self.blocks.get(&cid) {
            let place = Place { layer: Some(below), after, before };
            *link = Link::Known(Arc::new(self.branch(cid, block, place)?));
        }
        Ok(())
    }
}

/// Reads one node: form, keys, their compression, order and layer. Its subtrees stay CIDs.
fn read(cid: Cid, block: &[u8], expected: Option<u32>) -> Result<Branch, MstError> {
    let mut reader = Reader::new(block)?;
    let count = reader.remaining();
    let mut branch = Branch {
        layer: 0,
        cid: Some(cid),
        keys: Vec::with_capacity(count * KEY_BYTES_USUAL),
        left: Link::None,
        slots: Vec::with_capacity(count),
    };
    let entries = read_entries(&mut reader, &mut branch);
    // In a loop of its own: one key's hash does not depend on the one before, and a processor that sees nothing else
    // between works on both at once. What is wrong with an earlier key comes before what is wrong with a later entry.
    let layer = common_layer(&branch, expected)?;
    entries?;
    branch.left = reader.finish()?.map_or(Link::None, Link::Unknown);
    branch.layer = match layer {
        Some(layer) if layer <= LAYER_MAX => layer,
        Some(_) => return Err(MstError::Limit { why: "layers" }),
        None => return Err(MstError::Malformed { why: "a root has keys" }),
    };
    Ok(branch)
}

/// Reads a node's entries, up to the first that breaks a rule.
fn read_entries(reader: &mut Reader<'_>, branch: &mut Branch) -> Result<(), MstError> {
    let Branch { keys, slots, .. } = branch;
    let mut start = 0;
    let mut grammar = Grammar::default();
    while let Some(entry) = reader.entry()? {
        let (end, len) = (keys.len(), entry.prefix_len + entry.suffix.len());
        if entry.prefix_len > end - start {
            return Err(MstError::Malformed { why: "a prefix is no longer than the key before" });
        }
        if len > KEY_BYTES_MAX {
            return Err(MstError::Limit { why: "length of a key" });
        }
        grammar.next(entry.prefix_len, entry.suffix)?;
        if !slots.is_empty() {
            // What comes before the suffix is the same in both.
            let before = &keys[start + entry.prefix_len..end];
            if before >= entry.suffix {
                return Err(MstError::Malformed { why: "keys rise" });
            }
            if before.first() == entry.suffix.first() {
                return Err(MstError::Malformed { why: "a prefix is as long as it can be" });
            }
        }
        keys.extend_from_within(start..start + entry.prefix_len);
        keys.extend_from_slice(entry.suffix);
        let right = entry.right.map_or(Link::None, Link::Unknown);
        slots.push(Slot { key_end: keys.len(), value: entry.value, right });
        start = end;
    }
    Ok(())
}

/// The layer of a node's keys, which is the expected one, or else the first key's; `None` where nothing says it.
fn common_layer(branch: &Branch, mut expected: Option<u32>) -> Result<Option<u32>, MstError> {
    let mut start = 0;
    for slot in &branch.slots {
        let layer = layer(&branch.keys[start..slot.key_end]);
        if *expected.get_or_insert(layer) != layer {
            return Err(MstError::Malformed { why: "a key stands on its own layer" });
        }
        start = slot.key_end;
    }
    Ok(expected)
}

/// Room made for each key at first; most are a collection such as `app.bsky.feed.post`, a slash and a TID.
const KEY_BYTES_USUAL: usize = 36;

/// The part of a repo path's grammar that a tree depends on: two parts, a slash between them, its characters, its
/// length.
pub(super) fn check_key(key: &[u8]) -> Result<(), MstError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(MstError::Limit { why: "length of a key" });
    }
    Grammar::default().next(0, key)
}

/// Checks the grammar of keys that follow each other, each without what it shares with the one before.
#[derive(Default)]
struct Grammar {
    /// Where the slash stands in the last key.
    slash: Option<usize>,
}

impl Grammar {
    fn next(&mut self, prefix_len: usize, suffix: &[u8]) -> Result<(), MstError> {
        let ill_formed = MstError::Malformed { why: "a key is collection/rkey" };
        let mut slash = self.slash.filter(|at| *at < prefix_len);
        for (at, byte) in suffix.iter().enumerate() {
            match KEY_BYTES[*byte as usize] {
                KeyByte::Plain => {}
                KeyByte::Slash if slash.is_none() => slash = Some(prefix_len + at),
                KeyByte::Slash | KeyByte::Forbidden => return Err(ill_formed),
            }
        }
        self.slash = slash;
        match slash {
            Some(at) if at > 0 && at + 1 < prefix_len + suffix.len() => Ok(()),
            Some(_) | None => Err(ill_formed),
        }
    }
}

#[derive(Clone, Copy)]
enum KeyByte {
    Plain,
    Slash,
    Forbidden,
}

/// What each byte may be in a key.
const KEY_BYTES: [KeyByte; 256] = {
    let mut bytes = [KeyByte::Forbidden; 256];
    let mut byte = 0;
    while byte < 256 {
        bytes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'~' => KeyByte::Plain,
            b'/' => KeyByte::Slash,
            _ => KeyByte::Forbidden,
        };
        byte += 1;
    }
    bytes
};
