//! The Merkle search tree from its public face: known vectors, properties against a plain map, bad trees.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod malformed;
mod properties;
mod recorded;
mod vectors;

use std::collections::BTreeMap;

use atproto::{
    car::{self, Car},
    cid::Cid,
    mst::{self, MstError, Op, Tree, layer},
};

/// A record's CID, told apart by a number.
fn record(number: u32) -> Cid {
    Cid::of_cbor(&number.to_be_bytes())
}

/// `count` keys for each of the layers 0 to 5, by layer: so many high ones that trees are deep and thin.
fn keys_by_layer(count: usize) -> Vec<Vec<String>> {
    let mut layers = vec![Vec::new(); 6];
    for number in 0u32.. {
        let key = format!("com.example.record/{number:06}");
        if let Some(keys) = layers.get_mut(layer(key.as_bytes()) as usize) {
            keys.push(key);
        }
        if layers.iter().all(|keys| keys.len() >= count) {
            break;
        }
    }
    for keys in &mut layers {
        keys.truncate(count);
    }
    layers
}

fn tree_of(records: &BTreeMap<String, Cid>) -> Tree {
    let mut tree = Tree::empty();
    for (key, value) in records {
        assert_eq!(tree.insert(key.as_bytes(), *value), Ok(None));
    }
    tree
}

fn car_of(root: Cid, blocks: &[(Cid, Vec<u8>)]) -> Vec<u8> {
    car::write(root, blocks.iter().map(|(cid, block)| (*cid, block.as_slice())))
}

fn load(root: Cid, blocks: &[(Cid, Vec<u8>)]) -> Result<Tree, MstError> {
    let car = car_of(root, blocks);
    Tree::load(root, &Car::parse(&car).unwrap())
}

fn invert(data: Cid, blocks: &[(Cid, Vec<u8>)], ops: &[Op<'_>]) -> Result<Cid, MstError> {
    let car = car_of(data, blocks);
    mst::invert(data, &Car::parse(&car).unwrap(), ops)
}
