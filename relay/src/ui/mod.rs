//! The pages for people: at `/` how the relay does, kept fresh while one looks; at `/host` how it reads one host, and what
//! was refused of it and why, for whoever writes or runs that host.
//!
//! The server renders the page and its moving part alike; a few lines of script fetch that part anew. Nothing is loaded
//! from elsewhere, and every text from outside is escaped.

mod host;
mod html;
mod page;
mod snapshot;
mod status;

use axum::{
    Json, Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};

use self::{snapshot::Snapshot, status::Status};
use crate::{
    app::App,
    host_view::HostView,
    xrpc::{
        Error,
        params::{Params, parse_hostname},
    },
};

/// The page's paths.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(whole))
        .route("/status.html", get(part))
        .route("/status.json", get(json))
        .route("/host", get(host))
        .route("/host.json", get(host_json))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .with_state(Ui { app, hosts: Snapshot::default() })
}

/// What the page's handlers share.
#[derive(Clone)]
struct Ui {
    app: App,
    hosts: Snapshot,
}

async fn whole(State(ui): State<Ui>, params: Params) -> Result<Response, Error> {
    Ok(document(page::whole(&gather(&ui, &params).await?)))
}

fn document(html: String) -> Response {
    // The page's own inline style and script, and nothing else.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)).into_response()
}

async fn part(State(ui): State<Ui>, params: Params) -> Result<Response, Error> {
    let html = page::moving_part(&gather(&ui, &params).await?);
    Ok(([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response())
}

async fn json(State(ui): State<Ui>, params: Params) -> Result<Json<Status>, Error> {
    Ok(Json(gather(&ui, &params).await?))
}

/// What a host's operator wants to know: how it is read, and what was refused of it and why.
async fn host(State(ui): State<Ui>, params: Params) -> Result<Response, Error> {
    let wanted = params.get("hostname").unwrap_or_default();
    match host_view(&ui.app, &params).await {
        Ok(host) => Ok(document(host::page(&host))),
        Err(Error::HostNotFound) => Ok((StatusCode::NOT_FOUND, document(host::unknown(wanted))).into_response()),
        Err(Error::InvalidRequest(_)) => {
            Ok((StatusCode::BAD_REQUEST, document(host::unreadable(wanted))).into_response())
        }
        Err(error) => Err(error),
    }
}

async fn host_json(State(ui): State<Ui>, params: Params) -> Result<Json<HostView>, Error> {
    Ok(Json(host_view(&ui.app, &params).await?))
}

async fn host_view(app: &App, params: &Params) -> Result<HostView, Error> {
    let host = app.hosts.host(&params.hostname()?).ok_or(Error::HostNotFound)?;
    Ok(HostView::gather(app, host).await?)
}

async fn gather(ui: &Ui, params: &Params) -> Result<Status, Error> {
    let after = params.get("after").map(parse_hostname).transpose()?;
    Ok(Status::gather(&ui.app, &ui.hosts.get(&ui.app.hosts), after.as_ref()).await?)
}
