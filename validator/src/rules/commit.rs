use atproto::{
    car::{Car, CarError},
    event::CommitEvent,
    mst::{self, MstError},
    syntax::Tid,
};
use storage::repos::Head;

use super::{Context, Stop, ops, signed};
use crate::verdict::{Accept, Reason};

/// Most bytes of `blocks`.
const BLOCKS_BYTES_MAX: usize = 2_000_000;

/// Most ops.
const OPS_MAX: usize = 200;

/// Largest record: of the two limits that the specifications name, the larger.
const RECORD_BYTES_MAX: usize = 1_048_576;

/// Always checks host, status, sizes, rev, the commit block and its signature, the ops and their records, the partial
/// tree, and that undoing the ops on it leads to `prevData`. The first commit that we see of a repo may come without
/// `prevData`; where there is one, it must hold for it too. Does not look into records, and not at blocks that nothing
/// refers to.
pub(super) fn judge(event: &CommitEvent<'_>, context: &Context<'_>) -> Result<Accept, Stop> {
    let key = context.signing_key()?;
    context.comes_from_the_accounts_host()?;
    context.account_is_active()?;
    let car = sizes(event)?;
    let rev = signed::rev(event.rev)?;
    if let Some(last) = context.head() {
        is_new(event, rev, last, context)?;
    }
    signed::not_in_the_future(rev, context)?;
    let car = car.map_err(|error| signed::car_reason(&error))?;
    if car.root() != event.commit {
        return Err(Reason::RootMismatch.into());
    }
    let commit = signed::commit(&car, event.repo)?;
    if commit.rev != event.rev {
        return Err(Reason::CommitRevMismatch.into());
    }
    signed::signature(&commit, key)?;
    let ops = ops::check(&event.ops, &car)?;
    let prev_data = mst::invert(commit.data, &car, &ops).map_err(|error| tree_reason(&error))?;
    let leads_back = match event.prev_data {
        Some(claimed) => claimed == prev_data,
        None => context.head().is_none(),
    };
    if !leads_back {
        return Err(Reason::PrevDataMismatch.into());
    }
    let head = Head { rev, commit: event.commit, data: commit.data };
    let accept = context.accept(Some(head), context.upstream());
    Ok(Accept { discontinuous: context.head().is_some_and(|last| !continues(event, last)), ..accept })
}

/// Row 8. It needs the CAR for the records' sizes; that it can't be read is row 10's business, hence the result inside.
fn sizes<'a>(event: &CommitEvent<'a>) -> Result<Result<Car<'a>, CarError>, Reason> {
    if event.blocks.len() > BLOCKS_BYTES_MAX {
        return Err(Reason::BlocksTooLarge);
    }
    if event.ops.len() > OPS_MAX {
        return Err(Reason::TooManyOps);
    }
    let car = Car::parse(event.blocks);
    if let Ok(car) = &car {
        let records = event.ops.iter().filter_map(|op| car.get(&op.cid?));
        if records.into_iter().any(|record| record.len() > RECORD_BYTES_MAX) {
            return Err(Reason::RecordTooLarge);
        }
    }
    if event.too_big {
        return Err(Reason::TooBig);
    }
    if event.rebase {
        return Err(Reason::Rebase);
    }
    Ok(car)
}

/// Row 9: the rev goes on from the last one. What a host sends again after it began its stream anew is no fault.
fn is_new(event: &CommitEvent<'_>, rev: Tid, last: &Head, context: &Context<'_>) -> Result<(), Stop> {
    if rev > last.rev {
        Ok(())
    } else if context.is_replay() || (rev == last.rev && event.commit == last.commit) {
        Err(Stop::Repeat)
    } else {
        Err(Reason::StaleRev.into())
    }
}

fn tree_reason(error: &MstError) -> Reason {
    match error {
        MstError::MissingBlock { .. } => Reason::MissingMstBlock,
        MstError::Malformed { .. } | MstError::Limit { .. } => Reason::BadMst,
        MstError::OpMismatch { .. } => Reason::OpMismatch,
    }
}

/// Row 14: whether the commit names the last one as the one before it.
fn continues(event: &CommitEvent<'_>, last: &Head) -> bool {
    let since = event.since.and_then(|since| Tid::parse(since).ok());
    since == Some(last.rev) && event.prev_data == Some(last.data)
}
