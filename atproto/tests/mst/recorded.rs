//! A whole repo from a real host.

use std::{collections::BTreeMap, fs};

use atproto::{
    car::Car,
    cid::Cid,
    commit::Commit,
    mst::{MstError, Tree},
};

use crate::{invert, tree_of};

#[test]
fn a_whole_repo() {
    let file = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/frames/alice-repo.car")).unwrap();
    let car = Car::parse(&file).unwrap();
    let commit = Commit::parse(car.get(&car.root()).unwrap()).unwrap();
    let mut tree = Tree::load(commit.data, &car).unwrap();
    assert_eq!(tree.root(), commit.data);
    let records: BTreeMap<String, Cid> =
        tree.records().into_iter().map(|(key, cid)| (String::from_utf8(key).unwrap(), cid)).collect();
    assert!(records.len() > 5, "only {} records", records.len());
    assert!(records.values().all(|cid| car.get(cid).is_some()));
    assert_eq!(tree_of(&records).root(), commit.data);

    // The export holds the commit, the records and these nodes, and all of them are needed.
    let nodes = tree.blocks();
    assert!(nodes.iter().all(|(cid, block)| car.get(cid) == Some(block)));
    let mut content: Vec<Cid> = records.values().copied().collect();
    content.sort();
    content.dedup();
    assert_eq!(car.len(), 1 + nodes.len() + content.len());
    for (missing, _) in &nodes {
        let rest: Vec<(Cid, Vec<u8>)> = nodes.iter().filter(|(cid, _)| cid != missing).cloned().collect();
        assert_eq!(invert(commit.data, &rest, &[]), Ok(commit.data), "nothing to undo needs nothing");
        let mut part = crate::load(commit.data, &rest).unwrap();
        let lacking = records.keys().filter(|key| part.remove(key.as_bytes()).is_err()).count();
        assert!(lacking > 0, "{missing} is needed");
        assert!(matches!(part.remove(b"a.b.c/d"), Ok(None) | Err(MstError::MissingBlock { .. })));
    }
}
