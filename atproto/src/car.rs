//! CAR version 1 files: a header with roots, then blocks (specification: Repository, "CAR File Serialization").

use std::collections::HashSet;

use crate::{
    cbor::{CborError, Reader, Writer},
    cid::{self, Cid},
};

/// A CAR read from bytes, its blocks hashed and indexed.
#[derive(Debug)]
pub struct Car<'a> {
    root: Cid,
    /// Each block once, in the file's order.
    blocks: Vec<(Cid, &'a [u8])>,
    /// Sorted rather than hashed: CIDs are the sender's choice within a few bits' worth of work, and most commits have
    /// ten blocks.
    by_cid: Vec<Place>,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The beginning of its digest: nearly always enough to tell blocks apart, in one comparison.
    head: u64,
    /// Its index into `blocks`.
    at: u32,
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
        let (header, mut rest) = section(bytes)?;
        let root = root(header)?;
        let mut blocks = Vec::with_capacity(BLOCKS_USUAL);
        while !rest.is_empty() {
            let (block, after) = section(rest)?;
            rest = after;
            if let Some((name, data)) = block.split_first_chunk::<{ Cid::BYTES }>()
                && let Ok(cid) = Cid::from_bytes(name)
            {
                if !cid.matches(data) {
                    return Err(CarError::WrongHash { cid });
                }
                blocks.push((cid, data));
            } else if cid::form(block).is_none() && !block.starts_with(&CID_V0_PREFIX) {
                return Err(CarError::Malformed { why: "a block without a CID" });
            }
        }
        Ok(index(root, blocks))
    }

    /// The first root.
    pub fn root(&self) -> Cid {
        self.root
    }

    /// A block by its CID.
    pub fn get(&self, cid: &Cid) -> Option<&'a [u8]> {
        let head = head(cid);
        let from = self.by_cid.partition_point(|place| place.head < head);
        let places = self.by_cid[from..].iter().take_while(|place| place.head == head);
        places.map(|place| self.blocks[place.at as usize]).find(|(name, _)| name == cid).map(|(_, data)| data)
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// All blocks in the file's order.
    pub fn blocks(&self) -> impl Iterator<Item = (Cid, &'a [u8])> + '_ {
        self.blocks.iter().copied()
    }
}

/// Writes a CAR with one root.
pub fn write<'b>(root: Cid, blocks: impl IntoIterator<Item = (Cid, &'b [u8])>) -> Vec<u8> {
    let mut header = Writer::new();
    header.map(2);
    header.text("roots");
    header.array(1);
    header.cid(&root);
    header.text("version");
    header.unsigned(1);
    let header = header.into_bytes();

    let mut car = Vec::new();
    push_varint(&mut car, header.len());
    car.extend_from_slice(&header);
    for (cid, data) in blocks {
        push_varint(&mut car, Cid::BYTES + data.len());
        car.extend_from_slice(&cid.to_bytes());
        car.extend_from_slice(data);
    }
    car
}

/// Room made for blocks at first: a commit, a record and the nodes above it.
const BLOCKS_USUAL: usize = 16;

/// SHA-256 and its length: a CID of version 0 has nothing before them.
const CID_V0_PREFIX: [u8; 2] = [0x12, 0x20];

/// A length and as many bytes, then what follows.
fn section(bytes: &[u8]) -> Result<(&[u8], &[u8]), CarError> {
    let (len, rest) = cid::varint(bytes).ok_or(CarError::Malformed { why: "an unreadable length" })?;
    let len = usize::try_from(len).map_err(|_| CarError::Malformed { why: "cut short" })?;
    rest.split_at_checked(len).ok_or(CarError::Malformed { why: "cut short" })
}

fn root(header: &[u8]) -> Result<Cid, CarError> {
    let malformed = |_: CborError| CarError::Malformed { why: "an unreadable header" };
    let mut reader = Reader::new(header);
    let mut root = None;
    let mut version = None;
    let mut keys = reader.map().map_err(malformed)?;
    while let Some(key) = keys.next_key(&mut reader).map_err(malformed)? {
        match key {
            "roots" => {
                let mut roots = reader.array().map_err(malformed)?;
                while roots.more(&mut reader) {
                    let cid = reader.link().map_err(malformed)?;
                    root = root.or(Some(cid));
                }
            }
            "version" => version = Some(reader.unsigned().map_err(malformed)?),
            _ => reader.skip().map_err(malformed)?,
        }
    }
    reader.finish().map_err(malformed)?;
    if version != Some(1) {
        return Err(CarError::Malformed { why: "a version other than 1" });
    }
    root.and_then(|cid| Cid::from_bytes(cid).ok()).ok_or(CarError::NoRoot)
}

fn index<'a>(root: Cid, mut blocks: Vec<(Cid, &'a [u8])>) -> Car<'a> {
    let sorted = |blocks: &[(Cid, &[u8])]| {
        let place = |(at, (cid, _)): (usize, &(Cid, &[u8]))| {
            let at = u32::try_from(at).expect("a block takes 37 bytes, so 2^32 of them take 158 GB");
            Place { head: head(cid), at }
        };
        let mut by_cid: Vec<Place> = blocks.iter().enumerate().map(place).collect();
        by_cid.sort_unstable();
        by_cid
    };
    let mut by_cid = sorted(&blocks);
    if by_cid.windows(2).any(|pair| pair[0].head == pair[1].head) {
        // Rare, so it may cost a set and a second sort: keep each block's first place in the file.
        let mut seen = HashSet::with_capacity(blocks.len());
        blocks.retain(|(cid, _)| seen.insert(*cid));
        by_cid = sorted(&blocks);
    }
    Car { root, blocks, by_cid }
}

fn head(cid: &Cid) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = cid.digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn push_varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
