//! The public methods (`com.atproto.sync.*`) and their errors.
//!
//! Owns the lexicons' shapes, bounds and names; what is behind them is the stores' and the crawler's.

pub mod error;
mod hosts;
pub(crate) mod params;
mod repos;
mod stream;

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::Method;
use serde_json::{Value, json};
use tower_http::cors::{Any, CorsLayer};

pub use error::Error;

use crate::{app::App, version::VERSION};

/// The time for a request, its body and its answer. A stream's begins with its answer and does not count.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// The methods, with CORS for all of them: browsers may ask.
pub fn router(app: App) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::OPTIONS])
        .allow_headers(Any)
        .expose_headers(Any)
        .max_age(Duration::from_secs(24 * 3600));
    Router::new()
        .route("/xrpc/com.atproto.sync.subscribeRepos", any(stream::subscribe_repos))
        .route("/xrpc/com.atproto.sync.listHosts", query(get(hosts::list_hosts)))
        .route("/xrpc/com.atproto.sync.getHostStatus", query(get(hosts::get_host_status)))
        .route("/xrpc/com.atproto.sync.requestCrawl", procedure(post(hosts::request_crawl)))
        .route("/xrpc/com.atproto.sync.listRepos", query(get(repos::list_repos)))
        .route("/xrpc/com.atproto.sync.getRepoStatus", query(get(repos::get_repo_status)))
        .route("/xrpc/com.atproto.sync.getLatestCommit", query(get(repos::get_latest_commit)))
        .route("/xrpc/com.atproto.sync.getRepo", query(get(repos::get_repo)))
        .route("/xrpc/_health", query(get(health)))
        .route("/xrpc/{*method}", any(async || Error::MethodNotImplemented))
        .layer(middleware::from_fn(in_time))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(cors)
        .with_state(app)
}

fn query(handler: MethodRouter<App>) -> MethodRouter<App> {
    handler.fallback(async || Error::MethodNotAllowed { allow: "GET, HEAD" })
}

fn procedure(handler: MethodRouter<App>) -> MethodRouter<App> {
    handler.fallback(async || Error::MethodNotAllowed { allow: "POST" })
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::Timeout.into_response(),
    }
}

async fn health(State(_): State<App>) -> Json<Value> {
    Json(json!({ "version": VERSION }))
}
