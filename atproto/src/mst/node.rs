use super::MstError;
use crate::cid::Cid;

/// One node's block, keys still compressed, borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// The subtree left of all entries.
    pub left: Option<Cid>,
    /// In key order.
    pub entries: Vec<Entry<'a>>,
}

/// One record in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// How many bytes of the key before are shared.
    pub prefix_len: usize,
    /// The rest of the key.
    pub suffix: &'a [u8],
    /// The record.
    pub value: Cid,
    /// The subtree between this key and the next.
    pub right: Option<Cid>,
}

impl<'a> Node<'a> {
    /// Decodes a block. Always checks canonical CBOR and the number of entries.
    pub fn parse(block: &'a [u8]) -> Result<Node<'a>, MstError> {
        let _ = block;
        todo!()
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
}

/// A key's layer: half the number of leading zero bits of its SHA-256.
pub fn layer(key: &[u8]) -> u32 {
    let _ = key;
    todo!()
}
