//! The signed commit in a CAR: rows 9 to 11 of the table, the same for `#commit` and `#sync`.

use atproto::{
    car::{Car, CarError},
    commit::Commit,
    crypto::{PublicKey, SignatureError},
    syntax::Tid,
};

use super::{Context, Stop};
use crate::verdict::Reason;

/// How far a rev may be ahead of our clock.
const FUTURE_MICROS_MAX: u64 = 5 * 60 * 1_000_000;

pub(super) fn rev(text: &str) -> Result<Tid, Reason> {
    Tid::parse(text).map_err(|_| Reason::BadRev)
}

pub(super) fn not_in_the_future(rev: Tid, context: &Context<'_>) -> Result<Tid, Reason> {
    if rev.micros() <= context.now_micros.saturating_add(FUTURE_MICROS_MAX) { Ok(rev) } else { Err(Reason::FutureRev) }
}

pub(super) fn car_reason(error: &CarError) -> Reason {
    match error {
        CarError::Malformed { .. } => Reason::BadCar,
        CarError::NoRoot => Reason::RootMismatch,
        CarError::WrongHash { .. } => Reason::WrongBlockHash,
    }
}

/// Reads the commit at the CAR's root. Always checks its form, and that it is of the event's repo.
pub(super) fn commit<'a>(car: &Car<'a>, did: &str) -> Result<Commit<'a>, Reason> {
    let block = car.get(&car.root()).ok_or(Reason::RootMismatch)?;
    let commit = Commit::parse(block).map_err(|_| Reason::BadCommit)?;
    if commit.did == did { Ok(commit) } else { Err(Reason::CommitDidMismatch) }
}

/// Row 11. A high S is refused whatever the key; else the key may be an old one.
pub(super) fn signature(commit: &Commit<'_>, key: &PublicKey) -> Result<(), Stop> {
    commit.verify(key).map_err(|error| match error {
        SignatureError::HighS => Stop::Refuse(Reason::HighS),
        SignatureError::Malformed => Stop::Refuse(Reason::BadSignature),
        SignatureError::Mismatch => Stop::UnlessIdentityIsStale(Reason::BadSignature),
    })
}
