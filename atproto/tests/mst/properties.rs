//! Properties, against a plain map.

use std::{collections::BTreeMap, sync::LazyLock};

use atproto::{
    cid::Cid,
    mst::{EMPTY, MstError, Op, Tree},
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::{Index, subsequence},
};

use crate::{invert, keys_by_layer, load, record, tree_of};

/// As many keys of the high layers as of the low ones, so that splits and merges run deep.
static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| keys_by_layer(12).concat());

fn key() -> impl Strategy<Value = String> {
    any::<Index>().prop_map(|index| index.get(&KEYS).clone())
}

fn records() -> impl Strategy<Value = BTreeMap<String, Cid>> {
    btree_map(key(), (0u32..1_000).prop_map(record), 0..40)
}

/// A change before it is known what it meets: the key, what to write (or to delete), and how a later op on the same
/// path gives its `prev`.
#[derive(Clone, Debug)]
struct Wish {
    key: String,
    value: Option<u32>,
    prev: LaterPrev,
}

#[derive(Clone, Copy, Debug)]
enum LaterPrev {
    True,
    BeforeCommit,
    LeftOut,
}

fn wishes(keys: impl Strategy<Value = String>, count: usize) -> impl Strategy<Value = Vec<Wish>> {
    let prev = prop_oneof![Just(LaterPrev::True), Just(LaterPrev::BeforeCommit), Just(LaterPrev::LeftOut)];
    let wish = (keys, proptest::option::of(1_000u32..2_000), prev);
    vec(wish.prop_map(|(key, value, prev)| Wish { key, value, prev }), 0..count)
}

/// What of the wishes can be done, as a host would announce it.
fn ops_of<'w>(records: &BTreeMap<String, Cid>, wishes: &'w [Wish]) -> (Vec<Op<'w>>, BTreeMap<String, Cid>) {
    let mut now = records.clone();
    let mut ops: Vec<Op<'w>> = Vec::new();
    for wish in wishes {
        let cid = wish.value.map(record);
        let before = match cid {
            Some(cid) => now.insert(wish.key.clone(), cid),
            None => now.remove(&wish.key),
        };
        if before.is_none() && cid.is_none() {
            continue;
        }
        let first = ops.iter().find(|op| op.path == wish.key);
        let prev = match (first, wish.prev) {
            (None, _) | (Some(_), LaterPrev::True) => before,
            (Some(first), LaterPrev::BeforeCommit) => first.prev,
            (Some(_), LaterPrev::LeftOut) => None,
        };
        ops.push(Op { path: &wish.key, prev, cid });
    }
    (ops, now)
}

fn is_missing(error: &MstError) -> bool {
    matches!(error, MstError::MissingBlock { .. })
}

fn one_op_a_path(mut wishes: Vec<Wish>) -> Vec<Wish> {
    wishes.sort_by(|a, b| a.key.cmp(&b.key));
    wishes.dedup_by(|a, b| a.key == b.key);
    wishes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A tree's shape depends on its keys alone.
    #[test]
    fn any_order_gives_the_same_root(
        records in records(),
        extra in records(),
        order in any::<u64>(),
    ) {
        let expected = tree_of(&records).root();
        let mut tree = tree_of(&extra);
        tree.root();
        let mut shuffled: Vec<(&String, &Cid)> = records.iter().collect();
        shuffled.sort_by_key(|(key, _)| Cid::of_cbor(format!("{order}{key}").as_bytes()));
        for (key, value) in shuffled {
            prop_assert_eq!(tree.insert(key.as_bytes(), *value), Ok(extra.get(key).copied()));
        }
        for (key, value) in extra.iter().rev().filter(|(key, _)| !records.contains_key(*key)) {
            prop_assert_eq!(tree.remove(key.as_bytes()), Ok(Some(*value)));
            prop_assert_eq!(tree.remove(key.as_bytes()), Ok(None));
        }
        prop_assert_eq!(tree.root(), expected);

        let known: Vec<(Vec<u8>, Cid)> =
            records.iter().map(|(key, value)| (key.clone().into_bytes(), *value)).collect();
        prop_assert_eq!(tree.records(), known);
        let mut loaded = load(expected, &tree.blocks()).unwrap();
        prop_assert_eq!(loaded.records(), tree.records());
        for (key, value) in &records {
            prop_assert_eq!(loaded.get(key.as_bytes()), Ok(Some(*value)));
            prop_assert_eq!(loaded.remove(key.as_bytes()), Ok(Some(*value)));
        }
        prop_assert_eq!(loaded.root(), EMPTY);
    }

    /// Inversion undoes what was applied, with the proof's nodes alone; less of them is never enough for another root.
    #[test]
    fn inversion_undoes(records in records(), wishes in wishes(key(), 12)) {
        let mut tree = tree_of(&records);
        let before = tree.root();
        let (ops, after) = ops_of(&records, &wishes);
        let applied = tree.apply(&ops).unwrap();
        prop_assert_eq!(applied.prev_data, before);
        prop_assert_eq!(applied.data, tree_of(&after).root());
        prop_assert_eq!(applied.data, tree.root());
        prop_assert_eq!(invert(applied.data, &applied.blocks, &ops), Ok(before));
        let brings_the_root = applied.blocks.iter().any(|(cid, _)| *cid == applied.data);
        prop_assert!(brings_the_root || applied.data == before);
        for missing in 0..applied.blocks.len() {
            let mut blocks = applied.blocks.clone();
            let (cid, _) = blocks.remove(missing);
            match invert(applied.data, &blocks, &ops) {
                Ok(root) => prop_assert_eq!(root, before),
                Err(error) => prop_assert_eq!(error, MstError::MissingBlock { cid }),
            }
        }
    }

    /// The nodes of the whole tree are as good as the proof, and ops that do not tell what happened never lead back.
    #[test]
    fn wrong_ops_do_not_lead_back(
        records in records(),
        wishes in wishes(key(), 8).prop_map(one_op_a_path),
        other_key in key(),
        at in any::<Index>(),
        fault in 0..6,
    ) {
        let mut tree = tree_of(&records);
        let before = tree.root();
        let (ops, after) = ops_of(&records, &wishes);
        prop_assume!(!ops.is_empty());
        let applied = tree.apply(&ops).unwrap();
        let whole = tree.blocks();
        prop_assert_eq!(invert(applied.data, &whole, &ops), Ok(before));

        let mut wrong = ops.clone();
        let at = at.index(ops.len());
        let other = record(5_000);
        match fault {
            0 => wrong[at].cid = wrong[at].cid.map_or(Some(other), |_| None),
            1 => wrong[at].cid = Some(other),
            2 => wrong[at].prev = Some(other),
            3 => wrong[at].prev = wrong[at].prev.map_or(Some(other), |_| None),
            4 => {
                // An op whose record did not change tells nothing that could be missed.
                prop_assume!(wrong[at].prev != wrong[at].cid);
                wrong.remove(at);
            }
            _ => {
                prop_assume!(ops.iter().all(|op| op.path != other_key));
                let cid = after.get(&other_key).copied();
                wrong.insert(at, match cid {
                    Some(cid) => Op { path: &other_key, prev: None, cid: Some(cid) },
                    None => Op { path: &other_key, prev: Some(other), cid: None },
                });
            }
        }
        for blocks in [&whole, &applied.blocks] {
            prop_assert_ne!(invert(applied.data, blocks, &wrong), Ok(before), "{:?}", wrong);
        }
    }

    /// Whatever part of a tree is known: an operation does what it does to the whole, or says which node it lacks and
    /// changes nothing.
    #[test]
    fn a_part_never_gives_a_wrong_answer(
        (known, records) in records().prop_flat_map(|records| {
            let blocks = tree_of(&records).blocks();
            let count = blocks.len();
            (subsequence(blocks, 1..=count), Just(records))
        }),
        wishes in wishes(key(), 8),
    ) {
        let mut whole = tree_of(&records);
        let mut part = load(whole.root(), &known).unwrap();
        for wish in &wishes {
            let key = wish.key.as_bytes();
            let before = part.root();
            let step = |tree: &mut Tree| match wish.value {
                Some(value) => tree.insert(key, record(value)),
                None => tree.remove(key),
            };
            let there = whole.get(key);
            match part.get(key) {
                Ok(found) => prop_assert_eq!(Ok(found), there),
                Err(error) => prop_assert!(is_missing(&error), "{}", error),
            }
            match step(&mut part) {
                Ok(found) => {
                    prop_assert_eq!(Ok(found), step(&mut whole));
                    prop_assert_eq!(part.root(), whole.root());
                }
                Err(error) => {
                    prop_assert!(is_missing(&error), "{}", error);
                    prop_assert_eq!(part.root(), before);
                }
            }
        }
    }

    /// Ops that do not fit change nothing at all.
    #[test]
    fn applying_is_all_or_nothing(records in records(), wishes in wishes(key(), 8)) {
        let mut tree = tree_of(&records);
        let before = tree.root();
        let (mut ops, after) = ops_of(&records, &wishes);
        let absent = KEYS.iter().find(|key| !after.contains_key(*key) && !records.contains_key(*key));
        if let Some(path) = absent {
            ops.retain(|op| op.path != path);
            ops.push(Op { path, prev: Some(record(1)), cid: None });
            let error = tree.apply(&ops).unwrap_err();
            prop_assert_eq!(error, MstError::OpMismatch { path: path.clone() });
            prop_assert_eq!(tree.root(), before);
        }
    }
}

/// What a host may say of several ops on one path, and what not.
#[test]
fn steps_on_one_path() {
    let [before, one, two, other] = [1, 2, 3, 4].map(|number| Some(record(number)));
    let path = "com.example.record/000001";
    /// `prev` and `cid` of the ops on one path.
    type Steps = Vec<(Option<Cid>, Option<Cid>)>;
    let table: [(Steps, bool); 12] = [
        (vec![(before, one), (one, two)], true),
        (vec![(before, one), (before, two)], true),
        (vec![(before, one), (None, two)], true),
        (vec![(before, one), (other, two)], false),
        (vec![(before, None), (None, two)], true),
        (vec![(before, None), (before, two)], true),
        (vec![(before, None), (other, two)], false),
        (vec![(before, one), (one, None), (None, two)], true),
        (vec![(before, None), (None, None), (None, two)], false),
        (vec![(None, None), (before, two)], false),
        (vec![(other, one), (one, two)], false),
        (vec![(before, one), (one, other)], false),
    ];
    for (steps, fits) in table {
        let ops: Vec<Op<'_>> = steps.iter().map(|(prev, cid)| Op { path, prev: *prev, cid: *cid }).collect();
        let mut tree = tree_of(&[(path.to_owned(), record(1))].into());
        let root_before = tree.root();
        tree.insert(path.as_bytes(), record(3)).unwrap();
        let root = tree.root();
        assert_eq!(invert(root, &tree.blocks(), &ops) == Ok(root_before), fits, "{steps:?}");
    }
}

/// A change in a large tree touches a path and its neighbours, not the tree.
#[test]
fn proofs_stay_small() {
    let records: BTreeMap<String, Cid> =
        (0..20_000).map(|n| (format!("app.bsky.feed.like/{n:013}"), record(n))).collect();
    let mut tree = tree_of(&records);
    let mut nodes = 0;
    for n in 0..200 {
        let path = format!("app.bsky.feed.like/{:013}", n * 97);
        let prev = records.get(&path).copied();
        let op = match n % 3 {
            0 => Op { path: &path, prev, cid: None },
            _ => Op { path: &path, prev, cid: Some(record(100_000 + n)) },
        };
        let before = tree.root();
        let applied = tree.apply(&[op]).unwrap();
        assert_eq!(invert(applied.data, &applied.blocks, &[op]), Ok(before));
        nodes += applied.blocks.len();
    }
    assert!(nodes < 200 * 16, "{nodes} nodes for 200 commits");
}
