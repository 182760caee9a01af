//! What the relay knows of hosts: listHosts, getHostStatus, requestCrawl.

use atproto::syntax::HostName;
use axum::{Json, body::Bytes, extract::State};
use crawler::{Added, CrawlRequestError};
use runtime::chain::Chain;
use serde::{Deserialize, Serialize};
use storage::hosts::Host;

use super::{
    error::Error,
    params::{Params, parse_hostname},
};
use crate::app::App;

/// `com.atproto.sync.listHosts#host`, and the answer of getHostStatus.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostView {
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    account_count: u64,
    status: &'static str,
}

/// A page of hosts.
#[derive(Debug, Serialize)]
pub(super) struct HostsPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    hosts: Vec<HostView>,
}

/// `com.atproto.sync.listHosts`
pub(super) async fn list_hosts(State(app): State<App>, params: Params) -> Result<Json<HostsPage>, Error> {
    let limit = params.limit(200, 1000)?;
    let after = match params.get("cursor") {
        None | Some("") => None,
        Some(text) => Some(HostName::parse(text).map_err(|_| Error::invalid("cursor is not one of this method's"))?),
    };
    let rows = app.stores.hosts.list(after.as_ref(), limit).await?;
    let cursor = (rows.len() == limit).then(|| rows.last().map(|host| host.name.to_string())).flatten();
    let mut hosts = Vec::with_capacity(rows.len());
    for host in rows {
        hosts.push(view(&app, host).await?);
    }
    Ok(Json(HostsPage { cursor, hosts }))
}

/// `com.atproto.sync.getHostStatus`
pub(super) async fn get_host_status(State(app): State<App>, params: Params) -> Result<Json<HostView>, Error> {
    let host = app.stores.hosts.get(&params.hostname()?).await?.ok_or(Error::HostNotFound)?;
    Ok(Json(view(&app, host).await?))
}

async fn view(app: &App, host: Host) -> Result<HostView, Error> {
    let account_count = app.stores.repos.count_by_host(&host.name).await?;
    // The crawler knows what the store is told a little later.
    let (status, cursor) = match app.hosts.host(&host.name) {
        Some(live) => (live.status, live.cursor),
        None => (host.status, host.cursor),
    };
    Ok(HostView { hostname: host.name.to_string(), seq: cursor.seq, account_count, status: status.as_str() })
}

/// The body of requestCrawl.
#[derive(Debug, Deserialize)]
struct CrawlRequest {
    hostname: String,
}

/// `com.atproto.sync.requestCrawl`
pub(super) async fn request_crawl(State(app): State<App>, body: Bytes) -> Result<(), Error> {
    let request: CrawlRequest =
        serde_json::from_slice(&body).map_err(|_| Error::invalid("the body must be JSON: {\"hostname\": \"…\"}"))?;
    let name = parse_hostname(&request.hostname)?;
    match app.hosts.request_crawl(&name).await {
        Ok(Added::New | Added::Known) => Ok(()),
        Err(CrawlRequestError::Banned) => Err(Error::HostBanned),
        Err(CrawlRequestError::Busy) => Err(Error::RateLimitExceeded { retry_after_s: 10 }),
        Err(
            error @ (CrawlRequestError::NotPublic | CrawlRequestError::Unreachable(_) | CrawlRequestError::NotPds(_)),
        ) => Err(Error::invalid(Chain(&error).to_string())),
        Err(CrawlRequestError::NotAccepted) => Err(Error::CrawlRequestsOff),
        Err(CrawlRequestError::Quota(spent)) => {
            Err(Error::QuotaSpent { retry_after_s: spent.retry_after.as_secs() + 1, why: spent.to_string() })
        }
        Err(CrawlRequestError::Add(error)) => Err(error.into()),
    }
}
