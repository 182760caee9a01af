//! Records of the topics, as bytes. Pure.
//!
//! Each record begins with its version, frozen once released: a change is a new number, and who does not know it stops.
//! Numbers are little-endian. Kafka checks the bytes.

pub(crate) mod firehose;
pub(crate) mod hosts;
pub(crate) mod raw;
pub(crate) mod sequencer;
pub(crate) mod verified;

use atproto::syntax::Did;

/// Bytes in a topic that are not what is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} can't be read: it is damaged, or a newer program wrote it")]
pub(crate) struct Malformed {
    /// Which record.
    pub(crate) what: &'static str,
}

/// A text's bytes and what follows them.
fn split(bytes: &[u8], len: u16) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::from(len))
}

/// A DID of so many bytes, and what follows it.
fn split_did(bytes: &[u8], len: u16) -> Option<(Did, &[u8])> {
    let (did, rest) = split(bytes, len)?;
    Some((Did::parse(std::str::from_utf8(did).ok()?).ok()?, rest))
}

/// A text's length. DIDs and names of hosts have some thousand bytes at most.
fn len_of(text: &[u8]) -> [u8; 2] {
    u16::try_from(text.len()).expect("a did, a host's name and a state are short").to_le_bytes()
}

/// Two bytes at an offset that the caller has checked; little-endian, as all numbers in records.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// As [`u16_at`], of four bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// As [`u32_at`], of eight bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// As [`u64_at`], signed.
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
