//! What is known of hosts and repos, carried into a cluster that has judged nothing yet, or out of one that stands still.
//!
//! What must hold: a state that is carried in has the position of a lane's first claim, before all that the cluster will
//! find out itself, so that whatever comes later wins; nothing is judged while states are carried, either way; and seqs go
//! on above all that were given out. Carrying in again changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use prometheus::Registry;
use storage::{
    Stores,
    error::Error,
    hosts::{Host, Hosts, Policy},
    lane::Lane,
    repos::RepoState,
    seq::Seq,
};

use super::status::{self, Status, StatusError};
use crate::{
    config::Config,
    cql::{
        self, ConnectError, CqlHosts, Rows, Settled,
        schema::{self, SchemaError},
    },
    hosts_topic::no_claims,
};

/// Repos that are carried together.
const REPOS_AT_ONCE: usize = 10_000;
const HOSTS_AT_ONCE: usize = 500;
/// Lanes whose rows are written at once.
const LANES_AT_ONCE: usize = 4;
/// Where in `verified` carried states stand: every lane begins with a claim, which makes no state.
const BEFORE_ALL: i64 = 0;

/// Why nothing is carried.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The topics can't be looked at.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// There are no tables.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The tables can't be used.
    #[error("the cluster's tables can't be used")]
    Connect(#[from] ConnectError),
    /// Metrics can't be registered.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
    /// Something can't be read or written.
    #[error(transparent)]
    Store(#[from] Error),
    /// What it knows is newer than what would be carried in.
    #[error(
        "the cluster {cluster} has judged events already; what is known can only be carried into a new one, before its validators start"
    )]
    Begun {
        /// Its name.
        cluster: String,
    },
    /// Seqs would be given out twice.
    #[error(
        "{last} is given out already, and the cluster's next seq would be {next}; make it with --seq-start {least} or more"
    )]
    SeqTaken {
        /// The last one that the other has given out.
        last: Seq,
        /// The cluster's.
        next: Seq,
        /// With a margin.
        least: Seq,
    },
    /// Somebody is at work.
    #[error(
        "{client} is running; stop the cluster's crawlers, let its lags come to 0 (mainstem cluster status), then stop the rest"
    )]
    Running {
        /// A process.
        client: String,
    },
    /// Something is on its way.
    #[error(
        "{raw} records are not judged yet and {verified} are not in the firehose; start validators and a sequencer, without \
         crawlers, until mainstem cluster status says 0"
    )]
    Lag {
        /// Of `raw`.
        raw: i64,
        /// Of `verified`.
        verified: i64,
    },
    /// The order's state is lost, or was never made.
    #[error("the cluster has no next seq; see mainstem cluster restore-sequencer")]
    NoOrder,
}

/// What was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Hosts that were not known there.
    pub hosts: u64,
    /// Repos.
    pub repos: u64,
    /// The seq that the stream goes on with.
    pub next_seq: Seq,
}

/// How far above the last seq a stream that was moved goes on: subscribers see a jump, and no seq twice.
pub const MARGIN: u64 = 1_000_000;

/// Carries what another backend knows into a cluster that was just made. `progress` is told how many repos are in.
pub async fn into_cluster(config: &Config, from: &Stores, progress: impl Fn(u64)) -> Result<Carried, MoveError> {
    let status = look(config).await?;
    if status.lanes.iter().any(|lane| lane.verified.1 > 0) {
        return Err(MoveError::Begun { cluster: config.name.clone() });
    }
    let next_seq = status.next_seq.ok_or(MoveError::NoOrder)?;
    let last = from.log.window().borrow().last;
    if next_seq <= last {
        return Err(MoveError::SeqTaken { last, next: next_seq, least: Seq(last.0 + MARGIN) });
    }
    let (rows, hosts, settled) = open(config).await?;
    let mut carried = Carried { hosts: 0, repos: 0, next_seq };
    let mut after = None;
    loop {
        let page = from.hosts.list(after.as_ref(), HOSTS_AT_ONCE).await?;
        for host in &page {
            carried.hosts += u64::from(hosts.add(host).await?);
        }
        let Some(last) = page.into_iter().last() else { break };
        after = Some(last.name);
    }
    hosts.set_policy(&from.hosts.policy().await?).await?;
    let mut after = None;
    loop {
        let page = from.repos.list(after.as_ref(), REPOS_AT_ONCE).await?;
        after = page.last().map(|(did, _)| did.clone());
        if after.is_none() {
            return Ok(carried);
        }
        carried.repos += page.len() as u64;
        let mut by_lane: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (did, state) in page {
            by_lane.entry(settled.lanes.lane_of(&did).0).or_default().push((did, state, BEFORE_ALL));
        }
        let writes = by_lane.iter().map(|(lane, states)| rows.apply(Lane(*lane), states));
        let writes: Vec<_> = writes.collect();
        stream::iter(writes).buffer_unordered(LANES_AT_ONCE).try_for_each(async |()| Ok(())).await?;
        progress(carried.repos);
    }
}

/// A cluster that stands still, to be read.
pub struct Standing {
    rows: Rows,
    hosts: CqlHosts,
    next_seq: Seq,
}

impl Standing {
    /// Makes sure that nobody is at work in the cluster and nothing on its way.
    pub async fn open(config: &Config) -> Result<Standing, MoveError> {
        let status = look(config).await?;
        let members = status.crawlers.iter().chain(&status.validators).chain(&status.sequencers);
        if let Some(member) = members.into_iter().next() {
            return Err(MoveError::Running { client: member.client.clone() });
        }
        let raw: i64 = status.lanes.iter().map(status::LaneStatus::raw_lag).sum();
        let verified = status.lanes.iter().map(status::LaneStatus::verified_lag).sum();
        if (raw, verified) != (0, 0) {
            return Err(MoveError::Lag { raw, verified });
        }
        let next_seq = status.next_seq.ok_or(MoveError::NoOrder)?;
        let (rows, hosts, _) = open(config).await?;
        Ok(Standing { rows, hosts, next_seq })
    }

    /// The seq that would come next.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// A page of hosts after one, none where there are no more.
    pub async fn hosts(&self, after: Option<&atproto::syntax::HostName>) -> Result<Vec<Host>, Error> {
        self.hosts.list(after, HOSTS_AT_ONCE).await
    }

    /// What an operator has decided about hosts in general.
    pub async fn policy(&self) -> Result<Policy, Error> {
        self.hosts.policy().await
    }

    /// A page of repos after one, in the order of their tokens, none where there are no more.
    pub async fn repos(
        &self,
        after: Option<&atproto::syntax::Did>,
    ) -> Result<Vec<(atproto::syntax::Did, RepoState)>, Error> {
        self.rows.list(after, REPOS_AT_ONCE).await
    }
}

async fn look(config: &Config) -> Result<Status, MoveError> {
    let config = config.clone();
    match tokio::task::spawn_blocking(move || status::topics(&config)).await {
        Ok(status) => Ok(status?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn open(config: &Config) -> Result<(Rows, CqlHosts, Settled), MoveError> {
    let metrics = cql::Metrics::register(&Registry::new())?;
    let (session, settled) = schema::open(&config.cql, &schema::keyspace_of(&config.name), metrics).await?;
    let session = Arc::new(session);
    let rows = Rows::prepare(Arc::clone(&session), settled, 0).await?;
    Ok((rows, CqlHosts::prepare(session, no_claims()).await?, settled))
}
