//! The private listener: metrics, health, readiness and administration.
//!
//! Everything but administration is open to whoever reaches the port, which is why it binds to loopback by default.
//! Administration needs the password of the user `admin` (HTTP Basic), and is not there at all without one.

mod auth;
mod hosts;
mod metrics;
pub mod readiness;

use axum::{
    Json, Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};
use serde_json::json;

pub use self::metrics::Metrics;
use crate::{app::App, config::Password};

/// The private listener's paths.
pub fn router(app: App, metrics: Metrics, registry: Registry, password: Option<Password>) -> Router {
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
    let admin = match password {
        Some(password) => Router::new()
            .route("/admin/hosts", get(hosts::list).post(hosts::change))
            .layer(middleware::from_fn_with_state(password, auth::require)),
        None => Router::new().route("/admin/{*path}", axum::routing::any(no_password)),
    };
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

async fn no_password() -> Response {
    let message = "administration is off; start the relay with --admin-password-file FILE";
    (StatusCode::NOT_FOUND, Json(json!({ "error": "NotFound", "message": message }))).into_response()
}
