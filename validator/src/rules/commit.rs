use atproto::{
    car::{Car, CarError},
    event::CommitEvent,
    mst,
    syntax::Tid,
};
use storage::repos::Head;

use super::{Context, Stop, ops, signed};
use crate::{
    finding,
    verdict::{Accept, Refusal},
};

/// Most bytes of `blocks`.
const BLOCKS_BYTES_MAX: usize = 2_000_000;

/// Most ops.
const OPS_MAX: usize = 200;

/// Largest record: of the two limits that the specifications name, the larger.
const RECORD_BYTES_MAX: usize = 1_048_576;

/// Always checks host, status, sizes, rev, the commit block and its signature, the ops and their records, the partial
/// tree, and that undoing the ops on it leads to `prevData`. The first commit that we see of a repo may come without
/// `prevData`; where there is one, it must hold for it too. Of records it checks the form alone. Does not look at blocks
/// that nothing refers to.
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
    let car = car.map_err(|error| finding::car(&error))?;
    if car.root() != event.commit {
        return Err(finding::other_root(car.root(), event.commit).into());
    }
    let commit = signed::commit(&car, event.repo)?;
    if commit.rev != event.rev {
        return Err(finding::commit_rev_mismatch(commit.rev, event.rev).into());
    }
    signed::signature(&commit, key, context)?;
    let ops = ops::check(&event.ops, &car)?;
    let prev_data = mst::invert(commit.data, &car, &ops).map_err(|error| finding::tree(&error, &event.ops))?;
    let leads_back = match event.prev_data {
        Some(claimed) => claimed == prev_data,
        None => context.head().is_none(),
    };
    if !leads_back {
        return Err(finding::prev_data_mismatch(event.prev_data, prev_data, context.head()).into());
    }
    let head = Head { rev, commit: event.commit, data: commit.data };
    let accept = context.accept(Some(head), context.upstream());
    Ok(Accept { discontinuous: context.head().is_some_and(|last| !continues(event, last)), ..accept })
}

/// Row 8. It needs the CAR for the records' sizes; that it can't be read is row 10's business, hence the result inside.
fn sizes<'a>(event: &CommitEvent<'a>) -> Result<Result<Car<'a>, CarError>, Refusal> {
    if event.blocks.len() > BLOCKS_BYTES_MAX {
        return Err(finding::blocks_too_large(event.blocks.len(), BLOCKS_BYTES_MAX));
    }
    if event.ops.len() > OPS_MAX {
        return Err(finding::too_many_ops(event.ops.len(), OPS_MAX));
    }
    let car = Car::parse(event.blocks);
    if let Ok(car) = &car {
        let mut records = event.ops.iter().filter_map(|op| Some((op.path, car.get(&op.cid?)?)));
        if let Some((path, record)) = records.find(|(_, record)| record.len() > RECORD_BYTES_MAX) {
            return Err(finding::record_too_large(path, record.len(), RECORD_BYTES_MAX));
        }
    }
    if event.too_big {
        return Err(finding::too_big());
    }
    if event.rebase {
        return Err(finding::rebase());
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
        Err(finding::stale_rev(rev, last).into())
    }
}

/// Row 14: whether the commit names the last one as the one before it.
fn continues(event: &CommitEvent<'_>, last: &Head) -> bool {
    let since = event.since.and_then(|since| Tid::parse(since).ok());
    since == Some(last.rev) && event.prev_data == Some(last.data)
}
