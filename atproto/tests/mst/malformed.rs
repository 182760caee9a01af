//! Trees that nobody may have, each refused for its reason.

use atproto::{
    cid::{Cid, Codec},
    mst::{Entry, MstError, NODE_ENTRIES_MAX, Node, Tree, layer},
};

use crate::{invert, keys_by_layer, load, record};

/// A tree under construction, by hand: nothing is checked.
#[derive(Default)]
struct Hand {
    blocks: Vec<(Cid, Vec<u8>)>,
}

impl Hand {
    fn block(&mut self, block: Vec<u8>) -> Cid {
        let cid = Cid::of_cbor(&block);
        self.blocks.push((cid, block));
        cid
    }

    /// A node of whole keys, compressed as they should be.
    fn node(&mut self, left: Option<Cid>, entries: &[(&str, Option<Cid>)]) -> Cid {
        let mut before = "";
        let entries = entries.iter().map(|(key, right)| {
            let prefix_len = before.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
            before = key;
            Entry { prefix_len, suffix: &key.as_bytes()[prefix_len..], value: record(0), right: *right }
        });
        let node = Node { left, entries: entries.collect() };
        let block = node.encode();
        self.block(block)
    }

    fn load(&self, root: Cid) -> Result<Tree, MstError> {
        load(root, &self.blocks)
    }

    #[track_caller]
    fn refused(&self, root: Cid, expected: MstError) {
        assert_eq!(self.load(root).map(|_| ()), Err(expected.clone()));
        assert_eq!(invert(root, &self.blocks, &[]), Err(expected));
    }
}

fn malformed(why: &'static str) -> MstError {
    MstError::Malformed { why }
}

fn entry(prefix_len: usize, suffix: &str) -> Entry<'_> {
    Entry { prefix_len, suffix: suffix.as_bytes(), value: record(0), right: None }
}

/// Keys of a layer, rising.
fn keys(layer: usize) -> Vec<String> {
    keys_by_layer(60).swap_remove(layer)
}

/// `low < high` of one layer, and a key of another layer below both, between them, and above both.
fn around(outer: usize, inner: usize) -> (String, String, [String; 3]) {
    let (outer, inner) = (keys(outer), keys(inner));
    for low in &outer {
        for high in outer.iter().filter(|high| *high > low) {
            let below = inner.iter().find(|key| *key < low);
            let between = inner.iter().find(|key| *key > low && *key < high);
            let above = inner.iter().find(|key| *key > high);
            if let (Some(below), Some(between), Some(above)) = (below, between, above) {
                return (low.clone(), high.clone(), [below.clone(), between.clone(), above.clone()]);
            }
        }
    }
    panic!("no such keys")
}

#[test]
fn a_key_on_another_layer() {
    let (low, high, [_, between, _]) = around(1, 0);
    let mut hand = Hand::default();
    let root = hand.node(None, &[(&low, None), (&between, None), (&high, None)]);
    hand.refused(root, malformed("a key stands on its own layer"));
}

#[test]
fn a_subtree_that_is_not_one_layer_down() {
    for (upper, lower) in [(2, 0), (1, 1), (1, 2), (5, 3)] {
        let (low, _, [_, between, _]) = around(upper, lower);
        let mut hand = Hand::default();
        let child = hand.node(None, &[(&between, None)]);
        let root = hand.node(None, &[(&low, Some(child))]);
        hand.refused(root, malformed("a key stands on its own layer"));
    }
}

#[test]
fn layers_may_be_bridged_by_nodes_without_keys() {
    let (low, _, [_, between, _]) = around(2, 0);
    let mut hand = Hand::default();
    let leaf = hand.node(None, &[(&between, None)]);
    let bridge = hand.node(Some(leaf), &[]);
    let root = hand.node(None, &[(&low, Some(bridge))]);
    assert_eq!(hand.load(root).unwrap().records().len(), 2);
}

#[test]
fn keys_that_do_not_rise() {
    let (low, high, _) = around(1, 0);
    for pair in [[&high, &low], [&low, &low]] {
        let mut hand = Hand::default();
        let root = hand.node(None, &[(pair[0], None), (pair[1], None)]);
        hand.refused(root, malformed("keys rise"));
    }
}

#[test]
fn prefixes_that_lie() {
    let keys = keys(0);
    let (first, second) = (&keys[0], &keys[1]);
    let shared = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
    let table = [
        (vec![entry(3, first)], "a prefix is no longer than the key before"),
        (vec![entry(0, first), entry(first.len() + 1, "x")], "a prefix is no longer than the key before"),
        (vec![entry(0, first), entry(shared - 1, &second[shared - 1..])], "a prefix is as long as it can be"),
        (vec![entry(0, first), entry(0, second)], "a prefix is as long as it can be"),
        (vec![entry(0, first), entry(first.len(), "")], "keys rise"),
    ];
    for (entries, why) in table {
        let mut hand = Hand::default();
        let root = hand.block(Node { left: None, entries }.encode());
        hand.refused(root, malformed(why));
    }
}

#[test]
fn subtrees_out_of_order() {
    let why = "a subtree's keys lie between its neighbours";
    for bridged in [false, true] {
        let (low, high, [below, between, above]) = around(if bridged { 2 } else { 1 }, 0);
        let wrong = [
            (Some(&between), None, None),
            (Some(&above), None, None),
            (None, Some(&below), None),
            (None, Some(&above), None),
            (None, None, Some(&below)),
            (None, None, Some(&between)),
        ];
        for (left, middle, right) in wrong {
            let mut hand = Hand::default();
            let mut place = |key: Option<&String>| {
                key.map(|key| {
                    let leaf = hand.node(None, &[(key, None)]);
                    if bridged { hand.node(Some(leaf), &[]) } else { leaf }
                })
            };
            let (left, middle, right) = (place(left), place(middle), place(right));
            let root = hand.node(left, &[(&low, middle), (&high, right)]);
            hand.refused(root, malformed(why));
        }
        let mut hand = Hand::default();
        let mut place = |key: &String| {
            let leaf = hand.node(None, &[(key, None)]);
            Some(if bridged { hand.node(Some(leaf), &[]) } else { leaf })
        };
        let (left, middle, right) = (place(&below), place(&between), place(&above));
        let root = hand.node(left, &[(&low, middle), (&high, right)]);
        assert_eq!(hand.load(root).unwrap().records().len(), 5);
    }
}

/// A leaf two layers down is bound by keys that are not its parent's.
#[test]
fn leaves_beyond_the_keys_above_their_parent() {
    let (low, high, [below, between, above]) = around(2, 0);
    let inner = keys(1).into_iter().find(|key| *key > low && *key < high).unwrap();
    for (left, right, fits) in
        [(None, None, true), (Some(&below), None, false), (None, Some(&above), false), (None, Some(&between), true)]
    {
        // Where the key between stands on the other side of its parent's, it has no place.
        let fits = fits && right.is_none_or(|key| *key > inner);
        let mut hand = Hand::default();
        let mut leaf = |key: Option<&String>| key.map(|key| hand.node(None, &[(key, None)]));
        let (left, right) = (leaf(left), leaf(right));
        let middle = hand.node(left, &[(&inner, right)]);
        let root = hand.node(None, &[(&low, Some(middle)), (&high, None)]);
        if fits {
            assert!(hand.load(root).is_ok());
        } else {
            hand.refused(root, malformed("a subtree's keys lie between its neighbours"));
        }
    }
}

#[test]
fn below_the_ground() {
    let nowhere = record(7);
    let key = &keys(0)[0];
    for (left, right) in [(Some(nowhere), None), (None, Some(nowhere))] {
        let mut hand = Hand::default();
        let root = hand.node(left, &[(key, right)]);
        hand.refused(root, malformed("nothing stands below layer 0"));
    }
}

#[test]
fn a_chain_without_keys_ends_at_the_ground() {
    let mut hand = Hand::default();
    let mut chain = record(7);
    for _ in 0..10_000 {
        chain = hand.node(Some(chain), &[]);
    }
    let root = hand.node(Some(chain), &[(&keys(5)[0], None)]);
    hand.refused(root, malformed("nothing stands below layer 0"));
}

#[test]
fn one_node_in_many_places() {
    let mut hand = Hand::default();
    let keys = keys(2);
    let shared = hand.node(Some(record(7)), &[]);
    let entries: Vec<(&str, Option<Cid>)> = keys.iter().map(|key| (key.as_str(), Some(shared))).collect();
    let root = hand.node(Some(shared), &entries);
    hand.refused(root, malformed("a node stands in one place"));
}

#[test]
fn nodes_without_keys() {
    let mut hand = Hand::default();
    let leaf = hand.node(None, &[(&keys(0)[0], None)]);
    let untrimmed = hand.node(Some(leaf), &[]);
    hand.refused(untrimmed, malformed("a root has keys"));

    let empty = hand.node(None, &[]);
    assert_eq!(hand.load(empty).unwrap().records(), []);
    let root = hand.node(None, &[(&keys(1)[0], Some(empty))]);
    hand.refused(root, malformed("a node without keys has a left subtree"));
}

#[test]
fn keys_that_are_no_paths() {
    let long = format!("a/{}", "b".repeat(1_023));
    for key in ["", "/", "a/", "/a", "ab", "a/b/c", "a b/c", "a/b\0", "a/ä", "a/b%20"] {
        let mut hand = Hand::default();
        let root = hand.node(None, &[(key, None)]);
        hand.refused(root, malformed("a key is collection/rkey"));
    }
    let mut hand = Hand::default();
    let root = hand.node(None, &[(&long, None)]);
    hand.refused(root, MstError::Limit { why: "length of a key" });
    let root = hand.block(Node { left: None, entries: vec![entry(0, &long[..1_024]), entry(1_024, "b")] }.encode());
    hand.refused(root, MstError::Limit { why: "length of a key" });
    let root = hand.node(None, &[(&long[..1_024], None)]);
    assert_eq!(hand.load(root).unwrap().records().len(), 1);
}

#[test]
fn too_many_entries() {
    let numbers = (0..u32::MAX).map(|number| format!("com.example.record/{number:08}"));
    let keys: Vec<String> = numbers.filter(|key| layer(key.as_bytes()) == 0).take(100_000).collect();
    for (count, fits) in [(NODE_ENTRIES_MAX, true), (NODE_ENTRIES_MAX + 1, false), (100_000, false)] {
        let mut hand = Hand::default();
        let entries: Vec<(&str, Option<Cid>)> = keys[..count].iter().map(|key| (key.as_str(), None)).collect();
        let root = hand.node(None, &entries);
        if fits {
            assert_eq!(hand.load(root).unwrap().records().len(), count);
        } else {
            hand.refused(root, MstError::Limit { why: "entries of a node" });
        }
    }
    // A count that no bytes stand behind allocates nothing.
    let mut hand = Hand::default();
    let root = hand.block(b"\xa2\x61e\x9a\xff\xff\xff\xff".to_vec());
    hand.refused(root, MstError::Limit { why: "entries of a node" });
}

#[test]
fn blocks_that_are_not_nodes() {
    let good = Node { left: None, entries: vec![entry(0, &keys(0)[0])] }.encode();
    assert!(Node::parse(&good).is_ok());
    for cut in 0..good.len() {
        assert!(Node::parse(&good[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bent = good.clone();
            bent[at] ^= 1 << bit;
            if let Ok(node) = Node::parse(&bent) {
                assert_eq!(node.encode(), bent, "the one form, or none");
            }
        }
    }
    let with = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let key_len = keys(0)[0].len() as u8;
    let link = |codec: u8| [b"\x61t\xd8\x2a\x58\x25\x00\x01".as_slice(), &[codec, 0x12, 0x20], &[0; 32]].concat();
    let table: [(&str, Vec<u8>); 12] = [
        ("a byte after it", [good.as_slice(), b"\0"].concat()),
        ("a third field", [b"\xa3\x61a\x00", &good[1..]].concat()),
        ("a field too few", b"\xa1\x61e\x80".to_vec()),
        ("fields in another order", b"\xa2\x61l\xf6\x61e\x80".to_vec()),
        ("an array of no set length", b"\xa2\x61e\x9f\xff\x61l\xf6".to_vec()),
        ("a count in a longer form", with(b"\x61e\x81", b"\x61e\x98\x01")),
        ("a length in a longer form", with(&[b'k', 0x58, key_len], &[b'k', 0x59, 0, key_len])),
        ("a number in a longer form", with(b"\x61p\x00", b"\x61p\x18\x00")),
        ("a negative number", with(b"\x61p\x00", b"\x61p\x20")),
        ("a key that is text", with(&[b'k', 0x58], &[b'k', 0x78])),
        ("a subtree that is raw", with(b"\x61t\xf6", &link(Codec::Raw as u8))),
        ("a record that is null", with(b"\xd8\x2a", b"\xf6\x2a")),
    ];
    for (what, block) in table {
        assert!(Node::parse(&block).is_err(), "{what}");
    }
    assert!(Node::parse(&with(b"\x61t\xf6", &link(Codec::DagCbor as u8))).is_ok());
}
