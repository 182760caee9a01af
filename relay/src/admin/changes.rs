//! `GET /admin/audit`: what was changed, by whom.

use axum::{Extension, Json};
use serde::Serialize;
use tracing::warn;

use super::{
    audit::{Audit, Entry},
    error::Error,
    input::{limit, number, only},
};
use crate::xrpc::params::Params;

/// A page of changes.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    entries: Vec<Entry>,
    /// What to give as `before` for older ones; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

/// `GET /admin/audit?limit=…&before=…`: the newest first.
pub(super) async fn list(Extension(audit): Extension<Audit>, params: Params) -> Result<Json<Page>, Error> {
    only(&params, &["limit", "before"])?;
    let limit = limit(&params, 100, 1000)?;
    let mut entries = audit.read(number(&params, "before")?, limit + 1).await.map_err(|error| {
        warn!(%error, "the record of changes can't be read");
        Error::Internal
    })?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let before = entries.last().filter(|_| more).map(|entry| entry.id);
    Ok(Json(Page { entries, before }))
}
