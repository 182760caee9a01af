//! That the catalogue of wrong kinds, which the whole program is tried with, leaves no reason out.

use std::collections::BTreeSet;

use loadtest::scenario::{Expectation, KINDS};
use validator::verdict::Reason;

/// Reasons that take more than a few events, or a server that is silent for long: tests of their own look at them.
const ELSEWHERE: [Reason; 2] = [Reason::IdentityUnanswered, Reason::AccountThrottled];

#[test]
fn every_reason_has_a_kind_and_every_kind_a_reason() {
    let refused = KINDS.iter().filter_map(|kind| match kind.expect {
        Expectation::Refuse(word) => Some(word),
        Expectation::Pass | Expectation::PassDiscontinuous | Expectation::Ignore => None,
    });
    let tried: BTreeSet<&str> = refused.chain(ELSEWHERE.map(Reason::as_str)).collect();
    let all: BTreeSet<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
    assert_eq!(tried, all);
}
