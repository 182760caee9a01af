//! One measurement of one subject: a fresh relay beside hosts that play traffic, warmed up, then
//! at a rate, then loaded.
//!
//! What must hold: no identity is resolved and nothing is signed while a clock of a load runs.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Config, Error,
    cost::{Cost, own_usage},
    idle::{self, Ticks},
    memory::{Memory, MemoryWatch},
    subject::{Running, Subject},
    yardstick::{Bare, Fsync, Signatures},
};
use crate::{
    subscriber::{self, Keep, Subscriber},
    traffic::{self, Pace, Player, folder::Manifest, latency::Latencies},
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
    /// What the relay spent meanwhile.
    pub relay: Cost,
    /// The idle share of the machine meanwhile, 0 to 1.
    pub idle_share: Option<f64>,
    /// How late this program was to send, at most: part of no latency, but of the evenness of what was sent.
    pub behind_max: Duration,
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

/// The log's last group may still be on its way to the disk when its events are here.
const SETTLE: Duration = Duration::from_millis(300);
/// Until what the warm-up left behind has been given back.
const COOL_DOWN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// Hosts that play traffic, a relay that knows all of its accounts, and a subscriber.
struct Stage<'a, P> {
    player: Player,
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
    signatures: &Arc<Signatures>,
    progress: &P,
) -> Result<Turn, Error> {
    let stage = Stage::warm_up(config, subject, folder, progress).await?;
    let memory = MemoryWatch::start(stage.relay.pids());
    let time = latency_time(config, stage.player.manifest().measured.events);
    let latency = match time.is_zero() {
        true => None,
        false => Some(stage.latency(time, folder).await?),
    };
    let load = stage.load(signatures).await?;
    let memory = memory.memory();
    stage.end().await?;
    Ok(Turn { load, memory, latency })
}

/// The resident memory of a relay that is connected to all hosts and knows who is there, and has nothing to do.
pub(super) async fn warm_bytes<P: Fn(&str)>(
    config: &Config,
    subject: &Subject,
    folder: &Path,
    progress: &P,
) -> Result<u64, Error> {
    let stage = Stage::warm_up(config, subject, folder, progress).await?;
    tokio::time::sleep(COOL_DOWN).await;
    let bytes = stage.relay.resident_bytes()?;
    stage.end().await?;
    Ok(bytes)
}

/// How long events may come at a rate, so that half of them are left for the load.
fn latency_time(config: &Config, events: u64) -> Duration {
    let most = Duration::try_from_secs_f64(events as f64 / 2.0 / config.rate).unwrap_or(Duration::MAX);
    config.latency_time.min(most.saturating_sub(config.lead_in))
}

impl<P: Fn(&str)> Stage<'_, P> {
    async fn warm_up<'a>(
        config: &'a Config,
        subject: &Subject,
        folder: &Path,
        progress: &'a P,
    ) -> Result<Stage<'a, P>, Error> {
        progress("starting, warming up");
        let player = Player::start(&config.traffic, traffic::Config::default()).await?;
        let relay = subject.start(&folder.join("data"), player.plc_url(), player.hosts()).await?;
        let reading = subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Count };
        let subscriber = Subscriber::start(reading);
        let stage = Stage { player, relay, subscriber, config, progress };
        stage.all_connected().await?;
        stage.player.announce();
        stage.arrived("warming up", stage.player.manifest().warm_up.events).await?;
        Ok(stage)
    }

    async fn latency(&self, time: Duration, folder: &Path) -> Result<Latency, Error> {
        let rate = self.config.rate;
        (self.progress)(&format!("{rate:.0} events a second for {:.0} s", time.as_secs_f64()));
        let fsync = Fsync::measure(folder).map_err(Error::Yardstick)?;
        self.player.play(Pace::PerSecond(rate));
        tokio::time::sleep(self.config.lead_in).await;
        self.subscriber.take_latencies();
        let (idle, before, events) = (Ticks::now().ok(), self.relay.usage()?, self.sent());
        tokio::time::sleep(time).await;
        let (times, idle_now) = (self.subscriber.take_latencies(), Ticks::now().ok());
        let relay = Cost::of(&before, &self.relay.usage()?, self.sent() - events);
        let behind_max = self.player.stats().behind_max;
        self.player.pause();
        // What is on its way already.
        tokio::time::sleep(SETTLE).await;
        self.arrived("at a rate", self.sent()).await?;
        let idle_share = idle.and_then(|before| before.idle_share(idle_now?));
        Ok(Latency { rate, times, relay, idle_share, behind_max, fsync })
    }

    async fn load(&self, signatures: &Arc<Signatures>) -> Result<Load, Error> {
        let first = self.player.stats();
        let bare_before = bare(signatures).await?;
        self.subscriber.take_latencies();
        let (before, own_before) = (self.relay.usage()?, own_usage()?);
        let started = Instant::now();
        self.player.play(Pace::AsRead);
        let Manifest { warm_up, measured, .. } = self.player.manifest();
        self.arrived("as fast as it is read", warm_up.events + measured.events).await?;
        let wall = started.elapsed();
        tokio::time::sleep(SETTLE).await;
        let (after, own_after) = (self.relay.usage()?, own_usage()?);
        let bare_after = bare(signatures).await?;
        let last = self.player.stats();
        let events = last.events - first.events;
        Ok(Load {
            events,
            bytes: last.bytes - first.bytes,
            wall,
            times: self.subscriber.take_latencies(),
            relay: Cost::of(&before, &after, events),
            generator: Cost::of(&own_before, &own_after, events),
            rss_bytes: after.rss_bytes,
            rss_bytes_max: after.rss_bytes_max,
            bare_before,
            bare_after,
        })
    }

    /// Waits until the relay reads all hosts: some relays begin with what comes after.
    async fn all_connected(&self) -> Result<(), Error> {
        let (started, all) = (Instant::now(), self.player.hosts().len());
        loop {
            let done = self.player.subscribers();
            if done >= all {
                return Ok(());
            }
            if started.elapsed() > self.config.limit {
                let (what, log) = ("connecting to hosts", self.relay.log_tail(20));
                return Err(Error::Late { what, done: done as u64, all: all as u64, limit: self.config.limit, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Events that were sent so far.
    fn sent(&self) -> u64 {
        self.player.announced() + self.player.stats().events
    }

    /// Waits until so many events are at the subscriber.
    async fn arrived(&self, what: &'static str, all: u64) -> Result<(), Error> {
        let (started, mut last) = (Instant::now(), self.subscriber.events());
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
        self.player.stop().await;
        Ok(())
    }
}

async fn bare(signatures: &Arc<Signatures>) -> Result<Bare, Error> {
    let signatures = Arc::clone(signatures);
    tokio::task::spawn_blocking(move || signatures.measure()).await.map_err(|_| Error::Died)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_events_are_left_for_the_load() {
        let config = |rate, seconds| Config {
            subjects: Vec::new(),
            rounds: 1,
            folder: "".into(),
            traffic: "".into(),
            rate,
            latency_time: Duration::from_secs(seconds),
            lead_in: Duration::from_secs(1),
            limit: Duration::ZERO,
        };
        assert_eq!(latency_time(&config(500.0, 10), 60_000), Duration::from_secs(10));
        assert_eq!(latency_time(&config(500.0, 0), 60_000), Duration::ZERO);
        assert_eq!(latency_time(&config(500.0, 10), 10_000), Duration::from_secs(9));
        assert_eq!(latency_time(&config(500.0, 10), 100), Duration::ZERO);
        assert_eq!(latency_time(&config(0.0, 10), 100), Duration::from_secs(10));
    }
}
