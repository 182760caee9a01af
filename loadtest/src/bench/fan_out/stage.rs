//! A relay that knows all accounts of some hosts that play traffic, and nobody who reads it yet.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{Error, FanOutConfig, Scenario};
use crate::{
    bench::{Sockets, subject::Running},
    crowd::{self, Crowd, Request},
    relay_process::Usage,
    traffic::{self, Pace, Player},
};

/// All that a scenario needs.
pub(super) struct Stage<'a> {
    pub(super) player: Player,
    relay: Running,
    address: SocketAddr,
    folder: PathBuf,
    limit: Duration,
    progress: &'a dyn Fn(&str),
}

/// Threads that read for a crowd of more than one: as many as the machines have that ours is measured on.
const THREADS: usize = 2;
/// What is sent and not yet read by the slowest subscriber, where it goes as fast as it can: enough for every part of
/// the relay to have work, and well within what it keeps in memory for those who are live.
const AHEAD_BYTES: u64 = 3 << 20;
const POLL: Duration = Duration::from_millis(1);
/// Until what has been done leaves nothing behind that is still to be done.
const SETTLE: Duration = Duration::from_millis(500);

impl<'a> Stage<'a> {
    /// Starts hosts and a relay, and lets it come to know the accounts.
    pub(super) async fn open(
        config: &FanOutConfig,
        scenario: Scenario,
        progress: &'a dyn Fn(&str),
    ) -> Result<Stage<'a>, Error> {
        progress("starting, warming up");
        let folder = config.folder.join(scenario.name());
        std::fs::create_dir_all(&folder)?;
        let player = Player::start(&config.traffic, traffic::Config::default()).await?;
        let mut subject = config.subject.clone();
        subject.args.extend(scenario.relay_args());
        let relay = subject.start(&folder.join("data"), player.plc_url(), player.hosts()).await?;
        let url = relay.stream_url();
        let address = url.strip_prefix("ws://").and_then(|address| address.parse().ok());
        let address = address.ok_or(Error::Died)?;
        let stage = Stage { player, relay, address, folder, limit: config.limit, progress };
        let (started, all) = (Instant::now(), stage.player.hosts().len());
        while stage.player.subscribers() < all {
            if started.elapsed() > stage.limit {
                return Err(stage.late("connecting to hosts", stage.player.subscribers() as u64, all as u64));
            }
            tokio::time::sleep(POLL).await;
        }
        stage.player.announce();
        stage.log_holds(stage.warm_up()).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(stage)
    }

    pub(super) fn say(&self, doing: &str) {
        (self.progress)(doing);
    }

    /// Events that made the relay know the accounts.
    pub(super) fn warm_up(&self) -> u64 {
        self.player.manifest().warm_up.events
    }

    /// Events that have not been sent yet.
    pub(super) fn left(&self) -> u64 {
        self.player.manifest().measured.events - self.player.stats().events
    }

    /// What the relay has used so far.
    pub(super) fn usage(&self) -> Result<Usage, Error> {
        self.relay.usage()
    }

    /// What one of its metrics says now; no number where it has none of that name.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        self.relay.metric(name).await.unwrap_or(f64::NAN)
    }

    /// The process's number: subscribers are counted at one.
    pub(super) fn pid(&self) -> i32 {
        self.relay.pids()[0]
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The relay's resident memory once it has nothing to do.
    pub(super) async fn settled_bytes(&self) -> Result<u64, Error> {
        tokio::time::sleep(SETTLE * 3).await;
        self.relay.resident_bytes()
    }

    /// Where the relay's data is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Threads of a crowd of so many.
    pub(super) fn threads(readers: usize) -> usize {
        readers.clamp(1, THREADS)
    }

    /// A crowd that is connected.
    pub(super) async fn crowd(&self, readers: usize, look_every: u64) -> Result<Crowd, Error> {
        self.connected(self.crowd_config(readers, look_every)).await
    }

    /// Another crowd, connected.
    pub(super) async fn connected(&self, config: crowd::Config) -> Result<Crowd, Error> {
        let crowd = Crowd::start(config)?;
        self.opened("connecting subscribers", &crowd).await?;
        // An open stream becomes live when its first wait begins.
        tokio::time::sleep(SETTLE).await;
        Ok(crowd)
    }

    /// A crowd of the usual kind: live.
    pub(super) fn crowd_config(&self, readers: usize, look_every: u64) -> crowd::Config {
        crowd::Config {
            address: self.address,
            requests: vec![Request::default()],
            readers,
            threads: Stage::threads(readers),
            look_every,
            until: None,
            gives_way: false,
        }
    }

    /// Waits until all of a crowd are served.
    pub(super) async fn opened(&self, what: &'static str, crowd: &Crowd) -> Result<(), Error> {
        match crowd.wait_open(self.limit).await {
            true => Ok(()),
            false => Err(self.not_served(what, crowd)),
        }
    }

    /// Lets the hosts send `events` more, as fast as the slowest of the crowd takes them. Gives how many were sent: some
    /// more, because each host rounds its share up.
    pub(super) async fn drive(&self, what: &'static str, crowd: &Crowd, events: u64) -> Result<u64, Error> {
        self.drive_by(what, crowd, events, Crowd::slowest).await
    }

    /// As [`Stage::drive`], where `taken` says how many events a crowd has.
    pub(super) async fn drive_by(
        &self,
        what: &'static str,
        crowd: &Crowd,
        events: u64,
        taken: impl Fn(&Crowd) -> u64,
    ) -> Result<u64, Error> {
        let (sent, had) = (self.player.stats().events, taken(crowd));
        let target = sent + events;
        let manifest = self.player.manifest();
        if target > manifest.measured.events {
            return Err(Error::TooFew { has: manifest.measured.events, wanted: target });
        }
        let ahead = (AHEAD_BYTES as f64 / manifest.measured.frame_bytes_mean) as u64;
        let (mut moved, mut last) = (Instant::now(), had);
        loop {
            let now = taken(crowd);
            self.player.play(Pace::UpTo((sent + (now - had) + ahead).min(target)));
            if now - had >= events {
                break;
            }
            if now > last {
                (moved, last) = (Instant::now(), now);
            }
            if crowd.ended() > 0 {
                return Err(self.not_served(what, crowd));
            }
            if moved.elapsed() > self.limit {
                return Err(self.late(what, now - had, events));
            }
            tokio::time::sleep(POLL).await;
        }
        // The last ones, by which shares were rounded up.
        let sent = self.player.stats().events - sent;
        match crowd.wait(self.limit, || taken(crowd) >= had + sent).await {
            true => Ok(sent),
            false => Err(self.late(what, taken(crowd) - had, sent)),
        }
    }

    /// Lets the relay have `events` more while nobody reads. Gives how many events its log holds then.
    pub(super) async fn fill(&self, events: u64) -> Result<u64, Error> {
        self.say(&format!("{events} events into the log"));
        let (before, has) = (self.player.stats().events, self.player.manifest().measured.events);
        if before + events > has {
            return Err(Error::TooFew { has, wanted: before + events });
        }
        self.player.play(Pace::UpTo(before + events));
        let started = Instant::now();
        while self.player.stats().events < before + events {
            if started.elapsed() > self.limit {
                return Err(self.late("sending", self.player.stats().events - before, events));
            }
            tokio::time::sleep(POLL).await;
        }
        // What was let go is out within moments.
        tokio::time::sleep(SETTLE).await;
        let holds = self.warm_up() + self.player.stats().events;
        self.log_holds(holds).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(holds)
    }

    /// Waits until the relay's log holds so many events.
    async fn log_holds(&self, events: u64) -> Result<(), Error> {
        let first = Request { cursor: Some(0), ..Request::default() };
        let config = self.crowd_config(1, 0);
        let watcher = Crowd::start(crowd::Config { requests: vec![first], until: Some(events), ..config })?;
        match watcher.wait_done(self.limit).await {
            true => Ok(()),
            false if watcher.ended() > 0 => Err(self.not_served("filling the log", &watcher)),
            false => Err(self.late("filling the log", watcher.slowest(), events)),
        }
    }

    /// Raw sockets: as many, with about so many bytes.
    pub(super) async fn yardstick(&self, sockets: usize, bytes: u64) -> Result<Sockets, Error> {
        let threads = Stage::threads(sockets);
        let measured = tokio::task::spawn_blocking(move || Sockets::measure(sockets, threads, bytes));
        measured.await.map_err(|_| Error::Died)?.map_err(Error::Yardstick)
    }

    /// What it is when something does not come to its end.
    pub(super) fn late(&self, what: &'static str, done: u64, all: u64) -> Error {
        Error::Late { what, done, all, limit: self.limit, log: self.relay.log_tail(20) }
    }

    /// What it is when some of a crowd are not served.
    pub(super) fn not_served(&self, what: &'static str, crowd: &Crowd) -> Error {
        Error::NotServed {
            what,
            served: crowd.open() - crowd.ended().min(crowd.open()),
            all: crowd.readers(),
            endings: format!("{:?}", crowd.endings()),
            log: self.relay.log_tail(20),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) async fn end(self) -> Result<(), Error> {
        self.relay.kill().await?;
        self.player.stop().await;
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}
