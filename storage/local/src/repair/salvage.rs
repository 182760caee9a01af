//! Finds every record of a damaged segment that is still whole. Pure.

use std::ops::Range;

use storage::seq::Seq;

use crate::log::{
    Salt,
    record::{GroupHeader, GroupKind, RECORD_HEAD_BYTES, Record, SegmentHeader, record_len},
};

/// How far a record's seq may be past the last good one for its checksum to be tried.
const SEQ_AHEAD_MAX: u64 = 1 << 24;

/// What is left of a segment.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Whole records, in order; their seqs rise.
    pub(super) records: Vec<Found>,
    /// Bytes that are none.
    pub(super) holes: Vec<Hole>,
    /// No later seq was ever in the segment. Exact where that is known; else as far past the last good event as the
    /// unreadable bytes at its end could have held.
    pub(super) last_known: Seq,
}

/// A whole record.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) bytes: Range<usize>,
    /// When its group was appended; of a group whose header is lost, when the one before was.
    pub(super) at_micros: u64,
}

/// A stretch that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) bytes: Range<usize>,
    /// The last good seq before it.
    pub(super) after: Seq,
    /// The next seq that is known after it.
    pub(super) before: Option<Seq>,
}

/// Goes through all bytes after the segment's header. `before` is the seq before the segment's first.
pub(super) fn salvage(bytes: &[u8], salt: Salt, before: Seq, created_at_micros: u64) -> Salvage {
    let mut salvage = Salvage { last_known: before, ..Salvage::default() };
    let (mut last, mut at_micros) = (before, created_at_micros);
    let mut at = SegmentHeader::BYTES.min(bytes.len());
    let mut group_end = at;
    while at < bytes.len() {
        match item(&bytes[at..], salt, last) {
            Some(Item::Group(group)) => {
                salvage.meets(group.first);
                at_micros = group.at_micros;
                salvage.knows(match group.kind {
                    GroupKind::Seal => Seq(group.first.0 - 1),
                    GroupKind::Events => Seq(group.first.0 + u64::from(group.count) - 1),
                });
                at += GroupHeader::BYTES;
                group_end = at.saturating_add(usize::try_from(group.body_bytes).unwrap_or(usize::MAX));
            }
            Some(Item::Record { seq, len }) => {
                salvage.meets(seq);
                salvage.knows(seq);
                salvage.records.push(Found { seq, bytes: at..at + len, at_micros });
                last = seq;
                at += len;
            }
            None => {
                let end = (at + 1..bytes.len()).find(|next| item(&bytes[*next..], salt, last).is_some());
                let end = end.unwrap_or(bytes.len());
                salvage.holes.push(Hole { bytes: at..end, after: last, before: None });
                at = end;
            }
        }
    }
    if let Some(hole) = salvage.holes.last().filter(|hole| hole.before.is_none()) {
        let unknown = hole.bytes.end.saturating_sub(hole.bytes.start.max(group_end));
        salvage.last_known.0 += (unknown / RECORD_HEAD_BYTES) as u64;
    }
    salvage
}

impl Salvage {
    /// The first seq known after a hole bounds what was in it.
    fn meets(&mut self, seq: Seq) {
        for hole in self.holes.iter_mut().rev().take_while(|hole| hole.before.is_none()) {
            hole.before = Some(seq);
        }
    }

    fn knows(&mut self, seq: Seq) {
        self.last_known = self.last_known.max(seq);
    }
}

enum Item {
    Group(GroupHeader),
    Record { seq: Seq, len: usize },
}

/// The group header or record that begins here.
fn item(bytes: &[u8], salt: Salt, last: Seq) -> Option<Item> {
    let ahead = |seq: Seq| seq > last && seq.0 - last.0 <= SEQ_AHEAD_MAX;
    if let Some(group) = GroupHeader::decode(bytes, salt) {
        return Some(Item::Group(group)).filter(|_| ahead(group.first));
    }
    let seq = Record::peek_seq(bytes).filter(|seq| ahead(*seq))?;
    let len = record_len(bytes)?;
    Record::decode(bytes.get(..len)?, salt)?;
    Some(Item::Record { seq, len })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::log::record::write_record;

    const SALT: Salt = Salt(99);

    /// A segment of groups of `per_group` events, and where each record is.
    fn segment(groups: u64, per_group: u64) -> (Vec<u8>, Vec<Range<usize>>) {
        let header = SegmentHeader { salt: SALT, first: Seq(1), after: Seq(0), created_at_micros: 5 };
        let mut bytes = header.encode().to_vec();
        let mut records = Vec::new();
        for group in 0..groups {
            let first = Seq(1 + group * per_group);
            let mut body = BytesMut::new();
            let start = bytes.len() + GroupHeader::BYTES;
            for number in 0..per_group {
                let from = body.len();
                let head =
                    Record { seq: Seq(first.0 + number), account: 1, did: b"did:web:a.b", state: b"s", frame: b"" };
                write_record(&mut body, SALT, &head, &[&[7; 40]]);
                records.push(start + from..start + body.len());
            }
            let header = GroupHeader {
                kind: GroupKind::Events,
                count: per_group as u32,
                body_bytes: body.len() as u64,
                first,
                synced: Seq(first.0 - 1),
                at_micros: group,
            };
            bytes.extend(header.encode(SALT));
            bytes.extend(body);
        }
        bytes.extend(GroupHeader::seal(Seq(groups * per_group + 1), 9).encode(SALT));
        (bytes, records)
    }

    #[test]
    fn a_good_segment_is_kept_whole() {
        let (bytes, records) = segment(3, 4);
        let salvage = salvage(&bytes, SALT, Seq(0), 5);
        assert_eq!(salvage.holes, []);
        assert_eq!(salvage.records.iter().map(|found| found.bytes.clone()).collect::<Vec<_>>(), records);
        assert_eq!(salvage.records[5].at_micros, 1);
        assert_eq!(salvage.last_known, Seq(12));
    }

    #[test]
    fn any_flipped_byte_costs_one_event_at_most() {
        let (good, records) = segment(3, 3);
        for at in SegmentHeader::BYTES..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let salvage = salvage(&bytes, SALT, Seq(0), 5);
            let hit = records.iter().position(|record| record.contains(&at));
            assert_eq!(salvage.records.len(), 9 - usize::from(hit.is_some()), "byte {at}");
            let [hole] = &salvage.holes[..] else { panic!("byte {at}: one hole, not {:?}", salvage.holes) };
            match hit {
                Some(hit) => {
                    assert_eq!(hole.bytes, records[hit]);
                    assert_eq!((hole.after, hole.before), (Seq(hit as u64), Some(Seq(hit as u64 + 2))));
                }
                None => assert!(hole.bytes.contains(&at) && hole.bytes.len() == GroupHeader::BYTES, "byte {at}"),
            }
        }
    }

    #[test]
    fn a_lost_stretch_is_bounded_by_what_follows() {
        let (mut bytes, records) = segment(3, 3);
        bytes[records[2].start..records[6].end].fill(0);
        let salvage = salvage(&bytes, SALT, Seq(0), 5);
        assert_eq!(salvage.records.iter().map(|found| found.seq.0).collect::<Vec<_>>(), [1, 2, 8, 9]);
        assert_eq!((salvage.holes[0].after, salvage.holes[0].before), (Seq(2), Some(Seq(8))));
    }

    #[test]
    fn a_lost_end_is_bounded_by_its_group_or_its_bytes() {
        let (good, records) = segment(2, 3);
        let end = records[5].end;
        let mut bytes = good[..end].to_vec();
        bytes[records[4].start..].fill(0);
        assert_eq!(salvage(&bytes, SALT, Seq(0), 5).last_known, Seq(6));
        bytes[records[3].start - GroupHeader::BYTES..].fill(0);
        let salvage = salvage(&bytes, SALT, Seq(0), 5);
        assert_eq!(salvage.records.len(), 3);
        assert!(salvage.last_known >= Seq(6));
    }

    #[test]
    fn a_seal_tells_what_was_before_it() {
        let (mut bytes, records) = segment(1, 3);
        bytes[SegmentHeader::BYTES..records[2].end].fill(0);
        let salvage = salvage(&bytes, SALT, Seq(0), 5);
        assert!(salvage.records.is_empty());
        assert_eq!(salvage.last_known, Seq(3));
        assert_eq!(salvage.holes[0].before, Some(Seq(4)));
    }
}
