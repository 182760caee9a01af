//! A subscriber that does the least: it counts, and notes how long each event took from its host's send.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::event::{self, Event};
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

use super::histogram::Histogram;

/// A running receiver. Ends with its value.
pub struct Receiver {
    latencies: Arc<Mutex<Histogram>>,
    arrived: watch::Receiver<Arrived>,
    _tasks: JoinSet<()>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    /// Events so far.
    pub events: u64,
    /// When the last of them came.
    pub at: Option<Instant>,
}

const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(50);
const FRAME_BYTES_MAX: usize = 8 << 20;

impl Receiver {
    /// Reads a relay's stream (`ws://HOST:PORT`) from its very beginning.
    pub fn start(url: &str) -> Receiver {
        let latencies = Arc::new(Mutex::new(Histogram::default()));
        let (arrivals, arrived) = watch::channel(Arrived::default());
        let mut tasks = JoinSet::new();
        let url = format!("{url}/xrpc/com.atproto.sync.subscribeRepos?cursor=0");
        tasks.spawn(read(url, Arc::clone(&latencies), arrivals));
        Receiver { latencies, arrived, _tasks: tasks }
    }

    /// How far it is.
    pub fn arrived(&self) -> Arrived {
        *self.arrived.borrow()
    }

    /// Waits until `events` have come; false if they have not within `limit`.
    pub async fn wait_for(&self, events: u64, limit: Duration) -> bool {
        let mut arrived = self.arrived.clone();
        let waited = timeout(limit, arrived.wait_for(|arrived| arrived.events >= events)).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// The latencies since this was last asked, from an event's `time` until it was here, in microseconds.
    pub fn take_latencies(&self) -> Histogram {
        std::mem::take(&mut *lock(&self.latencies))
    }
}

async fn read(url: String, latencies: Arc<Mutex<Histogram>>, arrivals: watch::Sender<Arrived>) {
    let clock = Clock::system();
    let limits = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .read_buffer_size(256 * 1024);
    // It begins anew where it was cut, from the beginning: what came twice would be counted twice, and so be seen.
    loop {
        if let Ok((mut socket, _)) = connect_async_with_config(&url, Some(limits), true).await {
            while let Some(Ok(message)) = socket.next().await {
                let Message::Binary(frame) = message else { continue };
                let Some(sent_micros) = sent_micros(&frame) else { continue };
                lock(&latencies).record(clock.now_micros().saturating_sub(sent_micros));
                arrivals.send_modify(|arrived| {
                    *arrived = Arrived { events: arrived.events + 1, at: Some(Instant::now()) };
                });
            }
        }
        tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
    }
}

/// When the host sent an event, microseconds since 1970; `None` of a frame that is no event.
fn sent_micros(frame: &[u8]) -> Option<u64> {
    let time = match event::parse(frame).ok()? {
        Event::Commit(commit) => commit.time,
        Event::Sync(sync) => sync.time,
        Event::Identity(identity) => identity.time,
        Event::Account(account) => account.time,
    };
    u64::try_from(time.parse::<jiff::Timestamp>().ok()?.as_microsecond()).ok()
}

fn lock(latencies: &Mutex<Histogram>) -> MutexGuard<'_, Histogram> {
    latencies.lock().unwrap_or_else(PoisonError::into_inner)
}
