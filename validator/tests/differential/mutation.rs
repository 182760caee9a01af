//! Ways to spoil a commit, or to leave it right in an odd form. What is signed is signed again where the change would
//! else be found by the signature alone.

use std::collections::HashMap;

use atproto::{
    cid::Cid,
    crypto::{Curve, SigningKey},
    event::Action,
    mst::Node,
    syntax::Tid,
};
use loadtest::scenario::{Author, Draft};
use rand::{Rng, RngExt, rngs::Xoshiro256PlusPlus};

use crate::chain::TIME;

/// Makes a frame of a draft; `None` where it does not apply.
pub(crate) type Spoil = fn(&Draft, &Author, &mut Xoshiro256PlusPlus) -> Option<Vec<u8>>;

pub(crate) const MUTATIONS: &[(&str, Spoil)] = &[
    ("a block left out", |draft, _, rng| {
        let mut draft = draft.clone();
        let count = draft.nodes.len() + draft.records.len();
        let at = rng.random_range(0..count.max(1));
        if at < draft.nodes.len() {
            draft.nodes.remove(at);
        } else if at < count {
            draft.records.remove(at - draft.nodes.len());
        } else {
            return None;
        }
        frame(&draft)
    }),
    ("blocks in another order", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = rng.random_range(0..draft.nodes.len().max(1));
        draft.nodes.rotate_left(at);
        draft.records.reverse();
        frame(&draft)
    }),
    ("all nodes of the tree", |draft, _, _| {
        let mut draft = draft.clone();
        draft.put_all_nodes();
        frame(&draft)
    }),
    ("a block with other bytes", |draft, _, rng| {
        let mut draft = draft.clone();
        let mut blocks: Vec<&mut Vec<u8>> =
            draft.nodes.iter_mut().chain(&mut draft.records).map(|(_, block)| block).collect();
        let at = rng.random_range(0..blocks.len().max(1));
        flip(blocks.get_mut(at)?, rng);
        frame(&draft)
    }),
    ("an op left out", |draft, _, rng| {
        let mut draft = draft.clone();
        draft.put_all_nodes();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps.remove(at);
        frame(&draft)
    }),
    ("an op twice", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps.push(draft.steps[at].clone());
        frame(&draft)
    }),
    ("an op of another path", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps[at].path.push('x');
        frame(&draft)
    }),
    ("an op with another CID", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        let other = draft.records.first().map_or(Cid::of_cbor(b"other"), |(cid, _)| *cid);
        draft.steps[at].cid = draft.steps[at].cid.map(|_| other);
        frame(&draft)
    }),
    ("an op with another prev", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps[at].prev = draft.steps[at].prev.map(|_| Cid::of_cbor(b"other"));
        frame(&draft)
    }),
    ("an op without prev", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps[at].prev = None;
        frame(&draft)
    }),
    ("an op with another action", |draft, _, rng| {
        let mut draft = draft.clone();
        let at = pick(draft.steps.len(), rng)?;
        draft.steps[at].action = match draft.steps[at].action {
            Action::Create => Action::Update,
            Action::Update => Action::Delete,
            Action::Delete => Action::Create,
        };
        frame(&draft)
    }),
    ("another prevData", |draft, _, rng| {
        let mut draft = draft.clone();
        draft.prev_data = Some(if rng.random_bool(0.5) { draft.data } else { Cid::of_cbor(b"other") });
        frame(&draft)
    }),
    ("no prevData", |draft, _, _| {
        let mut draft = draft.clone();
        draft.prev_data = None;
        frame(&draft)
    }),
    ("another since", |draft, _, rng| {
        let mut draft = draft.clone();
        draft.since = rng.random_bool(0.5).then(|| draft.rev.clone());
        frame(&draft)
    }),
    ("another rev", |draft, author, rng| {
        let mut draft = draft.clone();
        let last = author.head.as_ref().map_or(0, |head| head.rev.micros());
        let rev = match rng.random_range(0..5) {
            0 => Tid::from_micros(last, 17).to_string(),
            1 => Tid::from_micros(last.saturating_sub(1_000), 3).to_string(),
            2 => Tid::from_micros(author.now_micros() + 3_600_000_000, 3).to_string(),
            3 => Tid::from_micros(author.now_micros() + 1_000_000, 3).to_string(),
            _ => "not-a-tid".to_owned(),
        };
        draft.put_rev(rev, &author.did, &author.key);
        frame(&draft)
    }),
    ("a rev that is not the commit's", |draft, author, _| {
        let mut draft = draft.clone();
        draft.rev = Tid::from_micros(author.now_micros() + 1, 1).to_string();
        frame(&draft)
    }),
    ("another signature", |draft, author, rng| {
        let mut draft = draft.clone();
        let mut block = draft.commit_block.clone();
        let head = b"\x63sig\x58\x40";
        let at = block.windows(head.len()).position(|window| window == head)? + head.len();
        match rng.random_range(0..3) {
            0 => block[at + rng.random_range(0..64)] ^= 1 << rng.random_range(0..8),
            1 => block[at..at + 64].fill(0),
            _ => high_s(&mut block[at..at + 64], author),
        }
        draft.put_commit(block);
        frame(&draft)
    }),
    ("another key", |draft, author, rng| {
        let mut draft = draft.clone();
        let curve = if rng.random_bool(0.5) { Curve::K256 } else { Curve::P256 };
        draft.sign(&author.did, &SigningKey::from_bytes(curve, &[7; 32]).ok()?);
        frame(&draft)
    }),
    ("a flag", |draft, _, rng| {
        let mut draft = draft.clone();
        if rng.random_bool(0.5) {
            draft.too_big = true;
        } else {
            draft.rebase = true;
        }
        frame(&draft)
    }),
    ("a bit of the commit block", |draft, _, rng| {
        let mut draft = draft.clone();
        let mut block = draft.commit_block.clone();
        flip(&mut block, rng);
        draft.put_commit(block);
        frame(&draft)
    }),
    ("a bit of the payload", |draft, _, rng| {
        let mut frame = frame(draft)?;
        let at = rng.random_range(14..frame.len());
        frame[at] ^= 1 << rng.random_range(0..8);
        Some(frame)
    }),
    ("a payload cut short", |draft, _, rng| {
        let mut frame = frame(draft)?;
        frame.truncate(rng.random_range(14..frame.len()));
        Some(frame)
    }),
    ("another record, right through", |draft, author, rng| {
        let mut draft = draft.clone();
        draft.put_all_nodes();
        let old = draft.records.first()?.0;
        let record = if rng.random_bool(0.5) { b"\xa1\x61a\x01".to_vec() } else { b"\xff not cbor".to_vec() };
        let new = Cid::of_cbor(&record);
        let holds = |block: &[u8]| Node::parse(block).is_ok_and(|node| node.entries.iter().any(|at| at.value == old));
        let (target, block) = draft.nodes.iter().find(|(_, block)| holds(block))?;
        let mut node = Node::parse(block).unwrap();
        for entry in node.entries.iter_mut().filter(|entry| entry.value == old) {
            entry.value = new;
        }
        let (target, block) = (*target, node.encode());
        draft.records[0] = (new, record);
        for step in draft.steps.iter_mut().filter(|step| step.cid == Some(old)) {
            step.cid = Some(new);
        }
        with_node(draft, author, target, &block)
    }),
    ("another tree of the same records", |draft, author, rng| node_changed(draft, author, rng, Change::Shape)),
    ("a tree with another record", |draft, author, rng| node_changed(draft, author, rng, Change::Value)),
    ("a tree with another key", |draft, author, rng| node_changed(draft, author, rng, Change::Key)),
    ("a tree with an entry more or less", |draft, author, rng| node_changed(draft, author, rng, Change::Entries)),
    ("a tree with a bit of a node changed", |draft, author, rng| node_changed(draft, author, rng, Change::Bit)),
];

fn frame(draft: &Draft) -> Option<Vec<u8>> {
    Some(draft.encode(5, TIME))
}

fn pick(len: usize, rng: &mut impl Rng) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}

fn flip(block: &mut [u8], rng: &mut impl Rng) {
    if let Some(at) = pick(block.len(), rng) {
        block[at] ^= 1 << rng.random_range(0..8);
    }
}

/// The order less S, in place.
fn high_s(sig: &mut [u8], author: &Author) {
    let order = match author.key.public_key().curve() {
        Curve::K256 => "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        Curve::P256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    };
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    let mut borrow = 0;
    for (at, byte) in order.iter().enumerate().rev() {
        let difference = i16::from(*byte) - i16::from(sig[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        sig[32 + at] = difference.rem_euclid(256) as u8;
    }
}

/// What is done to a node.
#[derive(Clone, Copy)]
enum Change {
    Shape,
    Value,
    Key,
    Entries,
    Bit,
}

/// The whole tree, one node of it changed, the nodes above it hashed anew, and signed.
fn node_changed(draft: &Draft, author: &Author, rng: &mut Xoshiro256PlusPlus, change: Change) -> Option<Vec<u8>> {
    let mut draft = draft.clone();
    draft.put_all_nodes();
    let target = draft.nodes[pick(draft.nodes.len(), rng)?].0;
    let (_, block) = draft.nodes.iter().find(|(cid, _)| *cid == target)?;
    let spoilt = spoil(block, rng, change)?;
    with_node(draft, author, target, &spoilt)
}

/// The draft, whose nodes are all there, with other bytes for one of them.
fn with_node(mut draft: Draft, author: &Author, target: Cid, block: &[u8]) -> Option<Vec<u8>> {
    let blocks: HashMap<Cid, Vec<u8>> = draft.nodes.iter().cloned().collect();
    let mut nodes = Vec::new();
    rebuilt(draft.data, Some((target, block)), &blocks, &mut nodes)?;
    // Each node was added after those below it.
    nodes.reverse();
    draft.put_tree(nodes, &author.did, &author.key);
    frame(&draft)
}

/// Adds the subtree at `cid`, with other bytes for one of its nodes; gives its new CID.
fn rebuilt(
    cid: Cid,
    spoilt: Option<(Cid, &[u8])>,
    blocks: &HashMap<Cid, Vec<u8>>,
    out: &mut Vec<(Cid, Vec<u8>)>,
) -> Option<Cid> {
    let (block, spoilt) = match spoilt {
        // Below itself a node is what it was.
        Some((target, spoilt)) if target == cid => (spoilt, None),
        Some(_) | None => (&blocks.get(&cid)?[..], spoilt),
    };
    let Ok(mut node) = Node::parse(block) else {
        let cid = Cid::of_cbor(block);
        out.push((cid, block.to_vec()));
        return Some(cid);
    };
    let mut is_changed = false;
    for link in node.entries.iter_mut().map(|entry| &mut entry.right).chain([&mut node.left]) {
        if let Some(below) = link.filter(|below| blocks.contains_key(below)) {
            let new = rebuilt(below, spoilt, blocks, out)?;
            is_changed |= new != below;
            *link = Some(new);
        }
    }
    let block = if is_changed { node.encode() } else { block.to_vec() };
    let cid = Cid::of_cbor(&block);
    out.push((cid, block));
    Some(cid)
}

fn spoil(block: &[u8], rng: &mut Xoshiro256PlusPlus, change: Change) -> Option<Vec<u8>> {
    let mut node = Node::parse(block).unwrap();
    let at = pick(node.entries.len(), rng);
    let suffix: Vec<u8>;
    match change {
        Change::Shape => match rng.random_range(0..4) {
            0 => {
                let at = at?;
                let other = pick(node.entries.len(), rng)?;
                node.entries.swap(at, other);
            }
            1 => {
                let at = at?;
                std::mem::swap(&mut node.left, &mut node.entries[at].right);
            }
            2 => {
                // A prefix shorter than it could be, of the same key.
                let at = (1..node.entries.len()).find(|at| node.entries[*at].prefix_len > 0)?;
                let mut key = Vec::new();
                for entry in &node.entries[..at] {
                    key.truncate(entry.prefix_len);
                    key.extend_from_slice(entry.suffix);
                }
                let prefix_len = node.entries[at].prefix_len;
                suffix = [&key[prefix_len - 1..prefix_len], node.entries[at].suffix].concat();
                node.entries[at].prefix_len -= 1;
                node.entries[at].suffix = &suffix;
            }
            _ => {
                // A node without keys on top, or between.
                let cid = Cid::of_cbor(block);
                node.entries.clear();
                node.left = Some(cid);
            }
        },
        Change::Value => node.entries[at?].value = Cid::of_cbor(b"other"),
        Change::Key => {
            let at = at?;
            let mut other = node.entries[at].suffix.to_vec();
            flip(&mut other, rng);
            suffix = other;
            node.entries[at].suffix = &suffix;
        }
        Change::Entries => {
            let at = at?;
            if rng.random_bool(0.5) {
                node.entries.remove(at);
            } else {
                let mut again = node.entries[at];
                again.prefix_len = rng.random_range(0..40);
                node.entries.insert(at + 1, again);
            }
        }
        Change::Bit => {
            let mut block = block.to_vec();
            flip(&mut block, rng);
            return Some(block);
        }
    }
    Some(node.encode())
}
