//! Reads behind the ring: large pieces of the log, framed where they were read to, shared by all who are near the same
//! place.
//!
//! ```text
//!   log ──read_block──▶ piece ──▶ pieces ──┬─ turn ─▶ subscriber ──▶ socket
//!          ▲                       ▲       └─ turn ─▶ subscriber
//!          └─ one flight a place   └─ the next one is read while this one is sent
//! ```
//!
//! - A piece is read once for a herd of subscribers that come back with the same cursor: who wants what is being read
//!   waits for that flight, and who is a little further finds the piece when it has landed.
//! - Who has a piece to send waits for a turn, first come, first served, and gives it back when its socket is full or the
//!   piece is sent. There are fewer turns than processors: so a herd goes on side by side, near the same pieces, and a
//!   live subscriber finds a task or two before it and not hundreds. What has been missed and is still in memory is sent
//!   by turns too: the last of what a herd has missed.
//! - Memory: the pieces that are kept, bounded in bytes; those of the reads under way, bounded in number, each of which
//!   lasts until its reader has a turn; and those of the turns.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::ws::{Data, header};
use storage::{
    log::{Block, EventLog, ReadError},
    seq::Seq,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    chunk::{Chunk, Frames, HEADER_BYTES_MAX, Mark},
    metrics::Metrics,
    pieces::{Pieces, Wanted},
    withheld::{Filter, Withheld},
};

const _: () = assert!(HEADER_BYTES_MAX <= Block::ROOM_BYTES, "a WebSocket header fits before a frame in a block");

/// How long a piece is kept that nobody uses.
const UNUSED_MAX: Duration = Duration::from_secs(5);

/// Sizes of replay.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is read from the log at a time.
    pub piece_bytes: usize,
    /// Pieces that are kept to be shared.
    pub pieces_bytes_max: usize,
    /// Reads at once.
    pub reads_max: usize,
    /// Subscribers that send what they replay at once: by default one less than there are processors, so that a herd
    /// leaves one to hosts, to the log and to live subscribers.
    pub turns_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            piece_bytes: 512 << 10,
            pieces_bytes_max: 32 << 20,
            reads_max: 4,
            turns_max: std::thread::available_parallelism().map_or(1, |cpus| cpus.get().saturating_sub(1).max(1)),
        }
    }
}

/// Reads of the log for subscribers that are behind.
pub struct Replay {
    reader: Arc<Reader>,
    turns: Arc<Semaphore>,
    /// Reads ahead of their readers; they end with this.
    ahead: Mutex<JoinSet<()>>,
}

/// The right to send: to be dropped when the socket is full or all is sent.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// What a subscriber that is behind sends next.
#[derive(Debug)]
pub struct Piece {
    /// The chunk in which it goes on.
    pub chunk: Arc<Chunk>,
    /// Its turn to send it, where it comes from the log.
    pub turn: Option<Turn>,
}

/// How far readers may be led.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The last event of which the hub knows whether it may be served. A later one might end a takedown: who was sent on
    /// past it without would never hear of it.
    pub tail: Seq,
    /// What is after it is in memory.
    pub ring_after: Seq,
}

impl Replay {
    /// Nothing is read yet.
    pub fn new(log: Arc<dyn EventLog>, withheld: Arc<Withheld>, config: &Config, metrics: Metrics) -> Replay {
        let reader = Reader {
            log,
            withheld,
            reads: Arc::new(Semaphore::new(config.reads_max.max(1))),
            shelf: Mutex::new(Shelf { pieces: Pieces::new(config.pieces_bytes_max), flights: HashMap::new() }),
            piece_bytes: config.piece_bytes,
            metrics,
        };
        let turns = Arc::new(Semaphore::new(config.turns_max.max(1)));
        Replay { reader: Arc::new(reader), turns, ahead: Mutex::default() }
    }

    /// What a reader at `position` sends next; `None` where the log has nothing newer that may be read.
    pub async fn read(&self, position: Seq, reach: Reach) -> Result<Option<Piece>, ReadError> {
        loop {
            let fetched = if self.reader.has(position) {
                None
            } else {
                let Some(fetched) = self.reader.fetch(position, reach.tail).await? else { return Ok(None) };
                Some(fetched)
            };
            let turn = self.turn().await?;
            let chunk = match fetched {
                Some(fetched) => Some(fetched.chunk),
                None => self.reader.find(position),
            };
            // Else it has been dropped meanwhile.
            if let Some(chunk) = chunk {
                self.read_ahead(chunk.last(), reach);
                return Ok(Some(Piece { chunk, turn: Some(turn) }));
            }
        }
    }

    /// Waits for the turn to send what was read.
    pub async fn turn(&self) -> Result<Turn, ReadError> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| storage::error::Error::Closed)?;
        Ok(Turn { _permit: permit })
    }

    /// Forgets what was read, because it may be served no longer.
    pub fn forget(&self) {
        self.reader.shelf().pieces.clear();
    }

    /// Lets go of what nobody has read for a while.
    pub fn forget_unused(&self) {
        let mut shelf = self.reader.shelf();
        if let Some(since) = Instant::now().checked_sub(UNUSED_MAX) {
            shelf.pieces.forget_unused_since(since);
        }
        self.reader.show(&shelf);
    }

    /// Reads what follows `position`, for whoever will come there, if nobody has and there is room.
    fn read_ahead(&self, position: Seq, reach: Reach) {
        if position >= reach.ring_after {
            return;
        }
        let Some((flight, permit)) = self.reader.start_ahead(position) else { return };
        let reader = Arc::clone(&self.reader);
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        while ahead.try_join_next().is_some() {}
        ahead.spawn(async move {
            let _permit = permit;
            // Who comes for it meets the failure itself.
            let _read = reader.land(flight, reach.tail, Wanted::Ahead).await;
        });
    }
}

/// The log, and what was read of it.
struct Reader {
    log: Arc<dyn EventLog>,
    withheld: Arc<Withheld>,
    reads: Arc<Semaphore>,
    shelf: Mutex<Shelf>,
    piece_bytes: usize,
    metrics: Metrics,
}

struct Shelf {
    pieces: Pieces,
    /// Reads under way, by the position they go on from.
    flights: HashMap<Seq, watch::Receiver<Option<Arc<Chunk>>>>,
}

/// A read that others may wait for; gone when this is dropped.
struct Flight {
    reader: Arc<Reader>,
    position: Seq,
    landed: watch::Sender<Option<Arc<Chunk>>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.reader.shelf().flights.remove(&self.position);
    }
}

/// A piece that was read for somebody.
struct Fetched {
    chunk: Arc<Chunk>,
    /// Held by who has read until it has its turn: what is read and not sent yet is bounded.
    _permit: Option<OwnedSemaphorePermit>,
}

/// How a reader comes by the piece it wants.
enum Way {
    Found(Arc<Chunk>),
    Wait(watch::Receiver<Option<Arc<Chunk>>>),
    Read(Flight),
}

impl Reader {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, shelf: &Shelf) {
        self.metrics.replay_bytes.set(i64::try_from(shelf.pieces.bytes()).unwrap_or(i64::MAX));
    }

    fn has(&self, position: Seq) -> bool {
        self.shelf().pieces.has(position, self.withheld.generation())
    }

    fn find(&self, position: Seq) -> Option<Arc<Chunk>> {
        let chunk = self.shelf().pieces.find(position, self.withheld.generation(), Instant::now())?;
        self.metrics.replay_shared.inc();
        Some(chunk)
    }

    /// Reads what follows `position`, or waits for who does.
    async fn fetch(self: &Arc<Self>, position: Seq, tail: Seq) -> Result<Option<Fetched>, ReadError> {
        loop {
            match self.way(position) {
                Way::Found(chunk) => return Ok(Some(Fetched { chunk, _permit: None })),
                Way::Wait(mut landed) => {
                    // Closed without a piece means that the read has failed, or its reader has left.
                    let chunk = landed.wait_for(Option::is_some).await.ok().and_then(|chunk| chunk.clone());
                    let of_now = |chunk: &Arc<Chunk>| chunk.generation() == self.withheld.generation();
                    if let Some(chunk) = chunk.filter(of_now) {
                        self.metrics.replay_shared.inc();
                        return Ok(Some(Fetched { chunk, _permit: None }));
                    }
                }
                Way::Read(flight) => {
                    let permit = self.permit().await?;
                    // Another's read may have brought it, from a place a little before.
                    if let Some(chunk) = self.find(position) {
                        return Ok(Some(Fetched { chunk, _permit: None }));
                    }
                    let chunk = self.land(flight, tail, Wanted::Now).await?;
                    return Ok(chunk.map(|chunk| Fetched { chunk, _permit: Some(permit) }));
                }
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        permit.map_err(|_| storage::error::Error::Closed.into())
    }

    fn way(self: &Arc<Self>, position: Seq) -> Way {
        let generation = self.withheld.generation();
        let mut shelf = self.shelf();
        if let Some(chunk) = shelf.pieces.find(position, generation, Instant::now()) {
            self.metrics.replay_shared.inc();
            return Way::Found(chunk);
        }
        if let Some(landed) = shelf.flights.get(&position) {
            return Way::Wait(landed.clone());
        }
        Way::Read(self.take_off(&mut shelf, position))
    }

    /// The right to read ahead from `position`, if nobody has and there is room.
    fn start_ahead(self: &Arc<Self>, position: Seq) -> Option<(Flight, OwnedSemaphorePermit)> {
        let generation = self.withheld.generation();
        let mut shelf = self.shelf();
        let known = shelf.pieces.has(position, generation) || shelf.flights.contains_key(&position);
        if known || !shelf.pieces.may_read_ahead() {
            return None;
        }
        let permit = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        Some((self.take_off(&mut shelf, position), permit))
    }

    fn take_off(self: &Arc<Self>, shelf: &mut Shelf, position: Seq) -> Flight {
        let (landed, waits) = watch::channel(None);
        shelf.flights.insert(position, waits);
        Flight { reader: Arc::clone(self), position, landed }
    }

    /// Does the read of a flight and shares what it brings.
    async fn land(&self, flight: Flight, tail: Seq, wanted: Wanted) -> Result<Option<Arc<Chunk>>, ReadError> {
        let position = flight.position;
        self.metrics.replay_reads.inc();
        let block = self.log.read_block(position, self.piece_bytes).await?;
        self.metrics.replay_read_bytes.inc_by(block.buffer.len() as u64);
        let Some(chunk) = encode(position, tail, block, &self.withheld.filter()) else { return Ok(None) };
        let chunk = Arc::new(chunk);
        {
            let mut shelf = self.shelf();
            shelf.pieces.insert(Arc::clone(&chunk), wanted, Instant::now());
            self.show(&shelf);
        }
        flight.landed.send_replace(Some(Arc::clone(&chunk)));
        Ok(Some(chunk))
    }
}

/// Makes a chunk of a block, in its buffer: each frame's header is written into the room before it, and the frames that
/// may be served move together, so that one slice is all of them. `None` where nothing of it is up to `tail`.
fn encode(position: Seq, tail: Seq, block: Block, filter: &Filter<'_>) -> Option<Chunk> {
    let Block { mut buffer, mut events } = block;
    events.truncate(events.partition_point(|event| event.seq <= tail));
    let last = events.last()?.seq;
    let mut marks = Vec::with_capacity(events.len());
    let mut at = 0;
    for event in events.iter().filter(|event| filter.serves_event(event.account, event.seq)) {
        let header = header(Data::Binary, event.frame.len());
        let (start, body) = (at, at + header.as_bytes().len());
        at = body + event.frame.len();
        // The room before each frame takes its header, so nothing is written past what has been moved.
        buffer.copy_within(event.frame.clone(), body);
        buffer[start..body].copy_from_slice(header.as_bytes());
        marks.push(Mark { seq: event.seq, account: event.account, start: offset(start), end: offset(at) });
    }
    buffer.truncate(at);
    Some(Chunk::new(position, last, filter.generation(), Frames::new(buffer.freeze(), marks)))
}

/// A place in a piece.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a piece is some MiB, or one event")
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use proptest::prelude::*;
    use storage::{Stores, conformance::sample, log::Published, memory, repos::LocalStatus};
    use tokio::task::yield_now;

    use super::*;

    const ACCOUNTS: u64 = 5;

    struct World {
        stores: Stores,
        withheld: Arc<Withheld>,
        replay: Arc<Replay>,
        metrics: Metrics,
    }

    impl World {
        async fn new(config: &Config, sizes: &[usize]) -> World {
            let stores = memory::open();
            for (number, size) in (0..).zip(sizes) {
                let event = sample::accepted(number % ACCOUNTS, number, 120 + size);
                stores.log.append(vec![event]).await.unwrap();
            }
            let (withheld, _end) = Withheld::load(stores.repos.clone(), stores.log.clone()).await.unwrap();
            let withheld = Arc::new(withheld);
            let metrics = Metrics::register(&Registry::new()).unwrap();
            let replay = Arc::new(Replay::new(stores.log.clone(), withheld.clone(), config, metrics.clone()));
            World { stores, withheld, replay, metrics }
        }

        fn reach(&self) -> Reach {
            let tail = self.stores.log.window().borrow().last;
            Reach { tail, ring_after: tail }
        }

        /// Appends what says whether an account is taken down, and does what the hub does then.
        async fn set_taken_down(&self, account: u64, taken_down: bool) -> Seq {
            let mut event = sample::accepted(account, 1_000_000, 200);
            if taken_down {
                event.state.local = LocalStatus::TakenDown;
            }
            let before = self.reach().tail;
            self.stores.log.append(vec![event]).await.unwrap();
            let events = self.stores.log.read(before, 1).await.unwrap();
            if self.withheld.fold(&events) {
                self.replay.forget();
            }
            events[0].seq
        }

        /// The frames of the log after `after` that may be served.
        async fn served(&self, after: Seq) -> Vec<(Seq, Vec<u8>)> {
            let (mut all, mut at) = (Vec::new(), after);
            loop {
                let events = self.stores.log.read(at, 10_000).await.unwrap();
                let Some(last) = events.last() else { return all };
                at = last.seq;
                let filter = self.withheld.filter();
                all.extend(events.iter().filter(|event| filter.serves(event)).map(on_the_wire));
            }
        }
    }

    fn on_the_wire(event: &Published) -> (Seq, Vec<u8>) {
        let mut bytes = header(Data::Binary, event.frame.len()).as_bytes().to_vec();
        bytes.extend_from_slice(&event.frame);
        (event.seq, bytes)
    }

    /// Reads from `position` to the end as a subscriber does, with `pauses` before it sends; gives what it sent.
    async fn read_to_the_end(world: &World, mut position: Seq, pauses: usize) -> Vec<(Seq, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(Piece { chunk, turn }) = world.replay.read(position, world.reach()).await.unwrap() {
            assert!(chunk.continues(position));
            for _ in 0..pauses {
                yield_now().await;
            }
            if chunk.generation() != world.withheld.generation() {
                continue;
            }
            let frames = chunk.frames();
            for mark in &frames.marks()[frames.first_after(position)..] {
                assert!(world.withheld.filter().serves_event(mark.account, mark.seq));
                sent.push((mark.seq, frames.bytes(mark.start, mark.end).to_vec()));
            }
            position = chunk.last();
            drop(turn);
        }
        sent
    }

    fn config() -> impl Strategy<Value = Config> {
        (1usize..4_000, 1usize..20_000, 1usize..4, 1usize..4).prop_map(
            |(piece_bytes, pieces_bytes_max, reads_max, turns_max)| Config {
                piece_bytes,
                pieces_bytes_max,
                reads_max,
                turns_max,
            },
        )
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever the sizes, whoever reads from wherever: all get the log's frames.
        #[test]
        fn readers_get_exactly_the_log(
            config in config(),
            sizes in prop::collection::vec(0usize..600, 1..60),
            readers in prop::collection::vec((0u64..60, 0usize..4), 1..8),
        ) {
            run(async {
                let world = World::new(&config, &sizes).await;
                world.set_taken_down(3, true).await;
                let reads = readers.iter().map(|(cursor, pauses)| read_to_the_end(&world, Seq(*cursor), *pauses));
                let all = futures_util::future::join_all(reads).await;
                for (sent, (cursor, _)) in all.iter().zip(&readers) {
                    assert_eq!(*sent, world.served(Seq(*cursor)).await, "after {cursor}");
                }
            });
        }

        /// Accounts are taken down and restored while all read: nothing is sent under an old state, and of the other
        /// accounts nothing is left out or sent twice.
        #[test]
        fn takedowns_are_in_force_at_once(
            config in config(),
            sizes in prop::collection::vec(0usize..600, 1..60),
            readers in prop::collection::vec((0u64..60, 0usize..4), 1..8),
            changes in prop::collection::vec((any::<bool>(), 0usize..30), 1..6),
        ) {
            run(async {
                const CHANGED: u64 = 3;
                let world = World::new(&config, &sizes).await;
                let reads = readers.iter().map(|(cursor, pauses)| read_to_the_end(&world, Seq(*cursor), *pauses));
                let change = async {
                    for (taken_down, pauses) in &changes {
                        for _ in 0..*pauses {
                            yield_now().await;
                        }
                        world.set_taken_down(CHANGED, *taken_down).await;
                    }
                };
                let (all, ()) = tokio::join!(futures_util::future::join_all(reads), change);
                let everything: HashMap<Seq, Published> =
                    world.stores.log.read(Seq(0), 1 << 20).await.unwrap().into_iter().map(|event| (event.seq, event)).collect();
                let changed = everything.values().find(|event| event.seq.0 == CHANGED + 1).map(|event| event.account);
                for (sent, (cursor, _)) in all.iter().zip(&readers) {
                    assert!(sent.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
                    assert!(sent.iter().all(|(seq, frame)| on_the_wire(&everything[seq]) == (*seq, frame.clone())));
                    let of_others = |seq: &Seq| Some(everything[seq].account) != changed && seq.0 <= sizes.len() as u64;
                    let got: Vec<Seq> = sent.iter().map(|(seq, _)| *seq).filter(of_others).collect();
                    let wanted = (cursor + 1..=sizes.len() as u64).map(Seq).filter(of_others);
                    assert_eq!(got, wanted.collect::<Vec<_>>());
                }
            });
        }
    }

    #[test]
    fn a_herd_reads_once() {
        run(async {
            let config = Config { piece_bytes: 2_000, pieces_bytes_max: 1 << 20, reads_max: 2, turns_max: 2 };
            let world = World::new(&config, &[400; 200]).await;
            let reads = (0..50).map(|number| read_to_the_end(&world, Seq(number % 3), number as usize % 4));
            let all = futures_util::future::join_all(reads).await;
            assert!(all.iter().zip(0..).all(|(sent, number)| sent.len() == 200 - number % 3));
            let window = world.stores.log.window().borrow().bytes;
            let read = world.metrics.replay_read_bytes.get();
            assert!(read < window * 6 / 5, "{read} bytes read of {window}");
            world.replay.forget();
            assert_eq!(world.replay.reader.shelf().flights.len(), 0);
        });
    }

    #[test]
    fn memory_is_bounded_whoever_reads() {
        run(async {
            let config = Config { piece_bytes: 2_000, pieces_bytes_max: 20_000, reads_max: 2, turns_max: 2 };
            let world = World::new(&config, &[400; 300]).await;
            let most = std::cell::Cell::new(0);
            let reads = (0..30).map(|number| read_to_the_end(&world, Seq(number * 10), 3));
            let watch = async {
                for _ in 0..5_000 {
                    most.set(most.get().max(world.replay.reader.shelf().pieces.bytes()));
                    yield_now().await;
                }
            };
            let (all, ()) = tokio::join!(futures_util::future::join_all(reads), watch);
            assert!(all.iter().zip(0..).all(|(sent, number)| sent.len() == 300 - number * 10));
            assert!((1..=20_000).contains(&most.get()), "{} bytes", most.get());
        });
    }
}
