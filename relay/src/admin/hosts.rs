//! Hosts, for the operator: with what was refused of each, and why.

use axum::{Json, body::Bytes, extract::State};
use crawler::Added;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    in_one_line,
    xrpc::{
        Error,
        params::{Params, parse_hostname},
    },
};

/// One host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostView {
    hostname: String,
    status: &'static str,
    epoch: u32,
    seq: Option<u64>,
    account_count: u64,
    events: u64,
    bytes: u64,
    events_per_second: f64,
    in_flight: usize,
    connected_for_s: Option<u64>,
    next_try_in_s: Option<u64>,
    last_event_at_micros: Option<u64>,
    last_end: Option<EndView>,
    refused: Vec<RefusedView>,
}

/// How the last connection, or try to make one, ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndView {
    cause: &'static str,
    detail: String,
    at_micros: u64,
}

/// What was refused for one reason, since the process began.
#[derive(Debug, Serialize)]
struct RefusedView {
    reason: &'static str,
    count: u64,
    example: String,
}

/// A page of hosts.
#[derive(Debug, Serialize)]
pub(super) struct HostsPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    hosts: Vec<HostView>,
}

/// `GET /admin/hosts?limit=…&cursor=…`, or `?hostname=…` for one.
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Json<HostsPage>, Error> {
    if params.get("hostname").is_some() {
        let host = app.hosts.host(&params.hostname()?).ok_or(Error::HostNotFound)?;
        return Ok(Json(HostsPage { cursor: None, hosts: vec![view(&app, host).await?] }));
    }
    let limit = params.limit(200, 1000)?;
    let after = params.get("cursor").map(parse_hostname).transpose()?;
    let mut rest = app.hosts.hosts();
    rest.retain(|host| after.as_ref().is_none_or(|after| host.name > *after));
    let cursor = (rest.len() > limit).then(|| rest[limit - 1].name.to_string());
    rest.truncate(limit);
    let mut hosts = Vec::with_capacity(rest.len());
    for host in rest {
        hosts.push(view(&app, host).await?);
    }
    Ok(Json(HostsPage { cursor, hosts }))
}

async fn view(app: &App, host: crawler::HostView) -> Result<HostView, Error> {
    let refused = app.refusals.of_host(&host.name).into_iter();
    Ok(HostView {
        account_count: app.stores.repos.count_by_host(&host.name).await?,
        hostname: host.name.to_string(),
        status: host.status.as_str(),
        epoch: host.cursor.epoch,
        seq: host.cursor.seq,
        events: host.events,
        bytes: host.bytes,
        events_per_second: host.events_per_second,
        in_flight: host.in_flight,
        connected_for_s: host.connected_for.map(|time| time.as_secs()),
        next_try_in_s: host.next_try_in.map(|time| time.as_secs()),
        last_event_at_micros: host.last_event_at_micros,
        last_end: host.last_end.map(|last| EndView {
            cause: last.end.as_str(),
            detail: last.detail,
            at_micros: last.at_micros,
        }),
        refused: refused
            .map(|refused| RefusedView {
                reason: refused.reason.as_str(),
                count: refused.count,
                example: refused.example,
            })
            .collect(),
    })
}

/// The body of `POST /admin/hosts`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    hostname: String,
    /// Whether it may be read; as it is where absent.
    banned: Option<bool>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    hostname: String,
    /// Whether it was not known before.
    added: bool,
}

/// `POST /admin/hosts {"hostname": …, "banned"?: …}`: crawls a host from now on, without asking it first; or bans it.
pub(super) async fn change(State(app): State<App>, body: Bytes) -> Result<Json<Changed>, Error> {
    let change: Change = serde_json::from_slice(&body)
        .map_err(|error| Error::invalid(format!("the body must be JSON: {{\"hostname\": \"…\"}}; {error}")))?;
    let name = parse_hostname(&change.hostname)?;
    if name.is_local() && !app.dev {
        return Err(Error::invalid("hosts on private networks are not crawled; start the relay with --dev for that"));
    }
    let result = match change.banned {
        Some(true) => app.hosts.ban(&name).await.map(|()| Added::Known),
        Some(false) => app.hosts.unban(&name).await.map(|()| Added::Known),
        None => app.hosts.add_host(&name, crawler::Start::Live).await,
    };
    match result {
        Ok(added) => Ok(Json(Changed { hostname: name.to_string(), added: added == Added::New })),
        Err(crawler::Error::Full { .. }) => Err(Error::TooManyHosts),
        Err(error @ (crawler::Error::Store { .. } | crawler::Error::Metrics(_))) => {
            tracing::warn!(error = in_one_line(&error), host = %name, "failed to change a host");
            Err(Error::Internal)
        }
    }
}
