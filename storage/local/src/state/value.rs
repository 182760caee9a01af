//! The bytes of what Repos and Hosts hold, beside the states of repos ([`storage::repos::RepoState::encode`], also in the
//! log's records) and hosts' cursors ([`storage::hosts::HostCursor::to_bytes`]). Frozen; a change is a new version byte.
//! Numbers are little-endian.
//!
//! ```text
//!   host    version u8 · status u8 · added at u64 · [notes: JSON]          version 1 has no notes
//!   count   repos u64 · [throttled u64]
//!   takedown  seq u64
//! ```

use serde::{Serialize, de::DeserializeOwned};
use storage::hosts::{HostStatus, Notes};

const VERSION: u8 = 1;
const HOST_VERSION: u8 = 2;

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

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shorter_is_a_value() {
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
    }
}
