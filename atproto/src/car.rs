//! CAR version 1 files: a header with roots, then blocks (specification: Repository, "CAR File Serialization").

use crate::cid::Cid;

/// A CAR read from bytes, its blocks hashed and indexed.
#[derive(Debug)]
pub struct Car<'a> {
    _bytes: &'a [u8],
}

/// A CAR that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarError {
    /// Header or block lengths can't be read.
    #[error("malformed car: {why}")]
    Malformed {
        /// The rule that is broken.
        why: &'static str,
    },
    /// No root, or the root is not a CID of the protocol's form.
    #[error("car without a usable root")]
    NoRoot,
    /// A block's bytes do not hash to its CID.
    #[error("block {cid} has other bytes")]
    WrongHash {
        /// The block.
        cid: Cid,
    },
}

impl<'a> Car<'a> {
    /// Reads the header and all blocks; hashes each block once. Blocks named by other kinds of CID are skipped: nothing
    /// can refer to them. The same block twice is kept once.
    pub fn parse(bytes: &'a [u8]) -> Result<Car<'a>, CarError> {
        let _ = bytes;
        todo!()
    }

    /// The first root.
    pub fn root(&self) -> Cid {
        todo!()
    }

    /// A block by its CID.
    pub fn get(&self, cid: &Cid) -> Option<&'a [u8]> {
        let _ = cid;
        todo!()
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All blocks in the file's order.
    pub fn blocks(&self) -> impl Iterator<Item = (Cid, &'a [u8])> + '_ {
        std::iter::empty()
    }
}

/// Writes a CAR with one root.
pub fn write<'b>(root: Cid, blocks: impl IntoIterator<Item = (Cid, &'b [u8])>) -> Vec<u8> {
    let _ = (root, blocks.into_iter().count());
    todo!()
}
