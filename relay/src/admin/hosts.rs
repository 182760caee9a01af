//! Hosts, for the operator: with what was refused of each, and why.

use axum::{Json, body::Bytes, extract::State};
use crawler::Added;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    host_view::HostView,
    in_one_line,
    xrpc::{
        Error,
        params::{Params, parse_hostname},
    },
};

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
        return Ok(Json(HostsPage { cursor: None, hosts: vec![HostView::gather(&app, host).await?] }));
    }
    let limit = params.limit(200, 1000)?;
    let after = params.get("cursor").map(parse_hostname).transpose()?;
    let mut rest = app.hosts.hosts();
    rest.retain(|host| after.as_ref().is_none_or(|after| host.name > *after));
    let cursor = (rest.len() > limit).then(|| rest[limit - 1].name.to_string());
    rest.truncate(limit);
    let mut hosts = Vec::with_capacity(rest.len());
    for host in rest {
        hosts.push(HostView::gather(&app, host).await?);
    }
    Ok(Json(HostsPage { cursor, hosts }))
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
        None => app.hosts.add_host(&name, app.start_of_hosts()).await,
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
