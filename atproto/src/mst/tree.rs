use std::collections::HashSet;

use super::{
    EMPTY, LAYER_MAX, MstError, Op,
    branch::{Branch, Link},
    invert::net_changes,
    layer, load, node,
};
use crate::{car::Car, cid::Cid};

/// A tree in memory; subtrees may be known by their CID only.
///
/// A clone is cheap: it shares all nodes until one of the two changes. An operation that needs a node that is not at
/// hand fails with [`MstError::MissingBlock`] and leaves the tree as it was.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Link,
}

/// What a repo's host needs to announce a change.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The root before.
    pub prev_data: Cid,
    /// The root after.
    pub data: Cid,
    /// The nodes a reader needs to invert the ops: the new ones, and the neighbours of what was removed.
    pub blocks: Vec<(Cid, Vec<u8>)>,
}

impl Tree {
    /// A tree without records.
    pub fn empty() -> Tree {
        Tree { root: Link::None }
    }

    /// The part of a tree that `blocks` hold. Subtrees that are not there stay CIDs; so does the root.
    ///
    /// Always checks, for each node that can be reached: canonical CBOR, layers, key order (over the whole tree, not
    /// only within a node), prefix compression, the keys' characters, entry and depth caps, and that no node stands
    /// below itself. Does not look at blocks that can't be reached.
    pub fn load(root: Cid, blocks: &Car<'_>) -> Result<Tree, MstError> {
        Ok(Tree { root: load::load(root, blocks)? })
    }

    /// The record at a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Cid>, MstError> {
        self.get_visiting(key, &mut |_| {})
    }

    /// Sets a record; gives the one before.
    pub fn insert(&mut self, key: &[u8], value: Cid) -> Result<Option<Cid>, MstError> {
        self.insert_visiting(key, value, &mut |_| {})
    }

    /// Removes a record; gives it.
    pub fn remove(&mut self, key: &[u8]) -> Result<Option<Cid>, MstError> {
        self.remove_visiting(key, &mut |_| {})
    }

    /// The root's CID; hashes what changed.
    pub fn root(&mut self) -> Cid {
        self.seal(&mut |_, _| {})
    }

    /// All known records in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Cid)> {
        let mut records = Vec::new();
        each_record(&self.root, &mut |key, value| records.push((key.to_vec(), value)));
        records
    }

    /// All known nodes as blocks, each before those below it: what a repo's export holds.
    pub fn blocks(&mut self) -> Vec<(Cid, Vec<u8>)> {
        self.root();
        if let Link::None = self.root {
            return vec![empty_block()];
        }
        let mut blocks = Vec::new();
        each_branch(&self.root, &mut |branch| blocks.extend(block_of(branch)));
        blocks
    }

    /// Does all ops, or none where one does not fit, and gathers the covering proof (proposal 0006): the nodes that are
    /// new, and those that undoing the ops reads.
    pub fn apply(&mut self, ops: &[Op<'_>]) -> Result<Applied, MstError> {
        let changes = net_changes(ops)?;
        let prev_data = self.root();
        let mut next = self.clone();
        for change in &changes {
            next.advance(change)?;
        }
        let mut blocks = Vec::new();
        let data = next.seal(&mut |cid, block| blocks.push((cid, block.to_vec())));
        if data == EMPTY {
            blocks.push(empty_block());
        }
        blocks.reverse();
        let mut seen: HashSet<Cid> = blocks.iter().map(|(cid, _)| *cid).collect();
        next.clone().undo(&changes, &mut |branch| {
            if branch.cid.is_some_and(|cid| seen.insert(cid)) {
                blocks.extend(block_of(branch));
            }
        })?;
        *self = next;
        Ok(Applied { prev_data, data, blocks })
    }

    /// Does one path's net change.
    fn advance(&mut self, change: &Op<'_>) -> Result<(), MstError> {
        let key = change.path.as_bytes();
        let before = match change.cid {
            Some(cid) => self.insert(key, cid)?,
            None => self.remove(key)?,
        };
        fits(change, before == change.prev)
    }

    /// Undoes net changes, one a path; `visit` sees each node that is read.
    ///
    /// The tree's shape depends on its keys alone, so the order is free. What was deleted goes in first: a key that is
    /// there again parts its neighbours, so that taking out the key beside it joins less, and needs fewer nodes.
    pub(super) fn undo(&mut self, changes: &[Op<'_>], visit: &mut impl FnMut(&Branch)) -> Result<(), MstError> {
        for change in changes {
            let key = change.path.as_bytes();
            let after = match change.prev {
                Some(prev) if change.cid == Some(prev) => self.get_visiting(key, visit)?,
                Some(prev) => self.insert_visiting(key, prev, visit)?,
                None => continue,
            };
            fits(change, after == change.cid)?;
        }
        for change in changes.iter().filter(|change| change.prev.is_none()) {
            let key = change.path.as_bytes();
            let after = match change.cid {
                Some(_) => self.remove_visiting(key, visit)?,
                None => self.get_visiting(key, visit)?,
            };
            fits(change, after == change.cid)?;
        }
        Ok(())
    }

    fn seal(&mut self, emit: &mut impl FnMut(Cid, &[u8])) -> Cid {
        self.root.seal(&mut Vec::with_capacity(NODE_BYTES_USUAL), emit).unwrap_or(EMPTY)
    }

    fn get_visiting(&self, key: &[u8], visit: &mut impl FnMut(&Branch)) -> Result<Option<Cid>, MstError> {
        let layer = layer(key);
        let mut link = &self.root;
        loop {
            match link {
                Link::None => return Ok(None),
                Link::Unknown(cid) => return Err(MstError::MissingBlock { cid: *cid }),
                Link::Known(branch) => {
                    visit(branch);
                    match branch.find(key) {
                        Ok(found) => return Ok(Some(branch.slots[found].value)),
                        // A key stands on its layer or nowhere, whatever is below.
                        Err(_) if branch.layer <= layer => return Ok(None),
                        Err(gap) => link = branch.gap(gap),
                    }
                }
            }
        }
    }

    fn insert_visiting(
        &mut self,
        key: &[u8],
        value: Cid,
        visit: &mut impl FnMut(&Branch),
    ) -> Result<Option<Cid>, MstError> {
        load::check_key(key)?;
        let layer = layer(key);
        if layer > LAYER_MAX {
            return Err(MstError::Limit { why: "layers" });
        }
        // All nodes that may be split are looked at before the first is changed.
        let before = search_to_the_ground(&self.root, key, visit)?;
        if before == Some(value) {
            return Ok(before);
        }
        match &self.root {
            Link::Known(top) if layer > top.layer => {
                let below = top.layer;
                let (left, right) = self.root.take().split(key)?;
                let (left, right) = (left.lift(below, layer - 1), right.lift(below, layer - 1));
                self.root = Link::branch(Branch::single(layer, key, value, left, right));
            }
            Link::None | Link::Unknown(_) | Link::Known(_) => self.root.insert(layer, key, layer, value)?,
        }
        Ok(before)
    }

    fn remove_visiting(&mut self, key: &[u8], visit: &mut impl FnMut(&Branch)) -> Result<Option<Cid>, MstError> {
        // All nodes that may be joined are looked at before the first is changed.
        if !self.removal_is_known(key, visit)? {
            return Ok(None);
        }
        let removed = self.root.remove(key)?;
        // The top is the highest node that has keys.
        while let Link::Known(top) = &self.root
            && top.slots.is_empty()
        {
            self.root = top.left.clone();
        }
        Ok(removed)
    }

    /// Whether the key is there; an error unless every node that removing it touches is at hand.
    fn removal_is_known(&self, key: &[u8], visit: &mut impl FnMut(&Branch)) -> Result<bool, MstError> {
        let key_layer = layer(key);
        let mut link = &self.root;
        let mut at_top = true;
        loop {
            let branch = match link {
                Link::None => return Ok(false),
                Link::Unknown(cid) => return Err(MstError::MissingBlock { cid: *cid }),
                Link::Known(branch) => branch,
            };
            visit(branch);
            match branch.find(key) {
                Ok(found) => {
                    match (branch.gap(found), branch.gap(found + 1)) {
                        (Link::None, only) | (only, Link::None) if at_top && branch.slots.len() == 1 => {
                            top_is_known(only, visit)?;
                        }
                        (left, right) => seam_is_known(left, right, visit)?,
                    }
                    return Ok(true);
                }
                Err(_) if branch.layer <= key_layer => return Ok(false),
                Err(gap) => link = branch.gap(gap),
            }
            at_top = false;
        }
    }
}

/// An error unless every node on the seam of two neighbouring subtrees is at hand.
fn seam_is_known(mut left: &Link, mut right: &Link, visit: &mut impl FnMut(&Branch)) -> Result<(), MstError> {
    loop {
        match (left, right) {
            (Link::None, _) | (_, Link::None) => return Ok(()),
            (Link::Unknown(cid), _) | (_, Link::Unknown(cid)) => return Err(MstError::MissingBlock { cid: *cid }),
            (Link::Known(low), Link::Known(high)) => {
                visit(low);
                visit(high);
                (left, right) = (low.last_gap(), &high.left);
            }
        }
    }
}

/// An error unless a subtree that becomes the whole tree is known down to its highest key: the nodes without keys above
/// that go, and which node is the root is not known before.
fn top_is_known(mut link: &Link, visit: &mut impl FnMut(&Branch)) -> Result<(), MstError> {
    loop {
        match link {
            Link::None => return Ok(()),
            Link::Unknown(cid) => return Err(MstError::MissingBlock { cid: *cid }),
            Link::Known(branch) => {
                visit(branch);
                if !branch.slots.is_empty() {
                    return Ok(());
                }
                link = &branch.left;
            }
        }
    }
}

/// The record at a key; where there is none, every node that the key's insertion would split has been seen.
fn search_to_the_ground(mut link: &Link, key: &[u8], visit: &mut impl FnMut(&Branch)) -> Result<Option<Cid>, MstError> {
    loop {
        match link {
            Link::None => return Ok(None),
            Link::Unknown(cid) => return Err(MstError::MissingBlock { cid: *cid }),
            Link::Known(branch) => {
                visit(branch);
                match branch.find(key) {
                    Ok(found) => return Ok(Some(branch.slots[found].value)),
                    Err(gap) => link = branch.gap(gap),
                }
            }
        }
    }
}

/// Room made for a node's block at first: four or five records and as many subtrees.
const NODE_BYTES_USUAL: usize = 1_024;

fn fits(change: &Op<'_>, fits: bool) -> Result<(), MstError> {
    if fits { Ok(()) } else { Err(MstError::OpMismatch { path: change.path.to_owned() }) }
}

fn empty_block() -> (Cid, Vec<u8>) {
    (EMPTY, node::Node { left: None, entries: Vec::new() }.encode())
}

/// The block of a branch that is sealed.
fn block_of(branch: &Branch) -> Option<(Cid, Vec<u8>)> {
    let mut block = Vec::new();
    branch.encode(&mut block);
    branch.cid.map(|cid| (cid, block))
}

fn each_branch(link: &Link, visit: &mut impl FnMut(&Branch)) {
    if let Link::Known(branch) = link {
        visit(branch);
        each_branch(&branch.left, visit);
        for slot in &branch.slots {
            each_branch(&slot.right, visit);
        }
    }
}

fn each_record(link: &Link, visit: &mut impl FnMut(&[u8], Cid)) {
    if let Link::Known(branch) = link {
        each_record(&branch.left, visit);
        for (at, slot) in branch.slots.iter().enumerate() {
            visit(branch.key(at), slot.value);
            each_record(&slot.right, visit);
        }
    }
}
