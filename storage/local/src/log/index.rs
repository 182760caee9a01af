//! A segment's sparse index: where about every 64 KiB a record begins.
//!
//! The index of a segment that is full is kept beside it (`.idx`), so that opening need not read the whole window. It
//! is only a help: where it is missing, torn or of another file it is made anew from the segment.

use storage::seq::Seq;

use super::record::{Salt, u32_at, u64_at};

/// How far apart the entries are, in bytes.
pub(crate) const SPACING_BYTES: u64 = 64 << 10;

const MAGIC: [u8; 8] = *b"MNSTMIDX";
const VERSION: u32 = 1;

/// Seqs and offsets, rising.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<(Seq, u64)>,
}

impl Index {
    /// Notes a record; keeps it if it is far enough from the one kept last.
    pub(crate) fn add(&mut self, seq: Seq, offset: u64) {
        if self.entries.last().is_none_or(|(_, last)| offset >= last + SPACING_BYTES) {
            self.entries.push((seq, offset));
        }
    }

    /// The offset of a record at or before `seq`, as near as known; `None` before the first.
    pub(crate) fn floor(&self, seq: Seq) -> Option<u64> {
        let after = self.entries.partition_point(|(at, _)| *at <= seq);
        after.checked_sub(1).map(|at| self.entries[at].1)
    }
}

/// What the sidecar says of its segment, readable without the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) salt: Salt,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    /// The segment's length in bytes.
    pub(crate) end: u64,
    pub(crate) first_at_micros: Option<u64>,
    pub(crate) last_at_micros: Option<u64>,
}

impl Summary {
    /// magic, version, crc of the rest of the summary, then its numbers, the count of entries and their crc.
    pub(crate) const BYTES: usize = 72;

    /// The whole sidecar.
    pub(crate) fn encode_with(&self, index: &Index) -> Vec<u8> {
        let entries: Vec<u8> = index
            .entries
            .iter()
            .flat_map(|(seq, offset)| [seq.0.to_le_bytes(), offset.to_le_bytes()])
            .flatten()
            .collect();
        let mut bytes = Vec::with_capacity(Summary::BYTES + entries.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.salt.0.to_le_bytes());
        bytes.extend(crc32c::crc32c(&entries).to_le_bytes());
        let numbers = [
            self.first.0,
            self.last.0,
            self.end,
            self.first_at_micros.unwrap_or(u64::MAX),
            self.last_at_micros.unwrap_or(u64::MAX),
            index.entries.len() as u64,
        ];
        bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.extend(entries);
        bytes
    }

    /// Reads the summary at the start of a sidecar; `None` where it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Summary> {
        let bytes: &[u8; Summary::BYTES] = bytes.first_chunk()?;
        if bytes[..8] != MAGIC || u32_at(bytes, 8) != VERSION || u32_at(bytes, 12) != crc32c::crc32c(&bytes[16..]) {
            return None;
        }
        let time = |at| Some(u64_at(bytes, at)).filter(|micros| *micros != u64::MAX);
        Some(Summary {
            salt: Salt(u32_at(bytes, 16)),
            first: Seq(u64_at(bytes, 24)),
            last: Seq(u64_at(bytes, 32)),
            end: u64_at(bytes, 40),
            first_at_micros: time(48),
            last_at_micros: time(56),
        })
    }

    /// Reads a whole sidecar; `None` where it is not one, or not whole.
    pub(crate) fn decode_with_index(bytes: &[u8]) -> Option<(Summary, Index)> {
        let summary = Summary::decode(bytes)?;
        let entries = &bytes[Summary::BYTES..];
        if u64_at(bytes, 64) != entries.len() as u64 / 16 || u32_at(bytes, 20) != crc32c::crc32c(entries) {
            return None;
        }
        let entries = entries.chunks_exact(16).map(|entry| (Seq(u64_at(entry, 0)), u64_at(entry, 8))).collect();
        Some((summary, Index { entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_entry_before() {
        let mut index = Index::default();
        assert_eq!(index.floor(Seq(1)), None);
        for seq in 10..1000 {
            index.add(Seq(seq), seq * 1000);
        }
        assert_eq!(index.floor(Seq(9)), None);
        for seq in 10..1000 {
            let floor = index.floor(Seq(seq)).unwrap();
            assert!(floor <= seq * 1000 && floor + SPACING_BYTES + 1000 > seq * 1000);
        }
        assert!(index.entries.len() < 20);
    }

    #[test]
    fn a_sidecar_is_read_back_or_not_at_all() {
        let mut index = Index::default();
        for seq in 10..1000 {
            index.add(Seq(seq), seq * 1000);
        }
        let summary = Summary {
            salt: Salt(3),
            first: Seq(10),
            last: Seq(999),
            end: 1_000_000,
            first_at_micros: Some(5),
            last_at_micros: None,
        };
        let bytes = summary.encode_with(&index);
        assert_eq!(Summary::decode(&bytes), Some(summary));
        assert_eq!(Summary::decode_with_index(&bytes), Some((summary, index)));
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Summary::decode_with_index(&bytes), None);
        }
        for len in 0..bytes.len() {
            assert_eq!(Summary::decode_with_index(&bytes[..len]), None);
        }
    }
}
