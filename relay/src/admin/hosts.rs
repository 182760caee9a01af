//! Hosts, for the operator: all that is known of them, and what is decided about them.

use atproto::syntax::HostName;
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use crawler::{Added, Start};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use storage::hosts::HostStatus;

use super::{
    error::Error,
    input::{body, hostname, known_host, limit, only},
};
use crate::{app::App, host_view::HostView, xrpc::params::Params};

/// All statuses, in the lexicon's words.
const STATUSES: [HostStatus; 5] =
    [HostStatus::Active, HostStatus::Idle, HostStatus::Offline, HostStatus::Throttled, HostStatus::Banned];

/// A page of hosts.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    hosts: Vec<HostView>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `GET /admin/hosts?status=…&search=…&limit=…&cursor=…`
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Json<Page>, Error> {
    only(&params, &["status", "search", "limit", "cursor"])?;
    let limit = limit(&params, 200, 1000)?;
    let after = params.get("cursor").map(hostname).transpose()?;
    let status = params.get("status").map(status).transpose()?;
    let search = params.get("search").unwrap_or_default().to_ascii_lowercase();
    let mut rest = app.hosts.hosts();
    rest.retain(|host| {
        after.as_ref().is_none_or(|after| host.name > *after)
            && status.is_none_or(|status| host.status == status)
            && host.name.as_str().contains(&search)
    });
    let cursor = (rest.len() > limit).then(|| rest[limit - 1].name.to_string());
    rest.truncate(limit);
    let mut hosts = Vec::with_capacity(rest.len());
    for host in rest {
        hosts.push(HostView::gather(&app, host).await?);
    }
    Ok(Json(Page { hosts, cursor }))
}

fn status(text: &str) -> Result<HostStatus, Error> {
    STATUSES.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        let words: Vec<_> = STATUSES.iter().map(|status| status.as_str()).collect();
        Error::invalid(format!("status is one of {}", words.join(", ")))
    })
}

/// `GET /admin/hosts/{hostname}`
pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<HostView>, Error> {
    Ok(Json(HostView::gather(&app, known_host(&app, &name)?).await?))
}

/// The body of `PUT /admin/hosts/{hostname}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    from: Option<From>,
}

/// Where the reading of a new host begins.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum From {
    Live,
    Oldest,
}

/// `PUT /admin/hosts/{hostname} {"from"?: "live" | "oldest"}`: has it read from now on, without asking it first.
pub(super) async fn add(
    State(app): State<App>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<HostView>), Error> {
    let name = allowed(&app, &name)?;
    let Add { from } = body(&bytes, "{\"from\": \"oldest\"}")?;
    let start = match from {
        None => app.start_of_hosts(),
        Some(From::Live) => Start::Live,
        Some(From::Oldest) => Start::Oldest,
    };
    let status = match app.hosts.add_host(&name, start).await? {
        Added::New => StatusCode::CREATED,
        Added::Known => StatusCode::OK,
    };
    Ok((status, view(&app, &name).await?))
}

/// The body of `POST /admin/hosts/{hostname}/rewind`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewind {
    to: Option<u64>,
}

/// `POST /admin/hosts/{hostname}/rewind {"to"?: SEQ}`: reads it again after that seq, or from its oldest event.
pub(super) async fn rewind(
    State(app): State<App>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<HostView>, Error> {
    let name = known_host(&app, &name)?.name;
    let Rewind { to } = body(&bytes, "{\"to\": 1234}")?;
    app.hosts.rewind(&name, to).await?;
    view(&app, &name).await
}

/// `PUT /admin/hosts/{hostname}/ban`: it is not read until the ban is lifted. It need not be known.
pub(super) async fn ban(State(app): State<App>, Path(name): Path<String>) -> Result<Json<HostView>, Error> {
    let name = allowed(&app, &name)?;
    app.hosts.ban(&name).await?;
    let host = app.hosts.host(&name).ok_or(Error::Internal)?;
    // Its task may not have heard of it yet.
    Ok(Json(HostView::gather(&app, crawler::HostView { status: HostStatus::Banned, ..host }).await?))
}

/// `DELETE /admin/hosts/{hostname}/ban`
pub(super) async fn unban(State(app): State<App>, Path(name): Path<String>) -> Result<Json<HostView>, Error> {
    let name = known_host(&app, &name)?.name;
    app.hosts.unban(&name).await?;
    let mut host = app.hosts.host(&name).ok_or(Error::Internal)?;
    if host.status == HostStatus::Banned && host.banned_by.is_none() {
        // Its task has not heard of it yet.
        host.status = HostStatus::Idle;
    }
    Ok(Json(HostView::gather(&app, host).await?))
}

/// A host that may be known to this relay.
fn allowed(app: &App, text: &str) -> Result<HostName, Error> {
    let name = hostname(text)?;
    if name.is_local() && !app.dev {
        return Err(Error::invalid("hosts on private networks are not crawled; start the relay with --dev for that"));
    }
    Ok(name)
}

async fn view(app: &App, name: &HostName) -> Result<Json<HostView>, Error> {
    // Nothing forgets a host while the process runs, but a shutdown that has begun takes no new ones.
    let host = app.hosts.host(name).ok_or(Error::Internal)?;
    Ok(Json(HostView::gather(app, host).await?))
}
