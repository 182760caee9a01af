//! Random repos and their random commits, all right.

use atproto::{cbor::Writer, crypto::Curve};
use loadtest::scenario::{Author, Draft};
use rand::{Rng, RngExt};
use runtime::clock::Clock;

use crate::ours::Account;

/// The time of all events.
pub(crate) const TIME: &str = "2026-09-21T14:13:20.000Z";

const COLLECTIONS: [&str; 4] = ["app.bsky.feed.like", "app.bsky.feed.post", "com.example.thing", "zone.example.a.b.c"];

/// An account, and what a relay knows of it.
pub(crate) struct Chain {
    pub(crate) author: Author,
    pub(crate) account: Account,
}

impl Chain {
    /// A repo of any size, on either curve.
    pub(crate) fn new(seed: u64, rng: &mut impl Rng) -> Chain {
        let curve = if seed.is_multiple_of(2) { Curve::K256 } else { Curve::P256 };
        let records = [0, 1, 2, 7, 40, 300][rng.random_range(0..6)];
        let paths: Vec<String> = (0..records).map(|_| path(rng)).collect();
        let author = Author::holding(&format!("chain {seed}"), curve, Clock::system(), paths);
        let account = Account::of(&author);
        Chain { author, account }
    }

    /// A right commit of up to thirty ops.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Draft {
        let count = [0, 1, 1, 1, 2, 3, 8, 30][rng.random_range(0..8)];
        let mut writes: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        let mut old: Vec<String> = self.author.records.keys().cloned().collect();
        for _ in 0..count {
            let write = match rng.random_range(0..10) {
                0..5 => (path(rng), Some(record(rng))),
                5..7 if !old.is_empty() => (old.swap_remove(rng.random_range(0..old.len())), Some(record(rng))),
                7..10 if !old.is_empty() => (old.swap_remove(rng.random_range(0..old.len())), None),
                _ => (path(rng), Some(record(rng))),
            };
            writes.push(write);
        }
        if rng.random_ratio(1, 20) {
            // All records go.
            writes.clear();
            writes.extend(self.author.records.keys().take(150).map(|path| (path.clone(), None)));
        }
        if rng.random_ratio(1, 20) {
            // One path twice.
            let path = path(rng);
            writes.push((path.clone(), Some(record(rng))));
            writes.push((path, rng.random_bool(0.5).then(|| record(rng))));
        }
        writes.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        let writes: Vec<(&str, Option<Vec<u8>>)> =
            writes.iter().map(|(path, record)| (path.as_str(), record.clone())).collect();
        self.author.draft(&writes)
    }
}

/// Of keys that share much and little with their neighbours, and stand on all layers.
fn path(rng: &mut impl Rng) -> String {
    let collection = COLLECTIONS[rng.random_range(0..COLLECTIONS.len())];
    match rng.random_range(0..3) {
        0 => format!("{collection}/3k{:011}", rng.random_range(0..2_000)),
        1 => format!("{collection}/{:x}", rng.random::<u64>()),
        _ => format!("{collection}/a{}", "b".repeat(rng.random_range(0..60))),
    }
}

fn record(rng: &mut impl Rng) -> Vec<u8> {
    let mut record = Writer::new();
    record.map(2);
    record.text("n");
    record.unsigned(rng.random());
    record.text("text");
    record.text(&"x".repeat(rng.random_range(0..80)));
    record.into_bytes()
}
