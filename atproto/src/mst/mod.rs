//! The Merkle search tree that holds a repo's records (specification: Repository, "MST Structure").
//!
//! `node` reads and writes one block; `branch` is a node in memory; `tree` is a tree of them of which parts may be known
//! by their CID only; `load` judges one from outside; `invert` undoes a commit's ops on the partial tree that the commit
//! carries.
//!
//! What must hold: a tree has exactly one shape for its keys; after `invert(apply(tree, ops))` the root is the one
//! before; where a node that matters is missing, the answer is an error, never another root.

mod branch;
mod invert;
mod load;
mod node;
mod tree;

pub use invert::{Op, invert};
pub use node::{Entry, Node, layer};
pub use tree::{Applied, Tree};

use crate::cid::{Cid, Codec};

/// The root of a tree without records: a node without entries.
pub const EMPTY: Cid = Cid {
    codec: Codec::DagCbor,
    digest: [
        0x9d, 0xfe, 0xfe, 0x61, 0xdd, 0x76, 0xea, 0x3d, 0xca, 0xe5, 0x02, 0x38, 0x80, 0xb0, 0x83, 0x79, 0xd5, 0x7a,
        0xdf, 0x20, 0x48, 0x2d, 0x6f, 0xdb, 0xe2, 0x75, 0x92, 0x89, 0xf6, 0x47, 0x67, 0x7b,
    ],
};

/// Most entries of one node from outside; more is an attack (the expected number is 4).
pub const NODE_ENTRIES_MAX: usize = 1_024;

/// Longest key, in bytes (specification: Repository, "Repo Paths").
pub const KEY_BYTES_MAX: usize = 1_024;

/// Deepest layer from outside; a key of that layer costs an attacker 4^LAYER_MAX hashes.
pub const LAYER_MAX: u32 = 32;

/// Why a tree can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MstError {
    /// A node that is needed is not among the blocks.
    #[error("mst node {cid} is missing")]
    MissingBlock {
        /// The node.
        cid: Cid,
    },
    /// A node breaks a rule of the form: CBOR, prefix lengths, order, layers, empty where it may not be.
    #[error("mst node is malformed: {why}")]
    Malformed {
        /// The rule.
        why: &'static str,
    },
    /// A node has too many entries, or the tree is too deep, or goes in a circle.
    #[error("mst is over its limits: {why}")]
    Limit {
        /// Which limit.
        why: &'static str,
    },
    /// An op does not fit the tree: the record it names is not there, or is another.
    #[error("op on {path} does not fit the tree")]
    OpMismatch {
        /// The op's path.
        path: String,
    },
}
