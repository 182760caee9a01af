//! `com.atproto.sync.subscribeRepos`: from the request to a subscriber with its own socket.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, header};
use hyper_util::rt::TokioIo;
use runtime::{
    http::Peer,
    ws::{self, Upgrade},
};
use tokio::net::TcpStream;
use tracing::{debug, info_span};

use super::{error::Error, params::Params};
use crate::{
    app::App,
    fanout::{
        cursor::{self, Start},
        roster::{Guest, Place},
        subscriber::Subscriber,
    },
};

/// The most that is kept of a header that subscribers write.
const SHOWN_CHARS_MAX: usize = 256;

/// Judges the request, answers 101, and hands the socket to a [`Subscriber`].
pub(super) async fn subscribe_repos(
    State(app): State<App>,
    params: Params,
    request: Request,
) -> Result<Response, Error> {
    let answer = match ws::accept(request.method(), request.headers()) {
        Upgrade::Accept(answer) => answer,
        Upgrade::WrongMethod => return Err(Error::MethodNotAllowed { allow: "GET" }),
        Upgrade::Required => return Err(Error::UpgradeRequired),
        Upgrade::BadKey => return Err(Error::invalid("Sec-WebSocket-Key is missing or not 16 bytes in base64")),
    };
    let cursor = cursor::parse(params.get("cursor")).map_err(|error| Error::invalid(error.to_string()))?;
    let peer = request.extensions().get::<Peer>();
    let guest = Guest {
        address: peer.map(|peer| peer.addr),
        forwarded_for: shown(request.headers(), "x-forwarded-for"),
        user_agent: shown(request.headers(), header::USER_AGENT.as_str()),
        cursor,
        since_micros: app.clock.now_micros(),
    };
    let place = app.roster.take(guest).ok_or(Error::Full)?;
    let start = cursor::start(cursor, &app.hub.window());

    let span = match peer {
        Some(peer) => info_span!("subscriber", peer = %peer.addr),
        None => info_span!("subscriber"),
    };
    let tasks = app.tasks.clone();
    tasks.spawn_in(span, "subscriber", serve(app, place, start, request));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer;
    Ok(response)
}

/// A header's value as it may be shown: cut to a length, without control characters.
fn shown(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    Some(text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect())
}

async fn serve(app: App, place: Place, start: Start, request: Request) {
    // The connection counts against the listener's limit for as long as the socket lives.
    let _peer = request.extensions().get::<Peer>().cloned();
    let upgraded = match hyper::upgrade::on(request).await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "the upgrade broke off"),
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return debug!("the upgraded connection is not a TCP socket");
    };
    app.fanout.subscribers.inc();
    debug!(?start, "subscribed");
    let socket = parts.io.into_inner();
    let seat = place.seat();
    let subscriber = Subscriber::new(app.hub.clone(), app.subscriber.clone(), app.fanout.clone(), seat, socket, start);
    let ended = subscriber.run(parts.read_buf, app.subscribers_stop.clone()).await;
    debug!(reason = ended.as_str(), "unsubscribed");
    app.fanout.ended(ended);
    app.fanout.subscribers.dec();
    drop(place);
}
