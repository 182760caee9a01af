//! Made-up events: small, valid and told apart by their number.

use atproto::{
    cid::{Cid, Codec},
    frame::SeqSlot,
    syntax::{Did, HostName, Tid},
};
use bytes::Bytes;

use crate::{
    log::Accepted,
    repos::{AccountStatus, Head, LocalStatus, RepoState},
};

/// An account by number.
pub fn did(number: u64) -> Did {
    Did::parse(&format!("did:web:account-{number:06}.example.com")).unwrap()
}

/// A host by number.
pub fn host(number: u64) -> HostName {
    HostName::parse(&format!("host-{number:04}.example.com")).unwrap()
}

/// A repo's state at `host`, by the number of the event that made it.
pub fn state(host: HostName, number: u64) -> RepoState {
    let cid = |salt: u8| {
        let mut digest = [salt; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Cid { codec: Codec::DagCbor, digest }
    };
    RepoState {
        host,
        host_epoch: 0,
        upstream_seq: number,
        head: Some(Head { rev: Tid::from_micros(1_000_000 + number, 7), commit: cid(1), data: cid(2) }),
        upstream: AccountStatus::Active,
        local: LocalStatus::None,
    }
}

/// A frame of about `bytes` bytes, `{op: 1, t: "#identity"}` and `{did, pad, seq}`, with its seq's place.
pub fn frame(did: &Did, upstream_seq: u64, bytes: usize) -> (Bytes, SeqSlot) {
    let mut frame = b"\xa2\x61t\x69#identity\x62op\x01".to_vec();
    frame.extend(b"\xa3\x63did");
    put_head(&mut frame, 3, did.as_str().len() as u64);
    frame.extend(did.as_str().as_bytes());
    frame.extend(b"\x63pad");
    let pad = bytes.saturating_sub(frame.len() + 16);
    put_head(&mut frame, 2, pad as u64);
    frame.extend((0..pad).map(|at| (at as u64 ^ upstream_seq) as u8));
    frame.extend(b"\x63seq");
    let start = u32::try_from(frame.len()).unwrap();
    put_head(&mut frame, 0, upstream_seq);
    let end = u32::try_from(frame.len()).unwrap();
    (frame.into(), SeqSlot { start, end })
}

/// Event `number` of account `account` at its host, in a frame of about `bytes` bytes.
pub fn accepted(account: u64, number: u64, bytes: usize) -> Accepted {
    let did = did(account);
    let (frame, seq_slot) = frame(&did, number, bytes);
    Accepted { state: state(host(account % 3), number), did, frame, seq_slot, position: None }
}

/// `count` events of as many accounts, numbered from `first`.
pub fn batch(first: u64, count: u64, bytes: usize) -> Vec<Accepted> {
    (first..first + count).map(|number| accepted(number, number, bytes)).collect()
}

/// A CBOR item's head, in its shortest form.
fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend([major | 24, value as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(value.to_be_bytes());
        }
    }
}
