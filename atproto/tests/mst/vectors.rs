//! The protocol's interoperability vectors.

use std::collections::BTreeMap;

use atproto::{
    cid::Cid,
    mst::{EMPTY, Op, Tree, layer},
};
use serde::Deserialize;

use crate::{invert, tree_of};

const LEAF: &str = "bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454";

fn tree(keys: &[&str]) -> Tree {
    let leaf = Cid::parse(LEAF).unwrap();
    tree_of(&keys.iter().map(|key| (format!("com.example.record/{key}"), leaf)).collect())
}

#[test]
fn layers_of_known_keys() {
    let known = [
        ("", 0),
        ("asdf", 0),
        ("blue", 1),
        ("2653ae71", 0),
        ("88bfafc7", 2),
        ("2a92d355", 4),
        ("884976f5", 6),
        ("app.bsky.feed.post/454397e440ec", 4),
        ("app.bsky.feed.post/9adeb165882c", 8),
        ("R2/359107", 2),
    ];
    for (key, expected) in known {
        assert_eq!(layer(key.as_bytes()), expected, "{key}");
    }
    let examples = include_str!("../../testdata/mst/example_keys.txt");
    let mut count = 0;
    for key in examples.lines().filter(|line| line.len() > 2 && !line.starts_with('#')) {
        assert_eq!(layer(key.as_bytes()).to_string(), key[1..2], "{key}");
        count += 1;
    }
    assert!(count > 100, "only {count} examples");
}

#[test]
fn roots_of_known_maps() {
    let known: [(&[&str], &str); 8] = [
        (&[], "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"),
        (&["3jqfcqzm3fo2j"], "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"),
        (&["3jqfcqzm3fx2j"], "bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai"),
        (
            &["3jqfcqzm3fp2j", "3jqfcqzm3fr2j", "3jqfcqzm3fs2j", "3jqfcqzm3ft2j", "3jqfcqzm4fc2j"],
            "bafyreicmahysq4n6wfuxo522m6dpiy7z7qzym3dzs756t5n7nfdgccwq7m",
        ),
        (TRIM_TOP, "bafyreifnqrwbk6ffmyaz5qtujqrzf5qmxf7cbxvgzktl4e3gabuxbtatv4"),
        (SPLIT, "bafyreiettyludka6fpgp33stwxfuwhkzlur6chs4d2v4nkmq2j3ogpdjem"),
        (HIGHER, "bafyreidfcktqnfmykz2ps3dbul35pepleq7kvv526g47xahuz3rqtptmky"),
        (
            &["3jqfcqzm3ft2j", "3jqfcqzm3fz2j", "3jqfcqzm3fx2j", "3jqfcqzm4fd2j"],
            "bafyreig4jv3vuajbsybhyvb7gggvpwh2zszwfyttjrj6qwvcsp24h6popu",
        ),
    ];
    for (keys, root) in known {
        assert_eq!(tree(keys).root().to_string(), root, "{keys:?}");
    }
    assert_eq!(Tree::empty().root(), EMPTY);
    assert_eq!(EMPTY, Cid::of_cbor(b"\xa2\x61e\x80\x61l\xf6"));
}

const TRIM_TOP: &[&str] =
    &["3jqfcqzm3fn2j", "3jqfcqzm3fo2j", "3jqfcqzm3fp2j", "3jqfcqzm3fs2j", "3jqfcqzm3ft2j", "3jqfcqzm3fu2j"];

const SPLIT: &[&str] = &[
    "3jqfcqzm3fo2j",
    "3jqfcqzm3fp2j",
    "3jqfcqzm3fr2j",
    "3jqfcqzm3fs2j",
    "3jqfcqzm3ft2j",
    "3jqfcqzm3fz2j",
    "3jqfcqzm4fc2j",
    "3jqfcqzm4fd2j",
    "3jqfcqzm4ff2j",
    "3jqfcqzm4fg2j",
    "3jqfcqzm4fh2j",
];

const HIGHER: &[&str] = &["3jqfcqzm3ft2j", "3jqfcqzm3fz2j"];

/// A known tree, one change, the known root after it, and back.
#[test]
fn known_edges() {
    let leaf = Cid::parse(LEAF).unwrap();
    let mut trimmed = tree(TRIM_TOP);
    trimmed.remove(b"com.example.record/3jqfcqzm3fs2j").unwrap();
    assert_eq!(trimmed.root().to_string(), "bafyreie4kjuxbwkhzg2i5dljaswcroeih4dgiqq6pazcmunwt2byd725vi");

    let mut emptied = tree(&["3jqfcqzm3fo2j"]);
    let last = Op { path: "com.example.record/3jqfcqzm3fo2j", prev: Some(leaf), cid: None };
    let applied = emptied.apply(&[last]).unwrap();
    assert_eq!(applied.data, EMPTY);
    assert_eq!(applied.blocks, [(EMPTY, b"\xa2\x61e\x80\x61l\xf6".to_vec())]);

    let splits = [
        (SPLIT, "bafyreid2x5eqs4w4qxvc5jiwda4cien3gw2q6cshofxwnvv7iucrmfohpm"),
        (HIGHER, "bafyreiavxaxdz7o7rbvr3zg2liox2yww46t7g6hkehx4i4h3lwudly7dhy"),
    ];
    for (keys, root) in splits {
        let key = b"com.example.record/3jqfcqzm3fx2j";
        let mut tree = tree(keys);
        let before = tree.root();
        assert_eq!(tree.insert(key, leaf), Ok(None));
        assert_eq!(tree.root().to_string(), root);
        assert_eq!(tree.remove(key), Ok(Some(leaf)));
        assert_eq!(tree.root(), before);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitProof {
    comment: String,
    leaf_value: String,
    keys: Vec<String>,
    adds: Vec<String>,
    dels: Vec<String>,
    root_before_commit: String,
    root_after_commit: String,
    blocks_in_proof: Vec<String>,
}

/// The proofs that the reference host sends are enough for us, and ours hold no more than a few nodes beyond them.
#[test]
fn commit_proofs() {
    let proofs: Vec<CommitProof> =
        serde_json::from_str(include_str!("../../testdata/mst/commit-proof-fixtures.json")).unwrap();
    assert!(proofs.len() >= 6);
    for proof in proofs {
        let comment = &proof.comment;
        let leaf = Cid::parse(&proof.leaf_value).unwrap();
        let records: BTreeMap<String, Cid> = proof.keys.iter().map(|key| (key.clone(), leaf)).collect();
        let mut tree = tree_of(&records);
        assert_eq!(tree.root().to_string(), proof.root_before_commit, "{comment}");
        let before = tree.root();

        let adds = proof.adds.iter().map(|path| Op { path, prev: None, cid: Some(leaf) });
        let dels = proof.dels.iter().map(|path| Op { path, prev: Some(leaf), cid: None });
        let ops: Vec<Op<'_>> = adds.chain(dels).collect();
        let applied = tree.apply(&ops).unwrap();
        assert_eq!(applied.prev_data, before, "{comment}");
        assert_eq!(applied.data.to_string(), proof.root_after_commit, "{comment}");
        assert_eq!(invert(applied.data, &applied.blocks, &ops), Ok(before), "{comment}");

        let given: Vec<(Cid, Vec<u8>)> =
            tree.blocks().into_iter().filter(|(cid, _)| proof.blocks_in_proof.contains(&cid.to_string())).collect();
        assert_eq!(given.len(), proof.blocks_in_proof.len(), "{comment}");
        assert_eq!(invert(applied.data, &given, &ops), Ok(before), "{comment}");
        for (cid, _) in &applied.blocks {
            assert!(proof.blocks_in_proof.contains(&cid.to_string()), "{comment}: {cid} is not needed");
        }
    }
}
