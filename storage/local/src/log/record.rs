//! The bytes of the log: a segment's header, group headers and records. Frozen; a change is a new version.
//!
//! All numbers are little-endian. Every checksum but the segment header's is CRC-32C seeded with the directory's salt,
//! a number that nobody outside knows: bytes inside a frame, which anybody may choose, can't pass for ours.
//!
//! ```text
//!   segment  magic "MNSTMLOG" · format u32 · crc u32 · salt u32 · 0 u32 · first seq u64 · after seq u64
//!            · created at u64 · 0 u64 · 0 u64                                                         64 bytes
//!   group    mark ff ff ff ff · crc u32 · version u8 · kind u8 · 0 u16 · count u32 · body bytes u64
//!            · first seq u64 · synced seq u64 · appended at u64                                       48 bytes
//!   record   length u32 · crc u32 · version u8 · seq u64 · account u64 · DID length u16
//!            · state length u16 · DID · state · frame                                         29 bytes and more
//! ```

use bytes::BytesMut;
use storage::seq::Seq;

/// The format this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"MNSTMLOG";
const VERSION: u8 = 1;
/// Stands where a record has its length, and no record is that long.
const GROUP_MARK: [u8; 4] = [0xff; 4];

/// The checksum's seed, one a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u32);

impl Salt {
    fn crc(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

// === Segment header ===

/// What stands at a segment's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) salt: Salt,
    /// The seq of its first event; also its file's name.
    pub(crate) first: Seq,
    /// The last seq used before it: `first - 1`, or less where the log jumped.
    pub(crate) after: Seq,
    pub(crate) created_at_micros: u64,
}

/// A segment header that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFlaw {
    /// Written by a newer program.
    Newer { format: u32 },
    /// Not a header, or not as it was written.
    Damaged,
}

impl SegmentHeader {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; SegmentHeader::BYTES] {
        let mut bytes = [0; SegmentHeader::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.salt.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.after.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created_at_micros.to_le_bytes());
        let crc = Self::crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Not seeded: the salt is among what it protects.
    fn crc(bytes: &[u8; SegmentHeader::BYTES]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFlaw> {
        let bytes: &[u8; SegmentHeader::BYTES] = bytes.first_chunk().ok_or(HeaderFlaw::Damaged)?;
        if bytes[..8] != MAGIC {
            return Err(HeaderFlaw::Damaged);
        }
        let intact = u32_at(bytes, 12) == Self::crc(bytes);
        match u32_at(bytes, 8) {
            FORMAT if intact => {}
            // A newer program may have moved the checksum.
            format if format > FORMAT && (intact || format < FORMAT + 1000) => {
                return Err(HeaderFlaw::Newer { format });
            }
            _ => return Err(HeaderFlaw::Damaged),
        }
        Ok(SegmentHeader {
            salt: Salt(u32_at(bytes, 16)),
            first: Seq(u64_at(bytes, 24)),
            after: Seq(u64_at(bytes, 32)),
            created_at_micros: u64_at(bytes, 40),
        })
    }
}

// === Group header ===

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// It holds events.
    Events,
    /// It holds nothing: it proves that all before it was synced.
    Seal,
}

/// What stands before the records that were made durable together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    pub(crate) count: u32,
    /// Bytes of its records, after the header.
    pub(crate) body_bytes: u64,
    /// The seq of its first record; of a seal, of the next.
    pub(crate) first: Seq,
    /// All up to here was durable when this was written.
    pub(crate) synced: Seq,
    pub(crate) at_micros: u64,
}

impl GroupHeader {
    pub(crate) const BYTES: usize = 48;

    pub(crate) fn seal(next: Seq, at_micros: u64) -> GroupHeader {
        let synced = Seq(next.0 - 1);
        GroupHeader { kind: GroupKind::Seal, count: 0, body_bytes: 0, first: next, synced, at_micros }
    }

    pub(crate) fn encode(&self, salt: Salt) -> [u8; GroupHeader::BYTES] {
        let mut bytes = [0; GroupHeader::BYTES];
        bytes[..4].copy_from_slice(&GROUP_MARK);
        bytes[8] = VERSION;
        bytes[9] = match self.kind {
            GroupKind::Events => 0,
            GroupKind::Seal => 1,
        };
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.at_micros.to_le_bytes());
        let crc = salt.crc(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if one stands there, whole and as it was written.
    pub(crate) fn decode(bytes: &[u8], salt: Salt) -> Option<GroupHeader> {
        let bytes: &[u8; GroupHeader::BYTES] = bytes.first_chunk()?;
        if bytes[..4] != GROUP_MARK || u32_at(bytes, 4) != salt.crc(&bytes[8..]) || bytes[8] != VERSION {
            return None;
        }
        let kind = match bytes[9] {
            0 => GroupKind::Events,
            1 => GroupKind::Seal,
            _ => return None,
        };
        Some(GroupHeader {
            kind,
            count: u32_at(bytes, 12),
            body_bytes: u64_at(bytes, 16),
            first: Seq(u64_at(bytes, 24)),
            synced: Seq(u64_at(bytes, 32)),
            at_micros: u64_at(bytes, 40),
        })
    }

    /// The offset of the next whole group header at or after `from`.
    pub(crate) fn find(bytes: &[u8], from: usize, salt: Salt) -> Option<usize> {
        let mut at = from;
        loop {
            at += bytes.get(at..)?.windows(4).position(|four| four == GROUP_MARK)?;
            if GroupHeader::decode(&bytes[at..], salt).is_some() {
                return Some(at);
            }
            at += 1;
        }
    }
}

/// Whether a group begins here (and not a record).
pub(crate) fn is_group(bytes: &[u8]) -> bool {
    bytes.starts_with(&GROUP_MARK)
}

// === Record ===

/// One event on disk, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) seq: Seq,
    /// [`atproto::syntax::Did::lane_hash`] of the DID.
    pub(crate) account: u64,
    pub(crate) did: &'a [u8],
    /// The repo's state after it, as [`storage::repos::RepoState::encode`] writes it.
    pub(crate) state: &'a [u8],
    pub(crate) frame: &'a [u8],
}

/// What a record begins with, before the bytes that vary.
pub(crate) const RECORD_HEAD_BYTES: usize = 29;
const LENGTH_AND_CRC_BYTES: usize = 8;

/// The length of a whole record, from its first four bytes; `None` where there are fewer, or no record is that long.
pub(crate) fn record_len(bytes: &[u8]) -> Option<usize> {
    let body = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (body >= RECORD_HEAD_BYTES - LENGTH_AND_CRC_BYTES && body <= i32::MAX as usize)
        .then_some(body + LENGTH_AND_CRC_BYTES)
}

/// Appends a record whose frame comes in pieces; gives the frame's length. The head's own frame does not count.
pub(crate) fn write_record(out: &mut BytesMut, salt: Salt, head: &Record<'_>, frame: &[&[u8]]) -> usize {
    let start = out.len();
    let frame_bytes: usize = frame.iter().map(|piece| piece.len()).sum();
    let body = RECORD_HEAD_BYTES - LENGTH_AND_CRC_BYTES + head.did.len() + head.state.len() + frame_bytes;
    let length = u32::try_from(body).expect("append refuses frames of more than some MiB").to_le_bytes();
    let mut fixed = [0; RECORD_HEAD_BYTES];
    fixed[..4].copy_from_slice(&length);
    fixed[8] = VERSION;
    fixed[9..17].copy_from_slice(&head.seq.0.to_le_bytes());
    fixed[17..25].copy_from_slice(&head.account.to_le_bytes());
    fixed[25..27].copy_from_slice(&u16_len(head.did));
    fixed[27..29].copy_from_slice(&u16_len(head.state));
    out.reserve(LENGTH_AND_CRC_BYTES + body);
    out.extend_from_slice(&fixed);
    out.extend_from_slice(head.did);
    out.extend_from_slice(head.state);
    frame.iter().for_each(|piece| out.extend_from_slice(piece));
    let crc = crc32c::crc32c_append(salt.crc(&length), &out[start + LENGTH_AND_CRC_BYTES..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    frame_bytes
}

fn u16_len(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("a DID has at most 2,048 bytes, a state some hundred").to_le_bytes()
}

impl<'a> Record<'a> {
    /// The record that is exactly these bytes, if it is as it was written.
    pub(crate) fn decode(bytes: &'a [u8], salt: Salt) -> Option<Record<'a>> {
        let (head, rest) = bytes.split_at_checked(RECORD_HEAD_BYTES)?;
        let crc = crc32c::crc32c_append(salt.crc(&head[..4]), &bytes[LENGTH_AND_CRC_BYTES..]);
        if record_len(bytes) != Some(bytes.len()) || u32_at(head, 4) != crc || head[8] != VERSION {
            return None;
        }
        let (did_len, state_len) = (u16_at(head, 25), u16_at(head, 27));
        let (did, rest) = rest.split_at_checked(did_len)?;
        let (state, frame) = rest.split_at_checked(state_len)?;
        Some(Record { seq: Seq(u64_at(head, 9)), account: u64_at(head, 17), did, state, frame })
    }

    /// The seq that stands in a record's head, unchecked: a cheap test before its checksum.
    pub(crate) fn peek_seq(bytes: &[u8]) -> Option<Seq> {
        let head: &[u8; RECORD_HEAD_BYTES] = bytes.first_chunk()?;
        (head[8] == VERSION).then(|| Seq(u64_at(head, 9)))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Four bytes at an offset that the caller has checked; little-endian, as all numbers in the log.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// As [`u32_at`], of eight bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(0x1234_5678);

    fn record_bytes() -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let head = Record { seq: Seq(77), account: 5, did: b"did:web:a.b", state: b"state", frame: b"" };
        assert_eq!(write_record(&mut bytes, SALT, &head, &[b"fr", b"am", b"e"]), 5);
        bytes.to_vec()
    }

    #[test]
    fn frozen_bytes() {
        let header = SegmentHeader { salt: SALT, first: Seq(9), after: Seq(4), created_at_micros: 3 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        assert_eq!(crc32c::crc32c(&header.encode()), 204859306);
        assert_eq!(crc32c::crc32c(&GroupHeader::seal(Seq(8), 5).encode(SALT)), 2982128730);
        assert_eq!(crc32c::crc32c(&record_bytes()), 3116597388);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let header = SegmentHeader { salt: SALT, first: Seq(9), after: Seq(4), created_at_micros: 3 }.encode();
        let group = GroupHeader::seal(Seq(8), 5).encode(SALT);
        let record = record_bytes();
        assert!(GroupHeader::decode(&group, SALT).is_some() && Record::decode(&record, SALT).is_some());
        let flip = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..8 * header.len() {
            assert!(SegmentHeader::decode(&flip(&header, bit)).is_err(), "bit {bit}");
        }
        for bit in 0..8 * group.len() {
            assert_eq!(GroupHeader::decode(&flip(&group, bit), SALT), None, "bit {bit}");
        }
        for bit in 0..8 * record.len() {
            assert_eq!(Record::decode(&flip(&record, bit), SALT), None, "bit {bit}");
        }
    }

    #[test]
    fn another_salt_proves_nothing() {
        assert_eq!(GroupHeader::decode(&GroupHeader::seal(Seq(8), 5).encode(SALT), Salt(1)), None);
        assert_eq!(Record::decode(&record_bytes(), Salt(1)), None);
    }

    #[test]
    fn finds_a_group_behind_garbage() {
        let mut bytes = vec![0xff; 100];
        bytes.extend(GroupHeader::seal(Seq(8), 5).encode(SALT));
        assert_eq!(GroupHeader::find(&bytes, 3, SALT), Some(100));
        assert_eq!(GroupHeader::find(&bytes, 101, SALT), None);
        assert_eq!(GroupHeader::find(&bytes, 1000, SALT), None);
        bytes.pop();
        assert_eq!(GroupHeader::find(&bytes, 0, SALT), None);
    }
}
