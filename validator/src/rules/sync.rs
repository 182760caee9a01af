use atproto::{car::Car, event::SyncEvent};
use storage::repos::Head;

use super::{Context, Stop, signed};
use crate::verdict::{Accept, Reason};

/// Room for a commit block and its CAR's header, no more.
const BLOCKS_BYTES_MAX: usize = 10_000;

/// Always checks host, status, size, rev, the commit block and its signature. A rev that is the last one passes: hosts
/// announce the same state again when an account is made or comes back. Does not look at the tree, which is not there.
pub(super) fn judge(event: &SyncEvent<'_>, context: &Context<'_>) -> Result<Accept, Stop> {
    let key = context.signing_key()?;
    context.comes_from_the_accounts_host()?;
    context.account_is_active()?;
    if event.blocks.len() > BLOCKS_BYTES_MAX {
        return Err(Reason::BlocksTooLarge.into());
    }
    let rev = signed::rev(event.rev)?;
    let is_older = context.head().is_some_and(|last| rev < last.rev);
    if is_older && context.is_replay() {
        return Err(Stop::Repeat);
    }
    signed::not_in_the_future(rev, context)?;
    let car = Car::parse(event.blocks).map_err(|error| signed::car_reason(&error))?;
    if car.len() > 1 {
        return Err(Reason::ExtraBlocks.into());
    }
    let commit = signed::commit(&car, event.did, event.rev)?;
    signed::signature(&commit, key)?;
    if is_older {
        return Err(Reason::SyncRollback.into());
    }
    let head = Head { rev, commit: car.root(), data: commit.data };
    Ok(context.accept(Some(head), context.upstream()))
}
