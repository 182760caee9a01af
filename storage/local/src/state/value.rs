//! The bytes of Repos' and Hosts' values. Frozen; a change is a new version byte. Numbers are little-endian.
//!
//! ```text
//!   repo    version u8 · flags u8 · status u8 · 0 u8 · host length u16 · host · epoch u32 · upstream seq u64
//!           · [rev u64 · commit 32 · data 32]           a repo's state stands in the log's records in this form too
//!   host    version u8 · status u8 · added at u64 · [notes: JSON]          version 1 has no notes
//!   cursor  version u8 · epoch u32 · [seq u64]
//!   count   repos u64 · [throttled u64]
//!   takedown  seq u64
//! ```

use atproto::{
    cid::{Cid, Codec},
    syntax::{HostName, Tid},
};
use serde::{Serialize, de::DeserializeOwned};
use storage::{
    hosts::{HostCursor, HostStatus, Notes},
    repos::{AccountStatus, Head, LocalStatus, RepoState},
};

const VERSION: u8 = 1;
const HOST_VERSION: u8 = 2;

const TAKEN_DOWN: u8 = 1;
const HAS_HEAD: u8 = 2;
const COMMIT_IS_RAW: u8 = 4;
const DATA_IS_RAW: u8 = 8;
const THROTTLED: u8 = 16;

/// Appends a repo's state.
pub(crate) fn write_repo(out: &mut Vec<u8>, state: &RepoState) {
    let raw = |cid: Cid, flag| match cid.codec {
        Codec::Raw => flag,
        Codec::DagCbor => 0,
    };
    let mut flags = match state.local {
        LocalStatus::None => 0,
        LocalStatus::TakenDown => TAKEN_DOWN,
        LocalStatus::Throttled => THROTTLED,
    };
    if let Some(head) = &state.head {
        flags |= HAS_HEAD | raw(head.commit, COMMIT_IS_RAW) | raw(head.data, DATA_IS_RAW);
    }
    out.extend_from_slice(&[VERSION, flags, status_code(state.upstream), 0]);
    let host = state.host.as_str().as_bytes();
    out.extend_from_slice(&u16::try_from(host.len()).expect("a host name has some hundred bytes").to_le_bytes());
    out.extend_from_slice(host);
    out.extend_from_slice(&state.host_epoch.to_le_bytes());
    out.extend_from_slice(&state.upstream_seq.to_le_bytes());
    if let Some(head) = &state.head {
        out.extend_from_slice(&head.rev.to_u64().to_le_bytes());
        out.extend_from_slice(&head.commit.digest);
        out.extend_from_slice(&head.data.digest);
    }
}

/// Reads a repo's state; `None` where the bytes are not one.
pub(crate) fn read_repo(bytes: &[u8]) -> Option<RepoState> {
    let mut rest = Reader(bytes);
    let [VERSION, flags, status, 0] = rest.take::<4>()? else { return None };
    let host = HostName::parse(std::str::from_utf8(rest.host()?).ok()?).ok()?;
    let host_epoch = u32::from_le_bytes(rest.take()?);
    let upstream_seq = u64::from_le_bytes(rest.take()?);
    let codec = |flag| if flags & flag == 0 { Codec::DagCbor } else { Codec::Raw };
    let head = if flags & HAS_HEAD == 0 {
        None
    } else {
        Some(Head {
            rev: Tid::from_u64(u64::from_le_bytes(rest.take()?)),
            commit: Cid { codec: codec(COMMIT_IS_RAW), digest: rest.take()? },
            data: Cid { codec: codec(DATA_IS_RAW), digest: rest.take()? },
        })
    };
    rest.end()?;
    Some(RepoState {
        host,
        host_epoch,
        upstream_seq,
        head,
        upstream: status_of(status)?,
        local: match flags & (TAKEN_DOWN | THROTTLED) {
            0 => LocalStatus::None,
            TAKEN_DOWN => LocalStatus::TakenDown,
            THROTTLED => LocalStatus::Throttled,
            _both => return None,
        },
    })
}

fn status_code(status: AccountStatus) -> u8 {
    match status {
        AccountStatus::Active => 0,
        AccountStatus::Takendown => 1,
        AccountStatus::Suspended => 2,
        AccountStatus::Deleted => 3,
        AccountStatus::Deactivated => 4,
        AccountStatus::Desynchronized { active: true } => 5,
        AccountStatus::Desynchronized { active: false } => 6,
        AccountStatus::Throttled { active: true } => 7,
        AccountStatus::Throttled { active: false } => 8,
        AccountStatus::Inactive => 9,
    }
}

fn status_of(code: u8) -> Option<AccountStatus> {
    Some(match code {
        0 => AccountStatus::Active,
        1 => AccountStatus::Takendown,
        2 => AccountStatus::Suspended,
        3 => AccountStatus::Deleted,
        4 => AccountStatus::Deactivated,
        5 => AccountStatus::Desynchronized { active: true },
        6 => AccountStatus::Desynchronized { active: false },
        7 => AccountStatus::Throttled { active: true },
        8 => AccountStatus::Throttled { active: false },
        9 => AccountStatus::Inactive,
        _ => return None,
    })
}

/// A host's row, without its cursor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostRow {
    pub(crate) status: HostStatus,
    pub(crate) added_at_micros: u64,
    pub(crate) notes: Notes,
}

/// Writes a host's row.
pub(crate) fn write_host(row: &HostRow) -> Vec<u8> {
    let code = match row.status {
        HostStatus::Active => 0,
        HostStatus::Idle => 1,
        HostStatus::Offline => 2,
        HostStatus::Throttled => 3,
        HostStatus::Banned => 4,
    };
    let mut bytes = vec![HOST_VERSION, code];
    bytes.extend(row.added_at_micros.to_le_bytes());
    bytes.extend(write_json(&row.notes));
    bytes
}

/// Reads a host's row.
pub(crate) fn read_host(bytes: &[u8]) -> Option<HostRow> {
    let mut rest = Reader(bytes);
    let [version, status] = rest.take::<2>()?;
    let status = match status {
        0 => HostStatus::Active,
        1 => HostStatus::Idle,
        2 => HostStatus::Offline,
        3 => HostStatus::Throttled,
        4 => HostStatus::Banned,
        _ => return None,
    };
    let added_at_micros = u64::from_le_bytes(rest.take()?);
    let notes = match version {
        VERSION => {
            rest.end()?;
            Notes::default()
        }
        HOST_VERSION => read_json(rest.0)?,
        _ => return None,
    };
    Some(HostRow { status, added_at_micros, notes })
}

/// A value that is small, rarely written and has optional parts.
pub(crate) fn write_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs of numbers and strings are JSON")
}

/// Reads such a value. Fields of a later version are passed over.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// A host's cursor.
pub(crate) fn write_cursor(cursor: HostCursor) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(cursor.epoch.to_le_bytes());
    bytes.extend(cursor.seq.iter().flat_map(|seq| seq.to_le_bytes()));
    bytes
}

/// Reads a host's cursor.
pub(crate) fn read_cursor(bytes: &[u8]) -> Option<HostCursor> {
    let mut rest = Reader(bytes);
    let [VERSION] = rest.take::<1>()? else { return None };
    let epoch = u32::from_le_bytes(rest.take()?);
    let seq = if rest.0.is_empty() { None } else { Some(u64::from_le_bytes(rest.take()?)) };
    rest.end()?;
    Some(HostCursor { epoch, seq })
}

/// Whether a repo's state says that we have taken the account down. Of what is no state, no.
pub(crate) fn is_taken_down(bytes: &[u8]) -> bool {
    matches!(bytes, [VERSION, flags, ..] if flags & TAKEN_DOWN != 0)
}

/// How many repos a host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) repos: u64,
    /// How many of them we have throttled.
    pub(crate) throttled: u64,
}

/// A host's counts; the second is left out where it is 0.
pub(crate) fn write_counts(counts: Counts) -> Vec<u8> {
    let throttled = (counts.throttled > 0).then(|| counts.throttled.to_le_bytes());
    counts.repos.to_le_bytes().into_iter().chain(throttled.into_iter().flatten()).collect()
}

/// Reads a host's counts.
pub(crate) fn read_counts(bytes: &[u8]) -> Option<Counts> {
    let mut rest = Reader(bytes);
    let repos = u64::from_le_bytes(rest.take()?);
    let throttled = if rest.0.is_empty() { 0 } else { u64::from_le_bytes(rest.take()?) };
    rest.end()?;
    Some(Counts { repos, throttled })
}

/// A count, or a seq.
pub(crate) fn read_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn host(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_le_bytes(self.take()?);
        let (host, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(host)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;

    #[test]
    fn frozen_bytes() {
        let mut state = sample::state(sample::host(1), 5);
        let mut bytes = Vec::new();
        write_repo(&mut bytes, &state);
        assert_eq!(read_repo(&bytes), Some(state.clone()));
        assert_eq!(crc32c::crc32c(&bytes), 4075960777);
        state.head = None;
        state.local = LocalStatus::TakenDown;
        state.upstream = AccountStatus::Throttled { active: true };
        bytes.clear();
        write_repo(&mut bytes, &state);
        assert_eq!(read_repo(&bytes), Some(state.clone()));
        assert_eq!(crc32c::crc32c(&bytes), 2515016411);
        assert!(is_taken_down(&bytes));
        state.local = LocalStatus::Throttled;
        bytes.clear();
        write_repo(&mut bytes, &state);
        assert_eq!(read_repo(&bytes), Some(state.clone()));
        assert!(!is_taken_down(&bytes));
        bytes[1] |= TAKEN_DOWN;
        assert_eq!(read_repo(&bytes), None, "one of the two");
    }

    #[test]
    fn nothing_shorter_or_longer_is_a_value() {
        let mut repo = Vec::new();
        write_repo(&mut repo, &sample::state(sample::host(1), 5));
        for len in 0..repo.len() {
            assert_eq!(read_repo(&repo[..len]), None);
        }
        repo.push(0);
        assert_eq!(read_repo(&repo), None);
        for counts in [Counts { repos: 7, throttled: 0 }, Counts { repos: 7, throttled: 1 << 40 }] {
            let bytes = write_counts(counts);
            assert_eq!(read_counts(&bytes), Some(counts));
            assert_eq!(read_counts(&bytes[..bytes.len() - 1]), None);
        }
        let row = HostRow { status: HostStatus::Banned, added_at_micros: 77, notes: Notes::default() };
        let bytes = write_host(&row);
        assert_eq!(read_host(&bytes), Some(row.clone()));
        for len in 0..bytes.len() {
            assert_eq!(read_host(&bytes[..len]), None);
        }
        let first_version = [&[1, 4][..], &77u64.to_le_bytes()].concat();
        assert_eq!(read_host(&first_version), Some(row));
        for cursor in [HostCursor { epoch: 3, seq: None }, HostCursor { epoch: 0, seq: Some(u64::MAX) }] {
            let bytes = write_cursor(cursor);
            assert_eq!(read_cursor(&bytes), Some(cursor));
            assert_eq!(read_cursor(&bytes[..bytes.len() - 1]), None);
        }
    }
}
