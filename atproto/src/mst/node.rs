use super::{KEY_BYTES_MAX, MstError, NODE_ENTRIES_MAX};
use crate::{
    cid::{Cid, Codec},
    crypto::sha256,
};

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
        let mut reader = Reader::new(block)?;
        let mut entries = Vec::with_capacity(reader.remaining());
        while let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
        let left = reader.finish()?;
        Ok(Node { left, entries })
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, self.entries.len());
        for entry in &self.entries {
            write_entry(&mut out, entry);
        }
        end(&mut out, self.left);
        out
    }
}

/// A key's layer: half the number of leading zero bits of its SHA-256.
pub fn layer(key: &[u8]) -> u32 {
    let digest = sha256(key);
    let (words, _) = digest.as_chunks::<8>();
    let mut zeros = 0;
    for word in words {
        let word = u64::from_be_bytes(*word);
        zeros += word.leading_zeros();
        if word != 0 {
            break;
        }
    }
    zeros / 2
}

// === Reading ===

/// Reads a node's block entry by entry, so that a tree can be built without a [`Node`] between.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    remaining: usize,
}

const CBOR_NULL: u8 = 0xf6;

/// What stands before the 36 bytes of a CID: tag 42, a byte string of 37, and the identity multibase.
const LINK_HEAD: [u8; 5] = [0xd8, 0x2a, 0x58, 0x25, 0x00];

impl<'a> Reader<'a> {
    pub(super) fn new(block: &'a [u8]) -> Result<Reader<'a>, MstError> {
        let mut reader = Reader { rest: block, remaining: 0 };
        reader.literal(b"\xa2\x61e", "a node is a map of e and l")?;
        let count = reader.head(4, "e is an array")?;
        if count > NODE_ENTRIES_MAX {
            return Err(MstError::Limit { why: "entries of a node" });
        }
        reader.remaining = count;
        Ok(reader)
    }

    /// How many entries are still to come.
    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }

    #[inline]
    pub(super) fn entry(&mut self) -> Result<Option<Entry<'a>>, MstError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        self.literal(b"\xa4\x61k", "an entry is a map of k, p, t and v")?;
        let suffix_len = self.head(2, "k is bytes")?;
        if suffix_len > KEY_BYTES_MAX {
            return Err(MstError::Limit { why: "length of a key" });
        }
        let suffix = self.take(suffix_len)?;
        self.literal(b"\x61p", "an entry is a map of k, p, t and v")?;
        let prefix_len = self.head(0, "p is a number")?;
        self.literal(b"\x61t", "an entry is a map of k, p, t and v")?;
        let right = self.subtree()?;
        self.literal(b"\x61v", "an entry is a map of k, p, t and v")?;
        let value = self.link()?;
        Ok(Some(Entry { prefix_len, suffix, value, right }))
    }

    /// Reads what stands after the entries: the leftmost subtree.
    pub(super) fn finish(mut self) -> Result<Option<Cid>, MstError> {
        self.literal(b"\x61l", "a node is a map of e and l")?;
        let left = self.subtree()?;
        if !self.rest.is_empty() {
            return Err(MstError::Malformed { why: "bytes after a node" });
        }
        Ok(left)
    }

    #[inline]
    fn literal(&mut self, bytes: &[u8], why: &'static str) -> Result<(), MstError> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(MstError::Malformed { why })?;
        Ok(())
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], MstError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(MstError::Malformed { why: "a node is cut short" })?;
        self.rest = rest;
        Ok(taken)
    }

    /// A CBOR head of this major type, in its shortest form; no number in a node needs more than 32 bits.
    #[inline]
    fn head(&mut self, major: u8, why: &'static str) -> Result<usize, MstError> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(MstError::Malformed { why });
        }
        let (value, least) = match first & 0x1f {
            short @ 0..=23 => (u32::from(short), 0),
            24 => (u32::from(self.take(1)?[0]), 24),
            25 => {
                let bytes = self.take(2)?;
                (u32::from(u16::from_be_bytes([bytes[0], bytes[1]])), 0x100)
            }
            26 => {
                let bytes = self.take(4)?;
                (u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), 0x1_0000)
            }
            27 => return Err(MstError::Limit { why: "a number in a node" }),
            28.. => return Err(MstError::Malformed { why }),
        };
        if value < least {
            return Err(MstError::Malformed { why: "a number is in its shortest form" });
        }
        Ok(value as usize)
    }

    #[inline]
    fn link(&mut self) -> Result<Cid, MstError> {
        self.literal(&LINK_HEAD, "a link is a CID")?;
        let bytes = self.take(Cid::BYTES)?;
        Cid::from_bytes(bytes).map_err(|_| MstError::Malformed { why: "a link is a CID" })
    }

    #[inline]
    fn subtree(&mut self) -> Result<Option<Cid>, MstError> {
        if self.rest.first() == Some(&CBOR_NULL) {
            self.rest = &self.rest[1..];
            return Ok(None);
        }
        let cid = self.link()?;
        match cid.codec {
            Codec::DagCbor => Ok(Some(cid)),
            Codec::Raw => Err(MstError::Malformed { why: "a subtree is dag-cbor" }),
        }
    }
}

// === Writing ===

/// Writes what stands before the entries.
pub(super) fn begin(out: &mut Vec<u8>, entries: usize) {
    out.extend_from_slice(b"\xa2\x61e");
    write_head(out, 4, entries);
}

pub(super) fn write_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.extend_from_slice(b"\xa4\x61k");
    write_head(out, 2, entry.suffix.len());
    out.extend_from_slice(entry.suffix);
    out.extend_from_slice(b"\x61p");
    write_head(out, 0, entry.prefix_len);
    out.extend_from_slice(b"\x61t");
    write_subtree(out, entry.right);
    out.extend_from_slice(b"\x61v");
    write_link(out, entry.value);
}

/// Writes what stands after the entries.
pub(super) fn end(out: &mut Vec<u8>, left: Option<Cid>) {
    out.extend_from_slice(b"\x61l");
    write_subtree(out, left);
}

fn write_head(out: &mut Vec<u8>, major: u8, value: usize) {
    let major = major << 5;
    if value < 24 {
        out.push(major | value as u8);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[major | 24, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(major | 25);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(major | 26);
        let value = u32::try_from(value).expect("no node comes near 4 GiB");
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn write_subtree(out: &mut Vec<u8>, subtree: Option<Cid>) {
    match subtree {
        None => out.push(CBOR_NULL),
        Some(cid) => write_link(out, cid),
    }
}

fn write_link(out: &mut Vec<u8>, cid: Cid) {
    let mut link = [0; LINK_HEAD.len() + Cid::BYTES];
    let (head, bytes) = link.split_at_mut(LINK_HEAD.len());
    head.copy_from_slice(&LINK_HEAD);
    bytes.copy_from_slice(&cid.to_bytes());
    out.extend_from_slice(&link);
}
