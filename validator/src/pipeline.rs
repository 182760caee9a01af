//! Takes lanes from the intake through the rules into the log.
//!
//! A lane's decisions are its [`Docket`]'s; here are its questions to the outside, its appends and its end. A lane goes
//! on judging while earlier batches are being appended and while accounts wait for their identities, within bounds;
//! past them it pulls no more, which is the back-pressure on the intake.
//!
//! Judging is computation, so lanes run on threads of their own ([`Validator::run_workers`]) and never delay a socket.

use std::{
    collections::HashMap,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use atproto::{
    event,
    syntax::{Did, HostName},
};
use futures_util::{
    StreamExt, TryFutureExt, future,
    future::BoxFuture,
    poll,
    stream::{FuturesOrdered, FuturesUnordered},
};
use prometheus::{Registry, local::LocalHistogram};
use runtime::{clock::Clock, egress::Egress, trace::Tracer};
use storage::{
    Stores,
    intake::RawFrame,
    lane::{Change, Lane},
    limits::Limits,
    log::Accepted,
    refusal::{Input, Refusals},
};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinSet, yield_now},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};

use crate::{
    docket::{self, Answer, Ask, Docket, Evidence, Judge, Outcome, Sender},
    following::{self, Appending},
    identity::{self, Asker, Identity, Resolver},
    metrics::Metrics,
    places::{self, Places},
    refreshes::Refreshes,
    rules::{self, Context, Origin},
    status::{self, StatusAsker},
    verdict::{Refusal, Verdict},
};

/// How lanes are judged. Bounds are for each lane.
#[derive(Clone, Debug)]
pub struct Config {
    /// About how many bytes are pulled from the intake at once.
    pub pull_bytes: usize,
    /// Batches that may be on their way into the log.
    pub appends_max: NonZeroUsize,
    /// Bytes accepted and not yet handed to the log, past which the lane stops pulling.
    pub batch_bytes_max: usize,
    /// Parked bytes of one account from one host, past which the lane stops pulling.
    pub account_parked_bytes_max: usize,
    /// Parked bytes of one account that answers for its own identity (`did:web`) and does not, past which its oldest
    /// events are refused.
    pub web_account_parked_bytes_max: usize,
    /// Parked bytes of the lane, past which it stops pulling.
    pub parked_bytes_max: usize,
    /// Memory for repo states, all lanes together.
    pub states_bytes_max: u64,
    /// How long the directory's replicas may lag; see [`identity::Config::replica_lag`].
    pub replica_lag: Duration,
    /// How long a host's word that an account is not active is believed without asking again.
    pub inactive_for: Duration,
    /// Identities that are fetched anew on the word of a host that is wrong each time, all lanes together.
    pub refresh_burst: u32,
    /// The time after which such a host is granted another one.
    pub refresh_every: Duration,
    /// How hosts are asked for the status of accounts.
    pub status: status::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pull_bytes: 256 << 10,
            appends_max: NonZeroUsize::new(4).expect("4 is not 0"),
            batch_bytes_max: 4 << 20,
            account_parked_bytes_max: 8 << 20,
            web_account_parked_bytes_max: 256 << 10,
            parked_bytes_max: 16 << 20,
            states_bytes_max: 64 << 20,
            replica_lag: Duration::from_secs(1),
            inactive_for: Duration::from_secs(60),
            refresh_burst: 20,
            refresh_every: Duration::from_secs(3),
            status: status::Config::default(),
        }
    }
}

/// What the validator works with.
#[derive(Clone)]
pub struct Parts {
    /// Where frames come from and events go.
    pub stores: Stores,
    /// Who accounts are.
    pub resolver: Resolver,
    /// For questions to hosts.
    pub egress: Egress,
    /// How many accounts each host may have.
    pub limits: Limits,
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
    /// What time it is.
    pub clock: Clock,
    /// Follows some events.
    pub tracer: Tracer,
}

/// Why a lane has ended though nobody asked it to. The process can't go on: what it holds is read again after a start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The intake, the log or the repos failed.
    #[error("the store failed")]
    Store(#[from] storage::error::Error),
    /// Identities can't be resolved any more.
    #[error(transparent)]
    Identity(#[from] identity::Closed),
    /// A thread could not be started.
    #[error("a worker could not be started")]
    Start(#[source] io::Error),
    /// A thread panicked.
    #[error("a worker panicked")]
    Panicked,
}

/// The judge of all lanes. Cheap to clone.
#[derive(Clone)]
pub struct Validator {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    parts: Parts,
    statuses: StatusAsker,
    places: Arc<Places>,
    refreshes: Mutex<Refreshes>,
    metrics: Metrics,
}

// === impl Validator ===

impl Validator {
    /// Puts the parts together; nothing runs yet.
    pub fn build(config: Config, parts: Parts, registry: &Registry) -> Result<Validator, prometheus::Error> {
        let statuses = StatusAsker::new(config.status.clone(), parts.egress.clone());
        let metrics = Metrics::register(registry)?;
        let refresh_every_micros = u64::try_from(config.refresh_every.as_micros()).unwrap_or(u64::MAX);
        let refreshes = Mutex::new(Refreshes::new(config.refresh_burst, refresh_every_micros));
        let shared = Shared { config, parts, statuses, places: Arc::default(), refreshes, metrics };
        Ok(Validator { shared: Arc::new(shared) })
    }

    /// Judges one lane until shutdown or the intake is closed; then it lets the appends under way end and covers them.
    /// One caller a lane.
    pub async fn run_lane(&self, lane: Lane, shutdown: CancellationToken) -> Result<(), Error> {
        let run = LaneRun::new(&self.shared, lane).run(shutdown);
        run.instrument(info_span!("lane", lane = lane.0)).await
    }

    /// Judges the lanes that this process is given on threads of its own until shutdown or the intake is closed. The first
    /// lane to fail ends the others; one that another process has taken over ends alone.
    ///
    /// The threads share all lanes: a lane with a very busy account would otherwise leave the thread beside its own
    /// without work (with two threads and activity by a Zipf law they did 1.4 times as much as one, now 1.6).
    pub async fn run_workers(&self, workers: NonZeroUsize, shutdown: CancellationToken) -> Result<(), Error> {
        // Dropping this future stops the lanes too.
        let stop = shutdown.child_token();
        let _stop_all = stop.clone().drop_guard();
        let Stores { intake, assignment, .. } = &self.shared.parts.stores;
        let workers = Workers::start(workers.get().min(intake.lanes().0.get() as usize))?;
        let mut lanes = Lanes { validator: self, workers: &workers, running: JoinSet::new(), stops: HashMap::new() };
        let mut count_anew = interval(places::COUNTED_ANEW);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = count_anew.tick() => self.shared.places.forget(),
                Some(ended) = lanes.running.join_next(), if !lanes.running.is_empty() => {
                    if lanes.ended(ended).await? == End::Closed {
                        break;
                    }
                }
                change = assignment.next() => match change {
                    Ok(Change::Given(lane)) => lanes.start(lane, stop.child_token()),
                    Ok(Change::Gone(lane)) => lanes.stop(lane),
                    Err(storage::error::Error::Closed) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        while let Some(ended) = lanes.running.join_next().await {
            lanes.ended(ended).await?;
        }
        Ok(())
    }
}

/// The lanes that this process judges.
struct Lanes<'a> {
    validator: &'a Validator,
    workers: &'a Workers,
    running: JoinSet<(Lane, Result<(), Error>)>,
    stops: HashMap<Lane, CancellationToken>,
}

/// Why a lane has ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to, or another process has taken it over.
    Released,
    /// The intake is closed.
    Closed,
}

impl Lanes<'_> {
    fn start(&mut self, lane: Lane, stop: CancellationToken) {
        self.stops.insert(lane, stop.clone());
        let validator = self.validator.clone();
        self.running.spawn_on(async move { (lane, validator.run_lane(lane, stop).await) }, self.workers.handle());
        self.measure();
    }

    fn stop(&self, lane: Lane) {
        if let Some(stop) = self.stops.get(&lane) {
            stop.cancel();
        }
    }

    async fn ended(&mut self, ended: Result<(Lane, Result<(), Error>), JoinError>) -> Result<End, Error> {
        let (lane, result) = ended.map_err(|_| Error::Panicked)?;
        let was_told = self.stops.remove(&lane).is_some_and(|stop| stop.is_cancelled());
        self.measure();
        let end = match result {
            Ok(()) if was_told => End::Released,
            Ok(()) => End::Closed,
            Err(Error::Store(storage::error::Error::Fenced { what })) => {
                info!(lane = lane.0, what, "another process has taken the lane over");
                self.validator.shared.metrics.lanes_fenced.inc();
                End::Released
            }
            Err(error) => return Err(error),
        };
        self.validator.shared.parts.stores.assignment.released(lane).await;
        Ok(end)
    }

    fn measure(&self) {
        let lanes = i64::try_from(self.stops.len()).unwrap_or(i64::MAX);
        self.validator.shared.metrics.lanes_judged.set(lanes);
    }
}

/// Threads that judge. They end with this value, without being waited for: they hold nothing that has to be kept.
struct Workers(Option<tokio::runtime::Runtime>);

impl Workers {
    fn start(threads: usize) -> Result<Workers, Error> {
        let started = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name_fn(move || format!("judge-{}", started.fetch_add(1, Ordering::Relaxed)))
            .enable_all()
            .build();
        Ok(Workers(Some(runtime.map_err(Error::Start)?)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is taken only at the end").handle()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for threads is forbidden where others are served.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn refreshes(&self) -> MutexGuard<'_, Refreshes> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane under way.
struct LaneRun<'a> {
    shared: &'a Shared,
    lane: Lane,
    docket: Docket,
    bench: Bench<'a>,
    asks: FuturesUnordered<BoxFuture<'a, Result<Answer, Error>>>,
    appends: FuturesOrdered<BoxFuture<'a, Result<(), storage::error::Error>>>,
    parked_bytes: i64,
    parked_parties: i64,
}

// === impl LaneRun ===

impl<'a> LaneRun<'a> {
    fn new(shared: &'a Shared, lane: Lane) -> LaneRun<'a> {
        let config = &shared.config;
        let lanes = u64::from(shared.parts.stores.intake.lanes().0.get());
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let limits = docket::Limits {
            account_bytes_max: config.account_parked_bytes_max,
            web_account_bytes_max: config.web_account_parked_bytes_max,
            lane_bytes_max: config.parked_bytes_max,
            batch_bytes_max: config.batch_bytes_max,
            states_bytes_max: config.states_bytes_max / lanes,
            replica_lag_micros: micros(config.replica_lag),
            status_micros: micros(config.inactive_for),
        };
        let docket = Docket::new(limits, Arc::clone(&shared.places), shared.parts.clock.now_micros());
        LaneRun {
            shared,
            lane,
            docket,
            bench: Bench { shared, judge_seconds: shared.metrics.judge_seconds.local() },
            asks: FuturesUnordered::new(),
            appends: FuturesOrdered::new(),
            parked_bytes: 0,
            parked_parties: 0,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let intake = &*self.shared.parts.stores.intake;
        let pull_bytes = self.shared.config.pull_bytes;
        loop {
            self.hand_on().await?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(result) = self.appends.next(), if !self.appends.is_empty() => {
                    result?;
                    self.docket.appended();
                }
                Some(answer) = self.asks.next(), if !self.asks.is_empty() => {
                    self.docket.answer(answer?, self.shared.parts.clock.now_micros(), &mut self.bench);
                }
                pulled = intake.pull(self.lane, pull_bytes), if !self.docket.is_full() => {
                    let pulled = match pulled {
                        Err(storage::error::Error::Closed) => break,
                        pulled => pulled?,
                    };
                    let now_micros = self.shared.parts.clock.now_micros();
                    for taken in pulled {
                        self.docket.take(taken, now_micros, &mut self.bench);
                    }
                    // The lanes of a thread take turns.
                    yield_now().await;
                }
            }
        }
        // What waits for an answer is given up: it was not covered, so it comes again.
        self.asks.clear();
        loop {
            self.hand_on().await?;
            let Some(result) = self.appends.next().await else { return Ok(()) };
            result?;
            self.docket.appended();
        }
    }

    /// Hands on what the docket has for the outside.
    async fn hand_on(&mut self) -> Result<(), Error> {
        self.bench.judge_seconds.flush();
        while let Some(ask) = self.docket.next_ask() {
            self.asks.push(Box::pin(answer(self.shared, ask)));
        }
        if self.appends.len() < self.shared.config.appends_max.get()
            && let Some(batch) = self.docket.next_batch()
        {
            self.append(batch).await;
        }
        while let Some(done) = self.docket.next_done() {
            done.tell();
        }
        if let Some(position) = self.docket.covered() {
            self.shared.parts.stores.intake.cover(self.lane, position).await?;
        }
        let early = self.docket.settled_early();
        if !early.is_empty() {
            self.shared.parts.stores.intake.settle(self.lane, &early).await?;
        }
        self.measure();
        Ok(())
    }

    /// Starts an append. It is polled here, because the log keeps the order of first polls.
    async fn append(&mut self, batch: Vec<Accepted>) {
        let Parts { stores, tracer, clock, .. } = &self.shared.parts;
        let following = Appending::of(&batch, tracer, clock);
        let mut append: BoxFuture<'a, _> = stores.log.append(batch);
        if let Some(following) = following {
            append = Box::pin(append.inspect_ok(move |()| following.appended()));
        }
        match poll!(&mut append) {
            Poll::Ready(result) => self.appends.push_back(Box::pin(future::ready(result))),
            Poll::Pending => self.appends.push_back(append),
        }
    }

    fn measure(&mut self) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (bytes, parties) = (count(self.docket.parked_bytes()), count(self.docket.parked_parties()));
        self.shared.metrics.parked_bytes.add(bytes - self.parked_bytes);
        self.shared.metrics.parked_parties.add(parties - self.parked_parties);
        (self.parked_bytes, self.parked_parties) = (bytes, parties);
    }
}

impl Drop for LaneRun<'_> {
    fn drop(&mut self) {
        self.shared.metrics.parked_bytes.sub(self.parked_bytes);
        self.shared.metrics.parked_parties.sub(self.parked_parties);
    }
}

/// Brings the answer to an ask.
async fn answer(shared: &Shared, ask: Ask) -> Result<Answer, Error> {
    let parts = &shared.parts;
    match ask {
        Ask::State(did) => {
            let state = parts.stores.repos.get(&did).await?;
            Ok(Answer::State(did, state))
        }
        Ask::Identity(party, want) => {
            let asker = match &party.sender {
                Sender::Host(host) => Asker::Host(host.clone()),
                Sender::Operator => Asker::Ourselves,
            };
            let identity = parts.resolver.resolve(&party.did, want, asker).await?;
            Ok(Answer::Identity(party, identity))
        }
        Ask::Status(party, host) => {
            shared.metrics.status_asked.inc();
            // In a box: all asks are as large as the largest, and of those for identities there are very many.
            let status = Box::pin(shared.statuses.ask(&host, &party.did)).await;
            Ok(Answer::Status(party, status))
        }
        Ask::Places(party, host) => {
            shared.places.load(&host, &*parts.stores.repos).await?;
            Ok(Answer::Places(party))
        }
    }
}

/// Applies the rules, and keeps the books.
struct Bench<'a> {
    shared: &'a Shared,
    /// Told to all after each batch: what all lanes write to at each event would go to and fro between the processors.
    judge_seconds: LocalHistogram,
}

impl Judge for Bench<'_> {
    fn identity(&mut self, did: &Did) -> Option<Identity> {
        self.shared.parts.resolver.cached(did)
    }

    fn accounts_max(&mut self, host: &HostName) -> Option<u64> {
        self.shared.parts.limits.of(host).accounts_max
    }

    fn judge(&mut self, frame: &RawFrame, evidence: &Evidence<'_>) -> Verdict {
        let Parts { tracer, clock, .. } = &self.shared.parts;
        let began = Instant::now();
        let began_micros = if tracer.is_on() { clock.now_micros() } else { 0 };
        let RawFrame { host, host_epoch, upstream_seq, .. } = frame;
        let origin = Origin { host, host_epoch: *host_epoch, upstream_seq: *upstream_seq };
        let verdict = judge(&frame.bytes, &origin, evidence);
        self.judge_seconds.observe(began.elapsed().as_secs_f64());
        following::judged(frame, began_micros, tracer, clock);
        verdict
    }

    fn may_refresh(&mut self, host: &HostName, now_micros: u64) -> bool {
        self.shared.refreshes().take(host, now_micros)
    }

    fn was_right(&mut self, host: &HostName) {
        self.shared.refreshes().give_back(host);
    }

    fn settled(&mut self, frame: &RawFrame, outcome: Outcome) {
        self.shared.metrics.settled(frame.kind, &outcome);
        let parts = &self.shared.parts;
        following::settled(frame, &outcome, &parts.tracer, &parts.clock);
        if let Outcome::Refused(refusal) = outcome {
            let input = Input { kind: Some(frame.kind), seq: Some(frame.upstream_seq), did: Some(&frame.did) };
            parts.refusals.record(&frame.host, &input, &refusal, parts.clock.now_micros());
        }
    }
}

/// Decodes a frame and applies the rules to it.
pub(crate) fn judge(frame: &[u8], origin: &Origin<'_>, evidence: &Evidence<'_>) -> Verdict {
    let event = match event::parse(frame) {
        Ok(event) => event,
        Err(error) => return Verdict::Refuse(Refusal::unreadable(&error)),
    };
    match &evidence.identity.known {
        Ok(document) => rules::judge(
            &event,
            &Context {
                host: origin.host,
                host_epoch: origin.host_epoch,
                upstream_seq: origin.upstream_seq,
                now_micros: evidence.now_micros,
                state: evidence.state,
                identity: document,
                identity_fetched_at_micros: evidence.identity.fetched_at_micros,
                identity_is_fresh: evidence.identity_is_fresh,
                status_is_fresh: evidence.status_is_fresh,
                room: evidence.room,
            },
        ),
        Err(absence) => rules::judge_absent(&event, *absence, origin, evidence.state),
    }
}
