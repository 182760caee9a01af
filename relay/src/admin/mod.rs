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
mod coverage;
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

use std::{sync::Arc, time::Duration};

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
    vitals::Vitals,
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

/// The private listener's paths that every process has: metrics, health and readiness.
pub fn open_router(vitals: Arc<Vitals>, metrics: Metrics, registry: Registry) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(async move |State(vitals): State<Arc<Vitals>>| {
                metrics.look(&vitals);
                encode(&registry)
            }),
        )
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready))
        .with_state(vitals)
}

/// The private listener's paths for administration, of a process that serves.
pub fn router(app: App, metrics: &Metrics, administration: Option<Administration>) -> Router {
    let admin = match administration {
        Some(Administration { keys, audit }) => routes::router(&app, keys, audit, metrics),
        None => Router::new().route("/admin/{*path}", axum::routing::any(async || Error::Off)),
    };
    admin.with_state(app)
}

fn encode(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(vitals): State<Arc<Vitals>>) -> Response {
    let facts = vitals.facts();
    let problems = readiness::problems(&facts);
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": problems.is_empty(), "problems": problems, "notes": readiness::notes(&facts) })))
        .into_response()
}
