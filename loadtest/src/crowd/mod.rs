//! Very many subscribers at once, at as little cost as reading allows: what they take of the machine, the relay lacks.
//!
//! A few threads of the system, each with one buffer and one epoll for all of its sockets; of a stream, only the
//! WebSocket headers are looked at (`walker`), and each so many messages one for its stamp. They don't come back when
//! they are cut, and don't judge what they read, but that what comes compressed and is looked at is an event: [`crate::subscriber`] does the one and [`crate::judge`] the other.
//!
//! What must hold: memory is a buffer a thread and some bytes a reader; a reader's count is of whole messages.

mod hostile;
mod reader;
mod walker;

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use runtime::clock::Clock;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};

pub use self::hostile::{Hostile, Manner};
use self::reader::Reader;
use crate::traffic::{latency::Latencies, stamp};

/// Who reads what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the relay listens.
    pub address: SocketAddr,
    /// What each asks for; of several, readers take turns.
    pub requests: Vec<Request>,
    /// How many readers.
    pub readers: usize,
    /// Threads that read.
    pub threads: usize,
    /// Of each so many messages of a reader, one is looked at for its stamp; none where it is 0.
    pub look_every: u64,
    /// A reader leaves when it has so many messages.
    pub until: Option<u64>,
    /// Its threads run where nobody else wants the processor, at the lowest priority. For readers that are there to be
    /// served, while it is measured how soon others are: all those stand on machines of their own in the world, where no
    /// reader's work delays the relay's or another's. At one priority, what is measured would be how many threads share
    /// this machine.
    pub gives_way: bool,
}

/// What a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Begin after this seq; live without it.
    pub cursor: Option<u64>,
    /// `shard=`, where it is asked for.
    pub shard: Option<String>,
    /// Offers permessage-deflate.
    pub deflate: bool,
}

/// How a reader's connection ended, when it was not the reader who left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The handshake was answered with something else.
    Refused(String),
    /// With a close frame: code and reason.
    Closed(Option<u16>, String),
    /// Without a word.
    Gone(String),
}

/// Readers. They leave when their value is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    config: Config,
    started: Instant,
    places: Vec<Place>,
    latencies: Mutex<Latencies>,
    endings: Mutex<BTreeMap<Ending, usize>>,
    stop: AtomicBool,
}

/// What is known of a reader from outside.
#[derive(Default)]
struct Place {
    open: AtomicBool,
    ended: AtomicBool,
    messages: AtomicU64,
    compressed: AtomicU64,
    inflated: AtomicU64,
    bytes: AtomicU64,
    /// When it had all that it wanted, in microseconds since the start; 0 before.
    done_micros: AtomicU64,
}

/// What is read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often a thread with nothing to read looks whether it is to end.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
const POLL: Duration = Duration::from_millis(2);
/// The system's number for the lowest priority.
const LOWEST: i32 = 19;

impl Request {
    fn head(&self, address: SocketAddr) -> String {
        let mut target = "/xrpc/com.atproto.sync.subscribeRepos".to_owned();
        let mut mark = '?';
        for (name, value) in [("cursor", self.cursor.map(|cursor| cursor.to_string())), ("shard", self.shard.clone())] {
            if let Some(value) = value {
                let _infallible = write!(target, "{mark}{name}={value}");
                mark = '&';
            }
        }
        let deflate = if self.deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{deflate}\r\n"
        )
    }
}

impl Crowd {
    /// Starts the threads; they connect, all at once, and read.
    pub fn start(config: Config) -> io::Result<Crowd> {
        let mut places = Vec::new();
        places.resize_with(config.readers, Place::default);
        let threads = config.threads.clamp(1, config.readers.max(1));
        let shared = Arc::new(Shared {
            config,
            started: Instant::now(),
            places,
            latencies: Mutex::default(),
            endings: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let threads = (0..threads).map(|number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("crowd-{number}")).spawn(move || {
                if let Err(error) = run(&shared, number, threads) {
                    tracing::error!(%error, "a thread of the crowd ended");
                    shared.end_all(number, threads, &error);
                }
            })
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        Ok(Crowd { shared, threads })
    }

    /// How many there are, whatever became of them.
    pub fn readers(&self) -> usize {
        self.shared.places.len()
    }

    /// Readers whose handshake is done.
    pub fn open(&self) -> usize {
        self.shared.places.iter().filter(|place| place.open.load(Ordering::Relaxed)).count()
    }

    /// Readers whose connection has ended, and not because they had all they wanted.
    pub fn ended(&self) -> usize {
        self.shared.places.iter().filter(|place| place.ended.load(Ordering::Relaxed)).count()
    }

    /// How connections have ended, and how many so.
    pub fn endings(&self) -> Vec<(Ending, usize)> {
        let endings = self.shared.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.iter().map(|(ending, count)| (ending.clone(), *count)).collect()
    }

    /// Messages of all together.
    pub fn messages(&self) -> u64 {
        self.shared.places.iter().map(|place| place.messages.load(Ordering::Relaxed)).sum()
    }

    /// Those of them that were compressed.
    pub fn compressed(&self) -> u64 {
        self.shared.places.iter().map(|place| place.compressed.load(Ordering::Relaxed)).sum()
    }

    /// Those of them that were looked at: they could be inflated, and were events. A reader's connection ends at one of
    /// which this does not hold.
    pub fn inflated(&self) -> u64 {
        self.shared.places.iter().map(|place| place.inflated.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of all together, as they came from the sockets.
    pub fn bytes(&self) -> u64 {
        self.shared.places.iter().map(|place| place.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Messages of the one that has the fewest.
    pub fn slowest(&self) -> u64 {
        self.shared.places.iter().map(|place| place.messages.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Messages of the one that has the most.
    pub fn fastest(&self) -> u64 {
        self.shared.places.iter().map(|place| place.messages.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// How long after the start each was done that is done.
    pub fn done(&self) -> Vec<Duration> {
        let times = self.shared.places.iter().map(|place| place.done_micros.load(Ordering::Acquire));
        times.filter(|micros| *micros > 0).map(Duration::from_micros).collect()
    }

    /// How long messages took since their hosts sent them, of those that were looked at since this was last asked.
    pub fn take_latencies(&self) -> Latencies {
        std::mem::take(&mut *self.shared.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all handshakes are done; false if they are not within `limit`, or one has failed.
    pub async fn wait_open(&self, limit: Duration) -> bool {
        self.wait_unless_ended(limit, || self.open() == self.readers()).await
    }

    /// Waits until each has so many messages; false if one has not within `limit`, or its connection has ended.
    pub async fn wait_for(&self, messages: u64, limit: Duration) -> bool {
        self.wait_unless_ended(limit, || self.slowest() >= messages).await
    }

    /// Waits until each has left with all that it wanted.
    pub async fn wait_done(&self, limit: Duration) -> bool {
        self.wait_unless_ended(limit, || self.done().len() == self.readers()).await
    }

    async fn wait_unless_ended(&self, limit: Duration, met: impl Fn() -> bool) -> bool {
        self.wait(limit, || met() || self.ended() > 0).await;
        met()
    }

    /// Waits until `met`; false if that takes longer than `limit`.
    pub async fn wait(&self, limit: Duration, met: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while !met() {
            if started.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn end(&self, place: &Place, ending: Ending) {
        *self.endings.lock().unwrap_or_else(PoisonError::into_inner).entry(ending).or_default() += 1;
        place.ended.store(true, Ordering::Relaxed);
    }

    fn end_all(&self, thread: usize, threads: usize, error: &io::Error) {
        for place in self.places.iter().skip(thread).step_by(threads) {
            if !place.ended.load(Ordering::Relaxed) {
                self.end(place, Ending::Gone(error.to_string()));
            }
        }
    }
}

/// Reads for the places `thread`, `thread + threads`, …
fn run(shared: &Shared, thread: usize, threads: usize) -> io::Result<()> {
    let Config { address, requests, readers, look_every, until, gives_way, .. } = &shared.config;
    if *gives_way {
        // Of this thread alone: on Linux each has a priority of its own.
        rustix::process::nice(LOWEST)?;
    }
    let usual = Request::default();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut all: Vec<Option<Reader>> = Vec::new();
    for number in (thread..*readers).step_by(threads) {
        let request = requests.get(number % requests.len().max(1)).unwrap_or(&usual);
        let reader = Reader::connect(*address, request, *look_every)?;
        epoll::add(&epoll, &reader.socket, EventData::new_u64(all.len() as u64), EventFlags::IN)?;
        all.push(Some(reader));
    }
    let clock = Clock::system();
    let (mut buffer, mut ready) = (vec![0; BUFFER_BYTES], Vec::with_capacity(256));
    while !shared.stop.load(Ordering::Relaxed) {
        ready.clear();
        epoll::wait(&epoll, spare_capacity(&mut ready), Some(&LOOK_UP))?;
        for event in ready.drain(..) {
            let number = event.data.u64() as usize;
            let Some(reader) = all.get_mut(number).and_then(Option::as_mut) else { continue };
            let place = &shared.places[thread + number * threads];
            let mut sent = Vec::new();
            let came = reader.read(&mut buffer, &mut |message| sent.extend(stamp::read(message)));
            if !sent.is_empty() {
                let now = clock.now_micros();
                let mut latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                sent.iter().for_each(|sent| latencies.record(now.saturating_sub(*sent)));
            }
            let messages = reader.messages();
            place.messages.store(messages, Ordering::Relaxed);
            place.compressed.store(reader.compressed(), Ordering::Relaxed);
            place.inflated.store(reader.inflated(), Ordering::Relaxed);
            place.bytes.fetch_add(came.bytes as u64, Ordering::Relaxed);
            place.open.store(came.open, Ordering::Relaxed);
            let done = until.is_some_and(|until| messages >= until);
            if done {
                let micros = u64::try_from(shared.started.elapsed().as_micros()).unwrap_or(u64::MAX);
                place.done_micros.store(micros.max(1), Ordering::Release);
            } else if let Some(ending) = came.ending.clone() {
                shared.end(place, ending);
            }
            if done || came.ending.is_some() {
                // Closing the socket takes it out of the epoll.
                all[number] = None;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Answers each connection's handshake, and sends `messages` messages of 10,000 bytes, then a close.
    fn server(connections: usize, messages: usize) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            for _ in 0..connections {
                let (mut socket, _) = listener.accept().unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    socket.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                assert!(String::from_utf8(head).unwrap().contains("?cursor=7&shard=1/2 HTTP"));
                socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
                all.push(socket);
            }
            let mut message = vec![0x82, 126];
            message.extend(10_000_u16.to_be_bytes());
            message.resize(10_004, 0x5a);
            for _ in 0..messages {
                all.iter_mut().for_each(|socket| socket.write_all(&message).unwrap());
            }
            all.iter_mut().for_each(|socket| socket.write_all(b"\x88\x05\x03\xe9bye").unwrap());
        });
        address
    }

    fn config(address: SocketAddr, until: Option<u64>) -> Config {
        let request = Request { cursor: Some(7), shard: Some("1/2".to_owned()), deflate: false };
        Config { address, requests: vec![request], readers: 9, threads: 2, look_every: 3, until, gives_way: false }
    }

    #[tokio::test]
    async fn each_counts_its_messages_and_sees_how_it_ends() {
        let crowd = Crowd::start(config(server(9, 20), None)).unwrap();
        assert!(crowd.wait(LONG, || crowd.ended() == 9).await, "{:?}", crowd.endings());
        assert_eq!((crowd.slowest(), crowd.fastest(), crowd.messages()), (20, 20, 180));
        assert_eq!(crowd.endings(), [(Ending::Closed(Some(1001), "bye".to_owned()), 9)]);
        assert!(crowd.bytes() >= 180 * 10_004);
        assert_eq!(crowd.take_latencies().count(), 0);
    }

    #[tokio::test]
    async fn who_has_enough_leaves() {
        let crowd = Crowd::start(config(server(9, 1), Some(1))).unwrap();
        assert!(crowd.wait_done(LONG).await, "{:?}", crowd.endings());
        assert_eq!((crowd.done().len(), crowd.ended()), (9, 0));
    }
}
