//! Who reads the firehose, and sending one away.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;

use super::{error::Error, input::only};
use crate::{
    app::App,
    doors::{Doors, ReasonCount},
    fanout::{roster, turned_away::Row},
    xrpc::params::Params,
};

/// One subscriber.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscriber {
    id: u64,
    /// Its address, behind the proxies that are believed.
    client: Option<String>,
    /// The name of its token.
    token: Option<String>,
    /// The other end of its connection.
    address: Option<String>,
    forwarded_for: Option<String>,
    user_agent: Option<String>,
    /// The cursor it came with.
    cursor: Option<u64>,
    /// The part of all accounts that it asked for, `i/n`.
    shard: Option<String>,
    /// Whether its messages are compressed.
    compressed: bool,
    connected_at_micros: u64,
    connected_for_s: u64,
    /// It has been given all up to this seq.
    seq: u64,
    /// How many seqs it is behind the newest event.
    lag: u64,
    events_sent: u64,
    bytes_sent: u64,
}

/// All of them, and who is not among them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    subscribers: Vec<Subscriber>,
    /// How many there may be without a token, and of those from one address.
    max: usize,
    per_address_max: Option<usize>,
    /// Who was turned away of late, the latest first.
    turned_away: Vec<TurnedAway>,
    /// What was refused since the start, by reason.
    refused: Vec<ReasonCount>,
    /// How connections of subscribers ended since the start, by reason.
    ended: Vec<ReasonCount>,
}

/// Somebody who was turned away for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TurnedAway {
    client: Option<String>,
    token: Option<String>,
    reason: &'static str,
    count: u64,
    last_at_micros: u64,
}

impl From<Row> for TurnedAway {
    fn from(row: Row) -> TurnedAway {
        let Row { client, token, reason, count, last_at_micros } = row;
        let client = client.map(|client| client.to_string());
        TurnedAway { client, token, reason: reason.as_str(), count, last_at_micros }
    }
}

/// `GET /admin/subscribers`
pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Json<Page>, Error> {
    only(&params, &[])?;
    let limits = app.roster.limits();
    let Doors { refused, ended } = Doors::look(&app);
    Ok(Json(Page {
        subscribers: app.roster.list().into_iter().map(|view| Subscriber::new(&app, view)).collect(),
        max: limits.max,
        per_address_max: limits.per_address_max,
        turned_away: app.roster.list_turned_away().into_iter().map(TurnedAway::from).collect(),
        refused,
        ended,
    }))
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
            client: view.guest.client.map(|client| client.to_string()),
            token: view.guest.pass.map(|pass| pass.name.to_string()),
            address: view.guest.address.map(|address| address.to_string()),
            forwarded_for: view.guest.forwarded_for,
            user_agent: view.guest.user_agent,
            cursor: view.guest.cursor,
            shard: view.guest.reader.shard.map(|shard| shard.to_string()),
            compressed: view.guest.reader.deflated,
            connected_at_micros: view.guest.since_micros,
            connected_for_s: app.clock.now_micros().saturating_sub(view.guest.since_micros) / 1_000_000,
            seq: view.position.0,
            lag: newest.0.saturating_sub(view.position.0),
            events_sent: view.events_sent,
            bytes_sent: view.bytes_sent,
        }
    }
}
