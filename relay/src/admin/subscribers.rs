//! Who reads the firehose, and sending one away.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;

use super::{error::Error, input::only};
use crate::{app::App, fanout::roster, xrpc::params::Params};

/// One subscriber.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscriber {
    id: u64,
    address: Option<String>,
    forwarded_for: Option<String>,
    user_agent: Option<String>,
    /// The cursor it came with.
    cursor: Option<u64>,
    connected_at_micros: u64,
    connected_for_s: u64,
    /// It has been given all up to this seq.
    seq: u64,
    /// How many seqs it is behind the newest event.
    lag: u64,
    events_sent: u64,
    bytes_sent: u64,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    subscribers: Vec<Subscriber>,
}

/// `GET /admin/subscribers`
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Json<Page>, Error> {
    only(&params, &[])?;
    Ok(Json(Page { subscribers: app.roster.list().into_iter().map(|view| Subscriber::new(&app, view)).collect() }))
}

/// `DELETE /admin/subscribers/{id}`: closes its connection after the last whole frame. Answers with what it was.
pub(super) async fn disconnect(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Subscriber>, Error> {
    let id = id.parse().map_err(|_| Error::invalid(format!("{id:?} is not a subscriber's number")))?;
    let view = app.roster.disconnect(id).ok_or(Error::SubscriberNotFound { id })?;
    Ok(Json(Subscriber::new(&app, view)))
}

impl Subscriber {
    fn new(app: &App, view: roster::View) -> Subscriber {
        let newest = app.hub.window().last;
        Subscriber {
            id: view.id,
            address: view.guest.address.map(|address| address.to_string()),
            forwarded_for: view.guest.forwarded_for,
            user_agent: view.guest.user_agent,
            cursor: view.guest.cursor,
            connected_at_micros: view.guest.since_micros,
            connected_for_s: app.clock.now_micros().saturating_sub(view.guest.since_micros) / 1_000_000,
            seq: view.position.0,
            lag: newest.0.saturating_sub(view.position.0),
            events_sent: view.events_sent,
            bytes_sent: view.bytes_sent,
        }
    }
}
