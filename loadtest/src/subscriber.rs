//! A consumer of a relay's stream that comes back after every cut and goes on at its cursor, as real ones do.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::event::{Routed, route};
use bytes::Bytes;
use futures_util::StreamExt;
use runtime::clock::Clock;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    judge::Received,
    traffic::{latency::Latencies, stamp},
};

/// Where and how to read.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ws://HOST:PORT`.
    pub url: String,
    /// The cursor of the first connection; `None` is live.
    pub cursor: Option<u64>,
    /// What to keep of each event.
    pub keep: Keep,
}

/// Servers of the same stream, any of which will do.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// `ws://HOST:PORT` of each; the first is tried first.
    pub urls: Vec<String>,
    /// Without a word for so long, a node is left for the next.
    pub silence_max: Duration,
}

/// What a subscriber keeps of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// How many, and the last seq: the least work.
    Count,
    /// Also what a judge needs, about 120 bytes an event.
    Received,
    /// Also the frames.
    Frames,
}

/// A running subscriber. Ends with its value.
pub struct Subscriber {
    reading: Arc<Mutex<Reading>>,
    events: watch::Receiver<u64>,
    tasks: JoinSet<()>,
}

/// What a subscriber has read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Events.
    pub events: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// When the first event came, and when the last.
    pub came: Option<(Instant, Instant)>,
    /// The last event's seq; the cursor of the next connection.
    pub last_seq: Option<u64>,
    /// All events, with [`Keep::Received`] and more.
    pub received: Vec<Received>,
    /// When each of them came.
    pub times: Vec<Instant>,
    /// How long events took since their hosts sent them, by the stamps of those that have one.
    pub latencies: Latencies,
    /// Their frames, with [`Keep::Frames`].
    pub frames: Vec<Bytes>,
    /// Connections that came about.
    pub connections: u64,
    /// `#info` and error frames, and frames that are none, in words.
    pub notices: Vec<String>,
}

const RECONNECT_AFTER: Duration = Duration::from_millis(50);

impl Subscriber {
    /// Connects, again and again.
    pub fn start(config: Config) -> Subscriber {
        let nodes = Nodes { urls: vec![config.url], silence_max: Duration::MAX };
        Subscriber::start_among(nodes, config.cursor, config.keep)
    }

    /// Connects, again and again, to the next node wherever one is gone or says nothing.
    pub fn start_among(nodes: Nodes, cursor: Option<u64>, keep: Keep) -> Subscriber {
        let reading = Arc::new(Mutex::new(Reading { last_seq: cursor, ..Reading::default() }));
        let (events_out, events) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(nodes, keep, Arc::clone(&reading), events_out));
        Subscriber { reading, events, tasks }
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        *self.events.borrow()
    }

    /// Waits until `events` have come; false if they have not within `limit`.
    pub async fn wait_for(&self, events: u64, limit: Duration) -> bool {
        let mut seen = self.events.clone();
        let waited = timeout(limit, seen.wait_for(|seen| *seen >= events)).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Waits until nothing has come for `quiet`; false if something still does after `limit`.
    pub async fn wait_for_quiet(&self, quiet: Duration, limit: Duration) -> bool {
        let mut seen = self.events.clone();
        let settled = async { while timeout(quiet, seen.changed()).await.is_ok_and(|changed| changed.is_ok()) {} };
        timeout(limit, settled).await.is_ok()
    }

    /// Looks at what has been read so far.
    pub fn look<T>(&self, look: impl FnOnce(&Reading) -> T) -> T {
        look(&lock(&self.reading))
    }

    /// How long events took since their hosts sent them, of those that came since this was last asked.
    pub fn take_latencies(&self) -> Latencies {
        std::mem::take(&mut lock(&self.reading).latencies)
    }

    /// Disconnects and gives what was read.
    pub async fn stop(mut self) -> Reading {
        self.tasks.shutdown().await;
        std::mem::take(&mut *lock(&self.reading))
    }
}

async fn run(nodes: Nodes, keep: Keep, reading: Arc<Mutex<Reading>>, events: watch::Sender<u64>) {
    let clock = Clock::system();
    let limits = WebSocketConfig::default().max_message_size(Some(8 << 20)).max_frame_size(Some(8 << 20));
    for node in nodes.urls.iter().cycle() {
        let cursor = lock(&reading).last_seq.map_or(String::new(), |cursor| format!("?cursor={cursor}"));
        let url = format!("{node}/xrpc/com.atproto.sync.subscribeRepos{cursor}");
        let connected = timeout(nodes.silence_max, connect_async_with_config(url, Some(limits), true)).await;
        if let Ok(Ok((mut socket, _))) = connected {
            lock(&reading).connections += 1;
            while let Ok(Some(Ok(message))) = timeout(nodes.silence_max, socket.next()).await {
                if let Message::Binary(frame) = message {
                    let mut reading = lock(&reading);
                    reading.take(frame, keep, clock.now_micros());
                    events.send_replace(reading.events);
                }
            }
        }
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

impl Reading {
    /// From the first event to the last.
    pub fn span(&self) -> Duration {
        self.came.map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    fn take(&mut self, frame: Bytes, keep: Keep, now_micros: u64) {
        let seq = match route(&frame) {
            Ok(Routed::Event(route)) => route.seq,
            Ok(Routed::Info { name, message } | Routed::Error { error: name, message }) => {
                self.notices.push(format!("{name}: {}", message.unwrap_or_default()));
                return;
            }
            Ok(Routed::Unknown { .. }) => {
                self.notices.push("unknown frame".to_owned());
                return;
            }
            Err(error) => {
                self.notices.push(error.to_string());
                return;
            }
        };
        let now = Instant::now();
        self.came = Some((self.came.map_or(now, |(first, _)| first), now));
        self.events += 1;
        self.bytes += frame.len() as u64;
        self.last_seq = Some(seq);
        if let Some(sent) = stamp::read(&frame) {
            self.latencies.record(now_micros.saturating_sub(sent));
        }
        match keep {
            Keep::Count => return,
            Keep::Received => {}
            Keep::Frames => self.frames.push(frame.clone()),
        }
        self.received.extend(Received::read(&frame));
        self.times.push(now);
    }
}

fn lock(reading: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}
