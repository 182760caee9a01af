//! Commits judged twice: by our rules, and by another implementation, the Go module indigo in the strict mode of its
//! relay. Both must say the same of right and wrong alike; where they do not, the difference has a name and a reason in
//! [`difference`], and nothing else does.
//!
//! What is judged: chains of random commits, spoilt copies of each, and the catalogue of wrong kinds.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod chain;
mod difference;
mod indigo;
mod mutation;
mod ours;

use std::collections::BTreeMap;

use atproto::crypto::Curve;
use loadtest::scenario::{Author, Expectation, KINDS};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use runtime::clock::Clock;

use self::{chain::Chain, difference::Difference, indigo::Indigo, mutation::MUTATIONS, ours::Account};

/// Chains, each with a seed of its own.
const CHAINS: u64 = 120;
const COMMITS: usize = 16;
/// Spoilt copies of each commit.
const COPIES: usize = 9;

/// What both said, counted.
#[derive(Default)]
struct Tally {
    both_accept: u64,
    both_refuse: u64,
    different: BTreeMap<Difference, u64>,
    unexplained: BTreeMap<String, (u64, String)>,
}

impl Tally {
    /// Asks both about a frame; `what` is how it was made.
    fn ask(&mut self, indigo: &mut Indigo, account: &Account, what: &str, frame: &[u8]) -> Option<Difference> {
        let ours = account.judge(frame);
        let theirs = indigo.judge(account, frame);
        match (&ours, &theirs) {
            (Ok(_), Ok(())) => self.both_accept += 1,
            (Err(_), Err(_)) => self.both_refuse += 1,
            (Ok(_), Err(_)) | (Err(_), Ok(())) => {
                let ours = ours.map(|_| ());
                let Some(difference) = difference::explain(account, frame, &ours, &theirs) else {
                    let said = format!("{what}: {} / {}", ours::word(&ours), indigo::word(&theirs));
                    let example = format!("{ours:?} / {theirs:?}");
                    self.unexplained.entry(said).or_insert((0, example)).0 += 1;
                    return None;
                };
                *self.different.entry(difference).or_default() += 1;
                return Some(difference);
            }
        }
        None
    }

    fn finish(&self, name: &str) {
        println!("{name}: both accept {}, both refuse {}", self.both_accept, self.both_refuse);
        for (difference, count) in &self.different {
            println!("  {count:5}  {difference:?}: {}", difference.why());
        }
        assert!(self.unexplained.is_empty(), "{:#?}", self.unexplained);
    }
}

#[test]
fn random_commits_and_what_is_made_of_them() {
    let mut indigo = Indigo::start();
    let mut tally = Tally::default();
    for seed in 0..CHAINS {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut chain = Chain::new(seed, &mut rng);
        for _ in 0..COMMITS {
            let draft = chain.next(&mut rng);
            for _ in 0..COPIES {
                let (name, spoil) = MUTATIONS[rng.random_range(0..MUTATIONS.len())];
                let Some(frame) = spoil(&draft, &chain.author, &mut rng) else { continue };
                tally.ask(&mut indigo, &chain.account, name, &frame);
            }
            let frame = draft.encode(chain.account.next_seq(), chain::TIME);
            let ours = chain.account.judge(&frame);
            tally.ask(&mut indigo, &chain.account, "as it should be", &frame);
            // What a host of ours makes, we take, whatever others say of it.
            chain.account.go_on(ours.unwrap_or_else(|reason| panic!("seed {seed}: {reason:?}")));
            chain.author.adopt(&draft);
        }
    }
    tally.finish("random commits");
    assert!(tally.both_accept > CHAINS * COMMITS as u64 * 3 / 4 && tally.both_refuse > tally.both_accept);
}

#[test]
fn the_catalogue_of_wrong_kinds() {
    let mut indigo = Indigo::start();
    let mut tally = Tally::default();
    for kind in KINDS {
        for curve in [Curve::K256, Curve::P256] {
            let mut author = Author::new(kind.name, curve, Clock::system());
            let mut account = Account::of(&author);
            let first = author.draft(&[]);
            account.go_on(account.judge(&first.encode(account.next_seq(), chain::TIME)).unwrap());
            author.adopt(&first);
            for round in 0..4 {
                let Some(frame) = kind.commit_frame(&mut author, round, account.next_seq(), chain::TIME) else { break };
                if kind.expect == Expectation::Ignore || !indigo::is_commit(&frame) {
                    continue;
                }
                let difference = tally.ask(&mut indigo, &account, kind.name, &frame);
                if let (Some(difference), 0, Curve::K256) = (difference, round, curve) {
                    println!("{}: {difference:?}", kind.name);
                }
                if kind.expect == Expectation::Pass {
                    account.go_on(account.judge(&frame).unwrap());
                }
            }
        }
    }
    tally.finish("catalogue");
}
