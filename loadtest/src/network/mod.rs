//! The simulated network: hosts with streams, a PLC directory, and accounts with real keys that sign real commits over
//! real trees. Everything listens on free ports of one address, by default 127.0.0.1, where hosts are named
//! `localhost:PORT`.
//!
//! The same [`Config`] tells the same story again: keys, accounts, records and the order of what happens follow from the
//! seed. Times, and with them revs and CIDs, are those of the clock.
//!
//! What must hold: memory is bounded. A host keeps at most [`Config::window_bytes`] of encoded frames, a repo keeps a
//! path and a CID a record, never its bytes. Only [`Config::remember`] grows with every event, by about 100 bytes.

mod account;
pub mod cold;
mod directory;
mod faults;
pub(crate) mod host;
pub(crate) mod listener;
mod outbox;
mod record;
mod repo;
pub(crate) mod story;
mod traffic;
mod world;

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::{
    cid::Cid,
    crypto::PublicKey,
    event::Kind as EventKind,
    mst::MstError,
    syntax::{Did, HostName, SyntaxError, Tid},
};
use bytes::Bytes;
use runtime::clock::Clock;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

pub use self::{
    directory::{Directory, Fault, Form, document},
    faults::{Fault as HostFault, Visits},
    traffic::{Action, Kind, Mix},
};
use self::{
    host::{AccountStatus, Host},
    world::World,
};
use crate::judge::{Expect, Truth};

/// How many seqs a host leaves out at most between two events: those of deleted accounts vanish.
pub const SEQ_GAP_MAX: u64 = 3;

/// The size and manners of a network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything but time follows from it.
    pub seed: u64,
    /// Where hosts and the directory listen.
    pub address: Ipv4Addr,
    /// How many hosts.
    pub hosts: usize,
    /// How many accounts, dealt to the hosts in turn.
    pub accounts: usize,
    /// The share of what happens that is of accounts with a P-256 key, 0 to 1; the others have secp256k1.
    pub p256_share: f64,
    /// The share of DID documents in the form of before 2023, 0 to 1.
    pub legacy_share: f64,
    /// Records that each repo has had before the simulation; they decide the depth of trees and so the size of proofs.
    pub records_per_repo: usize,
    /// An account that has so many records deletes one instead of creating another, so that busy repos grow no deeper
    /// however long it goes on.
    pub records_per_repo_max: usize,
    /// How fast things happen.
    pub pace: Pace,
    /// What happens.
    pub mix: Mix,
    /// Exponent of the Zipf law of activity over accounts: 0 is even, 1 as on social networks.
    pub skew: f64,
    /// How many bytes of its newest frames a host keeps for subscribers.
    pub window_bytes: usize,
    /// Keep [`Network::truth`].
    pub remember: bool,
}

impl Default for Config {
    /// A gentle network to look at: all kinds of events, 20 a second.
    fn default() -> Config {
        Config {
            seed: 1,
            address: Ipv4Addr::LOCALHOST,
            hosts: 5,
            accounts: 50,
            p256_share: 0.3,
            legacy_share: 0.1,
            records_per_repo: 20,
            records_per_repo_max: usize::MAX,
            pace: Pace::PerSecond(20.0),
            mix: Mix::SHOWCASE,
            skew: 0.8,
            window_bytes: 16 * 1024 * 1024,
            remember: false,
        }
    }
}

/// How fast things happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many events a second over all hosts, evenly.
    PerSecond(f64),
    /// As fast as subscribers read: while the slowest of each host has less than 1 MiB to read, and none without.
    AsRead,
    /// Only what [`Network::act`] and [`Network::generate`] ask for.
    ByHand,
}

/// What a network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events sent.
    pub events: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// Why a network can't be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No port to listen on.
    #[error("failed to listen on loopback")]
    Listen(#[source] io::Error),
    /// A host's name is none.
    #[error("failed to name a host")]
    Name(#[source] SyntaxError),
    /// A repo can't be changed as it should.
    #[error("failed to change a repo")]
    Repo(#[source] MstError),
    /// Making accounts or events panicked.
    #[error("the generator died")]
    Died,
}

/// A running network. Ends with its value.
pub struct Network {
    address: Ipv4Addr,
    world: Arc<Mutex<World>>,
    hosts: Vec<Arc<Host>>,
    names: Vec<HostName>,
    servers: Vec<Server>,
    directory: Arc<Directory>,
    plc_url: String,
    running: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// A host's listener; without a task while the host is down.
struct Server {
    port: u16,
    task: JoinSet<()>,
}

/// Events that are made between two looks at the clock, at most.
const STEPS_AT_ONCE: usize = 256;
const TICK: Duration = Duration::from_millis(10);
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

impl Network {
    /// Starts the directory and the hosts, makes the accounts, and lets things happen at once.
    pub async fn start(config: Config, clock: Clock) -> Result<Network, Error> {
        Network::start_paused(config, clock).await.inspect(Network::resume)
    }

    /// As [`Network::start`], but nothing happens before [`Network::resume`].
    pub async fn start_paused(config: Config, clock: Clock) -> Result<Network, Error> {
        let mut tasks = JoinSet::new();
        let directory = Arc::new(Directory::default());
        let plc_url = directory.listen(config.address, &mut tasks).await.map_err(Error::Listen)?;

        let mut hosts = Vec::with_capacity(config.hosts);
        let mut servers = Vec::with_capacity(config.hosts);
        for number in 0..config.hosts {
            let listener = listener::bind(config.address, 0).await.map_err(Error::Listen)?;
            let port = listener.local_addr().map_err(Error::Listen)?.port();
            let name = listener::name_of(&listener).map_err(Error::Listen)?;
            let name = HostName::parse(&name).map_err(Error::Name)?;
            let host = Arc::new(Host::new(name, config.window_bytes, 1_000 * number as u64, clock.clone()));
            let mut task = JoinSet::new();
            task.spawn(listener::serve(listener, Arc::clone(&host)));
            servers.push(Server { port, task });
            hosts.push(host);
        }

        let (address, pace) = (config.address, config.pace);
        let made = tokio::task::spawn_blocking({
            let (hosts, directory) = (hosts.clone(), Arc::clone(&directory));
            move || World::new(&config, hosts, directory, clock)
        });
        let world = Arc::new(Mutex::new(made.await.map_err(|_| Error::Died)?.map_err(Error::Repo)?));
        let (running, runs) = watch::channel(false);
        tasks.spawn(drive(Arc::clone(&world), hosts.clone(), pace, runs));
        let names = hosts.iter().map(|host| host.name.clone()).collect();
        Ok(Network { address, world, hosts, names, servers, directory, plc_url, running, tasks })
    }

    /// The hosts' names, `localhost:PORT`.
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

    /// The accounts' DIDs, the most active first.
    pub fn accounts(&self) -> Vec<Did> {
        self.world().accounts().iter().map(|account| account.did.clone()).collect()
    }

    /// Which host an account is on.
    pub fn host_of(&self, account: usize) -> usize {
        self.world().accounts()[account].host
    }

    /// What has been sent so far; empty unless [`Config::remember`].
    pub fn truth(&self) -> Truth {
        self.world().truth().cloned().unwrap_or_else(|| Truth::new(self.names.clone()))
    }

    /// As [`Network::truth`], without the first `events` of it.
    pub fn truth_after(&self, events: usize) -> Truth {
        self.world().truth().map_or_else(|| Truth::new(self.names.clone()), |truth| truth.after(events))
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        self.world().stats()
    }

    /// The frames that a host has in its window.
    pub fn frames(&self, host: usize) -> Vec<Bytes> {
        self.hosts[host].outbox.frames()
    }

    /// The keys that accounts sign with now.
    pub fn signing_keys(&self) -> HashMap<Did, PublicKey> {
        self.world().accounts().iter().map(|account| (account.did.clone(), account.key.public_key())).collect()
    }

    /// How many subscribers a host has.
    pub fn subscribers(&self, host: usize) -> usize {
        self.hosts[host].outbox.readers()
    }

    /// Bytes that the slowest subscriber of any host has still to be given; `None` where a host has none.
    pub fn backlog_bytes(&self) -> Option<usize> {
        backlog_bytes(&self.hosts)
    }

    /// From now on nothing new happens; what has been sent can still be read.
    pub fn pause(&self) {
        self.running.send_replace(false);
        // Whoever makes events holds the world: past this the last of them has been sent.
        drop(self.world());
    }

    /// Things happen at the configured pace.
    pub fn resume(&self) {
        self.running.send_replace(true);
    }

    /// Events gather at the hosts, and no subscriber sees them. When they are let go, each gets the `time` of its leaving;
    /// [`Network::truth`] knows only the time of its making.
    pub fn hold(&self) {
        self.hosts.iter().for_each(|host| host.outbox.hold(true));
    }

    /// Ends [`Network::hold`].
    pub fn release(&self) {
        self.hosts.iter().for_each(|host| host.outbox.hold(false));
    }

    /// One account does one thing, now; an account that is not active is activated instead.
    pub fn act(&self, account: usize, action: Action) -> Result<(), Error> {
        self.world().act(account, action).map_err(Error::Repo)
    }

    /// Creates all accounts that have not been created yet: `#identity`, `#account`, `#commit`, `#sync` each.
    pub async fn announce_all(&self) -> Result<(), Error> {
        self.blocking(|world| (0..world.accounts().len()).try_for_each(|account| world.announce(account))).await
    }

    /// Lets things happen until `events` more have been sent, as fast as they can be signed.
    pub async fn generate(&self, events: u64) -> Result<(), Error> {
        let until = self.stats().events + events;
        while self.stats().events < until {
            self.blocking(move |world| {
                let mut steps = 0;
                while world.stats().events < until && steps < STEPS_AT_ONCE {
                    world.step()?;
                    steps += 1;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Sends a frame that no honest host would send, made by `build` for a seq and a time.
    pub fn send_raw(
        &self,
        host: usize,
        did: &Did,
        kind: EventKind,
        expect: Expect,
        build: impl FnOnce(u64, &str) -> Vec<u8>,
    ) {
        self.world().send_raw(host, did, kind, expect, build);
    }

    /// What a host says of an account when it is asked: active, where `status` is none.
    pub fn show_account(&self, host: usize, did: &Did, rev: Tid, head: Cid, status: Option<&'static str>) {
        self.hosts[host].set_account(did, AccountStatus { active: status.is_none(), status, rev, head });
    }

    /// A host goes down: its port is closed, all connections are cut. Its accounts go on writing.
    pub async fn stop_host(&mut self, host: usize) {
        self.servers[host].task.shutdown().await;
    }

    /// A host is replaced by a fault, on the port it had, until [`Network::start_host`]. All connections are cut. Its
    /// accounts go on writing.
    pub async fn break_host(&mut self, host: usize, fault: HostFault) -> Result<Visits, Error> {
        self.stop_host(host).await;
        let listener = listener::bind(self.address, self.servers[host].port).await.map_err(Error::Listen)?;
        let visits = Visits::default();
        self.servers[host].task.spawn(faults::serve(listener, fault, visits.clone()));
        Ok(visits)
    }

    /// A host comes back on the port it had.
    pub async fn start_host(&mut self, host: usize) -> Result<(), Error> {
        self.stop_host(host).await;
        let listener = listener::bind(self.address, self.servers[host].port).await.map_err(Error::Listen)?;
        self.servers[host].task.spawn(listener::serve(listener, Arc::clone(&self.hosts[host])));
        Ok(())
    }

    /// Cuts all connections and ends.
    pub async fn stop(mut self) {
        self.pause();
        for host in 0..self.servers.len() {
            self.stop_host(host).await;
        }
        self.tasks.shutdown().await;
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&mut World) -> Result<(), MstError> + Send + 'static,
    ) -> Result<(), Error> {
        blocking(&self.world, work).await
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }
}

/// Lets things happen at their pace while `running` says so.
async fn drive(world: Arc<Mutex<World>>, hosts: Vec<Arc<Host>>, pace: Pace, mut running: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while running.wait_for(|running| *running).await.is_ok() {
        let (started, start_events) = (Instant::now(), lock(&world).stats().events);
        while *running.borrow() {
            ticks.tick().await;
            let until = match pace {
                Pace::PerSecond(rate) => start_events + (started.elapsed().as_secs_f64() * rate) as u64,
                Pace::AsRead => match backlog_bytes(&hosts) {
                    Some(backlog) if backlog < BACKLOG_BYTES_MAX => u64::MAX,
                    Some(_) | None => 0,
                },
                Pace::ByHand => 0,
            };
            let still = running.clone();
            let made = blocking(&world, move |world| {
                for _ in 0..STEPS_AT_ONCE {
                    if world.stats().events >= until || !*still.borrow() {
                        break;
                    }
                    world.step()?;
                }
                Ok(())
            });
            if let Err(error) = made.await {
                tracing::error!(%error, "the simulated network stands still");
                return;
            }
        }
    }
}

/// Bytes that the slowest subscriber of any host has still to be given; `None` where a host has none.
fn backlog_bytes(hosts: &[Arc<Host>]) -> Option<usize> {
    let backlogs: Option<Vec<usize>> = hosts.iter().map(|host| host.outbox.backlog_bytes()).collect();
    backlogs?.into_iter().max()
}

/// Works on the world where it holds up nobody.
async fn blocking(
    world: &Arc<Mutex<World>>,
    work: impl FnOnce(&mut World) -> Result<(), MstError> + Send + 'static,
) -> Result<(), Error> {
    let world = Arc::clone(world);
    let done = tokio::task::spawn_blocking(move || work(&mut lock(&world)));
    done.await.map_err(|_| Error::Died)?.map_err(Error::Repo)
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
