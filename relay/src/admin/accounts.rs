//! Accounts, for the operator: what is known of one, and what is decided about it.

use atproto::syntax::Did;
use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use storage::{
    intake::Declined,
    repos::{AccountStatus, LocalStatus, RepoState},
};
use validator::{
    AccountError,
    identity::{Absence, Identity, RefreshError},
};

use super::{error::Error, input::did};
use crate::app::App;

/// One account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    did: String,
    /// The host whose event made this state.
    hostname: String,
    /// Whether its content is served.
    active: bool,
    /// What we tell others: our own word first, then the host's.
    status: &'static str,
    /// The host's word.
    upstream_status: &'static str,
    /// Our own word: none, takendown or throttled.
    local_status: &'static str,
    rev: Option<String>,
    commit: Option<String>,
    data: Option<String>,
    /// The host's seq of its last event.
    upstream_seq: u64,
    /// Counts resets of the host's seq.
    host_epoch: u32,
    /// Its identity as it is cached; absent where none is.
    identity: Option<IdentityView>,
}

/// An identity.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentityView {
    /// The host in its document.
    pds: Option<String>,
    /// The handle in its document; nobody verified it.
    handle: Option<String>,
    /// The key that signs its commits, as a did:key.
    signing_key: Option<String>,
    /// Why it has none, where that is certain.
    absence: Option<&'static str>,
    fetched_at_micros: u64,
}

/// `GET /admin/accounts/{did}`
pub(super) async fn show(State(app): State<App>, Path(text): Path<String>) -> Result<Json<Account>, Error> {
    let did = did(&text)?;
    view(&app, &did).await
}

/// `PUT /admin/accounts/{did}/takedown`: nothing of it is served any more, but our own `#account` event that says so.
pub(super) async fn takedown(State(app): State<App>, Path(text): Path<String>) -> Result<Json<Account>, Error> {
    let did = did(&text)?;
    app.takedown(&did).await.map_err(|error| failed(&did, error))?;
    view(&app, &did).await
}

/// `DELETE /admin/accounts/{did}/takedown`: its host's word counts again.
pub(super) async fn restore(State(app): State<App>, Path(text): Path<String>) -> Result<Json<Account>, Error> {
    let did = did(&text)?;
    app.restore(&did).await.map_err(|error| failed(&did, error))?;
    view(&app, &did).await
}

fn failed(did: &Did, error: AccountError) -> Error {
    match error {
        AccountError::Declined(Declined::UnknownAccount) => Error::AccountNotFound { did: did.clone() },
        AccountError::Declined(why @ (Declined::NoIdentity { .. } | Declined::NoPds)) => {
            Error::AccountDeclined { did: did.clone(), why: why.to_string() }
        }
        AccountError::Late { .. } => Error::Timeout,
        AccountError::Store(error) => error.into(),
    }
}

/// `POST /admin/accounts/{did}/re-resolve`: fetches its identity anew. Works for accounts that are not known yet.
pub(super) async fn re_resolve(State(app): State<App>, Path(text): Path<String>) -> Result<Json<IdentityView>, Error> {
    let did = did(&text)?;
    match app.resolver.refresh(&did).await {
        Ok(identity) => Ok(Json(IdentityView::new(identity))),
        Err(RefreshError::Closed(_)) => Err(Error::Internal),
        Err(RefreshError::Silent { within }) => Err(Error::NoAnswer { did, within_s: within.as_secs() }),
    }
}

async fn view(app: &App, did: &Did) -> Result<Json<Account>, Error> {
    let state = app.stores.repos.get(did).await?.ok_or_else(|| Error::AccountNotFound { did: did.clone() })?;
    let identity = app.resolver.cached(did).map(IdentityView::new);
    Ok(Json(Account::new(did, &state, identity)))
}

impl Account {
    fn new(did: &Did, state: &RepoState, identity: Option<IdentityView>) -> Account {
        let status = state.status();
        Account {
            did: did.to_string(),
            hostname: state.host.to_string(),
            active: status.is_active(),
            status: word(status),
            upstream_status: word(state.upstream),
            local_status: local_word(state.local),
            rev: state.head.map(|head| head.rev.to_string()),
            commit: state.head.map(|head| head.commit.to_string()),
            data: state.head.map(|head| head.data.to_string()),
            upstream_seq: state.upstream_seq,
            host_epoch: state.host_epoch,
            identity,
        }
    }
}

impl IdentityView {
    fn new(identity: Identity) -> IdentityView {
        let (document, absence) = match &identity.known {
            Ok(document) => (Some(document), None),
            Err(absence) => (None, Some(absence_word(*absence))),
        };
        IdentityView {
            pds: document.and_then(|document| document.pds.as_ref()).map(ToString::to_string),
            handle: document.and_then(|document| document.handle.clone()),
            signing_key: document.and_then(|document| document.signing_key.as_ref()).map(|key| key.to_did_key()),
            absence,
            fetched_at_micros: identity.fetched_at_micros,
        }
    }
}

/// The lexicon's word, and ours for those that have none there.
fn word(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::Active => "active",
        AccountStatus::Inactive => "inactive",
        AccountStatus::Takendown
        | AccountStatus::Suspended
        | AccountStatus::Deleted
        | AccountStatus::Deactivated
        | AccountStatus::Desynchronized { .. }
        | AccountStatus::Throttled { .. } => status.as_str().unwrap_or("inactive"),
    }
}

fn local_word(status: LocalStatus) -> &'static str {
    match status {
        LocalStatus::None => "none",
        LocalStatus::TakenDown => "takendown",
        LocalStatus::Throttled => "throttled",
    }
}

fn absence_word(absence: Absence) -> &'static str {
    match absence {
        Absence::NotFound => "notFound",
        Absence::Tombstoned => "tombstoned",
        Absence::BadDocument => "badDocument",
        Absence::Unsupported => "unsupported",
        Absence::Unanswered => "unanswered",
    }
}
