//! One subscriber: a position in the firehose and a socket.
//!
//! It pulls what follows its position, from memory or from the log, and writes it as fast as its socket takes it. It
//! has no queue: it holds shared chunks only while the socket takes bytes. Once that is full it lets go of them, keeps a
//! copy of the rest of the frame that is under way, and pulls anew when there is room. After the handshake this loop
//! alone owns the socket, so that a pong or a close stands between whole frames even where the last write ended within
//! one.

use std::{
    future::{Future, pending, poll_fn},
    io::{self, IoSlice},
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use atproto::{event, frame};
use bytes::Bytes;
use runtime::{
    bucket::{TokenBucket, Wait},
    ws::{self, CloseCode, Decoder, Event, Role},
};
use storage::{log::ReadError, seq::Seq};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::{debug, warn};

use super::{
    chunk::Chunk,
    cursor::Start,
    hub::Hub,
    metrics::{Ended, Metrics},
    outgoing::{Outgoing, Reader},
    replay::{Piece, Turn},
    ring::Found,
    roster::Seat,
    slow::Progress,
    socket::{self, Taken},
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
    /// What is written to one that is never full before others have their turn.
    pub burst_bytes: usize,
    /// The most the kernel keeps for one that has not been sent yet.
    pub unsent_bytes_max: u32,
    /// The largest message that is read from a subscriber; its content is ignored.
    pub message_bytes_max: usize,
    /// What one may send in all kinds of frames: so many bytes at once, and so many a second in the long run.
    pub input_bytes_at_once: NonZeroU32,
    /// The latter.
    pub input_bytes_per_second: NonZeroU32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stall_max: Duration::from_secs(60),
            ping_every: Duration::from_secs(30),
            silence_max: Duration::from_secs(90),
            close_wait: Duration::from_secs(2),
            batch_bytes: 256 << 10,
            burst_bytes: 1 << 20,
            unsent_bytes_max: 128 << 10,
            message_bytes_max: 64 << 10,
            // Pongs and a ping now and then are some bytes a minute.
            input_bytes_at_once: NonZeroU32::new(1 << 20).expect("not 0"),
            input_bytes_per_second: NonZeroU32::new(16 << 10).expect("not 0"),
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
    /// Whether it waits for chunks to be deflated.
    takes_deflated: bool,
    /// Held while it sends what it has missed.
    turn: Option<Turn>,
    /// It has been at the end since it last had to read the log: who is late then is so by what others did, and waits
    /// for no turn.
    live: Option<Live>,
    /// All up to this seq has been queued.
    position: Seq,
    /// All up to this seq has left.
    left: Seq,
    /// The state of what may not be served that the queued events were encoded under.
    generation: u64,
    /// Where it began; until something was queued, a window that moves on is no fault of the subscriber's.
    began: Option<Seq>,
    progress: Progress,
    /// When the other end was last heard of.
    heard: Instant,
    pinged: Instant,
    /// What it may write before others have their turn.
    burst_left: usize,
    /// There is no room in the socket.
    full: bool,
    /// The last write found too little room: when there is room again, the other end has read something.
    was_full: bool,
    /// What it may still send.
    allowance: TokenBucket,
    closing: Option<Closing>,
}

/// The last frames are on their way.
#[derive(Clone, Copy, Debug)]
struct Closing {
    reason: Ended,
    until: Instant,
}

type Reading = Pin<Box<dyn Future<Output = Result<Pulled, ReadError>> + Send>>;

/// What it waited for.
enum Pulled {
    /// What comes next.
    Piece(Piece),
    /// The turn to send what memory holds.
    Turn(Turn),
    /// Nothing, as yet.
    Nothing,
}

/// What memory had for it.
enum Filled {
    Queued,
    /// The next chunk, which has still to be deflated.
    Plain(Arc<Chunk>),
    /// Something, and it is not its turn.
    Waits,
    AtEnd,
    Behind,
}

/// Where it stands when it has written what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// It has all there is.
    AtEnd,
    /// Its socket is full.
    Full,
    /// It has had enough for others to come first, and may have more at once.
    Burst,
    /// What comes next is being read, or nothing more will come.
    Waits,
}

/// What ended the wait.
enum Woken {
    Readable(io::Result<()>),
    Writable(io::Result<()>),
    Read(Result<Pulled, ReadError>),
    More,
    Time,
    Disconnect,
    Stop,
}

/// What may come to a subscriber at any time. Made once, because to ask for these anew at each wait costs more than the
/// wait.
struct Calls<'a, 'b> {
    disconnect: Pin<&'a mut WaitForCancellationFuture<'b>>,
    stop: Pin<&'a mut WaitForCancellationFuture<'b>>,
    /// Rings at the alarm or before: it is moved only when it must ring earlier.
    timer: Pin<&'a mut Sleep>,
}

impl Calls<'_, '_> {
    /// `alarm` is when the clock must be looked at; while the subscriber is being sent away nobody calls.
    fn poll(&mut self, context: &mut Context<'_>, alarm: Instant, closing: bool) -> Poll<Woken> {
        if !closing {
            if self.disconnect.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Disconnect);
            }
            if self.stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Stop);
            }
        }
        if alarm < self.timer.deadline() {
            self.timer.as_mut().reset(alarm);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if alarm <= Instant::now() {
                return Poll::Ready(Woken::Time);
            }
            self.timer.as_mut().reset(alarm);
        }
        Poll::Pending
    }
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
        reader: Reader,
    ) -> Subscriber {
        let now = Instant::now();
        let mut subscriber = Subscriber {
            progress: Progress::new(config.stall_max),
            allowance: TokenBucket::new(config.input_bytes_per_second, config.input_bytes_at_once),
            decoder: Decoder::new(Role::Server, config.message_bytes_max).taking_deflated(reader.deflated),
            outgoing: Outgoing::new(reader),
            takes_deflated: reader.deflated,
            turn: None,
            live: None,
            position: Seq(0),
            left: Seq(0),
            generation: hub.generation(),
            began: None,
            heard: now,
            pinged: now,
            burst_left: config.burst_bytes,
            full: false,
            was_full: false,
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
        socket::bound_unsent(&self.socket, self.config.unsent_bytes_max);
        if let Some(ended) = self.take_input(&read) {
            return ended;
        }
        // It may be a part of a larger buffer.
        drop(read);
        let seat = Arc::clone(&self.seat);
        let mut tail = self.hub.tail();
        let mut reading: Option<Reading> = None;
        let (disconnect, stop) = (pin!(seat.leave().cancelled()), pin!(stop.cancelled()));
        let timer = pin!(sleep_until(self.alarm()));
        let mut calls = Calls { disconnect, stop, timer };
        let ended = loop {
            tail.borrow_and_update();
            let pumped = match self.pump(&mut reading) {
                Ok(pumped) => pumped,
                Err(error) => {
                    debug!(%error, "failed to write to a subscriber");
                    break Ended::Left;
                }
            };
            if matches!(self.closing, Some(Closing { reason: Ended::Left, .. })) && self.outgoing.is_empty() {
                break Ended::Left;
            }
            let ended = match self.wait(pumped, &mut reading, &mut tail, &mut calls).await {
                Woken::Readable(Ok(())) => self.read(),
                Woken::Writable(Ok(())) => {
                    self.full = false;
                    None
                }
                Woken::Readable(Err(_)) | Woken::Writable(Err(_)) => Some(Ended::Left),
                Woken::Read(result) => {
                    reading = None;
                    self.take_read(result);
                    None
                }
                Woken::More => {
                    if pumped == Pumped::Burst {
                        tokio::task::yield_now().await;
                    }
                    None
                }
                Woken::Time => self.look_at_the_clock(),
                Woken::Disconnect => {
                    self.close(Ended::Disconnected, CloseCode::POLICY, "disconnected by the operator");
                    None
                }
                Woken::Stop => {
                    // Who keeps up gets all there is; the others go on from their cursor elsewhere. What is not
                    // deflated yet goes as it is.
                    if std::mem::take(&mut self.takes_deflated) {
                        reading = None;
                    }
                    while matches!(self.pump(&mut reading), Ok(Pumped::Burst)) {}
                    self.close(Ended::Shutdown, CloseCode::GOING_AWAY, "the relay is shutting down");
                    None
                }
            };
            if let Some(ended) = ended {
                break ended;
            }
        };
        self.closing.map_or(ended, |closing| closing.reason)
    }

    // === where it stands ===

    fn begin(&mut self, position: Seq) {
        self.position = position;
        self.left = position;
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
            Found::Chunks(mut chunks) => {
                if self.takes_deflated {
                    match chunks.iter().position(|chunk| chunk.deflated().is_none()) {
                        Some(0) => return Filled::Plain(chunks.swap_remove(0)),
                        Some(plain) => chunks.truncate(plain),
                        None => {}
                    }
                }
                if self.live.is_none() && self.turn.is_none() {
                    return Filled::Waits;
                }
                for chunk in chunks {
                    self.queue(chunk);
                }
                Filled::Queued
            }
            Found::End => Filled::AtEnd,
            Found::Behind => Filled::Behind,
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

    fn take_read(&mut self, result: Result<Pulled, ReadError>) {
        if self.closing.is_some() {
            return;
        }
        match result {
            Ok(Pulled::Piece(Piece { chunk, turn })) => {
                self.queue(chunk);
                self.turn = turn;
            }
            Ok(Pulled::Turn(turn)) => self.turn = Some(turn),
            Ok(Pulled::Nothing) => {}
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

    /// Pulls and writes until there is nothing more, the socket is full, or others should have their turn.
    fn pump(&mut self, reading: &mut Option<Reading>) -> io::Result<Pumped> {
        loop {
            self.take_back_what_is_withheld();
            if self.full {
                self.park();
            }
            let may_write = !self.full && self.burst_left > 0;
            let pulls = may_write && self.closing.is_none() && reading.is_none() && !self.outgoing.holds_events();
            let filled = if pulls { Some(self.fill()) } else { None };
            // Who has nothing of it to send must not keep others from their turn, and least of all wait for the next one
            // with it.
            if !self.outgoing.holds_events() {
                self.turn = None;
            }
            if !may_write {
                self.burst_left = self.config.burst_bytes;
                return Ok(if self.full { Pumped::Full } else { Pumped::Burst });
            }
            if let Some(filled) = filled {
                match filled {
                    // Perhaps nothing of it is for this one.
                    Filled::Queued if self.outgoing.is_empty() => continue,
                    Filled::Queued => {}
                    Filled::AtEnd => {
                        self.live.get_or_insert_with(|| Live::new(&self.metrics));
                        if self.outgoing.is_empty() {
                            self.burst_left = self.config.burst_bytes;
                            return Ok(Pumped::AtEnd);
                        }
                    }
                    Filled::Plain(chunk) => {
                        let (hub, live) = (self.hub.clone(), self.live.is_some());
                        *reading = Some(Box::pin(async move {
                            hub.deflate(&chunk).await;
                            let turn = if live { None } else { Some(hub.turn().await?) };
                            Ok(Pulled::Piece(Piece { chunk, turn }))
                        }));
                    }
                    Filled::Waits => {
                        let hub = self.hub.clone();
                        *reading = Some(Box::pin(async move { Ok(Pulled::Turn(hub.turn().await?)) }));
                    }
                    Filled::Behind => {
                        self.live = None;
                        let (hub, position, deflated) = (self.hub.clone(), self.position, self.takes_deflated);
                        let replaying = Replaying::new(&self.metrics);
                        *reading = Some(Box::pin(async move {
                            let _replaying = replaying;
                            let piece = hub.read_behind(position, deflated).await?;
                            Ok(piece.map_or(Pulled::Nothing, Pulled::Piece))
                        }));
                    }
                }
            }
            if self.outgoing.is_empty() {
                return Ok(Pumped::Waits);
            }
            self.write()?;
        }
    }

    /// Keeps no chunk alive while there is no room.
    fn park(&mut self) {
        if let Some(position) = self.outgoing.park() {
            self.position = position;
            self.seat.at(position);
        }
    }

    /// Writes what is queued, once.
    fn write(&mut self) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = self.outgoing.slices(&mut slices);
        let Taken { bytes, full } = socket::send(&self.socket, &slices[..filled])?;
        let now = Instant::now();
        if bytes > 0 {
            let sent = self.outgoing.advance(bytes);
            self.metrics.bytes_sent.inc_by(sent.bytes);
            self.metrics.events_sent.inc_by(sent.events);
            self.seat.sent(sent.events, sent.bytes);
            if self.outgoing.is_empty() {
                self.hub.sent(self.left, self.position, self.outgoing.shard());
                self.left = self.position;
            }
            self.progress.moved(now, full);
            if std::mem::replace(&mut self.was_full, full) {
                self.heard = now;
            }
        } else {
            self.was_full = true;
            self.progress.waits(now);
        }
        self.full = full;
        self.burst_left = self.burst_left.saturating_sub(bytes);
        Ok(())
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
            // Reading costs, and answering pings costs more.
            let bytes = u32::try_from(input.len()).unwrap_or(u32::MAX);
            if self.allowance.take(self.heard, bytes) != Wait::None {
                self.close(Ended::TooTalkative, CloseCode::POLICY, "subscribers send nothing here");
            }
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

    /// Waits for something to do.
    async fn wait(
        &self,
        pumped: Pumped,
        reading: &mut Option<Reading>,
        tail: &mut watch::Receiver<Seq>,
        calls: &mut Calls<'_, '_>,
    ) -> Woken {
        // While an answer of ours waits for room, nothing more is read: who sends pings without reading pongs fills its
        // own buffers, not ours.
        let reads = !self.outgoing.holds_own();
        let (alarm, closing) = (self.alarm(), self.closing.is_some());
        let mut newer = pin!(async {
            match pumped {
                Pumped::AtEnd => tail.changed().await,
                Pumped::Full | Pumped::Burst | Pumped::Waits => pending().await,
            }
        });
        poll_fn(|context| {
            // Who goes on sending while it is sent away is always readable, and a timer is asked last.
            if closing && alarm <= Instant::now() {
                return Poll::Ready(Woken::Time);
            }
            if pumped == Pumped::Full
                && let Poll::Ready(ready) = self.socket.poll_write_ready(context)
            {
                return Poll::Ready(Woken::Writable(ready));
            }
            if reads && let Poll::Ready(ready) = self.socket.poll_read_ready(context) {
                return Poll::Ready(Woken::Readable(ready));
            }
            if let Some(reading) = reading
                && let Poll::Ready(result) = reading.as_mut().poll(context)
            {
                return Poll::Ready(Woken::Read(result));
            }
            if let Poll::Ready(called) = calls.poll(context, alarm, closing) {
                return Poll::Ready(called);
            }
            // Last, or who never has to wait could not be talked to.
            match newer.as_mut().poll(context) {
                Poll::Ready(Ok(())) => Poll::Ready(Woken::More),
                // The hub is gone.
                Poll::Ready(Err(_)) => Poll::Ready(Woken::Stop),
                Poll::Pending if pumped == Pumped::Burst => Poll::Ready(Woken::More),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
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
}

/// Counts a subscriber that is live for as long as it is.
struct Live(Metrics);

impl Live {
    fn new(metrics: &Metrics) -> Live {
        metrics.live.inc();
        Live(metrics.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.dec();
    }
}

/// Counts a subscriber that reads behind the ring for as long as it does.
struct Replaying(Metrics);

impl Replaying {
    fn new(metrics: &Metrics) -> Replaying {
        metrics.replaying.inc();
        Replaying(metrics.clone())
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        self.0.replaying.dec();
    }
}

/// A frame as one WebSocket message.
fn message(frame: &[u8]) -> Bytes {
    let mut bytes = ws::header(ws::Data::Binary, frame.len()).as_bytes().to_vec();
    bytes.extend_from_slice(frame);
    Bytes::from(bytes)
}
