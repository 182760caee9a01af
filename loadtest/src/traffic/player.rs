//! Sends traffic from a folder: hosts and a directory on loopback, as a relay would find them.
//!
//! It starts silent. [`Player::announce`] lets the hosts say who is there; once the relay knows them, [`Player::play`]
//! lets them send what is measured. A host sends a block from the disk as it lies there, with the present moment
//! written over each `time`: an event costs a copy out of the page cache and one into the socket.
//!
//! What must hold: memory is a block a connection and a document an account, however much there is to send. No frame
//! leaves before it is let go. What a reconnecting reader gets again differs from what it got in `time` alone.

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use atproto::{
    crypto::PublicKey,
    syntax::{Did, HostName, SyntaxError},
};
use bytes::Bytes;
use runtime::clock::Clock;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    blocks,
    folder::{self, Account, Folder, Manifest},
    site::HostSite,
};
use crate::network::{Directory, document, listener};

/// How traffic is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// How hosts are reached.
    pub names: Names,
}

/// How hosts are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `localhost:PORT`, each on a port of its own.
    #[default]
    Ports,
    /// `hNUMBER.localhost:PORT`, all on one port: for thousands, if the relay takes such names for loopback (RFC 6761).
    Labels,
}

/// How fast the measured part is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as it is read.
    AsRead,
    /// So many events a second over all hosts, evenly, each host its share.
    PerSecond(f64),
    /// As fast as it is read, until so many events have been sent over all hosts since the beginning, each host its share
    /// of all there is, rounded up. Said again and again, it is how what is sent can wait for what is read elsewhere.
    UpTo(u64),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events; those that are sent again to who comes again count once.
    pub events: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// How long after its time an event was sent at most, at a fixed pace: much more than a few milliseconds is a relay
    /// that didn't read, or a machine that had no time to send.
    pub behind_max: Duration,
}

/// Why traffic can't be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// No port to listen on.
    #[error("failed to listen on loopback")]
    Listen(#[source] io::Error),
    /// A host's name is none.
    #[error("failed to name a host")]
    Name(#[source] SyntaxError),
    /// Reading the folder panicked.
    #[error("the reader of the folder died")]
    Died,
}

/// Hosts and a directory that send traffic. Ends with its value.
pub struct Player {
    stage: Arc<Stage>,
    names: Vec<HostName>,
    directory: Arc<Directory>,
    plc_url: String,
    tasks: JoinSet<()>,
}

/// What all connections share.
pub(super) struct Stage {
    pub(super) folder: Folder,
    pub(super) clock: Clock,
    pub(super) gate: watch::Sender<Gate>,
    pub(super) hosts: Vec<HostState>,
    pub(super) home: HashMap<Did, usize>,
    behind_micros_max: AtomicU64,
}

/// One host's progress.
#[derive(Default)]
pub(super) struct HostState {
    /// Frames that have been sent, of the warm-up and of what is measured.
    sent: [AtomicU64; 2],
    bytes: AtomicU64,
    pub(super) subscribers: AtomicUsize,
}

/// What may be sent.
#[derive(Clone, Debug)]
pub(super) enum Gate {
    /// Nothing.
    Closed,
    /// The warm-up.
    WarmUp,
    /// Nothing more of what is measured.
    Paused,
    /// What is measured.
    Open {
        pace: Pace,
        since: Instant,
        /// What each host had sent before.
        from: Arc<[u64]>,
    },
}

/// A part of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    WarmUp,
    Measured,
}

impl Player {
    /// Opens the folder, starts the directory and the hosts. They send nothing yet.
    pub async fn start(folder: &Path, config: Config) -> Result<Player, Error> {
        let folder = folder.to_owned();
        let opened = tokio::task::spawn_blocking(move || Folder::open(&folder));
        let folder = opened.await.map_err(|_| Error::Died)??;
        let mut hosts = Vec::new();
        hosts.resize_with(folder.hosts(), HostState::default);
        let stage = Arc::new(Stage {
            home: folder.accounts().iter().map(|account| (account.did.clone(), account.host)).collect(),
            folder,
            clock: Clock::system(),
            gate: watch::Sender::new(Gate::Closed),
            hosts,
            behind_micros_max: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let names = listen(&stage, config.names, &mut tasks).await?;

        let directory = Arc::new(Directory::default());
        for Account { did, handle, host, key, form } in stage.folder.accounts() {
            directory.put(did, document(did, handle, key, &names[*host], *form));
        }
        let plc_url = directory.listen(Ipv4Addr::LOCALHOST, &mut tasks).await.map_err(Error::Listen)?;
        Ok(Player { stage, names, directory, plc_url, tasks })
    }

    /// The hosts' names.
    pub fn hosts(&self) -> &[HostName] {
        &self.names
    }

    /// Where the directory is.
    pub fn plc_url(&self) -> &str {
        &self.plc_url
    }

    /// The directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What there is to send.
    pub fn manifest(&self) -> &Manifest {
        self.stage.folder.manifest()
    }

    /// The keys that accounts sign with.
    pub fn signing_keys(&self) -> HashMap<Did, PublicKey> {
        self.stage.folder.signing_keys()
    }

    /// A host's measured frames, read from the disk a block at a time, with the `time` of their making. Blocks.
    pub fn frames(&self, host: usize) -> impl Iterator<Item = Result<Bytes, blocks::Error>> + '_ {
        self.stage.folder.frames(host)
    }

    /// Hosts send who is there and where each repo stands: as many events as the manifest's warm-up has.
    pub fn announce(&self) {
        self.stage.gate.send_replace(Gate::WarmUp);
    }

    /// Hosts send what is measured, from where they are, after the warm-up.
    pub fn play(&self, pace: Pace) {
        let from = self.stage.hosts.iter().map(|host| host.sent(Part::Measured)).collect();
        self.stage.behind_micros_max.store(0, Ordering::Relaxed);
        self.stage.gate.send_replace(Gate::Open { pace, since: Instant::now(), from });
    }

    /// Hosts send nothing more of what is measured, but what is on its way already.
    pub fn pause(&self) {
        self.stage.gate.send_replace(Gate::Paused);
    }

    /// What has been sent of what is measured.
    pub fn stats(&self) -> Stats {
        let sum = |of: &dyn Fn(&HostState) -> u64| self.stage.hosts.iter().map(of).sum();
        Stats {
            events: sum(&|host| host.sent(Part::Measured)),
            bytes: sum(&|host| host.bytes.load(Ordering::Relaxed)),
            behind_max: Duration::from_micros(self.stage.behind_micros_max.load(Ordering::Relaxed)),
        }
    }

    /// How many events of the warm-up have been sent.
    pub fn announced(&self) -> u64 {
        self.stage.hosts.iter().map(|host| host.sent(Part::WarmUp)).sum()
    }

    /// How many subscribers there are, over all hosts.
    pub fn subscribers(&self) -> usize {
        self.stage.hosts.iter().map(|host| host.subscribers.load(Ordering::Relaxed)).sum()
    }

    /// Cuts all connections and ends.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn listen(stage: &Arc<Stage>, names: Names, tasks: &mut JoinSet<()>) -> Result<Vec<HostName>, Error> {
    let name = |text: String| HostName::parse(&text).map_err(Error::Name);
    let hosts = 0..stage.folder.hosts();
    match names {
        Names::Ports => {
            let mut names = Vec::new();
            for host in hosts {
                let listener = listener::bind(Ipv4Addr::LOCALHOST, 0).await.map_err(Error::Listen)?;
                names.push(name(format!("localhost:{}", listener.local_addr().map_err(Error::Listen)?.port()))?);
                tasks.spawn(listener::serve(listener, Arc::new(HostSite::one(Arc::clone(stage), host))));
            }
            Ok(names)
        }
        Names::Labels => {
            let listener = listener::bind(Ipv4Addr::LOCALHOST, 0).await.map_err(Error::Listen)?;
            let port = listener.local_addr().map_err(Error::Listen)?.port();
            tasks.spawn(listener::serve(listener, Arc::new(HostSite::all(Arc::clone(stage)))));
            hosts.map(|host| name(format!("h{host}.localhost:{port}"))).collect()
        }
    }
}

impl Stage {
    pub(super) fn blocks(&self, part: Part) -> &blocks::Blocks {
        match part {
            Part::WarmUp => self.folder.warm_up(),
            Part::Measured => self.folder.measured(),
        }
    }

    /// How many of a host's frames may be out by now; with a fixed pace, also when the next may.
    pub(super) fn due(&self, gate: &Gate, part: Part, host: usize, now: Instant) -> (u64, Option<Instant>) {
        match (gate, part) {
            (Gate::Closed, Part::WarmUp | Part::Measured) | (Gate::WarmUp, Part::Measured) => (0, None),
            (Gate::WarmUp | Gate::Paused | Gate::Open { .. }, Part::WarmUp) => (u64::MAX, None),
            (Gate::Paused, Part::Measured) => (self.hosts[host].sent(part), None),
            (Gate::Open { pace: Pace::AsRead, .. }, Part::Measured) => (u64::MAX, None),
            (Gate::Open { pace: Pace::UpTo(events), .. }, Part::Measured) => {
                let (frames, all) = (self.folder.measured().frames(host), self.folder.manifest().measured.events);
                (share(*events, frames, all), None)
            }
            (Gate::Open { pace: Pace::PerSecond(rate), since, from }, Part::Measured) => {
                let schedule = self.schedule(*rate, host);
                let due = schedule.due(now.saturating_duration_since(*since));
                (from[host] + due, since.checked_add(schedule.time_of(due)))
            }
        }
    }

    /// Takes note that a host's frames up to `end` are out; the last `bytes` are of `frames` frames.
    pub(super) fn note_sent(&self, part: Part, host: usize, end: u64, bytes: u64) {
        let state = &self.hosts[host];
        if state.sent[part as usize].fetch_max(end, Ordering::Relaxed) < end && part == Part::Measured {
            state.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Takes note of how late a host's frame number `number` leaves.
    pub(super) fn note_late(&self, gate: &Gate, host: usize, number: u64, now: Instant) {
        if let Gate::Open { pace: Pace::PerSecond(rate), since, from } = gate
            && let Some(number) = number.checked_sub(from[host])
        {
            let due = self.schedule(*rate, host).time_of(number);
            let late = now.saturating_duration_since(*since).saturating_sub(due);
            let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            self.behind_micros_max.fetch_max(micros, Ordering::Relaxed);
        }
    }

    fn schedule(&self, rate: f64, host: usize) -> Schedule {
        let blocks = self.folder.measured();
        let all = self.folder.manifest().measured.events.max(1);
        Schedule {
            per_second: rate * blocks.frames(host) as f64 / all as f64,
            // So that hosts of the same rate don't send at the same moments.
            offset: (host as f64 + 0.5) / self.hosts.len() as f64,
        }
    }
}

impl HostState {
    fn sent(&self, part: Part) -> u64 {
        self.sent[part as usize].load(Ordering::Relaxed)
    }
}

/// A host's share of so many events, where `frames` of `all` are its own; rounded up.
fn share(events: u64, frames: u64, all: u64) -> u64 {
    let share = (u128::from(events) * u128::from(frames)).div_ceil(u128::from(all.max(1)));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// When a host's frames are due, evenly.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    per_second: f64,
    /// When the first is due, in parts of the time between two.
    offset: f64,
}

impl Schedule {
    /// How many are due after so long.
    fn due(&self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.per_second - self.offset + 1.0).max(0.0) as u64
    }

    /// When the frame of this number, from 0, is due.
    fn time_of(&self, number: u64) -> Duration {
        let seconds = (number as f64 + self.offset) / self.per_second;
        // A host that has nothing to send never is.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(365 * 86_400))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_there_is_and_no_less() {
        for events in [0, 1, 7, 99, 100] {
            let sent = [10, 30, 60].map(|frames| share(events, frames, 100));
            assert!((events..events + 3).contains(&sent.iter().sum()), "{events}: {sent:?}");
        }
        assert_eq!([10, 30, 60].map(|frames| share(100, frames, 100)), [10, 30, 60]);
        assert_eq!(share(5, 0, 0), 0);
    }

    #[test]
    fn a_host_sends_evenly() {
        for schedule in [Schedule { per_second: 25.0, offset: 0.5 }, Schedule { per_second: 0.3, offset: 0.975 }] {
            for number in 0..1_000 {
                let due = schedule.time_of(number);
                assert_eq!(schedule.due(due.saturating_sub(Duration::from_micros(1))), number);
                assert_eq!(schedule.due(due + Duration::from_micros(1)), number + 1);
            }
        }
        let nothing = Schedule { per_second: 0.0, offset: 0.5 };
        assert_eq!(nothing.due(Duration::from_secs(1_000_000)), 0);
        assert!(nothing.time_of(0) > Duration::from_secs(86_400));
    }
}
