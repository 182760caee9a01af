//! The private listener: metrics, health, readiness and administration.
//!
//! Metrics, health and readiness are open to whoever reaches the port, which is why it binds to loopback by default.
//! Administration (`routes`) needs the password of the user `admin` or a token, and is off without either. Every change
//! is recorded before it is made ([`audit`]).

mod accounts;
mod attempts;
pub mod audit;
mod auth;
mod changes;
mod domains;
mod error;
mod hosts;
mod input;
mod limits;
mod metrics;
pub mod readiness;
mod record;
mod request_crawl;
mod routes;
mod subscribers;

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};
use serde_json::json;

pub use self::{audit::Audit, metrics::Metrics};
use self::{auth::Keys, error::Error};
use crate::{
    app::App,
    config::{Password, Token},
};

/// The time for a request, its body and its answer: a little more than accounts' commands have.
const REQUEST_MAX: Duration = Duration::from_secs(35);

/// What administration needs; there is none without.
pub struct Administration {
    keys: Keys,
    audit: Audit,
}

impl Administration {
    /// Off where there is neither password nor token; `audit` is opened only where it is on.
    pub fn build<E>(
        password: Option<Password>,
        tokens: Vec<Token>,
        metrics: &Metrics,
        audit: impl FnOnce() -> Result<Audit, E>,
    ) -> Result<Option<Administration>, E> {
        match Keys::new(password, tokens, metrics.clone()) {
            Some(keys) => Ok(Some(Administration { keys, audit: audit()? })),
            None => Ok(None),
        }
    }
}

/// The private listener's paths.
pub fn router(app: App, metrics: Metrics, registry: Registry, administration: Option<Administration>) -> Router {
    let admin = match administration {
        Some(Administration { keys, audit }) => routes::router(&app, keys, audit, &metrics),
        None => Router::new().route("/admin/{*path}", axum::routing::any(async || Error::Off)),
    };
    let open = Router::new()
        .route(
            "/metrics",
            get(async move |State(app): State<App>| {
                metrics.look(&app);
                encode(&registry)
            }),
        )
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready));
    open.merge(admin).with_state(app)
}

fn encode(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(app): State<App>) -> Response {
    let problems = readiness::problems(&app.facts());
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": problems.is_empty(), "problems": problems }))).into_response()
}
