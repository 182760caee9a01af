//! One measurement of one subject: a fresh relay beside a fresh network, warmed up, then loaded.
//!
//! What must hold: no identity is resolved and nothing is signed while a clock of a load runs.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use atproto::{crypto::PublicKey, syntax::Did};
use bytes::Bytes;
use runtime::clock::Clock;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Config, Error,
    cost::{Cost, own_usage},
    idle::{self, Ticks},
    memory::{Memory, MemoryWatch},
    subject::{Running, Subject},
    yardstick::{Bare, Fsync, Signatures},
};
use crate::{
    network::{self, Mix, Network, Pace, Stats},
    subscriber::{self, Keep, Subscriber},
    traffic::latency::Latencies,
};

/// What was measured of a subject, once.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The traffic as fast as it was read.
    pub load: Load,
    /// Its own memory, from its start to its end.
    pub memory: Memory,
    /// The traffic at a rate, where it was asked for.
    pub latency: Option<Latency>,
}

/// Events as fast as they were read.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many.
    pub events: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// From the first send to the last receipt.
    pub wall: Duration,
    /// How long they took from the host's send to the subscriber: mostly the time that they waited in sockets.
    pub times: Latencies,
    /// What the relay spent.
    pub relay: Cost,
    /// What this process spent: hosts, directory and subscriber.
    pub generator: Cost,
    /// Resident memory right after.
    pub rss_bytes: u64,
    /// Most resident memory so far.
    pub rss_bytes_max: u64,
    /// Bare verification right before.
    pub bare_before: Bare,
    /// Bare verification right after.
    pub bare_after: Bare,
}

/// Events at a rate that leaves the machine idle in between.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Events a second that were asked for.
    pub rate: f64,
    /// From the host's send to the subscriber's receipt.
    pub times: Latencies,
    /// The idle share of the machine meanwhile, 0 to 1.
    pub idle_share: Option<f64>,
    /// A bare sync right before, on the same file system.
    pub fsync: Fsync,
}

impl Load {
    /// Bare verification, as the mean of before and after.
    pub fn bare(&self) -> Bare {
        Bare::mean(self.bare_before, self.bare_after)
    }

    /// How many times bare verification the relay's CPU time is.
    pub fn ratio(&self) -> f64 {
        self.relay.micros() / self.bare().verify_micros
    }

    /// Events a second.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }
}

impl Latency {
    /// Why it doesn't count, if it doesn't.
    pub fn void(&self) -> Option<String> {
        idle::void(self.idle_share)
    }
}

/// Signatures that bare verification takes of a load, at most: a third of a second.
const BARE_SIGNATURES_MAX: usize = 8_000;
/// The log's last group may still be on its way to the disk when its events are here.
const SETTLE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(2);

/// A network, a relay that knows all of its accounts, and a subscriber.
struct Stage<'a, P> {
    network: Network,
    relay: Running,
    subscriber: Subscriber,
    config: &'a Config,
    progress: &'a P,
}

/// Measures `subject`; its data goes into a new folder under `folder`.
pub(super) async fn turn<P: Fn(&str)>(
    config: &Config,
    subject: &Subject,
    folder: &Path,
    progress: &P,
) -> Result<Turn, Error> {
    let stage = Stage::warm_up(config, subject, folder, progress).await?;
    let memory = MemoryWatch::start(stage.relay.pid());
    let load = stage.load().await?;
    let latency = match config.latency_time.is_zero() {
        true => None,
        false => Some(stage.latency(folder).await?),
    };
    let memory = memory.memory();
    stage.end().await?;
    Ok(Turn { load, memory, latency })
}

impl<P: Fn(&str)> Stage<'_, P> {
    async fn warm_up<'a>(
        config: &'a Config,
        subject: &Subject,
        folder: &Path,
        progress: &'a P,
    ) -> Result<Stage<'a, P>, Error> {
        progress(&format!(
            "making {} accounts with {} records each on {} hosts",
            config.accounts, config.records_per_repo, config.hosts
        ));
        let network = network::Config {
            seed: config.seed,
            hosts: config.hosts,
            accounts: config.accounts,
            p256_share: config.p256_share,
            records_per_repo: config.records_per_repo,
            pace: Pace::ByHand,
            mix: Mix::COMMITS,
            // All of the run stays: what is measured must not depend on who reads how fast.
            window_bytes: usize::MAX,
            ..network::Config::default()
        };
        let network = Network::start_paused(network, Clock::system()).await?;
        let relay = subject.start(&folder.join("data"), network.plc_url(), network.hosts()).await?;
        let reading = subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Count };
        let subscriber = Subscriber::start(reading);
        let stage = Stage { network, relay, subscriber, config, progress };
        stage.all_connected().await?;
        stage.network.announce_all().await?;
        stage.all_arrived("warming up").await?;
        Ok(stage)
    }

    async fn load(&self) -> Result<Load, Error> {
        (self.progress)(&format!("signing {} commits", self.config.events));
        let warm = self.network.stats();
        let warm_frames: Vec<usize> = (0..self.config.hosts).map(|host| self.network.frames(host).len()).collect();
        self.network.hold();
        self.network.generate(self.config.events).await?;
        let Stats { events, bytes } = self.network.stats();
        let frames = (0..self.config.hosts).flat_map(|host| self.network.frames(host).split_off(warm_frames[host]));
        let signatures = signatures(frames.collect(), self.network.signing_keys()).await?;
        let bare_before = bare(&signatures).await?;

        self.subscriber.take_latencies();
        let (before, own_before) = (self.relay.usage()?, own_usage()?);
        let started = Instant::now();
        self.network.release();
        self.all_arrived("as fast as it is read").await?;
        let wall = started.elapsed();
        tokio::time::sleep(SETTLE).await;
        let (after, own_after) = (self.relay.usage()?, own_usage()?);
        let bare_after = bare(&signatures).await?;
        let count = events - warm.events;
        Ok(Load {
            events: count,
            bytes: bytes - warm.bytes,
            wall,
            times: self.subscriber.take_latencies(),
            relay: Cost::of(&before, &after, count),
            generator: Cost::of(&own_before, &own_after, count),
            rss_bytes: after.rss_bytes,
            rss_bytes_max: after.rss_bytes_max,
            bare_before,
            bare_after,
        })
    }

    async fn latency(&self, folder: &Path) -> Result<Latency, Error> {
        let Config { rate, latency_time, .. } = *self.config;
        (self.progress)(&format!("{rate:.0} events a second for {:.0} s", latency_time.as_secs_f64()));
        let fsync = Fsync::measure(folder).map_err(Error::Yardstick)?;
        // What the load left behind, and the first moments at a new pace, don't count.
        self.send_at(rate, Duration::from_secs(1)).await?;
        self.subscriber.take_latencies();
        let idle = Ticks::now().ok();
        self.send_at(rate, latency_time).await?;
        let idle_share = idle.and_then(|before| before.idle_share(Ticks::now().ok()?));
        Ok(Latency { rate, times: self.subscriber.take_latencies(), idle_share, fsync })
    }

    /// Sends evenly, and waits until all has arrived.
    async fn send_at(&self, rate: f64, time: Duration) -> Result<(), Error> {
        let (started, mut sent) = (Instant::now(), 0);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while started.elapsed() < time {
            ticks.tick().await;
            let due = (started.elapsed().min(time).as_secs_f64() * rate) as u64;
            self.network.generate(due - sent).await?;
            sent = due;
        }
        self.all_arrived("at a rate").await
    }

    /// Waits until the relay reads all hosts: some relays begin with what comes after.
    async fn all_connected(&self) -> Result<(), Error> {
        let (started, all) = (Instant::now(), self.config.hosts);
        loop {
            let done = (0..all).filter(|host| self.network.subscribers(*host) > 0).count();
            if done == all {
                return Ok(());
            }
            if started.elapsed() > self.config.limit {
                let (what, log) = ("connecting to hosts", self.relay.log_tail(20));
                return Err(Error::Late { what, done: done as u64, all: all as u64, limit: self.config.limit, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the subscriber has all that was sent.
    async fn all_arrived(&self, what: &'static str) -> Result<(), Error> {
        let (all, started) = (self.network.stats().events, Instant::now());
        let mut last = self.subscriber.events();
        while !self.subscriber.wait_for(all, Duration::from_secs(1)).await {
            let done = self.subscriber.events();
            (self.progress)(&format!("{what}: {done} of {all} events, {}/s", done - last));
            last = done;
            if started.elapsed() > self.config.limit {
                let log = self.relay.log_tail(20);
                return Err(Error::Late { what, done, all, limit: self.config.limit, log });
            }
        }
        Ok(())
    }

    async fn end(self) -> Result<(), Error> {
        self.subscriber.stop().await;
        self.relay.kill().await?;
        self.network.stop().await;
        Ok(())
    }
}

async fn signatures(frames: Vec<Bytes>, keys: HashMap<Did, PublicKey>) -> Result<Arc<Signatures>, Error> {
    let made = tokio::task::spawn_blocking(move || Signatures::of(&frames, &keys, BARE_SIGNATURES_MAX)).await;
    made.map(Arc::new).map_err(|_| Error::Died)
}

async fn bare(signatures: &Arc<Signatures>) -> Result<Bare, Error> {
    let signatures = Arc::clone(signatures);
    tokio::task::spawn_blocking(move || signatures.measure()).await.map_err(|_| Error::Died)
}
