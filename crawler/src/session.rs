//! One connection to one host: from the handshake to its end.
//!
//! Back-pressure is not reading the socket: an event is handed to the Intake before the next bytes are read. What can't
//! be read as an event is refused with its reason and passed over, since the same cursor would meet the same bytes for
//! ever; the connection stays.

use std::{fmt, sync::Arc, time::Duration};

use atproto::{
    event::{self, Kind, Route, Routed},
    frame::FRAME_BYTES_MAX,
    syntax::{Did, HostName},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use runtime::{
    bucket::{TokenBucket, Wait},
    egress::{Egress, Stream},
    ws::{self, CloseCode, Data, Decoder, Event, HandshakeError, ProtocolError, Role, Socket},
};
use storage::{
    intake::RawFrame,
    refusal::{self, Reason, Refusal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use crate::{
    crawler::Shared,
    cursor::Tally,
    host::{End, Input},
    keepalive::{Due, Keepalive},
    live::Live,
    metrics::Message,
    order::{Order, Place},
    origin::Origin,
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
    let request = ws::Request { authority: name.as_str().to_owned(), target, headers };
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

/// An open connection.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    live: &'a Live,
    bucket: Option<&'a mut TokenBucket>,
    stream: Stream,
    /// Bytes that came with the handshake.
    early: Bytes,
    buffer: Vec<u8>,
    decoder: Decoder,
    order: Order,
    tally: Arc<Tally>,
    keepalive: Keepalive,
    rng: SmallRng,
    /// The payload of the last ping that was not answered. Only the last is, so that a flood of pings costs the host
    /// more than us.
    pong_due: Option<Bytes>,
}

impl<'a> Session<'a> {
    /// For a connection that was opened with `cursor`.
    pub(crate) fn new(
        shared: &'a Shared,
        live: &'a Live,
        bucket: Option<&'a mut TokenBucket>,
        socket: Socket<Stream>,
        cursor: Option<u64>,
    ) -> Session<'a> {
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        Session {
            shared,
            live,
            bucket,
            stream: socket.stream,
            early: socket.read,
            buffer: vec![0; BUFFER_IDLE_BYTES],
            decoder: Decoder::new(Role::Client, FRAME_BYTES_MAX),
            order: Order::new(cursor),
            tally: live.tally(),
            keepalive: Keepalive::new(Instant::now(), shared.config.patience, &mut rng),
            rng,
            pong_due: None,
        }
    }

    /// Reads until the end. May be dropped at any point; what was handed on is accounted for.
    pub(crate) async fn read(&mut self) -> Failure {
        match self.try_read().await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    /// Says goodbye, as far as the host takes it.
    pub(crate) async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = ws::close(Some(code), reason, Some(self.rng.random()));
        let goodbye = async {
            self.stream.write_all(&frame).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(CLOSE_WITHIN, goodbye).await;
    }

    async fn try_read(&mut self) -> Result<std::convert::Infallible, Failure> {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.digest(&early).await?;
        }
        loop {
            tokio::select! {
                read = self.stream.read(&mut self.buffer) => {
                    let n = read.map_err(|error| Failure::new(End::Broken, error))?;
                    if n == 0 {
                        return Err(Failure::new(End::Closed, "end of stream without a close frame"));
                    }
                    let mut buffer = std::mem::take(&mut self.buffer);
                    self.digest(&buffer[..n]).await?;
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

    /// Deals with all that came, event by event.
    async fn digest(&mut self, mut input: &[u8]) -> Result<(), Failure> {
        let mut finished = false;
        loop {
            let event = match self.decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => return Err(self.breach(error).await),
            };
            finished = true;
            match event {
                Event::Message { data: Data::Binary, payload } => self.message(payload).await?,
                Event::Message { data: Data::Text, payload } => {
                    self.count(payload.len(), Message::Unreadable).await;
                    let refusal = Refusal::new(Reason::BadHeader, "a text message", "binary messages");
                    self.refuse(&refusal::Input::default(), &refusal);
                }
                Event::TooLarge { bytes } => {
                    self.count(usize::try_from(bytes).unwrap_or(usize::MAX), Message::Unreadable).await;
                    self.refuse(&refusal::Input::default(), &Refusal::too_large(bytes));
                }
                Event::Ping(payload) => self.pong_due = Some(payload),
                Event::Pong(_) => {}
                Event::Close { code, reason } => {
                    let echo = ws::close(code, "", Some(self.rng.random()));
                    let _ = self.write(&echo).await;
                    let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {}", code.0));
                    return Err(Failure::new(End::Closed, format_args!("closed by the host, {code} {reason:?}")));
                }
            }
        }
        if let Some(payload) = self.pong_due.take() {
            let pong = ws::pong(&payload, Some(self.rng.random()));
            self.write(&pong).await?;
        }
        self.keepalive.heard(Instant::now(), finished, self.decoder.is_between_messages());
        Ok(())
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
                self.event(&bytes, &route).await
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
                    "FutureCursor" => {
                        self.reset("FutureCursor");
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

    async fn event(&mut self, bytes: &Bytes, route: &Route<'_>) -> Result<(), Failure> {
        match self.order.judge(route.seq) {
            Place::Next => {}
            Place::Repeat => return Ok(()),
            Place::Reset => self.reset("the first seq is below our cursor"),
            Place::NotRising { last } => {
                let did = Did::parse(route.did).ok();
                let input = refusal::Input { kind: Some(route.kind), seq: Some(route.seq), did: did.as_ref() };
                self.refuse(&input, &Refusal::seq_not_rising(route.seq, last));
                return Ok(());
            }
        }
        let Ok(did) = Did::parse(route.did) else {
            // `route` has checked it; if the two ever differ, the event is refused and not the process ended.
            let input = refusal::Input { kind: Some(route.kind), seq: Some(route.seq), did: None };
            self.refuse(&input, &Refusal::not_a_did(route.did));
            self.tally.passed(route.seq);
            return Ok(());
        };
        let received_at_micros = self.shared.clock.now_micros();
        self.live.count_event(received_at_micros);
        let frame = RawFrame {
            host: self.live.name.clone(),
            host_epoch: self.tally.epoch(),
            upstream_seq: route.seq,
            received_at_micros,
            did,
            kind: route.kind,
            seq_slot: route.seq_slot,
            bytes: bytes.clone(),
            receipts: self.tally.clone(),
        };
        let asked = Instant::now();
        self.tally.below(self.shared.config.in_flight_max.get()).await;
        let pushed = self.tally.hand_on(route.seq, self.shared.intake.push(frame)).await;
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
                self.reset("the first seq is below our cursor");
                self.tally.passed(seq);
            }
            Place::Repeat | Place::NotRising { .. } => {}
        }
    }

    /// The host counts anew. On this connection we go on with what it sends; after `FutureCursor`, which ends it, the
    /// host is begun like a new one.
    fn reset(&mut self, why: &'static str) {
        let cursor = self.tally.cursor();
        self.tally = self.live.begin_epoch();
        self.shared.metrics.resets.inc();
        warn!(why, cursor, epoch = self.tally.epoch(), "the host counts its events anew");
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
        let Some(bucket) = &mut self.bucket else { return };
        let now = Instant::now();
        match bucket.take(now, 1) {
            Wait::None => {}
            Wait::For(wait) => {
                self.live.step(now, Input::Slowed, &mut self.rng);
                sleep(wait).await;
                self.shared.metrics.throttled_seconds.inc_by(now.elapsed().as_secs_f64());
            }
        }
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

fn kind_of(kind: Kind) -> Message {
    match kind {
        Kind::Commit => Message::Commit,
        Kind::Sync => Message::Sync,
        Kind::Identity => Message::Identity,
        Kind::Account => Message::Account,
    }
}

/// An error with its sources in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + Sync));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
