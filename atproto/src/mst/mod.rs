//! The Merkle search tree that holds a repo's records (specification: Repository, "MST Structure").
//!
//! `node` reads and writes one block; `tree` is a tree in memory of which parts may be known by their CID only;
//! `invert` undoes a commit's ops on the partial tree that the commit carries.
//!
//! What must hold: a tree has exactly one shape for its keys; after `invert(apply(tree, ops))` the root is the one
//! before.

mod invert;
mod node;
mod tree;

pub use invert::{Op, invert};
pub use node::{Entry, Node, layer};
pub use tree::{Applied, Tree};

use crate::cid::Cid;

/// Most entries of one node from outside; more is an attack (the expected number is 4).
pub const NODE_ENTRIES_MAX: usize = 1_024;

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
