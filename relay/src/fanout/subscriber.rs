//! One subscriber: a position in the firehose and a socket.
//!
//! It pulls what follows its position, from memory or from the log, and writes it as fast as its socket takes it. It
//! has no queue: what is in flight is a few shared chunks. After the handshake this loop alone owns the socket, so that
//! a pong or a close stands between whole frames even where the last write ended within one.

use std::{
    future::{Future, pending, ready},
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use atproto::{event, frame};
use bytes::Bytes;
use runtime::ws::{self, CloseCode, Decoder, Event, Role};
use storage::{log::ReadError, seq::Seq};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    chunk::Chunk,
    cursor::Start,
    hub::Hub,
    metrics::{Ended, Metrics},
    outgoing::Outgoing,
    replay::{Piece, Turn},
    ring::Found,
    roster::Seat,
    slow::Progress,
};

/// How subscribers are treated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Without progress for this long, a subscriber that has something to read is too slow.
    pub stall_max: Duration,
    /// How often a subscriber from which nothing was heard is pinged.
    pub ping_every: Duration,
    /// When nothing was heard for this long, it is gone.
    pub silence_max: Duration,
    /// The time for the other end to take the last frames and to close.
    pub close_wait: Duration,
    /// What is taken from memory at a time.
    pub batch_bytes: usize,
    /// The largest message that is read from a subscriber; its content is ignored.
    pub message_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stall_max: Duration::from_secs(60),
            ping_every: Duration::from_secs(30),
            silence_max: Duration::from_secs(90),
            close_wait: Duration::from_secs(2),
            batch_bytes: 256 << 10,
            message_bytes_max: 64 << 10,
        }
    }
}

/// Pieces given to the kernel with one call.
const SLICES: usize = 64;

/// A connected subscriber.
pub struct Subscriber {
    hub: Hub,
    config: Config,
    metrics: Metrics,
    /// What the operator sees of it.
    seat: Arc<Seat>,
    socket: TcpStream,
    decoder: Decoder,
    outgoing: Outgoing,
    /// Held while it sends what it replays.
    turn: Option<Turn>,
    /// All up to this seq has been queued.
    position: Seq,
    /// The state of what may not be served that the queued events were encoded under.
    generation: u64,
    /// Where it began; until something was queued, a window that moves on is no fault of the subscriber's.
    began: Option<Seq>,
    progress: Progress,
    /// When the other end was last heard of.
    heard: Instant,
    pinged: Instant,
    /// The last write found no room: when there is room again, the other end has read something.
    blocked: bool,
    closing: Option<Closing>,
}

/// The last frames are on their way.
#[derive(Clone, Copy, Debug)]
struct Closing {
    reason: Ended,
    until: Instant,
}

type Reading = Pin<Box<dyn Future<Output = Result<Option<Piece>, ReadError>> + Send>>;

/// What memory had for it.
enum Filled {
    Queued,
    AtEnd,
    Behind,
}

/// What ended the wait.
enum Woken {
    Socket(io::Result<tokio::io::Ready>),
    Read(Result<Option<Piece>, ReadError>),
    More,
    Time,
    Disconnect,
    Stop,
}

impl Subscriber {
    /// A subscriber whose handshake is done.
    pub fn new(
        hub: Hub,
        config: Config,
        metrics: Metrics,
        seat: Arc<Seat>,
        socket: TcpStream,
        start: Start,
    ) -> Subscriber {
        let now = Instant::now();
        let mut subscriber = Subscriber {
            progress: Progress::new(config.stall_max),
            decoder: Decoder::new(Role::Server, config.message_bytes_max),
            outgoing: Outgoing::new(None),
            turn: None,
            position: Seq(0),
            generation: hub.generation(),
            began: None,
            heard: now,
            pinged: now,
            blocked: false,
            closing: None,
            hub,
            config,
            metrics,
            seat,
            socket,
        };
        match start {
            Start::After(position) => subscriber.begin(position),
            Start::Outdated(position) => {
                subscriber.tell_outdated();
                subscriber.begin(position);
            }
            Start::Future => subscriber.refuse(
                Ended::FutureCursor,
                "FutureCursor",
                "the cursor is past the last event of this relay",
            ),
        }
        subscriber
    }

    /// Serves it until one end has enough, or `stop`. Gives why it ended. `read` is what the socket sent right behind
    /// its request.
    pub async fn run(mut self, read: Bytes, stop: CancellationToken) -> Ended {
        if let Some(ended) = self.take_input(&read) {
            return ended;
        }
        let mut tail = self.hub.tail();
        let mut reading: Option<Reading> = None;
        loop {
            tail.borrow_and_update();
            let mut at_end = false;
            if self.closing.is_none() && self.outgoing.is_empty() && reading.is_none() {
                match self.fill() {
                    Filled::Queued => {}
                    Filled::AtEnd => at_end = true,
                    Filled::Behind => {
                        let (hub, position) = (self.hub.clone(), self.position);
                        reading = Some(Box::pin(async move { hub.read_behind(position).await }));
                        self.metrics.replaying.inc();
                    }
                }
            }
            if let Err(error) = self.write() {
                debug!(%error, "failed to write to a subscriber");
                self.forget(&mut reading);
                return self.closing.map_or(Ended::Left, |closing| closing.reason);
            }
            self.turn = None;
            if let Some(Closing { reason: reason @ Ended::Left, .. }) = self.closing
                && self.outgoing.is_empty()
            {
                return reason;
            }
            let woken = self.wait(&mut reading, at_end.then_some(&mut tail), &stop).await;
            let ended = match woken {
                Woken::Socket(Ok(ready)) if ready.is_readable() || ready.is_read_closed() => self.read(),
                Woken::Socket(Ok(_)) => None,
                Woken::Socket(Err(_)) => Some(Ended::Left),
                Woken::Read(result) => {
                    self.forget(&mut reading);
                    self.take_read(result);
                    None
                }
                Woken::More => None,
                Woken::Time => self.look_at_the_clock(),
                Woken::Disconnect => {
                    self.close(Ended::Disconnected, CloseCode::POLICY, "disconnected by the operator");
                    None
                }
                Woken::Stop => {
                    // Who keeps up gets all there is; the others go on from their cursor elsewhere.
                    let _broken = self.send_what_fits();
                    self.close(Ended::Shutdown, CloseCode::GOING_AWAY, "the relay is shutting down");
                    None
                }
            };
            if let Some(ended) = ended {
                self.forget(&mut reading);
                return self.closing.map_or(ended, |closing| closing.reason);
            }
            // A subscriber that never has to wait must not keep its thread from the others.
            tokio::task::coop::consume_budget().await;
        }
    }

    // === where it stands ===

    fn begin(&mut self, position: Seq) {
        self.position = position;
        self.began = Some(position);
        self.seat.at(position);
    }

    fn tell_outdated(&mut self) {
        let info = event::encode_info("OutdatedCursor", Some("events after the cursor are no longer kept"));
        self.outgoing.push_last(message(&info));
    }

    /// Queues what memory holds for it.
    fn fill(&mut self) -> Filled {
        match self.hub.find(self.position, self.config.batch_bytes) {
            Found::Chunks(chunks) => {
                for chunk in chunks {
                    self.queue(chunk);
                }
                Filled::Queued
            }
            Found::End => Filled::AtEnd,
            Found::Behind => Filled::Behind,
        }
    }

    /// Writes what memory holds for it, as far as the socket takes it at once.
    fn send_what_fits(&mut self) -> io::Result<()> {
        loop {
            self.write()?;
            if !self.outgoing.is_empty() {
                return Ok(());
            }
            match self.fill() {
                Filled::Queued => {}
                Filled::AtEnd | Filled::Behind => return Ok(()),
            }
        }
    }

    fn queue(&mut self, chunk: Arc<Chunk>) {
        let last = chunk.last();
        self.generation = chunk.generation();
        self.outgoing.push_chunk(chunk, self.position);
        self.position = last;
        self.began = None;
        self.seat.at(last);
    }

    fn take_read(&mut self, result: Result<Option<Piece>, ReadError>) {
        if self.closing.is_some() {
            return;
        }
        match result {
            Ok(Some(Piece { chunk, turn })) => {
                self.turn = Some(turn);
                self.queue(chunk);
            }
            Ok(None) => {}
            // The window moved on between the cursor's check and the first read.
            Err(ReadError::Outdated { after, first }) if self.began == Some(after) => {
                if self.outgoing.is_empty() {
                    self.tell_outdated();
                }
                self.begin(Seq(first.0.saturating_sub(1)));
            }
            Err(ReadError::Outdated { .. }) => {
                self.refuse(Ended::TooSlow, "ConsumerTooSlow", "the next event is no longer kept");
            }
            Err(ReadError::Store(error)) => {
                warn!(%error, position = %self.position, "failed to read the log for a subscriber");
                self.close(Ended::Failed, CloseCode::INTERNAL, "the log can't be read");
            }
        }
    }

    // === the end ===

    /// Queues an error frame and the close.
    fn refuse(&mut self, reason: Ended, error: &str, text: &str) {
        self.outgoing.cut();
        self.outgoing.push_last(message(&frame::encode_error(error, Some(text))));
        self.close_with(reason, ws::close(Some(CloseCode::POLICY), error, None));
    }

    fn close(&mut self, reason: Ended, code: CloseCode, text: &str) {
        self.outgoing.cut();
        self.close_with(reason, ws::close(Some(code), text, None));
    }

    fn close_with(&mut self, reason: Ended, frame: Vec<u8>) {
        if self.closing.is_none() {
            self.outgoing.push_last(frame);
            self.closing = Some(Closing { reason, until: Instant::now() + self.config.close_wait });
        }
    }

    // === the socket ===

    /// Writes until all is written or the socket is full.
    fn write(&mut self) -> io::Result<()> {
        loop {
            self.take_back_what_is_withheld();
            if self.outgoing.is_empty() {
                return Ok(());
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.outgoing.slices(&mut slices);
            let now = Instant::now();
            match self.socket.try_write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let sent = self.outgoing.advance(written);
                    self.metrics.bytes_sent.inc_by(sent.bytes);
                    self.metrics.events_sent.inc_by(sent.events);
                    self.seat.sent(sent.events, sent.bytes);
                    self.progress.moved(now, !self.outgoing.is_empty());
                    if std::mem::take(&mut self.blocked) {
                        self.heard = now;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    self.progress.waits(now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What has not left is looked for again where something is served no longer, or again.
    fn take_back_what_is_withheld(&mut self) {
        let generation = self.hub.generation();
        if generation != self.generation {
            self.generation = generation;
            if let Some(position) = self.outgoing.take_back() {
                self.position = position;
                self.seat.at(position);
            }
        }
    }

    /// Reads what has come. Gives the end where it is one.
    fn read(&mut self) -> Option<Ended> {
        let mut buffer = [0; 4096];
        match self.socket.try_read(&mut buffer) {
            Ok(0) => Some(Ended::Left),
            Ok(n) => self.take_input(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Ended::Left),
        }
    }

    fn take_input(&mut self, mut input: &[u8]) -> Option<Ended> {
        if !input.is_empty() {
            self.heard = Instant::now();
        }
        loop {
            match self.decoder.next(&mut input) {
                Ok(None) => return None,
                Ok(Some(Event::Message { .. } | Event::Pong(_))) => {}
                Ok(Some(Event::Ping(payload))) => {
                    if self.closing.is_none() {
                        self.outgoing.push_soon(ws::pong(&payload, None));
                    }
                }
                Ok(Some(Event::TooLarge { .. })) => {
                    self.close(Ended::Protocol, CloseCode::TOO_LARGE, "subscribers send nothing here");
                }
                // It has answered our close: both have said goodbye.
                Ok(Some(Event::Close { .. })) if self.closing.is_some() => return Some(Ended::Left),
                Ok(Some(Event::Close { code, .. })) => {
                    self.outgoing.cut();
                    self.close_with(Ended::Left, ws::close(code, "", None));
                }
                Err(error) if self.closing.is_none() => {
                    debug!(%error, "a subscriber broke the protocol");
                    self.close(Ended::Protocol, error.close_code(), "");
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// Waits for something to do. `tail` is given where nothing newer was there.
    async fn wait(
        &self,
        reading: &mut Option<Reading>,
        tail: Option<&mut watch::Receiver<Seq>>,
        stop: &CancellationToken,
    ) -> Woken {
        // While an answer of ours waits for room, nothing more is read: who sends pings without reading pongs fills its
        // own buffers, not ours.
        let interest = match (self.outgoing.holds_own(), self.outgoing.is_empty()) {
            (true, _) => Interest::WRITABLE,
            (false, false) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::READABLE,
        };
        // All has left and there may be more at once. Not looked for before the other branches had their chance, or who
        // never has to wait could not be talked to.
        let more = self.closing.is_none() && self.outgoing.is_empty() && reading.is_none() && tail.is_none();
        let newer = async {
            match tail {
                Some(tail) => tail.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            ready = self.socket.ready(interest) => Woken::Socket(ready),
            result = async { match reading { Some(reading) => reading.await, None => pending().await } } => Woken::Read(result),
            changed = newer => match changed {
                Ok(()) => Woken::More,
                Err(_) => Woken::Stop,
            },
            () = ready(()), if more => Woken::More,
            () = sleep_until(self.alarm()) => Woken::Time,
            () = self.seat.leave().cancelled(), if self.closing.is_none() => Woken::Disconnect,
            () = stop.cancelled(), if self.closing.is_none() => Woken::Stop,
        }
    }

    // === the clock ===

    /// When the clock must be looked at next.
    fn alarm(&self) -> Instant {
        match self.closing {
            Some(closing) => closing.until,
            None => {
                let ping = self.heard.max(self.pinged) + self.config.ping_every;
                let gone = self.heard + self.config.silence_max;
                let slow = self.progress.deadline().unwrap_or(gone);
                ping.min(gone).min(slow)
            }
        }
    }

    fn look_at_the_clock(&mut self) -> Option<Ended> {
        let now = Instant::now();
        if let Some(closing) = self.closing {
            return (closing.until <= now).then_some(closing.reason);
        }
        if self.progress.is_slow(now) {
            self.refuse(Ended::TooSlow, "ConsumerTooSlow", "nothing was read for too long");
        } else if self.heard + self.config.silence_max <= now {
            return Some(Ended::NoPong);
        } else if self.heard.max(self.pinged) + self.config.ping_every <= now {
            self.pinged = now;
            if !self.outgoing.holds_own() {
                self.outgoing.push_soon(ws::ping(&[], None));
            }
        }
        None
    }

    fn forget(&self, reading: &mut Option<Reading>) {
        if reading.take().is_some() {
            self.metrics.replaying.dec();
        }
    }
}

/// A frame as one WebSocket message.
fn message(frame: &[u8]) -> Bytes {
    let mut bytes = ws::header(ws::Data::Binary, frame.len()).as_bytes().to_vec();
    bytes.extend_from_slice(frame);
    Bytes::from(bytes)
}
