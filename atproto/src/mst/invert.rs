use super::{MstError, Tree};
use crate::{car::Car, cid::Cid};

/// One change of one key. `prev` and `cid` are both needed to go either way: create has no `prev`, delete no `cid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    /// `collection/rkey`.
    pub path: &'a str,
    /// The record before.
    pub prev: Option<Cid>,
    /// The record after.
    pub cid: Option<Cid>,
}

/// Undoes `ops` on the partial tree under `data`, and gives the root before them (proposal 0006, "operation
/// inversion").
///
/// Always checks the whole partial tree as [`Tree::load`] does, and that the tree holds what the ops say: a created or
/// updated record is there with its CID, a deleted one is not.
///
/// Several ops on one path count as one, from before the first to after the last. Hosts give each of them the record
/// from before the commit as `prev`, or none where there was none, so a later op's `prev` may be that, or what the op
/// before it made, or left out; the first op's must be true.
pub fn invert(data: Cid, blocks: &Car<'_>, ops: &[Op<'_>]) -> Result<Cid, MstError> {
    let changes = net_changes(ops)?;
    let mut tree = Tree::load(data, blocks)?;
    tree.undo(&changes, &mut |_| {})?;
    Ok(tree.root())
}

/// What the ops come to, one for each path.
pub(super) fn net_changes<'a>(ops: &[Op<'a>]) -> Result<Vec<Op<'a>>, MstError> {
    let mut changes = ops.to_vec();
    if changes.len() > 1 {
        // Stable: ops on one path keep their order.
        changes.sort_by_key(|op| op.path);
    }
    if let Some(op) = changes.first() {
        names_a_record(op)?;
    }
    let mut error = None;
    changes.dedup_by(|op, net| {
        if op.path != net.path {
            error = error.take().or(names_a_record(op).err());
            return false;
        }
        let follows = op.prev.is_none() || op.prev == net.cid || op.prev == net.prev;
        let does_something = op.cid.is_some() || net.cid.is_some();
        if !follows || !does_something {
            error = Some(MstError::OpMismatch { path: op.path.to_owned() });
        }
        net.cid = op.cid;
        true
    });
    error.map_or(Ok(changes), Err)
}

/// The first op on a path must say what it makes or what it takes away.
fn names_a_record(op: &Op<'_>) -> Result<(), MstError> {
    match (op.prev, op.cid) {
        (None, None) => Err(MstError::OpMismatch { path: op.path.to_owned() }),
        (Some(_), _) | (_, Some(_)) => Ok(()),
    }
}
