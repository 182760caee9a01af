//! The cache, and the loop that makes requests for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
use runtime::{bucket::TokenBucket, clock::Clock, egress::Egress, rate::Rate};
use storage::identities::Identities;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Config, Identity, Progress, Want,
    fetch::{self, Fetched, Method, Silence},
    lookups::{Flight, Landed, Lookups, Recheck, Timing},
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

/// Warnings about a silent directory, at most one in this time.
const WARN_EVERY: Duration = Duration::from_secs(10);

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
    flights: FuturesUnordered<BoxFuture<'static, Touchdown>>,
    rechecks: FuturesUnordered<BoxFuture<'static, Recheck>>,
    unkept: Vec<(Did, Vec<u8>)>,
    keeping: Option<BoxFuture<'static, ()>>,
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
    gates: [Gate; 2],
    metrics: IdentityMetrics,
}

#[derive(Clone)]
struct Entry {
    identity: Identity,
    good_until_micros: u64,
}

#[derive(Clone)]
struct ByBytes;

struct Request {
    did: Did,
    want: Want,
    reply: oneshot::Sender<Identity>,
}

/// What all requests to one kind of place pass.
struct Gate {
    free: Semaphore,
    bucket: Mutex<TokenBucket>,
    rate: Rate,
    /// Until when nobody is to ask (429).
    paused_until: Mutex<Option<Instant>>,
    /// Wakes those who wait to try again, when it answers again.
    recovered: Notify,
    /// When the silence was last told, if there is one.
    silence_told: Mutex<Option<Instant>>,
    /// When the last answered request began.
    answered_at_micros: AtomicU64,
}

/// A flight that is over.
struct Touchdown {
    did: Did,
    landed: Landed,
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
    let gate = || Gate {
        free: Semaphore::new(config.concurrent_max.get()),
        bucket: Mutex::new(TokenBucket::new(config.per_second, config.per_second)),
        rate: Rate::default(),
        paused_until: Mutex::new(None),
        recovered: Notify::new(),
        silence_told: Mutex::new(None),
        answered_at_micros: AtomicU64::new(0),
    };
    let seed = clock.now_micros();
    let shared = Arc::new(Shared {
        cache: Cache::with_weighter(entries.max(16), config.cache_bytes_max, ByBytes),
        gates: Method::ALL.map(|_| gate()),
        metrics: IdentityMetrics::register(registry)?,
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
        flights: FuturesUnordered::new(),
        rechecks: FuturesUnordered::new(),
        unkept: Vec::new(),
        keeping: None,
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
    pub async fn resolve(&self, did: &Did, want: Want) -> Result<Identity, Closed> {
        if want == Want::Any
            && let Some(identity) = self.cached(did)
        {
            return Ok(identity);
        }
        self.shared.metrics.misses.inc();
        if let Some(identity) = self.shared.load(did).await
            && want == Want::Any
        {
            return Ok(identity);
        }
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Request { did: did.clone(), want, reply }).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// Fetches an identity anew by an operator's wish, and gives it. Lanes judge by it from then on.
    pub async fn refresh(&self, did: &Did) -> Result<Identity, RefreshError> {
        let want = Want::Since { at_micros: self.shared.clock.now_micros() };
        let silent = |_| RefreshError::Silent { within: REFRESH_WITHIN };
        Ok(timeout(REFRESH_WITHIN, self.resolve(did, want)).await.map_err(silent)??)
    }

    /// How the resolving goes.
    pub fn progress(&self) -> Progress {
        let shared = &self.shared;
        Progress {
            known: shared.cache.len() as u64,
            waiting: u64::try_from(shared.metrics.lookups.get()).unwrap_or(0),
            per_second: shared.gates[Method::Plc as usize].rate.per_second(),
            per_second_max: shared.config.per_second.get(),
            hits: shared.metrics.hits.get(),
            misses: shared.metrics.misses.get(),
            directory_is_silent: lock(&shared.gates[Method::Plc as usize].silence_told).is_some(),
        }
    }
}

// === impl Directory ===

impl Directory {
    /// Answers requests until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let room = self.lookups.len() < self.shared.config.lookups_max.get();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(()) = OptionFuture::from(self.keeping.as_mut()) => self.keep(),
                Some(touchdown) = self.flights.next(), if !self.flights.is_empty() => self.landed(touchdown),
                Some(recheck) = self.rechecks.next(), if !self.rechecks.is_empty() => {
                    let flight = self.lookups.recheck(recheck, self.shared.clock.now_micros());
                    self.start(flight);
                }
                request = self.inbox.recv(), if room => match request {
                    Some(request) => self.ask(request),
                    // Nobody is left who could ask.
                    None => break,
                },
            }
            self.shared.metrics.lookups.set(i64::try_from(self.lookups.len()).unwrap_or(i64::MAX));
        }
        while let Some(keeping) = self.keeping.take() {
            keeping.await;
            self.keep();
        }
    }

    fn ask(&mut self, Request { did, want, reply }: Request) {
        let flight = self.lookups.ask(did, want, reply, self.shared.clock.now_micros());
        self.start(flight);
    }

    fn start(&mut self, flight: Option<Flight>) {
        if let Some(flight) = flight {
            self.flights.push(Box::pin(fly(Arc::clone(&self.shared), flight)));
        }
    }

    fn landed(&mut self, Touchdown { did, landed }: Touchdown) {
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
        } else if next.stale_serves
            && let Some(identity) = before
        {
            let good_until_micros = now_micros.saturating_add(micros(self.shared.config.stale_for));
            self.shared.cache.insert(did, Entry { identity, good_until_micros });
        }
        if let Some(recheck) = next.recheck
            && self.rechecks.len() < RECHECKS_MAX
        {
            let wait = Duration::from_micros(recheck.at_micros.saturating_sub(now_micros));
            self.rechecks.push(Box::pin(async move {
                sleep(wait).await;
                recheck
            }));
        }
        self.start(next.flight);
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
}

/// One try.
async fn fly(shared: Arc<Shared>, Flight { did, not_before_micros, is_retry }: Flight) -> Touchdown {
    let wait = Duration::from_micros(not_before_micros.saturating_sub(shared.clock.now_micros()));
    let located = fetch::locate(&did, &shared.config.plc_url, shared.egress.policy().allow_local);
    let (method, url) = match located {
        Ok(place) => place,
        Err(absence) => {
            sleep(wait).await;
            let fetched_at_micros = shared.clock.now_micros().max(not_before_micros);
            return Touchdown { did, landed: Landed::Answer(Identity { known: Err(absence), fetched_at_micros }) };
        }
    };
    let gate = &shared.gates[method as usize];
    if is_retry {
        tokio::select! {
            () = sleep(wait) => {}
            () = gate.recovered.notified() => {}
        }
    } else {
        sleep(wait).await;
    }
    let _turn = gate.turn().await;
    gate.rate.add(1);

    // The two clocks may differ by a little; what was asked for is what was waited for.
    let now_micros = shared.clock.now_micros();
    let began_at_micros = if is_retry { now_micros } else { now_micros.max(not_before_micros) };
    let started = Instant::now();
    let fetched = fetch::fetch(&shared.egress, &did, method, &url, shared.config.timeout).await;
    shared.metrics.looked_up(method, &fetched, started.elapsed());
    let answer = |known| Landed::Answer(Identity { known, fetched_at_micros: began_at_micros });
    let landed = match fetched {
        Fetched::Document(document) => {
            gate.answered(method, began_at_micros);
            answer(Ok(document))
        }
        Fetched::Absent(absence) => {
            gate.answered(method, began_at_micros);
            answer(Err(absence))
        }
        Fetched::Silence(silence) => {
            gate.silent(method, &did, &silence);
            let others_answered_at_micros = match method {
                Method::Plc => gate.answered_at_micros.load(Ordering::Relaxed),
                // Each did:web answers for itself.
                Method::Web => u64::MAX,
            };
            Landed::Silence { began_at_micros, others_answered_at_micros }
        }
    };
    Touchdown { did, landed }
}

// === impl Shared ===

impl Shared {
    fn remember(&self, did: Did, identity: Identity) {
        let good_until_micros = self.good_until(&identity);
        self.cache.insert(did, Entry { identity, good_until_micros });
        self.metrics.cached_bytes.set(i64::try_from(self.cache.weight()).unwrap_or(i64::MAX));
    }

    /// What the store kept, into the cache. Gives it if it is within its time.
    async fn load(&self, did: &Did) -> Option<Identity> {
        if self.cache.peek(did).is_some() {
            return None;
        }
        let bytes = match self.kept.get(did).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                warn!(%did, %error, "stored identity can't be read; it is fetched");
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

// === impl Gate ===

impl Gate {
    /// Waits until a request may be made. What it gives is held until the request is over.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed, and who got none would be one request too many at worst.
        let permit = self.free.acquire().await.ok();
        let wait = lock(&self.bucket).take(Instant::now(), 1).duration();
        sleep(wait).await;
        loop {
            let paused_until = *lock(&self.paused_until);
            match paused_until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                Some(_) | None => return permit,
            }
        }
    }

    fn answered(&self, method: Method, began_at_micros: u64) {
        self.answered_at_micros.fetch_max(began_at_micros, Ordering::Relaxed);
        if lock(&self.silence_told).take().is_some() {
            if method == Method::Plc {
                info!("the PLC directory answers again");
            }
            self.recovered.notify_waiters();
        }
    }

    fn silent(&self, method: Method, did: &Did, silence: &Silence) {
        let now = Instant::now();
        if let Silence::Status { pause: Some(pause), .. } = silence
            && method == Method::Plc
        {
            let mut paused_until = lock(&self.paused_until);
            *paused_until = (*paused_until).max(Some(now + *pause));
        }
        debug!(%did, method = method.as_str(), %silence, "no answer for an identity");
        let mut told = lock(&self.silence_told);
        let is_due = told.is_none_or(|told| now.duration_since(told) >= WARN_EVERY);
        if is_due {
            if method == Method::Plc {
                warn!(%did, %silence, "the PLC directory does not answer; events of unknown accounts wait");
            }
            *told = Some(now);
        }
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

/// Every value behind these locks is whole after each statement, so a panic elsewhere leaves nothing to repair.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
