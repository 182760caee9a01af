//! What the relay knows of repos: listRepos, getRepoStatus, getLatestCommit, getRepo.

use atproto::syntax::Did;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use storage::repos::{AccountStatus, RepoState};

use super::{
    error::Error,
    params::{Params, encode},
};
use crate::app::App;

/// `com.atproto.sync.listRepos#repo`
#[derive(Debug, Serialize)]
pub(super) struct RepoView {
    did: String,
    head: String,
    rev: String,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// A page of repos.
#[derive(Debug, Serialize)]
pub(super) struct ReposPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    repos: Vec<RepoView>,
}

/// `com.atproto.sync.listRepos`. Accounts whose repo was never seen have no head and are left out, so that a page may
/// hold fewer than its limit though there are more.
pub(super) async fn list_repos(State(app): State<App>, params: Params) -> Result<Json<ReposPage>, Error> {
    let limit = params.limit(500, 1000)?;
    let after = match params.get("cursor") {
        None | Some("") => None,
        Some(text) => Some(Did::parse(text).map_err(|_| Error::invalid("cursor is not one of this method's"))?),
    };
    let rows = app.stores.repos.list(after.as_ref(), limit).await?;
    let cursor = (rows.len() == limit).then(|| rows.last().map(|(did, _)| did.to_string())).flatten();
    let repos = rows
        .iter()
        .filter_map(|(did, state)| {
            let head = state.head?;
            let status = state.status();
            Some(RepoView {
                did: did.to_string(),
                head: head.commit.to_string(),
                rev: head.rev.to_string(),
                active: status.is_active(),
                status: status.as_str(),
            })
        })
        .collect();
    Ok(Json(ReposPage { cursor, repos }))
}

/// The answer of getRepoStatus.
#[derive(Debug, Serialize)]
pub(super) struct RepoStatusView {
    did: String,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<String>,
}

/// `com.atproto.sync.getRepoStatus`
pub(super) async fn get_repo_status(State(app): State<App>, params: Params) -> Result<Json<RepoStatusView>, Error> {
    let did = params.did()?;
    let state = app.stores.repos.get(&did).await?.ok_or(Error::RepoNotFound)?;
    let status = state.status();
    let active = status.is_active();
    Ok(Json(RepoStatusView {
        did: did.to_string(),
        active,
        status: status.as_str(),
        rev: state.head.filter(|_| active).map(|head| head.rev.to_string()),
    }))
}

/// The answer of getLatestCommit.
#[derive(Debug, Serialize)]
pub(super) struct LatestCommitView {
    cid: String,
    rev: String,
}

/// `com.atproto.sync.getLatestCommit`
pub(super) async fn get_latest_commit(State(app): State<App>, params: Params) -> Result<Json<LatestCommitView>, Error> {
    let state = served(app.stores.repos.get(&params.did()?).await?)?;
    let head = state.head.ok_or(Error::RepoNotFound)?;
    Ok(Json(LatestCommitView { cid: head.commit.to_string(), rev: head.rev.to_string() }))
}

/// `com.atproto.sync.getRepo`: the relay keeps no records; the account's host has them.
pub(super) async fn get_repo(State(app): State<App>, params: Params) -> Result<Response, Error> {
    let did = params.did()?;
    let state = served(app.stores.repos.get(&did).await?)?;
    let scheme = state.host.scheme(app.dev);
    let mut location = format!("{scheme}://{}/xrpc/com.atproto.sync.getRepo?did={}", state.host, encode(did.as_str()));
    if let Some(since) = params.get("since") {
        location.push_str("&since=");
        location.push_str(&encode(since));
    }
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

/// A repo whose content may be served, or the error that says why it may not.
fn served(state: Option<RepoState>) -> Result<RepoState, Error> {
    let state = state.ok_or(Error::RepoNotFound)?;
    match state.status() {
        AccountStatus::Takendown => Err(Error::RepoTakendown),
        AccountStatus::Suspended => Err(Error::RepoSuspended),
        AccountStatus::Deleted => Err(Error::RepoNotFound),
        AccountStatus::Deactivated
        | AccountStatus::Inactive
        | AccountStatus::Desynchronized { active: false }
        | AccountStatus::Throttled { active: false } => Err(Error::RepoDeactivated),
        AccountStatus::Active
        | AccountStatus::Desynchronized { active: true }
        | AccountStatus::Throttled { active: true } => Ok(state),
    }
}
