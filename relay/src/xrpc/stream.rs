//! `com.atproto.sync.subscribeRepos`: from the request to a subscriber with its own socket.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use hyper_util::rt::TokioIo;
use runtime::{
    http::Peer,
    ws::{self, Upgrade},
};
use tokio::net::TcpStream;
use tracing::{debug, info_span, warn};

use super::{error::Error, params::Params};
use crate::{
    app::App,
    config::SubscriberToken,
    fanout::{
        cursor::{self, Start},
        hub::Hub,
        metrics::{Ended, Refused},
        outgoing::Reader,
        roster::{Guest, Pass, Place},
        shard::Shard,
        subscriber::Subscriber,
    },
};

/// The most that is kept of a header that subscribers write.
const SHOWN_CHARS_MAX: usize = 256;

/// How long somebody waits whose cursor is past what this node knows.
const END_KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// The header in which proxies say whom they serve.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Judges the request, answers 101, and hands the socket to a [`Subscriber`].
pub(super) async fn subscribe_repos(
    State(app): State<App>,
    params: Params,
    request: Request,
) -> Result<Response, Error> {
    let client = client(&app, &request);
    let admitted = match admit(&app, client, &params, &request) {
        Ok(admitted) => start(&app.hub, admitted.cursor).await.map(|start| (admitted, start)),
        Err(turned_away) => Err(turned_away),
    };
    let (Admitted { place, cursor: _, reader, answer }, start) = admitted.map_err(|turned_away| {
        let TurnedAway { reason, token, error } = turned_away;
        app.fanout.refused(reason);
        app.roster.turned_away(client, token.as_deref(), reason, app.clock.now_micros());
        error
    })?;
    let span = match client {
        Some(client) => info_span!("subscriber", %client),
        None => info_span!("subscriber"),
    };
    let tasks = app.vitals.tasks.clone();
    tasks.spawn_in(span, "subscriber", serve(app, place, start, reader, request));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer;
    Ok(response)
}

/// Somebody who becomes a subscriber.
struct Admitted {
    place: Place,
    cursor: Option<u64>,
    reader: Reader,
    /// The headers of the answer.
    answer: HeaderMap,
}

/// Somebody who does not.
struct TurnedAway {
    reason: Refused,
    /// The name of the token that was shown.
    token: Option<String>,
    error: Error,
}

impl TurnedAway {
    fn of(reason: Refused, error: Error) -> TurnedAway {
        TurnedAway { reason, token: None, error }
    }
}

/// Its address, behind the proxies that are believed.
fn client(app: &App, request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?;
    let lines = request.headers().get_all(FORWARDED_FOR).iter();
    // What is not text can't be read, and so ends the search; nor is it left out.
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap_or("?")).collect();
    Some(app.trusted_proxies.client(peer.addr.ip(), lines.into_iter()))
}

fn admit(app: &App, client: Option<IpAddr>, params: &Params, request: &Request) -> Result<Admitted, TurnedAway> {
    let no_upgrade = |error| TurnedAway::of(Refused::NoUpgrade, error);
    let mut answer = match ws::accept(request.method(), request.headers()) {
        Upgrade::Accept(answer) => answer,
        Upgrade::WrongMethod => return Err(no_upgrade(Error::MethodNotAllowed { allow: "GET" })),
        Upgrade::Required => return Err(no_upgrade(Error::UpgradeRequired)),
        Upgrade::BadKey => {
            return Err(no_upgrade(Error::invalid("Sec-WebSocket-Key is missing or not 16 bytes in base64")));
        }
    };
    let cursor = cursor::parse(params.get("cursor"))
        .map_err(|error| TurnedAway::of(Refused::BadRequest, Error::invalid(error.to_string())))?;
    let shard = params.get("shard").map(str::parse::<Shard>).transpose();
    let shard = shard.map_err(|error| TurnedAway::of(Refused::BadRequest, Error::invalid(error.to_string())))?;
    let deflate = app.compression.then(|| ws::agree(request.headers())).flatten();
    let reader = Reader { shard, deflated: deflate.is_some() };
    answer.extend(deflate.map(|deflate| (header::SEC_WEBSOCKET_EXTENSIONS, deflate)));
    let pass = pass(&app.subscriber_tokens, request.headers())
        .map_err(|WrongToken| TurnedAway::of(Refused::WrongToken, Error::WrongToken))?;
    let guest = Guest {
        address: request.extensions().get::<Peer>().map(|peer| peer.addr),
        client,
        pass: pass.clone(),
        forwarded_for: shown(request.headers(), FORWARDED_FOR),
        user_agent: shown(request.headers(), header::USER_AGENT.as_str()),
        cursor,
        reader,
        since_micros: app.clock.now_micros(),
    };
    let place = app.roster.take(guest).map_err(|no_seat| TurnedAway {
        reason: no_seat.reason(),
        error: no_seat.into(),
        token: pass.map(|pass| pass.name.to_string()),
    })?;
    Ok(Admitted { place, cursor, reader, answer })
}

/// Where a cursor begins. A subscriber may have come from a node that was ahead of this one: before it is told that its
/// cursor is in the future, the log's end is asked for. It has its place meanwhile, so that those who wait are bounded.
async fn start(hub: &Hub, cursor: Option<u64>) -> Result<Start, TurnedAway> {
    let known = cursor::start(cursor, &hub.window());
    if known != Start::Future {
        return Ok(known);
    }
    let unknown = |why: &(dyn std::error::Error + 'static)| {
        warn!(error = why, "where the log ends can't be learned");
        TurnedAway::of(Refused::EndUnknown, Error::EndUnknown)
    };
    match tokio::time::timeout(END_KNOWN_WITHIN, hub.catch_up()).await {
        Ok(Ok(())) => Ok(cursor::start(cursor, &hub.window())),
        Ok(Err(error)) => Err(unknown(&error)),
        Err(elapsed) => Err(unknown(&elapsed)),
    }
}

/// A token was shown, and it is none of ours.
#[derive(Debug)]
struct WrongToken;

/// The token that a request shows. Without tokens of our own we ask for none, and what is shown counts for nothing.
fn pass(tokens: &[SubscriberToken], headers: &HeaderMap) -> Result<Option<Pass>, WrongToken> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, given) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(WrongToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(WrongToken);
    }
    // All are compared, whichever is found.
    let found = tokens.iter().fold(
        None,
        |found, token| {
            if token.secret.is(given.trim().as_bytes()) { Some(token) } else { found }
        },
    );
    let SubscriberToken { name, subscribers_max, .. } = found.ok_or(WrongToken)?;
    Ok(Some(Pass { name: name.as_str().into(), max: subscribers_max.get() }))
}

/// A header's value as it may be shown: cut to a length, without control characters.
fn shown(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    Some(text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect())
}

async fn serve(app: App, place: Place, start: Start, reader: Reader, request: Request) {
    let ended = match socket(request).await {
        Some((socket, read)) => {
            app.fanout.subscribers.inc();
            debug!(?start, ?reader, "subscribed");
            let (hub, config, metrics) = (app.hub.clone(), app.subscriber.clone(), app.fanout.clone());
            let subscriber = Subscriber::new(hub, config, metrics, place.seat(), socket, start, reader);
            let ended = subscriber.run(read, app.subscribers_stop.clone()).await;
            app.fanout.subscribers.dec();
            ended
        }
        None => Ended::Left,
    };
    debug!(reason = ended.as_str(), "unsubscribed");
    app.fanout.ended(ended);
    drop(place);
}

/// The socket behind a request that was upgraded, and what it sent right behind it. With the request goes its [`Peer`]:
/// from here on the seat counts, and the listener has room for others.
async fn socket(request: Request) -> Option<(TcpStream, Bytes)> {
    let upgraded = match hyper::upgrade::on(request).await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the upgrade broke off");
            return None;
        }
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => Some((parts.io.into_inner(), parts.read_buf)),
        Err(_) => {
            warn!("the upgraded connection is not a TCP socket");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::Arc};

    use async_trait::async_trait;
    use http::HeaderValue;
    use runtime::{clock::Clock, trace::Tracer};
    use storage::{
        Stores,
        conformance::sample,
        log::{Accepted, EventLog, LogHealth, Published, ReadError, Window},
        memory,
        seq::Seq,
    };
    use tokio::sync::watch;

    use super::*;
    use crate::{config::Password, fanout};

    /// A log of which this process knows the end only when it has asked.
    struct Behind {
        log: Arc<dyn EventLog>,
        shown: watch::Sender<Window>,
        answers: bool,
    }

    #[async_trait]
    impl EventLog for Behind {
        async fn append(&self, batch: Vec<Accepted>) -> Result<(), storage::error::Error> {
            self.log.append(batch).await
        }

        async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
            let mut events = self.log.read(after, bytes_max).await?;
            events.retain(|event| event.seq <= self.shown.borrow().last);
            Ok(events)
        }

        fn window(&self) -> watch::Receiver<Window> {
            self.shown.subscribe()
        }

        async fn catch_up(&self) -> Result<(), storage::error::Error> {
            if !self.answers {
                return std::future::pending().await;
            }
            self.shown.send_replace(*self.log.window().borrow());
            Ok(())
        }

        fn health(&self) -> LogHealth {
            self.log.health()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_asked_for_before_a_cursor_is_said_to_be_in_the_future() {
        for answers in [true, false] {
            let Stores { log, repos, .. } = memory::open();
            let shown = watch::Sender::new(*log.window().borrow());
            let log = Arc::new(Behind { log, shown, answers });
            let metrics = fanout::Metrics::register(&prometheus::Registry::new()).unwrap();
            let trail = fanout::Trail::new(Tracer::off(), Clock::system());
            let hub = Hub::build(log.clone(), repos, fanout::hub::Config::default(), metrics, trail).await.unwrap();
            log.append(sample::batch(1, 10, 100)).await.unwrap();
            assert_eq!(start(&hub, Some(0)).await.ok(), Some(Start::After(Seq(0))), "nobody need be asked");
            let (elsewhere, future) = (start(&hub, Some(7)).await, start(&hub, Some(11)).await);
            if answers {
                assert_eq!((elsewhere.ok(), future.ok()), (Some(Start::After(Seq(7))), Some(Start::Future)));
            } else {
                for turned_away in [elsewhere, future] {
                    assert_eq!(turned_away.err().map(|turned_away| turned_away.reason), Some(Refused::EndUnknown));
                }
            }
        }
    }

    #[test]
    fn a_token_is_asked_of_nobody_and_a_wrong_one_is_not_let_pass() {
        let tokens =
            [("appview", "0123456789abcdef", 3), ("search", "fedcba9876543210", 1)].map(|(name, secret, max)| {
                let secret = Password::new(secret).unwrap();
                SubscriberToken { name: name.to_owned(), secret, subscribers_max: NonZeroUsize::new(max).unwrap() }
            });
        let headers =
            |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        let found =
            |value| pass(&tokens, &headers(value)).map(|pass| pass.map(|pass| (pass.name.to_string(), pass.max)));
        assert_eq!(found("Bearer 0123456789abcdef").unwrap(), Some(("appview".to_owned(), 3)));
        assert_eq!(found("bearer  fedcba9876543210 ").unwrap(), Some(("search".to_owned(), 1)));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer", "Basic 0123456789abcdef", "0123456789abcdef"] {
            assert!(found(wrong).is_err(), "{wrong}");
        }
        assert_eq!(pass(&tokens, &HeaderMap::new()).unwrap(), None);
        assert_eq!(pass(&[], &headers("Bearer anything")).unwrap(), None);
    }
}
