//! One connection to one host: from the handshake to its end.
//!
//! Back-pressure is not reading the socket: one half of a session reads a little ahead ([`Inbox`]), the other hands one
//! event after the other to the Intake, within the host's rates. A host that waits for its turn stays connected: its
//! pings are answered, and where it is not read at all it gets a pong now and then, unasked. What can't be read as an
//! event is refused with its reason and passed over, since the same cursor would meet the same bytes for ever; the
//! connection stays.

use std::{convert::Infallible, fmt, pin::pin, sync::Arc, time::Duration};

use atproto::{
    event::{self, Kind, Route, Routed},
    frame::FRAME_BYTES_MAX,
    syntax::{Did, HostName},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use runtime::{
    chain::Chain,
    egress::{Egress, Stream},
    ws::{self, CloseCode, Data, Decoder, Event, HandshakeError, ProtocolError, Role, Socket},
};
use storage::{
    hosts::ResetCause,
    intake::RawFrame,
    refusal::{self, Reason, Refusal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use crate::{
    crawler::Shared,
    cursor::Tally,
    following::Following,
    host::{End, Input},
    inbox::{Allowance, Inbox, Item, Share},
    keepalive::{Due, Keepalive},
    live::Live,
    metrics::Message,
    order::{Order, Place},
    origin::Origin,
    throttle::Throttle,
};

/// The read buffer of a host that says little: most hosts, most of the time, and there are thousands.
const BUFFER_IDLE_BYTES: usize = 4 * 1024;

/// The read buffer of a busy one.
const BUFFER_BUSY_BYTES: usize = 64 * 1024;

/// The time a host has to take a ping or a pong of ours.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// The time a host has to take our goodbye; the process's end waits for it.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The method we subscribe to.
const SUBSCRIBE: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// How a try or a connection ended.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) end: End,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) detail: String,
}

impl Failure {
    fn new(end: End, detail: impl fmt::Display) -> Failure {
        Failure { end, retry_after: None, detail: detail.to_string() }
    }

    pub(crate) fn input(&self) -> Input {
        Input::Ended { end: self.end, retry_after: self.retry_after }
    }
}

/// Opens the connection: name, address, TLS, handshake.
pub(crate) async fn open(
    egress: &Egress,
    name: &HostName,
    cursor: Option<u64>,
    handshake_within: Duration,
) -> Result<Socket<Stream>, Failure> {
    let origin = Origin::of(name, egress.policy().allow_local);
    let stream = egress
        .connect(origin.host, origin.port, origin.tls)
        .await
        .map_err(|error| Failure::new(End::Unreachable, Chain(&error)))?;
    let mut headers = http::HeaderMap::new();
    if let Ok(agent) = http::HeaderValue::from_str(egress.user_agent()) {
        headers.insert(http::header::USER_AGENT, agent);
    }
    let target = match cursor {
        Some(cursor) => format!("{SUBSCRIBE}?cursor={cursor}"),
        None => SUBSCRIBE.to_owned(),
    };
    let request = ws::Request { authority: name.as_str().to_owned(), target, headers, deflate: false };
    ws::connect(stream, request, handshake_within).await.map_err(|error| match &error {
        HandshakeError::Refused { headers, .. } => {
            Failure { retry_after: retry_after(headers), ..Failure::new(End::Refused, Chain(&error)) }
        }
        HandshakeError::BadUpgrade(_) => Failure::new(End::Refused, Chain(&error)),
        HandshakeError::Http(_) | HandshakeError::Request(_) | HandshakeError::Timeout { .. } => {
            Failure::new(End::Unreachable, Chain(&error))
        }
    })
}

/// `Retry-After` in its form of seconds; dates are not understood.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How fast a host is read, over all its connections.
pub(crate) struct Pace {
    throttle: Throttle,
    /// Tells that limits have changed.
    changes: watch::Receiver<u64>,
}

impl Pace {
    pub(crate) fn new(shared: &Shared, live: &Live) -> Pace {
        let changes = shared.limits.changes();
        Pace { throttle: Throttle::new(shared.limits.of(&live.name)), changes }
    }
}

/// An open connection.
pub(crate) struct Session<'a> {
    reader: Reader,
    worker: Worker<'a>,
    inbox: Inbox,
}

/// The half that has the socket.
struct Reader {
    stream: Stream,
    /// Bytes that came with the handshake.
    early: Bytes,
    buffer: Vec<u8>,
    decoder: Decoder,
    keepalive: Keepalive,
    rng: SmallRng,
    allowance: Allowance,
    /// For the large message that is being read.
    share: Option<Share>,
    waiting: prometheus::Counter,
}

/// The half that deals with what came.
struct Worker<'a> {
    shared: &'a Shared,
    live: &'a Live,
    pace: &'a mut Pace,
    order: Order,
    tally: Arc<Tally>,
    /// Whether a cursor was asked for that can be in the future.
    had_cursor: bool,
    rng: SmallRng,
}

impl<'a> Session<'a> {
    /// For a connection that was opened with `cursor`.
    pub(crate) fn new(
        shared: &'a Shared,
        live: &'a Live,
        pace: &'a mut Pace,
        socket: Socket<Stream>,
        cursor: Option<u64>,
    ) -> Session<'a> {
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        Session {
            worker: Worker {
                shared,
                live,
                pace,
                order: Order::new(cursor),
                tally: live.tally(),
                had_cursor: cursor.is_some_and(|cursor| cursor > 0),
                rng: SmallRng::from_rng(&mut rng),
            },
            reader: Reader {
                stream: socket.stream,
                early: socket.read,
                buffer: vec![0; BUFFER_IDLE_BYTES],
                decoder: Decoder::new(Role::Client, FRAME_BYTES_MAX),
                keepalive: Keepalive::new(Instant::now(), shared.config.patience, &mut rng),
                rng,
                allowance: shared.allowance.clone(),
                share: None,
                waiting: shared.metrics.half_waiting_seconds.clone(),
            },
            inbox: Inbox::default(),
        }
    }

    /// Reads until the end, and deals with all that came before it. May be dropped at any point; what was handed on is
    /// accounted for.
    pub(crate) async fn read(&mut self) -> Failure {
        tokio::select! {
            never = self.reader.run(&self.inbox) => match never {},
            failure = self.worker.run(&self.inbox) => failure,
        }
    }

    /// Says goodbye, as far as the host takes it.
    pub(crate) async fn close(&mut self, code: CloseCode, reason: &str) {
        self.reader.close(code, reason).await;
    }
}

// === impl Reader ===

impl Reader {
    async fn run(&mut self, inbox: &Inbox) -> Infallible {
        match self.try_run(inbox).await {
            Ok(never) => match never {},
            Err(failure) => inbox.put(Item::End(failure)),
        }
        std::future::pending().await
    }

    async fn try_run(&mut self, inbox: &Inbox) -> Result<Infallible, Failure> {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.digest(&early, inbox).await?;
        }
        loop {
            if !inbox.has_room() {
                self.without_reading(inbox.room()).await?;
            }
            self.set_aside().await?;
            tokio::select! {
                read = self.stream.read(&mut self.buffer) => {
                    let n = read.map_err(|error| Failure::new(End::Broken, error))?;
                    if n == 0 {
                        return Err(Failure::new(End::Closed, "end of stream without a close frame"));
                    }
                    let mut buffer = std::mem::take(&mut self.buffer);
                    self.digest(&buffer[..n], inbox).await?;
                    // A read that fills the buffer says that more was there.
                    if n == buffer.len() && n < BUFFER_BUSY_BYTES {
                        buffer = vec![0; (n * 4).min(BUFFER_BUSY_BYTES)];
                    }
                    self.buffer = buffer;
                }
                () = sleep_until(self.keepalive.next()) => self.keep_alive().await?,
            }
        }
    }

    /// Takes a share of the allowance for the message that has begun, if it is a large one.
    async fn set_aside(&mut self) -> Result<(), Failure> {
        match self.decoder.message_bytes_awaited() {
            Some(bytes) if Allowance::concerns(bytes) && self.share.is_none() => {
                let began = Instant::now();
                let share = self.allowance.clone().share(bytes);
                self.share = Some(self.without_reading(share).await?);
                self.waiting.inc_by(began.elapsed().as_secs_f64());
            }
            Some(_) => {}
            // It is whole, or over the limit and thrown away.
            None => self.share = None,
        }
        Ok(())
    }

    /// Waits, and shows the host meanwhile that we are there.
    async fn without_reading<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T, Failure> {
        let mut waiting = pin!(waiting);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut waiting => break result,
                () = sleep_until(self.keepalive.next()) => {
                    if self.keepalive.due_unread(Instant::now(), &mut self.rng) {
                        let pong = ws::pong(b"", Some(self.rng.random()));
                        self.write(&pong).await?;
                    }
                }
            }
        };
        self.keepalive.read_again(Instant::now());
        Ok(result)
    }

    /// Takes apart all that came.
    async fn digest(&mut self, mut input: &[u8], inbox: &Inbox) -> Result<(), Failure> {
        let mut finished = false;
        // The payload of the last ping. Only the last is answered, so that a flood of pings costs the host more than us.
        let mut pinged = None;
        loop {
            let event = match self.decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => return Err(self.breach(error).await),
            };
            finished = true;
            match event {
                Event::Message { data, payload } => {
                    inbox.put(Item::Message { data, payload, share: self.share.take() });
                }
                Event::TooLarge { bytes } => {
                    self.share = None;
                    inbox.put(Item::TooLarge { bytes });
                }
                Event::Ping(payload) => pinged = Some(payload),
                Event::Pong(_) => {}
                Event::Close { code, reason } => {
                    let echo = ws::close(code, "", Some(self.rng.random()));
                    let _ = self.write(&echo).await;
                    let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {}", code.0));
                    return Err(Failure::new(End::Closed, format_args!("closed by the host, {code} {reason:?}")));
                }
            }
        }
        if let Some(payload) = pinged {
            let pong = ws::pong(&payload, Some(self.rng.random()));
            self.write(&pong).await?;
        }
        self.keepalive.heard(Instant::now(), finished, self.decoder.is_between_messages());
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Failure> {
        match self.keepalive.due(Instant::now(), &mut self.rng) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                // The moment to give a large buffer back: a busy host has it again after two reads.
                self.buffer = vec![0; BUFFER_IDLE_BYTES];
                let ping = ws::ping(b"", Some(self.rng.random()));
                self.write(&ping).await
            }
            Due::NoPong => Err(Failure::new(End::Silent, "no answer to a ping")),
            Due::Stalled => Err(Failure::new(End::Silent, "a message was begun and not finished")),
        }
    }

    async fn breach(&mut self, error: ProtocolError) -> Failure {
        self.close(error.close_code(), &error.to_string()).await;
        Failure::new(End::Protocol, error)
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = ws::close(Some(code), reason, Some(self.rng.random()));
        let goodbye = async {
            self.stream.write_all(&frame).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(CLOSE_WITHIN, goodbye).await;
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let written = timeout(WRITE_WITHIN, async {
            self.stream.write_all(frame).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(End::Broken, error)),
            Err(_) => Err(Failure::new(End::Silent, "the host does not read")),
        }
    }
}

// === impl Worker ===

impl Worker<'_> {
    async fn run(&mut self, inbox: &Inbox) -> Failure {
        loop {
            let done = match inbox.take().await {
                Item::Message { data: Data::Binary, payload, share } => {
                    let done = self.message(payload).await;
                    drop(share);
                    done
                }
                Item::Message { data: Data::Text, payload, .. } => {
                    self.count(payload.len(), Message::Unreadable).await;
                    let refusal = Refusal::new(Reason::BadHeader, "a text message", "binary messages");
                    self.refuse(&refusal::Input::default(), &refusal);
                    Ok(())
                }
                Item::TooLarge { bytes } => {
                    self.count(usize::try_from(bytes).unwrap_or(usize::MAX), Message::Unreadable).await;
                    self.refuse(&refusal::Input::default(), &Refusal::too_large(bytes));
                    Ok(())
                }
                Item::End(failure) => Err(failure),
            };
            if let Err(failure) = done {
                return failure;
            }
        }
    }

    async fn message(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let routed = match event::route(&bytes) {
            Ok(routed) => routed,
            Err(error) => {
                self.count(bytes.len(), Message::Unreadable).await;
                self.refuse(&refusal::Input::default(), &Refusal::unreadable(&error));
                return Ok(());
            }
        };
        match routed {
            Routed::Event(route) => {
                self.count(bytes.len(), kind_of(route.kind)).await;
                let Some(did) = self.admit(&route) else { return Ok(()) };
                let Route { kind, seq, seq_slot, .. } = route;
                self.hand_on(RawFrame {
                    host: self.live.name.clone(),
                    host_epoch: self.tally.epoch(),
                    upstream_seq: seq,
                    received_at_micros: self.shared.clock.now_micros(),
                    did,
                    kind,
                    seq_slot,
                    bytes,
                    receipts: self.tally.clone(),
                })
                .await
            }
            Routed::Info { name, message } => {
                self.count(bytes.len(), Message::Info).await;
                if name == "OutdatedCursor" {
                    self.shared.metrics.outdated_cursors.inc();
                    warn!(cursor = self.tally.cursor(), message, "the host no longer has all events since our cursor");
                } else {
                    debug!(name, message, "info from the host");
                }
                Ok(())
            }
            Routed::Error { error, message } => {
                self.count(bytes.len(), Message::Error).await;
                let end = match error {
                    // Without a cursor there is none to be in the future.
                    "FutureCursor" if self.had_cursor => {
                        self.reset(ResetCause::FutureCursor);
                        End::Reset
                    }
                    "ConsumerTooSlow" => End::TooSlow,
                    _ => End::ErrorFrame,
                };
                Err(Failure::new(end, format_args!("{error}: {}", message.unwrap_or_default())))
            }
            Routed::Unknown { seq } => {
                self.count(bytes.len(), Message::Unknown).await;
                if let Some(seq) = seq {
                    self.pass_over(seq);
                }
                Ok(())
            }
        }
    }

    /// Whose event it is, if it is in order; else it is done with.
    fn admit(&mut self, route: &Route<'_>) -> Option<Did> {
        match self.order.judge(route.seq) {
            Place::Next => {}
            Place::Repeat => return None,
            Place::Reset => self.reset(ResetCause::SeqWentBack),
            Place::NotRising { last } => {
                let did = Did::parse(route.did).ok();
                let input = refusal::Input { kind: Some(route.kind), seq: Some(route.seq), did: did.as_ref() };
                self.refuse(&input, &Refusal::seq_not_rising(route.seq, last));
                return None;
            }
        }
        let did = Did::parse(route.did);
        if did.is_err() {
            // `route` has checked it; if the two ever differ, the event is refused and not the process ended.
            let input = refusal::Input { kind: Some(route.kind), seq: Some(route.seq), did: None };
            self.refuse(&input, &Refusal::not_a_did(route.did));
            self.tally.passed(route.seq);
        }
        did.ok()
    }

    /// Hands an event to the Intake, and waits while it is full.
    async fn hand_on(&mut self, frame: RawFrame) -> Result<(), Failure> {
        self.live.count_event(frame.received_at_micros);
        let asked = Instant::now();
        let settled = self.shared.settle_epoch(self.live, frame.host_epoch).await;
        settled.map_err(|error| Failure::new(End::Intake, Chain(&error)))?;
        self.tally.below(self.shared.config.in_flight_max.get()).await;
        let following = Following::of(&frame, &self.shared.tracer);
        let pushed = self.tally.hand_on(frame.upstream_seq, self.shared.intake.push(frame)).await;
        if let (Some(following), Ok(())) = (following, &pushed) {
            following.handed_on(&self.shared.tracer, &self.shared.clock);
        }
        let waited = asked.elapsed();
        if waited > Duration::from_millis(1) {
            self.shared.metrics.full_seconds.inc_by(waited.as_secs_f64());
        }
        // The receipt is still out, so the cursor stays before this event, and it is read again.
        pushed.map_err(|error| Failure::new(End::Intake, Chain(&error)))
    }

    /// An event of an unknown kind, which is nothing to us; the cursor moves over it.
    fn pass_over(&mut self, seq: u64) {
        match self.order.judge(seq) {
            Place::Next => self.tally.passed(seq),
            Place::Reset => {
                self.reset(ResetCause::SeqWentBack);
                self.tally.passed(seq);
            }
            Place::Repeat | Place::NotRising { .. } => {}
        }
    }

    /// The host counts anew. On this connection we go on with what it sends; after `FutureCursor`, which ends it, the
    /// host is begun like a new one.
    fn reset(&mut self, cause: ResetCause) {
        let cursor = self.tally.cursor();
        let Some(tally) = self.live.begin_epoch(&self.tally, cause, self.shared.clock.now_micros()) else { return };
        self.tally = tally;
        self.shared.metrics.resets.inc();
        warn!(cause = cause.as_str(), cursor, epoch = self.tally.epoch(), "the host counts its events anew");
    }

    fn refuse(&self, input: &refusal::Input<'_>, refusal: &Refusal) {
        let Shared { metrics, refusals, clock, .. } = self.shared;
        metrics.refused(refusal.reason);
        refusals.record(&self.live.name, input, refusal, clock.now_micros());
        debug!(reason = refusal.reason.as_str(), came = &*refusal.came, "message refused");
    }

    /// Counts a message, and waits where the host is over its rate.
    async fn count(&mut self, bytes: usize, kind: Message) {
        self.shared.metrics.message(kind);
        self.shared.metrics.bytes.inc_by(bytes as u64);
        self.live.count_message(bytes);
        let Pace { throttle, changes } = &mut *self.pace;
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            throttle.set(self.shared.limits.of(&self.live.name));
        }
        let began = Instant::now();
        let Some(held) = throttle.take(began, u32::try_from(bytes).unwrap_or(u32::MAX)) else { return };
        self.live.hold(Some(held));
        self.live.step(began, Input::Slowed { until: held.until }, &mut self.rng);
        tokio::select! {
            () = sleep_until(held.until) => {}
            // Other limits may let it go on at once; the next message is counted by them.
            Ok(()) = changes.changed() => {
                throttle.set(self.shared.limits.of(&self.live.name));
                self.live.step(began, Input::Slowed { until: Instant::now() }, &mut self.rng);
            }
        }
        self.live.hold(None);
        self.shared.metrics.throttled_seconds.inc_by(began.elapsed().as_secs_f64());
    }
}

fn kind_of(kind: Kind) -> Message {
    match kind {
        Kind::Commit => Message::Commit,
        Kind::Sync => Message::Sync,
        Kind::Identity => Message::Identity,
        Kind::Account => Message::Account,
    }
}
