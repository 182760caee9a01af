//! Who may have hosts crawled by asking (`com.atproto.sync.requestCrawl`), and how many in a day.

use axum::{Json, body::Bytes, extract::State};
use serde::{Deserialize, Serialize};
use storage::hosts::CrawlRequests;

use super::{error::Error, input::body};
use crate::app::App;

/// The rules, and how much of them is used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestCrawl {
    accepted: bool,
    new_hosts_per_day: u32,
    new_hosts_per_day_and_domain: u32,
    /// Hosts that were added by requests in the last 24 hours.
    new_hosts_last_day: usize,
}

/// The body of `PATCH`: what is absent stays.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    accepted: Option<bool>,
    new_hosts_per_day: Option<u32>,
    new_hosts_per_day_and_domain: Option<u32>,
}

/// `GET /admin/request-crawl`
pub(super) async fn show(State(app): State<App>) -> Json<RequestCrawl> {
    Json(RequestCrawl::new(&app))
}

/// `PATCH /admin/request-crawl {"accepted"?, "newHostsPerDay"?, "newHostsPerDayAndDomain"?}`
pub(super) async fn change(State(app): State<App>, bytes: Bytes) -> Result<Json<RequestCrawl>, Error> {
    let Change { accepted, new_hosts_per_day, new_hosts_per_day_and_domain } = body(&bytes, "{\"accepted\": false}")?;
    let now = app.hosts.crawl_requests().rules;
    let rules = CrawlRequests {
        accepted: accepted.unwrap_or(now.accepted),
        new_hosts_per_day: new_hosts_per_day.unwrap_or(now.new_hosts_per_day),
        new_hosts_per_day_and_domain: new_hosts_per_day_and_domain.unwrap_or(now.new_hosts_per_day_and_domain),
    };
    app.hosts.set_crawl_requests(rules).await?;
    Ok(Json(RequestCrawl::new(&app)))
}

impl RequestCrawl {
    fn new(app: &App) -> RequestCrawl {
        let view = app.hosts.crawl_requests();
        RequestCrawl {
            accepted: view.rules.accepted,
            new_hosts_per_day: view.rules.new_hosts_per_day,
            new_hosts_per_day_and_domain: view.rules.new_hosts_per_day_and_domain,
            new_hosts_last_day: view.new_hosts_last_day,
        }
    }
}
