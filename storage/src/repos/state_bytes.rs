//! The bytes of a repo's state, as backends keep it. Frozen; a change is a new version byte. Numbers are little-endian.
//!
//! ```text
//!   version u8 · flags u8 · status u8 · 0 u8 · host length u16 · host · epoch u32 · upstream seq u64
//!   · [rev u64 · commit 32 · data 32]
//! ```

use atproto::{
    cid::{Cid, Codec},
    syntax::{HostName, Tid},
};

use super::{AccountStatus, Head, LocalStatus, RepoState};

const VERSION: u8 = 1;

const TAKEN_DOWN: u8 = 1;
const HAS_HEAD: u8 = 2;
const COMMIT_IS_RAW: u8 = 4;
const DATA_IS_RAW: u8 = 8;
const THROTTLED: u8 = 16;

impl RepoState {
    /// Appends the state's bytes: some 120.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let raw = |cid: Cid, flag| match cid.codec {
            Codec::Raw => flag,
            Codec::DagCbor => 0,
        };
        let mut flags = match self.local {
            LocalStatus::None => 0,
            LocalStatus::TakenDown => TAKEN_DOWN,
            LocalStatus::Throttled => THROTTLED,
        };
        if let Some(head) = &self.head {
            flags |= HAS_HEAD | raw(head.commit, COMMIT_IS_RAW) | raw(head.data, DATA_IS_RAW);
        }
        out.extend_from_slice(&[VERSION, flags, status_code(self.upstream), 0]);
        let host = self.host.as_str().as_bytes();
        out.extend_from_slice(&u16::try_from(host.len()).expect("a host name has some hundred bytes").to_le_bytes());
        out.extend_from_slice(host);
        out.extend_from_slice(&self.host_epoch.to_le_bytes());
        out.extend_from_slice(&self.upstream_seq.to_le_bytes());
        if let Some(head) = &self.head {
            out.extend_from_slice(&head.rev.to_u64().to_le_bytes());
            out.extend_from_slice(&head.commit.digest);
            out.extend_from_slice(&head.data.digest);
        }
    }

    /// Reads a state that is exactly these bytes; `None` where they are none.
    pub fn decode(bytes: &[u8]) -> Option<RepoState> {
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
        rest.0.is_empty().then_some(RepoState {
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

    /// Whether a state's bytes say that we have taken the account down. Of what is no state, no.
    pub fn is_taken_down_in(bytes: &[u8]) -> bool {
        matches!(bytes, [VERSION, flags, ..] if flags & TAKEN_DOWN != 0)
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample;

    fn bytes_of(state: &RepoState) -> Vec<u8> {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(RepoState::decode(&bytes).as_ref(), Some(state));
        bytes
    }

    #[test]
    fn frozen_bytes() {
        let mut state = sample::state(sample::host(1), 5);
        assert_eq!(crc32c::crc32c(&bytes_of(&state)), 4075960777);
        state.head = None;
        state.local = LocalStatus::TakenDown;
        state.upstream = AccountStatus::Throttled { active: true };
        let bytes = bytes_of(&state);
        assert_eq!(crc32c::crc32c(&bytes), 2515016411);
        assert!(RepoState::is_taken_down_in(&bytes));
        state.local = LocalStatus::Throttled;
        let mut bytes = bytes_of(&state);
        assert!(!RepoState::is_taken_down_in(&bytes));
        bytes[1] |= TAKEN_DOWN;
        assert_eq!(RepoState::decode(&bytes), None, "one of the two");
    }

    #[test]
    fn nothing_shorter_or_longer_is_a_state() {
        let mut bytes = bytes_of(&sample::state(sample::host(1), 5));
        for len in 0..bytes.len() {
            assert_eq!(RepoState::decode(&bytes[..len]), None);
        }
        bytes.push(0);
        assert_eq!(RepoState::decode(&bytes), None);
    }
}
