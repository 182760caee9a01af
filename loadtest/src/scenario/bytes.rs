//! Bytes of frames and blocks that no honest encoder makes.

use atproto::{
    cid::Cid,
    crypto::Curve,
    mst::{Entry, Node, layer},
};

/// `frame` with the first `from` exchanged for `to`; both of one length or not.
pub(super) fn replaced(frame: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at =
        frame.windows(from.len()).position(|window| window == from).expect("a frame of ours holds what it is made of");
    [&frame[..at], to, &frame[at + from.len()..]].concat()
}

/// The header of a `#commit`: `{"t": "#commit", "op": 1}`.
pub(super) const COMMIT_HEADER: &[u8] = b"\xa2\x61t\x67#commit\x62op\x01";

/// A frame of a `#commit` with one more entry in its payload, of a key longer than all others and this value.
pub(super) fn with_payload_entry(frame: &[u8], value: &[u8]) -> Vec<u8> {
    let at = COMMIT_HEADER.len();
    let mut out = frame.to_vec();
    // A map of fewer than 23 entries has their number in its first byte.
    out[at] += 1;
    out.extend_from_slice(b"\x6aunknownKey");
    out.extend_from_slice(value);
    out
}

/// A frame of a `#commit` with one more entry in its header.
pub(super) fn with_header_entry(frame: &[u8], value: &[u8]) -> Vec<u8> {
    let header = [b"\xa3", &COMMIT_HEADER[1..], b"\x63new", value].concat();
    replaced(frame, COMMIT_HEADER, &header)
}

/// Arrays inside each other, far deeper than anybody may go.
pub(super) fn depth_bomb() -> Vec<u8> {
    let mut bomb = vec![0x81; 20_000];
    bomb.push(0x80);
    bomb
}

/// A record with a CID of a hash that the protocol does not use: BLAKE2b-256, and an identity hash.
pub(super) fn record_with_odd_links(text: &str) -> Vec<u8> {
    let mut record = vec![0xa3, 0x61, b'a', 0x78, u8::try_from(text.len()).expect("a short text")];
    record.extend_from_slice(text.as_bytes());
    record.extend_from_slice(b"\x61b\xd8\x2a\x58\x27\x00\x01\x71\xa0\xe4\x02\x20");
    record.extend_from_slice(&[7; 32]);
    record.extend_from_slice(b"\x61c\xd8\x2a\x48\x00\x01\x55\x00\x03abc");
    record
}

/// The other S that fits a signature: the high one.
pub(super) fn with_high_s(curve: Curve, sig: [u8; 64]) -> [u8; 64] {
    const WHY: &str = "a signature of ours has both halves in range";
    match curve {
        Curve::K256 => {
            let sig = k256::ecdsa::Signature::from_slice(&sig).expect(WHY);
            let (r, s) = sig.split_scalars();
            k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect(WHY).to_bytes().into()
        }
        Curve::P256 => {
            let sig = p256::ecdsa::Signature::from_slice(&sig).expect(WHY);
            let (r, s) = sig.split_scalars();
            p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect(WHY).to_bytes().into()
        }
    }
}

/// A tree put together by hand: nothing is checked. Its root is what is added last.
#[derive(Default)]
pub(super) struct Hand {
    blocks: Vec<(Cid, Vec<u8>)>,
}

impl Hand {
    /// Adds a block.
    pub(super) fn block(&mut self, block: Vec<u8>) -> Cid {
        let cid = Cid::of_cbor(&block);
        self.blocks.push((cid, block));
        cid
    }

    /// Adds a node of whole keys, compressed as they should be.
    pub(super) fn node(&mut self, left: Option<Cid>, entries: &[(&str, Option<Cid>)]) -> Cid {
        let mut before = "";
        let entries = entries.iter().map(|(key, right)| {
            let prefix_len = before.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
            before = key;
            Entry { prefix_len, suffix: &key.as_bytes()[prefix_len..], value: Cid::of_cbor(b"a record"), right: *right }
        });
        let node = Node { left, entries: entries.collect() };
        let block = node.encode();
        self.block(block)
    }

    /// Adds a node of entries as they are.
    pub(super) fn raw_node(&mut self, entries: Vec<Entry<'_>>) -> Cid {
        self.block(Node { left: None, entries }.encode())
    }

    /// All blocks, the root first.
    pub(super) fn into_nodes(mut self) -> Vec<(Cid, Vec<u8>)> {
        self.blocks.reverse();
        self.blocks
    }
}

/// `count` keys of one layer, rising.
pub(super) fn keys(of_layer: u32, count: usize) -> Vec<String> {
    let numbers = (0..u32::MAX).map(|number| format!("com.example.thing/{number:07}"));
    numbers.filter(|key| layer(key.as_bytes()) == of_layer).take(count).collect()
}

/// An entry as it is.
pub(super) fn entry(prefix_len: usize, suffix: &str) -> Entry<'_> {
    Entry { prefix_len, suffix: suffix.as_bytes(), value: Cid::of_cbor(b"a record"), right: None }
}
