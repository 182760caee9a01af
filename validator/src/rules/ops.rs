//! The form of a commit's ops (row 12), and what they mean for the tree.
//!
//! Two ops on one path are legal: hosts that write a batch in one commit list each step. They then give every step the
//! record from before the commit as `prev`, or none where there was none; only the first step's must be there.

use atproto::{
    car::Car,
    cid::Cid,
    event::{Action, RepoOp},
    mst, record,
    syntax::RepoPath,
};

use crate::{finding, verdict::Refusal};

/// Always checks paths, that cid and prev fit the action, that the actions on one path follow from each other, and that
/// the record a path is left with is in the CAR, whose blocks have been hashed, and of a record's form. Does not look at
/// what records say.
pub(super) fn check<'a>(ops: &[RepoOp<'a>], car: &Car<'_>) -> Result<Vec<mst::Op<'a>>, Refusal> {
    for op in ops {
        RepoPath::parse(op.path).map_err(|error| finding::bad_path(op.path, &error))?;
    }
    let mut by_path: Vec<&RepoOp<'_>> = ops.iter().collect();
    // Stable: ops on one path keep their order.
    by_path.sort_by_key(|op| op.path);
    let paths = || by_path.chunk_by(|one, next| one.path == next.path);
    if let Some(op) = paths().find_map(first_ill_formed) {
        return Err(finding::bad_op(op));
    }
    let left_with = paths().filter_map(|steps| steps.last().and_then(|last| Some((last.path, last.cid?))));
    let mut bad_record = None;
    // One block may be the record of many paths; it is walked over once.
    let mut walked: Vec<Cid> = Vec::new();
    for (path, cid) in left_with {
        let Some(block) = car.get(&cid) else { return Err(finding::missing_record(path, cid)) };
        if bad_record.is_none() && !walked.contains(&cid) {
            bad_record = record::check(block).err().map(|error| finding::bad_record(path, cid, &error));
            walked.push(cid);
        }
    }
    // A missing one comes first in the table.
    if let Some(refusal) = bad_record {
        return Err(refusal);
    }
    Ok(ops.iter().map(|op| mst::Op { path: op.path, prev: op.prev, cid: op.cid }).collect())
}

/// The first of the ops on one path that does not fit its action, or what the one before it left.
fn first_ill_formed<'o, 'a>(steps: &[&'o RepoOp<'a>]) -> Option<&'o RepoOp<'a>> {
    let mut is_there: Option<bool> = None;
    steps.iter().copied().find(|op| {
        let fits_what_was = match (op.action, is_there) {
            (Action::Create, None) => op.prev.is_none(),
            (Action::Update | Action::Delete, None) => op.prev.is_some(),
            (Action::Create, Some(is_there)) => !is_there,
            (Action::Update | Action::Delete, Some(is_there)) => is_there,
        };
        let makes_a_record = match op.action {
            Action::Create | Action::Update => true,
            Action::Delete => false,
        };
        is_there = Some(makes_a_record);
        !fits_what_was || op.cid.is_some() != makes_a_record
    })
}
