//! The cache, and the loop that makes requests for it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use atproto::syntax::Did;
use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use prometheus::Registry;
use quick_cache::{Weighter, sync::Cache};
use runtime::{clock::Clock, egress::Egress, rate::Rate};
use storage::identities::Identities;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Asker, Config, Identity, Progress, Want,
    fetch::{self, Fetched, Method, Silence},
    gate::{self, Gate},
    lookups::{Flight, Landed, Lookups, Recheck, Request, Timing},
    row,
};
use crate::metrics::IdentityMetrics;

/// What a cached identity costs beside its DID, host and handle: the parsed key and the entry.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// Requests on their way to the loop; more wait where they are made.
const INBOX_MAX: usize = 1_024;

/// Second looks that may be planned at once; more are not made.
const RECHECKS_MAX: usize = 4_096;

/// Identities that wait to be kept, while others are being kept; more are not.
const UNKEPT_MAX: usize = 8_192;

/// How long [`Resolver::refresh`] waits.
const REFRESH_WITHIN: Duration = Duration::from_secs(15);

/// Warnings about a silent directory, at most one in this time; and while many accounts wait, how often it is said how
/// the resolving goes.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// So many accounts that wait are worth telling of.
const MANY: usize = 100;

/// Knows who accounts are. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Request>,
}

/// Makes the requests for all [`Resolver`]s of one [`build`].
pub struct Directory {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Request>,
    lookups: Lookups,
    gates: [Gate; 2],
    flights: FuturesUnordered<BoxFuture<'static, Touchdown>>,
    timers: BinaryHeap<Reverse<Timer>>,
    timers_made: u64,
    rechecks: usize,
    unkept: Vec<(Did, Vec<u8>)>,
    keeping: Option<BoxFuture<'static, ()>>,
    /// When it was last told that the directory is silent, and whether that still stands.
    warned: Option<Instant>,
    warning_stands: bool,
    progress_told: Instant,
}

/// The directory's loop has ended: the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identities are no longer resolved")]
pub struct Closed;

/// Why an operator's refresh brought nothing. What was known stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The process is shutting down.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// No answer came; it is asked on.
    #[error("no answer within {within:?}")]
    Silent {
        /// How long was waited.
        within: Duration,
    },
}

struct Shared {
    config: Config,
    egress: Egress,
    clock: Clock,
    cache: Cache<Did, Entry, ByBytes>,
    kept: Arc<dyn Identities>,
    rate: Rate,
    directory_is_silent: AtomicBool,
    metrics: IdentityMetrics,
}

#[derive(Clone)]
struct Entry {
    identity: Identity,
    good_until_micros: u64,
}

#[derive(Clone)]
struct ByBytes;

/// Something to do at its time.
struct Timer {
    at: Instant,
    /// Of those due together the one made first comes first.
    number: u64,
    due: Due,
}

enum Due {
    /// A flight is ready.
    Flight(Method, Flight),
    /// An announced change may show by now.
    Recheck(Recheck),
    /// An account is waited for long enough if an old identity of it will do.
    Stale(Did),
}

/// A flight that is over.
struct Touchdown {
    did: Did,
    /// Whose request it was; `None` where none was made.
    method: Option<Method>,
    landed: Flown,
}

/// What it brought.
struct Flown {
    fetched: Fetched,
    began_at_micros: u64,
}

/// Makes a resolver. The directory has to be run for it to learn anything.
pub fn build(
    config: Config,
    egress: Egress,
    clock: Clock,
    kept: Arc<dyn Identities>,
    registry: &Registry,
) -> Result<(Resolver, Directory), prometheus::Error> {
    let timing = Timing {
        replica_lag_micros: micros(config.replica_lag),
        patience_micros: micros(config.patience),
        retry_base: config.retry_max.min(Duration::from_millis(500)),
        retry_max: config.retry_max,
    };
    let entries = usize::try_from(config.cache_bytes_max).unwrap_or(usize::MAX) / (ENTRY_OVERHEAD_BYTES + 64);
    let probe_every = timing.retry_base;
    let gates = [
        Gate::new(gate::Limits {
            concurrent_max: config.concurrent_max.get(),
            per_second: config.per_second,
            probe_every: Some(probe_every),
        }),
        // Each `did:web` host answers for itself: the silence of some says nothing of the others.
        Gate::new(gate::Limits {
            concurrent_max: config.web_concurrent_max.get(),
            per_second: config.web_per_second,
            probe_every: None,
        }),
    ];
    let seed = clock.now_micros();
    let metrics = IdentityMetrics::register(registry)?;
    metrics.per_second_max.set(i64::from(config.per_second.get()));
    let shared = Arc::new(Shared {
        cache: Cache::with_weighter(entries.max(16), config.cache_bytes_max, ByBytes),
        rate: Rate::default(),
        directory_is_silent: AtomicBool::new(false),
        metrics,
        config,
        egress,
        clock,
        kept,
    });
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let directory = Directory {
        shared: Arc::clone(&shared),
        inbox,
        lookups: Lookups::new(timing, seed),
        gates,
        flights: FuturesUnordered::new(),
        timers: BinaryHeap::new(),
        timers_made: 0,
        rechecks: 0,
        unkept: Vec::new(),
        keeping: None,
        warned: None,
        warning_stands: false,
        progress_told: Instant::now(),
    };
    Ok((Resolver { shared, inbox: sender }, directory))
}

// === impl Resolver ===

impl Resolver {
    /// What is cached, within its time.
    pub fn cached(&self, did: &Did) -> Option<Identity> {
        let entry = self.shared.cache.get(did)?;
        if entry.good_until_micros <= self.shared.clock.now_micros() {
            return None;
        }
        self.shared.metrics.hits.inc();
        Some(entry.identity)
    }

    /// Who an account is, as new as wanted. Waits for as long as there is no answer that will do; cancel-safe.
    pub async fn resolve(&self, did: &Did, want: Want, asker: Asker) -> Result<Identity, Closed> {
        if want == Want::Any
            && let Some(identity) = self.cached(did)
        {
            return Ok(identity);
        }
        if let Some(identity) = self.shared.load(did).await
            && want == Want::Any
        {
            self.shared.metrics.kept_hits.inc();
            return Ok(identity);
        }
        self.shared.metrics.misses.inc();
        let (reply, answer) = oneshot::channel();
        let request = Request { did: did.clone(), want, asker, reply };
        self.inbox.send(request).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// Fetches an identity anew by an operator's wish, and gives it. Lanes judge by it from then on.
    pub async fn refresh(&self, did: &Did) -> Result<Identity, RefreshError> {
        let want = Want::Since { at_micros: self.shared.clock.now_micros() };
        let silent = |_| RefreshError::Silent { within: REFRESH_WITHIN };
        Ok(timeout(REFRESH_WITHIN, self.resolve(did, want, Asker::Ourselves)).await.map_err(silent)??)
    }

    /// How the resolving goes.
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }
}

// === impl Directory ===

impl Directory {
    /// Answers requests until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wake = self.launch();
            self.measure();
            let room = self.lookups.len() < self.shared.config.lookups_max.get();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(()) = OptionFuture::from(self.keeping.as_mut()) => self.keep(),
                Some(touchdown) = self.flights.next(), if !self.flights.is_empty() => self.landed(touchdown),
                Some(()) = OptionFuture::from(wake.map(sleep_until)) => self.fire(Instant::now()),
                request = self.inbox.recv(), if room => match request {
                    Some(request) => self.ask(request),
                    // Nobody is left who could ask.
                    None => break,
                },
            }
        }
        while let Some(keeping) = self.keeping.take() {
            keeping.await;
            self.keep();
        }
    }

    /// Lets flights leave for which there is room. Gives the time at which there is something to do.
    fn launch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake = self.timers.peek().map(|Reverse(timer)| timer.at);
        for method in Method::ALL {
            let gate = &mut self.gates[method as usize];
            loop {
                match gate.next(now) {
                    gate::Next::Leave(flight) => {
                        if method == Method::Plc {
                            self.shared.rate.add(1);
                        }
                        self.flights.push(Box::pin(fly(Arc::clone(&self.shared), method, flight)));
                    }
                    gate::Next::At(at) => {
                        wake = Some(wake.map_or(at, |wake| wake.min(at)));
                        break;
                    }
                    gate::Next::None => break,
                }
            }
        }
        wake
    }

    fn ask(&mut self, request: Request) {
        let now_micros = self.shared.clock.now_micros();
        let did = request.did.clone();
        let method = self.method(&did);
        let stale = self.shared.cache.peek(&did);
        if let Some(entry) = &stale
            && request.want.takes_stale()
            && method.is_some_and(|method| self.gates[method as usize].is_silent())
        {
            self.serve(did, entry.identity.clone());
            // It may have gone away; then nobody misses the answer.
            let _gone = request.reply.send(entry.identity.clone());
            return;
        }
        let (asker, may_serve) = (request.asker.clone(), request.want.takes_stale() && stale.is_some());
        match self.lookups.ask(request, stale.map(|entry| entry.identity), now_micros) {
            Some(flight) => self.start(flight),
            None => {
                if let Some(method) = method {
                    self.gates[method as usize].turns.join(&did, asker);
                }
            }
        }
        if may_serve {
            self.at(Instant::now() + self.shared.config.stale_after, Due::Stale(did));
        }
    }

    /// Who answers for an account, if anybody does.
    fn method(&self, did: &Did) -> Option<Method> {
        let config = &self.shared.config;
        fetch::locate(did, &config.plc_url, self.shared.egress.policy().allow_local).ok().map(|(method, _)| method)
    }

    /// Gets a flight ready, at once or when its time comes.
    fn start(&mut self, flight: Flight) {
        let now_micros = self.shared.clock.now_micros();
        let wait = Duration::from_micros(flight.not_before_micros.saturating_sub(now_micros));
        let config = &self.shared.config;
        match fetch::locate(&flight.did, &config.plc_url, self.shared.egress.policy().allow_local) {
            Ok((method, _)) if wait.is_zero() => self.ready(method, flight),
            Ok((method, _)) => self.at(Instant::now() + wait, Due::Flight(method, flight)),
            // Nobody is asked, and still the answer is not older than wanted.
            Err(absence) => {
                let began_at_micros = now_micros.max(flight.not_before_micros);
                self.flights.push(Box::pin(async move {
                    sleep(wait).await;
                    let landed = Flown { fetched: Fetched::Absent(absence), began_at_micros };
                    Touchdown { did: flight.did, method: None, landed }
                }));
            }
        }
    }

    fn ready(&mut self, method: Method, flight: Flight) {
        let askers = self.lookups.askers(&flight.did);
        self.gates[method as usize].turns.push(flight, askers);
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.timers_made += 1;
        self.timers.push(Reverse(Timer { at, number: self.timers_made, due }));
    }

    /// Does what is due.
    fn fire(&mut self, now: Instant) {
        while let Some(Reverse(timer)) = self.timers.peek()
            && timer.at <= now
            && let Some(Reverse(timer)) = self.timers.pop()
        {
            match timer.due {
                Due::Flight(method, flight) => self.ready(method, flight),
                Due::Recheck(recheck) => {
                    self.rechecks -= 1;
                    if let Some(flight) = self.lookups.recheck(recheck, self.shared.clock.now_micros()) {
                        self.start(flight);
                    }
                }
                Due::Stale(did) => {
                    if let Some(identity) = self.lookups.serve_stale(&did) {
                        self.serve(did, identity);
                    }
                }
            }
        }
    }

    fn landed(&mut self, Touchdown { did, method, landed }: Touchdown) {
        let Flown { fetched, began_at_micros } = landed;
        let others_answered_at_micros = method.map_or(0, |method| self.hear(method, &did, &fetched, began_at_micros));
        let landed = match fetched {
            Fetched::Document(document) => {
                Landed::Answer(Identity { known: Ok(document), fetched_at_micros: began_at_micros })
            }
            Fetched::Absent(absence) => {
                Landed::Answer(Identity { known: Err(absence), fetched_at_micros: began_at_micros })
            }
            Fetched::Silence(_) => Landed::Silence { began_at_micros, others_answered_at_micros },
        };
        let now_micros = self.shared.clock.now_micros();
        let before = self.shared.cache.peek(&did).map(|entry| entry.identity);
        let next = self.lookups.landed(did.clone(), landed, before.as_ref(), now_micros);
        if let Some(identity) = next.learnt {
            if let Some(row) = row::encode(&identity)
                && self.unkept.len() < UNKEPT_MAX
            {
                self.unkept.push((did.clone(), row));
                if self.keeping.is_none() {
                    self.keep();
                }
            }
            self.shared.remember(did, identity);
        } else if let Some(identity) = next.serves {
            self.serve(did, identity);
        }
        if let Some(recheck) = next.recheck
            && self.rechecks < RECHECKS_MAX
        {
            self.rechecks += 1;
            let wait = Duration::from_micros(recheck.at_micros.saturating_sub(now_micros));
            self.at(Instant::now() + wait, Due::Recheck(recheck));
        }
        if let Some(flight) = next.flight {
            self.start(flight);
        }
    }

    /// What an answer, or none, says of who was asked. Gives when a request to the same place was last answered, as far
    /// as that says anything of this account.
    fn hear(&mut self, method: Method, did: &Did, fetched: &Fetched, began_at_micros: u64) -> u64 {
        let now = Instant::now();
        let gate = &mut self.gates[method as usize];
        match fetched {
            Fetched::Document(_) | Fetched::Absent(_) => {
                if gate.answered(began_at_micros) {
                    self.recovered(method, now);
                }
                if method == Method::Plc && std::mem::take(&mut self.warning_stands) {
                    info!("the PLC directory answers again");
                }
            }
            Fetched::Silence(silence) => {
                let pause = match silence {
                    Silence::Status { pause, .. } if method == Method::Plc => *pause,
                    Silence::Status { .. } | Silence::Unreachable(_) | Silence::Garbage => None,
                };
                debug!(%did, method = method.as_str(), %silence, "no answer for an identity");
                if gate.silent(did, now, pause) {
                    self.fell_silent();
                }
                let is_due = self.warned.is_none_or(|warned| now.duration_since(warned) >= TELL_EVERY);
                if method == Method::Plc && is_due {
                    warn!(%did, %silence, "the PLC directory does not answer; events of unknown accounts wait");
                    (self.warned, self.warning_stands) = (Some(now), true);
                }
            }
        }
        match method {
            Method::Plc => self.gates[method as usize].answered_at_micros(),
            // Each did:web answers for itself.
            Method::Web => u64::MAX,
        }
    }

    /// The directory answers nobody: whoever may be judged by an old identity is.
    fn fell_silent(&mut self) {
        self.shared.directory_is_silent.store(true, Ordering::Relaxed);
        for (did, identity) in self.lookups.serve_all_stale() {
            self.serve(did, identity);
        }
    }

    /// It answers again: nobody waits longer for another try.
    fn recovered(&mut self, method: Method, now: Instant) {
        self.shared.directory_is_silent.store(false, Ordering::Relaxed);
        let timers = std::mem::take(&mut self.timers).into_vec();
        let hasten = |Reverse(mut timer): Reverse<Timer>| {
            if matches!(&timer.due, Due::Flight(of, flight) if *of == method && flight.is_retry) {
                timer.at = now;
            }
            Reverse(timer)
        };
        self.timers = timers.into_iter().map(hasten).collect();
    }

    /// An identity past its time serves for a while.
    fn serve(&self, did: Did, identity: Identity) {
        let now_micros = self.shared.clock.now_micros();
        let good_until_micros = now_micros.saturating_add(micros(self.shared.config.stale_for));
        self.shared.cache.insert(did, Entry { identity, good_until_micros });
    }

    /// Starts to keep what waits for it: while one batch is being written the next one gathers.
    fn keep(&mut self) {
        self.keeping = None;
        if self.unkept.is_empty() {
            return;
        }
        let (rows, shared) = (std::mem::take(&mut self.unkept), Arc::clone(&self.shared));
        self.keeping = Some(Box::pin(async move {
            if let Err(error) = shared.kept.put(rows).await {
                warn!(%error, "identities can't be kept; they will be fetched again after a restart");
            }
        }));
    }

    fn measure(&mut self) {
        let metrics = &self.shared.metrics;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.lookups.set(count(self.lookups.len()));
        metrics.in_flight.set(count(self.gates[Method::Plc as usize].flying()));
        let now = Instant::now();
        if now.duration_since(self.progress_told) >= TELL_EVERY {
            self.progress_told = now;
            if self.lookups.len() >= MANY {
                let Progress { known, waiting, per_second, per_second_max, .. } = self.shared.progress();
                info!(waiting, known, per_second, per_second_max, "identities are being resolved");
            }
        }
    }
}

/// One try.
async fn fly(shared: Arc<Shared>, method: Method, flight: Flight) -> Touchdown {
    let Flight { did, not_before_micros, is_retry } = flight;
    // The two clocks may differ by a little; what was asked for is what was waited for.
    let now_micros = shared.clock.now_micros();
    let began_at_micros = if is_retry { now_micros } else { now_micros.max(not_before_micros) };
    let started = Instant::now();
    let fetched = match fetch::locate(&did, &shared.config.plc_url, shared.egress.policy().allow_local) {
        Ok((_, url)) => fetch::fetch(&shared.egress, &did, method, &url, shared.config.timeout).await,
        Err(absence) => Fetched::Absent(absence),
    };
    shared.metrics.looked_up(method, &fetched, started.elapsed());
    Touchdown { did, method: Some(method), landed: Flown { fetched, began_at_micros } }
}

// === impl Shared ===

impl Shared {
    fn progress(&self) -> Progress {
        let count = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        Progress {
            known: self.cache.len() as u64,
            waiting: count(&self.metrics.lookups),
            in_flight: count(&self.metrics.in_flight),
            per_second: self.rate.per_second(),
            per_second_max: self.config.per_second.get(),
            hits: self.metrics.hits.get() + self.metrics.kept_hits.get(),
            misses: self.metrics.misses.get(),
            directory_is_silent: self.directory_is_silent.load(Ordering::Relaxed),
        }
    }

    fn remember(&self, did: Did, identity: Identity) {
        let good_until_micros = self.good_until(&identity);
        self.cache.insert(did, Entry { identity, good_until_micros });
        self.metrics.cached_bytes.set(i64::try_from(self.cache.weight()).unwrap_or(i64::MAX));
        self.metrics.cached.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
    }

    /// What was kept, into the cache. Gives it if it is within its time.
    async fn load(&self, did: &Did) -> Option<Identity> {
        if self.cache.peek(did).is_some() {
            return None;
        }
        let bytes = match self.kept.get(did).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                warn!(%did, %error, "a kept identity can't be read; it is fetched");
                return None;
            }
        };
        let identity = row::decode(did, &bytes)?;
        let good_until_micros = self.good_until(&identity);
        self.cache.insert(did.clone(), Entry { identity: identity.clone(), good_until_micros });
        (good_until_micros > self.clock.now_micros()).then_some(identity)
    }

    /// Until when an identity is taken as it is.
    fn good_until(&self, identity: &Identity) -> u64 {
        let good_for = if identity.known.is_ok() { self.config.found_for } else { self.config.absent_for };
        identity.fetched_at_micros.saturating_add(micros(good_for))
    }
}

// === impl Timer ===

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Timer) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Weighter<Did, Entry> for ByBytes {
    fn weight(&self, did: &Did, entry: &Entry) -> u64 {
        let texts = match &entry.identity.known {
            Ok(document) => {
                document.pds.as_ref().map_or(0, |pds| pds.as_str().len())
                    + document.handle.as_ref().map_or(0, String::len)
            }
            Err(_) => 0,
        };
        (ENTRY_OVERHEAD_BYTES + did.as_str().len() + texts) as u64
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
