//! The signed commit in a CAR: rows 9 to 11 of the table, the same for `#commit` and `#sync`.

use atproto::{
    car::Car,
    commit::Commit,
    crypto::{PublicKey, SignatureError},
    syntax::Tid,
};

use super::{Context, Stop};
use crate::{finding, verdict::Refusal};

/// How far a rev may be ahead of our clock.
const FUTURE_MICROS_MAX: u64 = 5 * 60 * 1_000_000;

pub(super) fn rev(text: &str) -> Result<Tid, Refusal> {
    Tid::parse(text).map_err(|error| finding::bad_rev(text, &error))
}

pub(super) fn not_in_the_future(rev: Tid, context: &Context<'_>) -> Result<Tid, Refusal> {
    if rev.micros() <= context.now_micros.saturating_add(FUTURE_MICROS_MAX) {
        Ok(rev)
    } else {
        Err(finding::future_rev(rev, context.now_micros, FUTURE_MICROS_MAX))
    }
}

/// Reads the commit at the CAR's root. Always checks its form, and that it is of the event's repo.
pub(super) fn commit<'a>(car: &Car<'a>, did: &str) -> Result<Commit<'a>, Refusal> {
    let block = car.get(&car.root()).ok_or_else(|| finding::root_without_block(car.root()))?;
    let commit = Commit::parse(block).map_err(|error| finding::bad_commit(&error))?;
    if commit.did == did { Ok(commit) } else { Err(finding::commit_did_mismatch(commit.did, did)) }
}

/// Row 11. A high S is refused whatever the key; else the key may be an old one.
pub(super) fn signature(commit: &Commit<'_>, key: &PublicKey, context: &Context<'_>) -> Result<(), Stop> {
    commit.verify(key).map_err(|error| {
        let refusal = finding::signature(error, key, context.fetched());
        match error {
            SignatureError::HighS | SignatureError::Malformed => Stop::Refuse(refusal),
            SignatureError::Mismatch => Stop::UnlessIdentityIsStale(refusal),
        }
    })
}
