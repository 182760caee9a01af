//! Walks a whole segment's bytes and tells how far they are what was written. Pure.
//!
//! A torn tail and damage look alike where they begin; what follows tells them apart. Groups are written one after
//! another, each only after the one before it was synced. So whatever precedes a whole group header was durable: if it
//! can't be read, it is damage. If no whole group header follows, the last write did not end, was not answered and not
//! seen by anybody: it is cut.

use storage::seq::Seq;

use super::{
    index::Index,
    record::{GroupHeader, GroupKind, Record, Salt, SegmentHeader, record_len},
};

/// How far a segment can be read.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The last good event; the seq before the segment's first where there is none.
    pub(crate) last: Seq,
    /// Past the last good group.
    pub(crate) end: u64,
    /// When the first and the last good group were appended.
    pub(crate) first_at_micros: Option<u64>,
    pub(crate) last_at_micros: Option<u64>,
    /// Whether the last good group is a seal.
    pub(crate) sealed: bool,
    pub(crate) index: Index,
    /// Why it can't be read further, where that is not the file's end.
    pub(crate) flaw: Option<Flaw>,
}

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Where the first bad header or record begins.
    pub(crate) offset: u64,
    /// The seqs that its group holds, as far as can be told.
    pub(crate) first: Seq,
    pub(crate) last: Option<Seq>,
    /// Whether a later group proves that this was durable once.
    pub(crate) proven: bool,
}

/// Scans a segment whose header has been read.
pub(crate) fn scan(bytes: &[u8], header: &SegmentHeader) -> Scan {
    let mut scan = Scan {
        last: Seq(header.first.0.saturating_sub(1)),
        end: SegmentHeader::BYTES as u64,
        first_at_micros: None,
        last_at_micros: None,
        sealed: false,
        index: Index::default(),
        flaw: None,
    };
    while (scan.end as usize) < bytes.len() {
        let start = scan.end as usize;
        match read_group(bytes, start, scan.last.next(), header.salt) {
            Ok((group, end)) => {
                scan.accept(bytes, &group, start, end);
            }
            Err(BadGroup { offset, count }) => {
                scan.flaw = Some(Flaw {
                    offset: offset as u64,
                    first: scan.last.next(),
                    last: count.filter(|count| *count > 0).map(|count| Seq(scan.last.0 + u64::from(count))),
                    proven: GroupHeader::find(bytes, offset + 1, header.salt).is_some(),
                });
                break;
            }
        }
    }
    scan
}

impl Scan {
    fn accept(&mut self, bytes: &[u8], group: &GroupHeader, start: usize, end: usize) {
        let mut at = start + GroupHeader::BYTES;
        while at < end {
            self.last = self.last.next();
            self.index.add(self.last, at as u64);
            at += record_len(&bytes[at..]).expect("the group was read whole");
        }
        self.end = end as u64;
        self.sealed = match group.kind {
            GroupKind::Seal => true,
            GroupKind::Events => {
                self.first_at_micros.get_or_insert(group.at_micros);
                self.last_at_micros = Some(group.at_micros);
                false
            }
        };
    }
}

/// Where a group goes wrong.
struct BadGroup {
    offset: usize,
    /// How many events it says it has, where that can be read.
    count: Option<u32>,
}

/// Checks the group at `start` in every byte; gives its end.
fn read_group(bytes: &[u8], start: usize, next: Seq, salt: Salt) -> Result<(GroupHeader, usize), BadGroup> {
    let header = GroupHeader::decode(&bytes[start..], salt)
        .filter(|header| header.first == next && header.synced.0 + 1 == next.0)
        .ok_or(BadGroup { offset: start, count: None })?;
    let mut at = start + GroupHeader::BYTES;
    for number in 0..u64::from(header.count) {
        let bad = BadGroup { offset: at, count: Some(header.count) };
        let Some(record) = record_len(&bytes[at..])
            .and_then(|len| bytes.get(at..at + len))
            .and_then(|record| Record::decode(record, salt).map(|read| (record.len(), read)))
            .filter(|(_, read)| read.seq.0 == next.0 + number)
        else {
            return Err(bad);
        };
        at += record.0;
    }
    if (at - start - GroupHeader::BYTES) as u64 != header.body_bytes {
        return Err(BadGroup { offset: start, count: Some(header.count) });
    }
    Ok((header, at))
}
