use super::MstError;
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

/// Undoes `ops`, last first, on the partial tree under `data`, and gives the root before them
/// (proposal 0006, "operation inversion").
pub fn invert(data: Cid, blocks: &Car<'_>, ops: &[Op<'_>]) -> Result<Cid, MstError> {
    let _ = (data, blocks, ops);
    todo!()
}
