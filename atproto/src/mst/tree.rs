use super::{MstError, Op};
use crate::{car::Car, cid::Cid};

/// A tree in memory; subtrees may be known by their CID only.
#[derive(Clone, Debug)]
pub struct Tree {
    _private: (),
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
        todo!()
    }

    /// The part of a tree that `blocks` hold. Subtrees that are not there stay CIDs.
    ///
    /// Always checks layers, key order, prefix compression, entry and depth caps, and that no node stands below itself.
    pub fn load(root: Cid, blocks: &Car<'_>) -> Result<Tree, MstError> {
        let _ = (root, blocks);
        todo!()
    }

    /// The record at a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Cid>, MstError> {
        let _ = key;
        todo!()
    }

    /// Sets a record; gives the one before.
    pub fn insert(&mut self, key: &[u8], value: Cid) -> Result<Option<Cid>, MstError> {
        let _ = (key, value);
        todo!()
    }

    /// Removes a record; gives it.
    pub fn remove(&mut self, key: &[u8]) -> Result<Option<Cid>, MstError> {
        let _ = key;
        todo!()
    }

    /// The root's CID; hashes what changed.
    pub fn root(&mut self) -> Cid {
        todo!()
    }

    /// All known records in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Cid)> {
        todo!()
    }

    /// Does all ops, or none where one does not fit, and gathers the covering proof.
    pub fn apply(&mut self, ops: &[Op<'_>]) -> Result<Applied, MstError> {
        let _ = ops;
        todo!()
    }
}
