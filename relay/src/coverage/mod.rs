//! How much of the network we have, beside other relays: what their lists of hosts and repos hold that ours lack.
//!
//! For each peer a task asks, now and then: for all of its hosts, and for a few pages of its repos, further each time and
//! from the beginning again at the end. Each process that serves does so by itself. [`tally`], [`counts`] and [`walk`] are
//! pure.
//!
//! What must hold: a peer costs one request at a time, few of them, and bounded memory, whatever it answers; what it
//! answers changes nothing here but these figures.

pub mod counts;
mod metrics;
mod page;
pub mod tally;
pub mod walk;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::syntax::{Did, HostName};
use prometheus::Registry;
use rand::RngExt;
use runtime::{chain::Chain, clock::Clock, egress::Egress};
use storage::{hosts::HostStatus, repos::Repos};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::Url;

use self::{
    counts::Counts,
    metrics::{Metrics, PeersMetrics},
    page::{Failure, HostsPage, ListedHost, ListedRepo, Method, PAGE_ROWS, ReposPage, fetch},
    tally::Tally,
    walk::{Next, Walk},
};

/// Whom to compare with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The other relays.
    pub peers: Vec<Peer>,
    /// Between two rounds with each of them, more or less.
    pub interval: Duration,
}

/// Another relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in metrics and answers: `HOST` or `HOST:PORT`.
    pub name: String,
    /// Where its methods are.
    pub url: Url,
}

/// What a comparison needs.
pub struct Parts {
    /// How a host is here, if it is known.
    pub status_of: StatusOf,
    /// Our repos.
    pub repos: Arc<dyn Repos>,
    /// The way out.
    pub egress: Egress,
    /// The wall clock.
    pub clock: Clock,
}

/// How a host is here.
pub type StatusOf = Box<dyn Fn(&HostName) -> Option<HostStatus> + Send + Sync>;

/// What is known of all peers. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Vec<State>>);

struct State {
    peer: Peer,
    started: Instant,
    standing: Mutex<Standing>,
}

/// How we stand beside a peer.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Whole rounds.
    pub rounds: u64,
    /// Rounds that came to no end.
    pub failures: u64,
    /// Why the last of them did, and when, microseconds since the Unix epoch.
    pub last_failure: Option<(u64, String)>,
    /// When the last whole round was done, microseconds since the Unix epoch.
    pub last_round_micros: Option<u64>,
    /// The same, for its age.
    last_round: Option<Instant>,
    /// What the last look at its hosts gave.
    pub tally: Tally,
    /// How far its repos were looked through.
    pub walk: Walk,
}

/// Compares with one peer.
pub struct Comparison {
    index: usize,
    handle: Handle,
    interval: Duration,
    parts: Arc<Parts>,
    metrics: Metrics,
    counts: Mutex<Counts>,
}

/// A list of hosts that is longer than this many pages has no end, and one of more hosts is none.
const HOST_PAGES_MAX: usize = 200;
const HOSTS_MAX: usize = 50_000;

/// Pages of repos that are looked through in a round.
const REPO_PAGES: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");

/// Our own accounts are counted for so much of the time: in a cluster that is work.
const COUNTING_SHARE: u32 = 20;

/// The time for all hosts, and again for the round's repos.
const HALF_MAX: Duration = Duration::from_secs(300);

/// The first round waits for our own hosts to be connected to.
const FIRST_MAX: Duration = Duration::from_secs(60);

/// Makes what compares with each of the peers, and the handle to what they find.
pub fn build(
    config: &Config,
    parts: Parts,
    registry: &Registry,
) -> Result<(Handle, Vec<Comparison>), prometheus::Error> {
    let started = Instant::now();
    let state = |peer: &Peer| State { peer: peer.clone(), started, standing: Mutex::default() };
    let handle = Handle(Arc::new(config.peers.iter().map(state).collect()));
    if config.peers.is_empty() {
        return Ok((handle, Vec::new()));
    }
    let metrics = PeersMetrics::register(registry, &handle)?;
    let parts = Arc::new(parts);
    let comparison = |(index, peer): (usize, &Peer)| Comparison {
        index,
        handle: handle.clone(),
        interval: config.interval,
        parts: parts.clone(),
        metrics: metrics.of(&peer.name),
        counts: Mutex::default(),
    };
    let comparisons = config.peers.iter().enumerate().map(comparison).collect();
    Ok((handle, comparisons))
}

impl Handle {
    /// How we stand beside each peer.
    pub fn standings(&self) -> Vec<(Peer, Standing)> {
        self.0.iter().map(|state| (state.peer.clone(), state.standing().clone())).collect()
    }

    /// How long ago the last whole round with each peer was, or the start.
    fn ages(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.0.iter().map(|state| {
            let last = state.standing().last_round.unwrap_or(state.started);
            (state.peer.name.as_str(), last.elapsed())
        })
    }
}

impl State {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Comparison {
    /// Goes round until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = self.interval.min(FIRST_MAX);
        loop {
            // Peers are many, and so are those who ask them.
            let jittered = wait.mul_f64(rand::rng().random_range(0.8..1.2));
            let Some(result) = stop
                .run_until_cancelled(async {
                    sleep(jittered).await;
                    self.round().await
                })
                .await
            else {
                return;
            };
            self.note(result);
            wait = self.interval;
        }
    }

    fn state(&self) -> &State {
        &self.handle.0[self.index]
    }

    fn note(&self, result: Result<(), Failure>) {
        let peer = &self.state().peer.name;
        let now_micros = self.parts.clock.now_micros();
        let mut standing = self.state().standing();
        match result {
            Ok(()) => {
                standing.rounds += 1;
                standing.last_round = Some(Instant::now());
                standing.last_round_micros = Some(now_micros);
                let Tally { hosts, missing, .. } = standing.tally;
                info!(
                    peer,
                    hosts,
                    hosts_missing = missing,
                    repos_missing = standing.walk.missing,
                    "compared with a peer"
                );
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                warn!(peer, error = why, "failed to compare with a peer");
                standing.failures += 1;
                standing.last_failure = Some((now_micros, why));
                self.metrics.failures.inc();
            }
        }
    }

    async fn round(&self) -> Result<(), Failure> {
        let late = |_| Failure::Late { limit: HALF_MAX };
        let tally = timeout(HALF_MAX, self.look_at_hosts()).await.map_err(late)??;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.hosts.set(gauge(tally.hosts));
        self.metrics.hosts_missing.set(gauge(tally.missing));
        self.metrics.repos.set(gauge(tally.accounts_there));
        if let Some(accounts) = tally.accounts_here {
            self.metrics.own_repos.set(gauge(accounts));
        }
        self.state().standing().tally = tally;
        timeout(HALF_MAX, self.look_at_repos()).await.map_err(late)?
    }

    async fn look_at_hosts(&self) -> Result<Tally, Failure> {
        let no_end = |pages| Failure::NoEnd { method: Method::Hosts.as_str(), pages };
        let Parts { status_of, egress, .. } = &*self.parts;
        let allow_local = egress.policy().allow_local;
        let (mut tally, mut seen, mut known) = (Tally::default(), HashSet::new(), Vec::new());
        let mut cursor: Option<String> = None;
        for turned in 1..=HOST_PAGES_MAX {
            let page: HostsPage = fetch(egress, &self.state().peer.url, Method::Hosts, cursor.as_deref()).await?;
            for listed in page.hosts {
                let Some(name) = listed.active_name(allow_local) else { continue };
                // A host that goes from page to page while they are read, or a peer that repeats itself.
                if !seen.insert(name.clone()) {
                    continue;
                }
                if seen.len() > HOSTS_MAX {
                    return Err(no_end(turned));
                }
                let status = status_of(&name);
                if status.is_some() {
                    known.push(name.clone());
                }
                tally.add(name, listed.account_count.unwrap_or(0), status);
            }
            match page.cursor {
                None => {
                    tally.accounts_here = self.count(known).await?;
                    return Ok(tally);
                }
                Some(same) if cursor.as_ref() == Some(&same) => return Err(no_end(turned)),
                Some(next) => cursor = Some(next),
            }
        }
        Err(no_end(HOST_PAGES_MAX))
    }

    /// Our own accounts on these hosts. Where counting takes long, some counts are of earlier rounds.
    async fn count(&self, hosts: Vec<HostName>) -> Result<Option<u64>, Failure> {
        let counts = || self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + self.interval / COUNTING_SHARE;
        let due = counts().begin(hosts);
        for name in due {
            let accounts = self.parts.repos.count_by_host(&name).await?;
            counts().counted(name, accounts);
            if Instant::now() >= until {
                break;
            }
        }
        Ok(counts().sum())
    }

    async fn look_at_repos(&self) -> Result<(), Failure> {
        let Parts { repos, egress, clock, .. } = &*self.parts;
        let state = self.state();
        let named: Vec<Did> = state.standing().walk.names().into_iter().map(|named| named.did).collect();
        for did in named {
            if repos.get(&did).await?.is_some() {
                state.standing().walk.found(&did);
            }
        }
        for turned in 1..=REPO_PAGES.get() {
            let cursor = state.standing().walk.cursor().map(str::to_owned);
            let page = fetch(egress, &state.peer.url, Method::Repos, cursor.as_deref()).await;
            let page: ReposPage = page.inspect_err(|error| {
                if error.may_be_of_cursor() {
                    state.standing().walk.begin_anew();
                }
            })?;
            for did in page.repos.into_iter().take(PAGE_ROWS).filter_map(ListedRepo::active_did) {
                let known = repos.get(&did).await?.is_some();
                self.metrics.looked.inc();
                self.metrics.missing.inc_by(u64::from(!known));
                state.standing().walk.looked_up(did, known, clock.now_micros());
            }
            match state.standing().walk.turned(page.cursor) {
                Next::Page => {}
                Next::End => return Ok(()),
                Next::Stuck => return Err(Failure::NoEnd { method: Method::Repos.as_str(), pages: turned }),
            }
        }
        Ok(())
    }
}

impl ListedHost {
    /// Its name, where the peer reads it and we might.
    fn active_name(&self, allow_local: bool) -> Option<HostName> {
        if self.status.as_deref().is_some_and(|status| status != "active") {
            return None;
        }
        match HostName::parse(&self.hostname) {
            Ok(name) if allow_local || !name.is_local() => Some(name),
            Ok(_) => None,
            Err(error) => {
                debug!(%error, "a peer lists what is no host");
                None
            }
        }
    }
}

impl ListedRepo {
    /// Whose it is, where its content may be served.
    fn active_did(self) -> Option<Did> {
        Did::parse(&self.did).ok().filter(|_| self.active != Some(false))
    }
}

#[cfg(test)]
mod tests;
