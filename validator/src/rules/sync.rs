use atproto::{car::Car, event::SyncEvent};
use storage::repos::Head;

use super::{Context, Stop, signed};
use crate::{finding, verdict::Accept};

/// Room for a commit block and its CAR's header, no more.
const BLOCKS_BYTES_MAX: usize = 10_000;

/// Always checks host, status, size, revs, the commit block and its signature. A rev that is the last one passes: hosts
/// announce the same state again when an account is made or comes back. Does not look at the tree, which is not there.
///
/// A repo that has moved is announced by its new host with its last commit, under the old host's key. What we accepted
/// once stays true, so the signature of the very commit that is the repo's head is not asked for again. The announcement
/// also has a newer rev than the commit (the reference host does so), and later commits go on from the commit's: the
/// rev that counts is the one that is signed.
pub(super) fn judge(event: &SyncEvent<'_>, context: &Context<'_>) -> Result<Accept, Stop> {
    let key = context.signing_key()?;
    context.comes_from_the_accounts_host()?;
    context.account_is_active()?;
    if event.blocks.len() > BLOCKS_BYTES_MAX {
        return Err(finding::blocks_too_large(event.blocks.len(), BLOCKS_BYTES_MAX).into());
    }
    signed::not_in_the_future(signed::rev(event.rev)?, context)?;
    let car = Car::parse(event.blocks).map_err(|error| finding::car(&error))?;
    if car.len() > 1 {
        return Err(finding::extra_blocks(car.len()).into());
    }
    let commit = signed::commit(&car, event.did)?;
    let rev = signed::not_in_the_future(signed::rev(commit.rev)?, context)?;
    let newer = context.head().filter(|last| rev < last.rev);
    if newer.is_some() && context.is_replay() {
        return Err(Stop::Repeat);
    }
    if context.head().is_none_or(|last| last.commit != car.root()) {
        signed::signature(&commit, key, context)?;
    }
    if let Some(newer) = newer {
        return Err(finding::sync_rollback(rev, newer).into());
    }
    let head = Head { rev, commit: car.root(), data: commit.data };
    Ok(context.accept(Some(head), context.upstream()))
}
