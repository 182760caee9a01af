//! What there is under `/admin`. The table is held against `openapi.json` by a test, both ways.

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, patch, post, put},
};
use http::{Method, header};

use super::{
    REQUEST_MAX, accounts,
    audit::Audit,
    auth::{self, Keys},
    changes, coverage, domains,
    error::Error,
    hosts, limits,
    metrics::Metrics,
    record::{self, Recorder},
    request_crawl, subscribers,
};
use crate::app::App;

/// The description of all this.
const OPENAPI: &str = include_str!("openapi.json");

/// One operation.
pub(super) struct Route {
    pub(super) method: Method,
    /// Under `/admin`.
    pub(super) path: &'static str,
    /// Its name in the document and in the record of changes.
    pub(super) operation: &'static str,
    pub(super) access: Access,
    handler: MethodRouter<App>,
}

/// What an operation asks of its caller. Those that change something are recorded, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: whoever reaches the port.
    Open,
    /// A key.
    Keyed,
}

/// All operations.
pub(super) fn routes() -> Vec<Route> {
    let open = |path, operation, handler| Route { method: Method::GET, path, operation, access: Access::Open, handler };
    let read =
        |path, operation, handler| Route { method: Method::GET, path, operation, access: Access::Keyed, handler };
    let change = |method, path, operation, handler| Route { method, path, operation, access: Access::Keyed, handler };
    vec![
        open("/openapi.json", "describe", get(describe)),
        read("/hosts", "listHosts", get(hosts::list)),
        read("/hosts/{hostname}", "showHost", get(hosts::show)),
        change(Method::PUT, "/hosts/{hostname}", "addHost", put(hosts::add)),
        change(Method::POST, "/hosts/{hostname}/rewind", "rewindHost", post(hosts::rewind)),
        change(Method::PUT, "/hosts/{hostname}/ban", "banHost", put(hosts::ban)),
        change(Method::DELETE, "/hosts/{hostname}/ban", "unbanHost", delete(hosts::unban)),
        read("/hosts/{hostname}/limits", "showLimits", get(limits::show)),
        change(Method::PUT, "/hosts/{hostname}/limits", "setLimits", put(limits::set)),
        change(Method::DELETE, "/hosts/{hostname}/limits", "clearLimits", delete(limits::clear)),
        read("/domain-bans", "listDomainBans", get(domains::list)),
        change(Method::PUT, "/domain-bans/{domain}", "banDomain", put(domains::ban)),
        change(Method::DELETE, "/domain-bans/{domain}", "unbanDomain", delete(domains::unban)),
        read("/accounts/{did}", "showAccount", get(accounts::show)),
        change(Method::PUT, "/accounts/{did}/takedown", "takedownAccount", put(accounts::takedown)),
        change(Method::DELETE, "/accounts/{did}/takedown", "restoreAccount", delete(accounts::restore)),
        change(Method::POST, "/accounts/{did}/re-resolve", "reResolveAccount", post(accounts::re_resolve)),
        read("/subscribers", "listSubscribers", get(subscribers::list)),
        change(Method::DELETE, "/subscribers/{id}", "disconnectSubscriber", delete(subscribers::disconnect)),
        read("/request-crawl", "showRequestCrawl", get(request_crawl::show)),
        change(Method::PATCH, "/request-crawl", "setRequestCrawl", patch(request_crawl::change)),
        read("/coverage", "showCoverage", get(coverage::show)),
        read("/audit", "listChanges", get(changes::list)),
    ]
}

/// All operations behind their doors, below `/admin`.
pub(super) fn router(app: &App, keys: Keys, audit: Audit, metrics: &Metrics) -> Router<App> {
    let (mut open, mut guarded) = (Router::new(), Router::new());
    for Route { method, path, operation, access, handler } in routes() {
        match access {
            Access::Open => open = open.route(path, handler),
            Access::Keyed if method.is_safe() => guarded = guarded.route(path, handler),
            Access::Keyed => {
                let (app, audit, metrics) = (app.clone(), audit.clone(), metrics.clone());
                let recorder = Recorder { app, audit, metrics, operation };
                guarded = guarded.route(path, handler.layer(middleware::from_fn_with_state(recorder, record::record)));
            }
        }
    }
    let guarded = guarded
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(async || Error::NotFound)
        .layer(Extension(audit))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(keys, auth::require));
    Router::new().nest("/admin", open.method_not_allowed_fallback(async || Error::MethodNotAllowed).merge(guarded))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::Timeout.into_response(),
    }
}

async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_table_and_the_document_agree() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut written = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let name = operation["operationId"].as_str().unwrap();
                let access = match operation.get("security") {
                    None => Access::Keyed,
                    Some(none) if none.as_array().unwrap().is_empty() => Access::Open,
                    Some(_) => panic!("{name} has a security of its own"),
                };
                written.insert((path.clone(), method.to_uppercase(), name.to_owned(), format!("{access:?}")));
            }
        }
        let routed: BTreeSet<_> = routes()
            .into_iter()
            .map(|Route { method, path, operation, access, .. }| {
                (format!("/admin{path}"), method.to_string(), operation.to_owned(), format!("{access:?}"))
            })
            .collect();
        assert_eq!(written, routed);
    }
}
