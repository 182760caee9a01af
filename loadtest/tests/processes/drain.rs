//! The relay is stopped in order with a thousand subscribers, started again, and all of them come back at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use atproto::event::{Routed, route};
use futures_util::StreamExt;
use loadtest::{
    network::{Config, Mix, Network, Pace},
    relay_process::RelayProcess,
};
use runtime::clock::Clock;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{task::JoinSet, time::Instant};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::harness::{LONG, all_connected, alone, relay_of, wait_until};

const SUBSCRIBERS: usize = 1_000;

/// What one of them has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    connected: bool,
    connections: usize,
    events: u64,
    last_seq: u64,
    /// CRC-32C of all frames, one after the other.
    frames: u32,
    /// Events whose seq is not the one after the last.
    gaps: usize,
    /// Close codes, and 0 for each connection that was cut or ended without one.
    closes: Vec<u16>,
}

#[derive(Clone, Default)]
struct Reader(Arc<Mutex<Seen>>);

impl Reader {
    fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connects at its cursor again and again.
    async fn run(self, url: String) {
        let config = WebSocketConfig::default().read_buffer_size(8 << 10);
        loop {
            let url = format!("{url}/xrpc/com.atproto.sync.subscribeRepos?cursor={}", self.look(|seen| seen.last_seq));
            if let Ok((mut socket, _)) = connect_async_with_config(url, Some(config), true).await {
                self.look(|seen| (seen.connected, seen.connections) = (true, seen.connections + 1));
                let mut code = 0;
                while let Some(Ok(message)) = socket.next().await {
                    match message {
                        Message::Binary(frame) => self.look(|seen| seen.take(&frame)),
                        Message::Close(frame) => code = frame.map_or(0, |frame| frame.code.into()),
                        _ => {}
                    }
                }
                self.look(|seen| {
                    seen.connected = false;
                    seen.closes.push(code);
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Seen {
    fn take(&mut self, frame: &[u8]) {
        let Ok(Routed::Event(event)) = route(frame) else { return self.gaps += 1 };
        self.gaps += usize::from(event.seq != self.last_seq + 1);
        self.last_seq = event.seq;
        self.events += 1;
        self.frames = crc32c::crc32c_append(self.frames, frame);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers_are_sent_away_whole_and_come_back_where_they_were() {
    let _alone = alone().await;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(limit.maximum.is_none_or(|files| files > 2 * SUBSCRIBERS as u64), "too few files may be open: {limit:?}");

    let config =
        Config { hosts: 4, accounts: 100, pace: Pace::ByHand, mix: Mix::COMMITS, remember: true, ..Config::default() };
    let folder = tempfile::tempdir().unwrap();
    let network = Network::start_paused(config, Clock::system()).await.unwrap();
    // As by default: as many as may be.
    let relay = RelayProcess::start(relay_of(&network, folder.path())).await.unwrap();
    all_connected(&network).await;

    let readers: Vec<_> = std::iter::repeat_with(Reader::default).take(SUBSCRIBERS).collect();
    let mut tasks = JoinSet::new();
    for reader in &readers {
        tasks.spawn(reader.clone().run(relay.stream_url()));
    }
    let all = async |what: &str, met: &dyn Fn(&Seen) -> bool| {
        let count = || readers.iter().filter(|reader| reader.look(|seen| met(seen))).count();
        let started = Instant::now();
        let done = wait_until(LONG, || count() == SUBSCRIBERS).await;
        println!("{what}: {} of {SUBSCRIBERS} in {:.2?}", count(), started.elapsed());
        let other = readers.iter().map(|reader| reader.look(|seen| seen.clone())).find(|seen| !met(seen));
        assert!(done, "{what}: {} of {SUBSCRIBERS}; not {other:?}", count());
    };
    all("connected", &|seen| seen.connected).await;
    network.generate(150).await.unwrap();
    all("reading", &|seen| seen.events > 0).await;

    // In the middle of the traffic.
    network.generate(150).await.unwrap();
    let config = relay.config().clone();
    let (status, took) = relay.terminate(Duration::from_secs(60)).await.unwrap();
    println!("ended within {took:.2?}");
    assert!(status.success(), "{status}: {}", config.log_tail(30));
    all("sent away", &|seen| !seen.connected).await;
    let codes = |code: u16| readers.iter().filter(|reader| reader.look(|seen| seen.closes == [code])).count();
    assert_eq!(codes(1001), SUBSCRIBERS, "{} were cut", codes(0));

    let relay = RelayProcess::start(config).await.unwrap();
    all("back", &|seen| seen.connected).await;
    assert_eq!(relay.metric("mainstem_fanout_subscribers").await.unwrap(), SUBSCRIBERS as f64);
    all_connected(&network).await;
    network.generate(150).await.unwrap();
    let events = network.truth().to_pass() as u64;
    all("have all", &|seen| seen.events >= events).await;

    tasks.shutdown().await;
    let first = readers[0].look(|seen| seen.clone());
    for reader in &readers {
        let seen = reader.look(|seen| seen.clone());
        assert_eq!((seen.events, seen.gaps, seen.frames), (events, 0, first.frames), "{seen:?}");
        assert_eq!((seen.connections, seen.closes), (2, vec![1001]));
    }
    network.stop().await;
}
