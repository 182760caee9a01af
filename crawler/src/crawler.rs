//! All hosts: who is read, the saving of cursors, the end.

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex},
    time::Duration,
};

use atproto::syntax::HostName;
use prometheus::Registry;
use rand::{SeedableRng, rngs::SmallRng};
use runtime::{chain::Chain, clock::Clock, egress::Egress, tasks::Tasks, trace::Tracer, ws::CloseCode};
use storage::{
    hosts::{AddedBy, Assignment, Host, HostCursor, HostStatus, Hosts, Notes, Nudge, Policy},
    intake::Intake,
    limits::Limits,
    refusal::Refusals,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, info_span, warn};
use url::Url;

use crate::{
    assign::Ours,
    discover,
    elsewhere::Elsewhere,
    host::{Action, End, Input, Timing},
    inbox::Allowance,
    keepalive::Patience,
    live::{HostView, LastEnd, Live, lock},
    metrics::Metrics,
    quota::Quota,
    schedule::Pacer,
    session::{self, Pace, Session},
};

/// Statuses written in one round of saving: each is a write of its own, and cursors must not wait behind thousands.
const STATUSES_PER_ROUND: usize = 200;

/// Where the reading of a host begins that was never read, or that counts anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what it sends from now on, as the network's relays do.
    #[default]
    Live,
    /// With the oldest event it has.
    Oldest,
}

/// What can be set. The defaults are safe for a small machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hosts to read, beside those in the store.
    pub hosts: Vec<(HostName, Start)>,
    /// Another relay, whose hosts are taken over.
    pub bootstrap: Option<Url>,
    /// Where other hosts' reading begins.
    pub start: Start,
    /// Hosts known at most.
    pub hosts_max: usize,
    /// Connections opened in a second, over all hosts.
    pub opens_per_second: NonZeroU32,
    /// Connections being opened at once.
    pub opens_max: usize,
    /// Bytes of large messages that are not whole yet, or not handed on, over all hosts. One message of the largest size
    /// always has room.
    pub half_messages_bytes_max: usize,
    /// Events of one host that are handed on and not taken yet.
    pub in_flight_max: NonZeroUsize,
    /// How hosts are waited for.
    pub timing: Timing,
    /// How connections are kept.
    pub patience: Patience,
    /// The time for a handshake, beside what the egress has for connecting.
    pub handshake_within: Duration,
    /// How often cursors are saved.
    pub save_every: Duration,
    /// Where other processes change hosts' rows: how often all of them are looked at.
    pub look_every: Duration,
    /// At the end, and where hosts are let go: the time for receipts that are still out.
    pub settle_within: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hosts: Vec::new(),
            bootstrap: None,
            start: Start::Live,
            hosts_max: 20_000,
            opens_per_second: NonZeroU32::new(50).expect("50 is not 0"),
            opens_max: 100,
            half_messages_bytes_max: 64 << 20,
            in_flight_max: NonZeroUsize::new(10_000).expect("10,000 is not 0"),
            timing: Timing::default(),
            patience: Patience::default(),
            handshake_within: Duration::from_secs(10),
            save_every: Duration::from_secs(1),
            look_every: Duration::from_secs(15),
            settle_within: Duration::from_secs(5),
        }
    }
}

/// What the crawler works with.
pub struct Parts {
    /// Takes the events.
    pub intake: Arc<dyn Intake>,
    /// Holds the hosts.
    pub hosts: Arc<dyn Hosts>,
    /// Says which of them are read here.
    pub crawled: Arc<dyn Assignment>,
    /// Counts what is refused.
    pub refusals: Arc<Refusals>,
    /// What each host may do.
    pub limits: Limits,
    /// Makes the connections.
    pub egress: Egress,
    /// Stamps the events.
    pub clock: Clock,
    /// Follows some of them.
    pub tracer: Tracer,
    /// Runs the hosts' tasks.
    pub tasks: Tasks,
    /// Ends the crawler; may be cancelled before the process's shutdown, so that what is in flight is still judged.
    pub stop: CancellationToken,
}

/// What the crawler can't go on from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hosts' store failed.
    #[error("failed to {what}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: storage::error::Error,
    },
    /// As many hosts are known as may be.
    #[error("{limit} hosts are known, which is the limit")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The host is not known.
    #[error("{0} is not known to this relay")]
    UnknownHost(HostName),
    /// A host can be read again only from before where it is.
    #[error("{to} is after the host's cursor, {}", cursor.map_or("which is not known yet".into(), |seq| seq.to_string()))]
    RewindAhead {
        /// What was asked for.
        to: u64,
        /// How far the host has been read.
        cursor: Option<u64>,
    },
    /// As many domains are banned as may be.
    #[error("{limit} domains are banned, which is the limit")]
    TooManyBans {
        /// The limit.
        limit: usize,
    },
    /// The metrics are registered already.
    #[error("failed to register the crawler's metrics")]
    Metrics(#[from] prometheus::Error),
}

/// What adding a host did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// It was known; it is tried soon if it is not being read.
    Known,
}

/// Reads all hosts. Made by [`Crawler::build`], runs until told to stop.
pub struct Crawler {
    shared: Arc<Shared>,
}

/// Looks at the crawler and gives it hosts. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) limits: Limits,
    pub(crate) allowance: Allowance,
    pub(crate) clock: Clock,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Metrics,
    pub(crate) hosts: Arc<dyn Hosts>,
    pub(crate) egress: Egress,
    pub(crate) policy: watch::Sender<Policy>,
    pub(crate) quota: Mutex<Quota>,
    pub(crate) tasks: Tasks,
    stop: CancellationToken,
    pub(crate) crawled: Arc<dyn Assignment>,
    /// What is read here. Locked before `ours` and `elsewhere` where one needs both.
    pub(crate) table: Mutex<HashMap<HostName, Arc<Live>>>,
    pub(crate) ours: Mutex<Ours>,
    pub(crate) elsewhere: Elsewhere,
    pacer: Mutex<Pacer>,
    opens: Semaphore,
    pub(crate) probes: Semaphore,
    /// Held while hosts' rows or the policy are written, so that an operator's word is never overwritten by what was
    /// true before it.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

/// Probes of hosts that want to be crawled, at once.
const PROBES_MAX: usize = 16;

// === impl Crawler ===

impl Crawler {
    /// Makes the crawler. Nothing is connected yet.
    pub fn build(config: Config, parts: Parts, registry: &Registry) -> Result<(Crawler, Handle), Error> {
        let metrics = Metrics::register(registry)?;
        let shared = Arc::new(Shared {
            allowance: Allowance::new(config.half_messages_bytes_max, metrics.half_bytes.clone()),
            metrics,
            intake: parts.intake,
            refusals: parts.refusals,
            limits: parts.limits,
            policy: watch::Sender::new(Policy::default()),
            quota: Mutex::default(),
            clock: parts.clock,
            tracer: parts.tracer,
            hosts: parts.hosts,
            egress: parts.egress,
            tasks: parts.tasks,
            stop: parts.stop,
            table: Mutex::default(),
            ours: Mutex::new(Ours::new(parts.crawled.shards())),
            crawled: parts.crawled,
            elsewhere: Elsewhere::default(),
            pacer: Mutex::new(Pacer::new(config.opens_per_second)),
            opens: Semaphore::new(config.opens_max),
            probes: Semaphore::new(PROBES_MAX),
            writing: tokio::sync::Mutex::default(),
            config,
        });
        Ok((Crawler { shared: Arc::clone(&shared) }, Handle { shared }))
    }

    /// Reads the hosts until `stop`; then stops reading, waits for receipts within the deadline, and saves the cursors.
    pub async fn run(self) -> Result<(), Error> {
        let shared = self.shared;
        let policy = shared.hosts.policy().await;
        shared.adopt_policy(policy.map_err(|source| Error::Store { what: "read the operator's policy", source })?);
        shared.follow(shared.changes_now()?).await?;
        let handle = Handle { shared: Arc::clone(&shared) };
        for (name, start) in &shared.config.hosts {
            handle.add_host(name, *start).await?;
        }
        if let Some(relay) = shared.config.bootstrap.clone() {
            let (stop, start) = (shared.stop.clone(), shared.config.start);
            let bootstrap = discover::bootstrap(handle, relay, start);
            shared.tasks.spawn("bootstrap", async move {
                let _ = stop.run_until_cancelled(bootstrap).await;
            });
        }
        let mut rounds = interval(shared.config.save_every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(shared.config.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => break,
                _ = rounds.tick() => shared.round().await,
                changes = shared.changes() => shared.follow(changes?).await?,
                _ = looks.tick(), if shared.crawled.is_shared() => shared.look_at_all().await,
            }
        }
        shared.settle().await;
        Ok(())
    }
}

// === impl Handle ===

impl Handle {
    /// Has a host read, from now on and after every restart. A banned host stays banned.
    pub async fn add_host(&self, name: &HostName, start: Start) -> Result<Added, Error> {
        self.shared.add(name, start, HostStatus::Idle, AddedBy::Operator).await
    }

    /// All hosts as they are now, by name.
    pub fn hosts(&self) -> Vec<HostView> {
        let now = Instant::now();
        let Shared { table, elsewhere, limits, policy, .. } = &*self.shared;
        let mut views: Vec<HostView> = {
            let table = lock(table);
            let here = table.values().map(|live| live.view(limits, now));
            here.chain(elsewhere.views(&policy.borrow(), limits)).collect()
        };
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// One host as it is now.
    pub fn host(&self, name: &HostName) -> Option<HostView> {
        let Shared { elsewhere, limits, policy, .. } = &*self.shared;
        match self.shared.live(name) {
            Some(live) => Some(live.view(limits, Instant::now())),
            None => elsewhere.view(name, &policy.borrow(), limits),
        }
    }

    pub(crate) fn egress(&self) -> &Egress {
        &self.shared.egress
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn live(&self, name: &HostName) -> Option<Arc<Live>> {
        lock(&self.table).get(name).cloned()
    }

    pub(crate) async fn add(
        self: &Arc<Self>,
        name: &HostName,
        start: Start,
        status: HostStatus,
        added_by: AddedBy,
    ) -> Result<Added, Error> {
        if self.wish(name).await {
            return Ok(Added::Known);
        }
        let limit = self.config.hosts_max;
        if self.hosts_known() >= limit {
            return Err(Error::Full { limit });
        }
        let store = |what| move |source| Error::Store { what, source };
        let notes = Notes { added_by, ..Notes::default() };
        let mut fresh = Host { notes, ..Host::new(name.clone(), status, self.clock.now_micros()) };
        if self.crawled.is_shared() && start == Start::Oldest {
            // Whoever will read it knows from the row alone where to begin.
            fresh.cursor.seq = Some(0);
        }
        let added = self.hosts.add(&fresh).await.map_err(store("add a host"))?;
        // Where it was in the store already, its row says how far it was read.
        let row = match added {
            true => fresh,
            false => self.hosts.get(name).await.map_err(store("read a host"))?.unwrap_or(fresh),
        };
        self.place(row, start);
        self.tell(Nudge::Host(name.clone())).await;
        Ok(if added { Added::New } else { Added::Known })
    }

    /// Has a known host tried soon, whoever reads it; gives whether it is known.
    pub(crate) async fn wish(&self, name: &HostName) -> bool {
        if let Some(live) = self.live(name) {
            live.nudged.notify_waiters();
            return true;
        }
        if self.elsewhere.may_nudge(name, self.config.timing.nudge_gap, Instant::now()) {
            self.tell(Nudge::Host(name.clone())).await;
        }
        self.elsewhere.contains(name)
    }

    /// Hosts read here or elsewhere.
    pub(crate) fn hosts_known(&self) -> usize {
        lock(&self.table).len() + self.elsewhere.len()
    }

    /// Starts a host's task, unless it has one or is not ours.
    pub(crate) fn place(self: &Arc<Self>, row: Host, start: Start) {
        let mut table = lock(&self.table);
        if self.stop.is_cancelled() || table.contains_key(&row.name) {
            return;
        }
        // Where nobody else reads any, all are ours before the assignment has said so.
        if self.crawled.is_shared() && !lock(&self.ours).covers(&row.name) {
            self.elsewhere.put(row, &self.limits);
            return;
        }
        self.elsewhere.remove(&row.name);
        if !row.notes.limits.is_empty() {
            self.limits.set_exception(&row.name, row.notes.limits);
        }
        let domain_ban = self.policy.borrow().ban_over(&row.name).cloned();
        let live = Arc::new(Live::new(row, start, self.config.timing, domain_ban, self.stop.child_token()));
        if let Some(rewind) = live.notes().pending_rewind() {
            self.carry_out(&live, rewind);
        }
        table.insert(live.name.clone(), Arc::clone(&live));
        let span = info_span!("host", host = %live.name);
        let ended = live.ended.clone().drop_guard();
        self.tasks.spawn_in(span, "host", crawl(Arc::clone(self), live, ended));
    }

    /// What is done every second: cursors and statuses are saved, rates and hosts are counted.
    async fn round(&self) {
        let lives: Vec<Arc<Live>> = lock(&self.table).values().cloned().collect();
        self.save(&lives).await;
        let now = Instant::now();
        for live in &lives {
            live.measure(now);
        }
        self.metrics.count_hosts(lives.iter().map(|live| live.status(now)));
    }

    /// Makes a host's epoch durable before an event of it is handed on: whoever went on in an earlier one, after a crash
    /// or in our place, would bring nothing but repeats.
    pub(crate) async fn settle_epoch(&self, live: &Live, epoch: u32) -> Result<(), storage::error::Error> {
        if lock(&live.saved).cursor.epoch >= epoch {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        let cursor = live.cursor();
        self.hosts.save_cursors(&[(live.name.clone(), cursor)]).await?;
        lock(&live.saved).cursor = cursor;
        Ok(())
    }

    async fn save(&self, lives: &[Arc<Live>]) {
        let _writing = self.writing.lock().await;
        // Who was let go meanwhile is another's, and so is the row.
        let lives: Vec<Arc<Live>> = {
            let table = lock(&self.table);
            let is_here = |live: &&Arc<Live>| table.get(&live.name).is_some_and(|here| Arc::ptr_eq(here, live));
            lives.iter().filter(is_here).cloned().collect()
        };
        self.save_cursors(&lives).await;
        self.save_statuses(&lives).await;
        self.save_notes(&lives).await;
    }

    async fn save_cursors(&self, lives: &[Arc<Live>]) {
        let moved: Vec<(&Arc<Live>, HostCursor)> = lives
            .iter()
            .map(|live| (live, live.cursor()))
            .filter(|(live, cursor)| lock(&live.saved).cursor != *cursor)
            .collect();
        if moved.is_empty() {
            return;
        }
        let cursors: Vec<(HostName, HostCursor)> =
            moved.iter().map(|(live, cursor)| (live.name.clone(), *cursor)).collect();
        match self.hosts.save_cursors(&cursors).await {
            Ok(()) => {
                for (live, cursor) in moved {
                    lock(&live.saved).cursor = cursor;
                }
                self.metrics.cursor_saves.inc_by(cursors.len() as u64);
            }
            Err(error) => {
                // Old cursors in the store only mean that more is read again. The next round tries once more.
                self.metrics.save_failures.inc();
                warn!(error = %Chain(&error), hosts = cursors.len(), "failed to save cursors");
            }
        }
    }

    async fn save_statuses(&self, lives: &[Arc<Live>]) {
        let now = Instant::now();
        let changed = lives
            .iter()
            .filter(|live| !*live.banned.borrow())
            .map(|live| (live, live.status(now)))
            // An unbanned host is Banned until its task has seen it.
            .filter(|(live, status)| *status != HostStatus::Banned && lock(&live.saved).status != *status)
            .take(STATUSES_PER_ROUND);
        for (live, status) in changed {
            match self.hosts.set_status(&live.name, status).await {
                Ok(()) => {
                    let was = std::mem::replace(&mut lock(&live.saved).status, status);
                    let host = &live.name;
                    match status {
                        HostStatus::Offline | HostStatus::Throttled => {
                            info!(%host, was = was.as_str(), status = status.as_str(), "host changed");
                        }
                        HostStatus::Active | HostStatus::Idle | HostStatus::Banned => {
                            debug!(%host, was = was.as_str(), status = status.as_str(), "host changed");
                        }
                    }
                }
                Err(error) => {
                    self.metrics.save_failures.inc();
                    warn!(error = %Chain(&error), host = %live.name, "failed to save a host's status");
                    return;
                }
            }
        }
    }

    /// Resets that connections have seen.
    async fn save_notes(&self, lives: &[Arc<Live>]) {
        let changed =
            lives.iter().map(|live| (live, live.notes())).filter(|(live, notes)| lock(&live.saved).notes != *notes);
        for (live, notes) in changed.take(STATUSES_PER_ROUND) {
            match self.hosts.set_notes(&live.name, &notes).await {
                Ok(()) => lock(&live.saved).notes = notes,
                Err(error) => {
                    self.metrics.save_failures.inc();
                    warn!(error = %Chain(&error), host = %live.name, "failed to save a host's notes");
                    return;
                }
            }
        }
    }

    /// The end: no host is read any more.
    async fn settle(&self) {
        let lives: Vec<Arc<Live>> = lock(&self.table).values().cloned().collect();
        let unsettled = self.end(&lives).await;
        self.crawled.leave().await;
        info!(hosts = lives.len(), unsettled, "crawler stopped");
    }

    /// Ends the reading of hosts: what is in flight is taken if it is in time, and the cursors are saved. Gives how many
    /// events were not taken.
    pub(crate) async fn end(&self, lives: &[Arc<Live>]) -> usize {
        let deadline = Instant::now() + self.config.settle_within;
        for live in lives {
            live.stop.cancel();
        }
        for live in lives {
            let _ = timeout_at(deadline, live.ended.cancelled()).await;
        }
        let running = lives.iter().filter(|live| !live.ended.is_cancelled()).count();
        if running > 0 {
            warn!(hosts = running, "hosts' tasks are still running");
        }
        for live in lives {
            let _ = timeout_at(deadline, live.tally().settled()).await;
        }
        let unsettled = lives.iter().map(|live| live.tally().outstanding()).sum();
        self.save(lives).await;
        unsettled
    }
}

/// The task of one host.
async fn crawl(shared: Arc<Shared>, live: Arc<Live>, _ended: DropGuard) {
    let mut rng = SmallRng::from_rng(&mut rand::rng());
    let mut pace = Pace::new(&shared, &live);
    let mut banned = live.banned.subscribe();
    let mut opened = None;
    let mut input = Input::Tick;
    loop {
        let action = live.step(Instant::now(), input, &mut rng);
        input = match action {
            Action::Wait(until) => tokio::select! {
                () = live.stop.cancelled() => return,
                () = becomes(&mut banned, true) => Input::Banned,
                () = live.nudged.notified() => Input::Nudged,
                () = live.restarted.notified() => Input::Restarted,
                () = sleep_until(until) => Input::Tick,
            },
            Action::Rest => tokio::select! {
                () = live.stop.cancelled() => return,
                () = becomes(&mut banned, false) => Input::Unbanned,
            },
            Action::Open => {
                let cursor = live.resume();
                let result = tokio::select! {
                    () = live.stop.cancelled() => return,
                    () = becomes(&mut banned, true) => Err(Input::Banned),
                    () = live.restarted.notified() => Err(Input::Restarted),
                    // In a box, so that a host that is read or waits has no room for name, TLS and HTTP.
                    result = Box::pin(open(&shared, &live, cursor)) => Ok(result),
                };
                match result {
                    Err(input) => input,
                    Ok(Ok(socket)) => {
                        shared.metrics.opened.inc();
                        live.count_connection();
                        debug!(cursor, "connected");
                        opened = Some((socket, cursor));
                        Input::Opened
                    }
                    Ok(Err(failure)) => ended(&shared, &live, failure),
                }
            }
            Action::Read => match opened.take() {
                Some((socket, cursor)) => {
                    let mut session = Session::new(&shared, &live, &mut pace, socket, cursor);
                    tokio::select! {
                        () = live.stop.cancelled() => {
                            session.close(CloseCode::GOING_AWAY, "the relay is stopping").await;
                            return;
                        }
                        () = becomes(&mut banned, true) => {
                            session.close(CloseCode::NORMAL, "").await;
                            Input::Banned
                        }
                        () = live.restarted.notified() => {
                            session.close(CloseCode::NORMAL, "").await;
                            Input::Restarted
                        }
                        failure = session.read() => ended(&shared, &live, failure),
                    }
                }
                // The machine reads only after `Opened`, and each `Ended` leaves that state.
                None => Input::Ended { end: End::Broken, retry_after: None },
            },
        };
    }
}

/// Opens a connection when its turn has come.
async fn open(
    shared: &Shared,
    live: &Live,
    cursor: Option<u64>,
) -> Result<runtime::ws::Socket<runtime::egress::Stream>, session::Failure> {
    let slot = lock(&shared.pacer).slot(Instant::now());
    sleep_until(slot).await;
    // The semaphore is never closed.
    let _permit = shared.opens.acquire().await;
    live.count_try();
    session::open(&shared.egress, &live.name, cursor, shared.config.handshake_within).await
}

fn ended(shared: &Shared, live: &Live, failure: session::Failure) -> Input {
    shared.metrics.ended(failure.end);
    debug!(cause = failure.end.as_str(), detail = failure.detail, "connection ended");
    let input = failure.input();
    live.count_end(LastEnd { end: failure.end, detail: failure.detail, at_micros: shared.clock.now_micros() });
    input
}

/// Waits until the value is the wanted one. Its sender lives as long as the host's task.
async fn becomes(value: &mut watch::Receiver<bool>, wanted: bool) {
    if value.wait_for(|value| *value == wanted).await.is_err() {
        std::future::pending().await
    }
}
