//! Domains whose hosts are not read, whatever their names.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use storage::hosts::Domain;

use super::{error::Error, input::only};
use crate::{app::App, xrpc::params::Params};

/// One ban.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DomainBan {
    domain: String,
    banned_at_micros: u64,
    /// Known hosts it covers.
    hosts: usize,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    domains: Vec<DomainBan>,
}

/// `GET /admin/domain-bans`
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Json<Page>, Error> {
    only(&params, &[])?;
    let bans = app.hosts.domain_bans();
    Ok(Json(Page { domains: bans.iter().map(|(domain, at)| DomainBan::new(&app, domain, *at)).collect() }))
}

/// `PUT /admin/domain-bans/{domain}`: reads no host of the domain any more, known or not.
pub(super) async fn ban(
    State(app): State<App>,
    Path(text): Path<String>,
) -> Result<(StatusCode, Json<DomainBan>), Error> {
    let domain = parse(&text)?;
    let status = if app.hosts.ban_domain(&domain).await? { StatusCode::CREATED } else { StatusCode::OK };
    let at = app.hosts.domain_bans().into_iter().find(|(banned, _)| *banned == domain).map(|(_, at)| at);
    // Only another operator's word takes it back at the same time.
    Ok((status, Json(DomainBan::new(&app, &domain, at.ok_or(Error::Internal)?))))
}

/// `DELETE /admin/domain-bans/{domain}`: answers with what it was. Hosts that are banned themselves stay so.
pub(super) async fn unban(State(app): State<App>, Path(text): Path<String>) -> Result<Json<DomainBan>, Error> {
    let domain = parse(&text)?;
    let ban = app.hosts.domain_bans().into_iter().find(|(banned, _)| *banned == domain);
    match (ban, app.hosts.unban_domain(&domain).await?) {
        (Some((_, at)), true) => Ok(Json(DomainBan::new(&app, &domain, at))),
        (Some(_) | None, _) => Err(Error::DomainNotBanned { domain }),
    }
}

fn parse(text: &str) -> Result<Domain, Error> {
    Domain::parse(text).map_err(|error| Error::invalid(format!("{text:?} is not a domain: {error}")))
}

impl DomainBan {
    fn new(app: &App, domain: &Domain, banned_at_micros: u64) -> DomainBan {
        let hosts = app.hosts.hosts().iter().filter(|host| domain.covers(&host.name)).count();
        DomainBan { domain: domain.to_string(), banned_at_micros, hosts }
    }
}
