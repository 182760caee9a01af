//! Where state lives: the one place that names a backend.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use prometheus::Registry;
use runtime::clock::Clock;
use storage::{Stores, lane::LaneCount, memory, seq::Seq};
use storage_cluster::{
    Cluster, Pulse, Roles,
    admin::moving::{self, Carried, MoveError, Standing},
};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Store};

/// Lanes of one process. Written into a data folder when it is made, so never to be changed.
const LANES: LaneCount = LaneCount(NonZeroU32::new(16).expect("16 is not 0"));

/// The stores can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder can't be opened.
    #[error("failed to open the data folder (--data-dir)")]
    Local(#[from] storage_local::OpenError),
    /// The folder can't be looked at.
    #[error("failed to look at the data folder")]
    Repair(#[source] storage_local::OpenError),
    /// The cluster can't be entered.
    #[error("failed to join the cluster")]
    Cluster(#[from] storage_cluster::OpenError),
    /// The cluster can't be carried into or out of.
    #[error("nothing more can be carried")]
    Move(#[from] MoveError),
    /// A folder that is to be read is not there.
    #[error("there is no data folder {}", .0.display())]
    NoFolder(PathBuf),
    /// A folder that is to be made is there.
    #[error("{} is there already; what the cluster knows is carried into a new folder", .0.display())]
    FolderTaken(PathBuf),
    /// The folder's first seq was given out by the cluster.
    #[error("--seq-start {asked} was given out already; the cluster's next seq is {next}")]
    SeqTaken {
        /// What was asked for.
        asked: Seq,
        /// The first that is free.
        next: Seq,
    },
    /// A store fails.
    #[error("failed to carry on")]
    Store(#[from] storage::error::Error),
}

/// Open stores, to be closed at the end.
pub enum Opened {
    /// The folder's.
    Local(storage_local::Opened),
    /// A process's part of a cluster.
    Cluster(Box<Cluster>),
    /// Memory's.
    Memory(Stores),
}

/// What `mainstem repair` found.
#[derive(Debug)]
pub struct Repair {
    /// For people.
    pub report: String,
    /// Whether the folder can be opened now.
    pub sound: bool,
}

/// Looks at a data folder, and mends it where told to. Blocks, and reads every byte.
pub fn repair(dir: &Path, mend: bool) -> Result<Repair, Error> {
    let report = if mend { storage_local::repair::mend(dir) } else { storage_local::repair::inspect(dir) };
    let report = report.map_err(Error::Repair)?;
    Ok(Repair { sound: report.is_sound() || report.mended, report: report.to_string() })
}

/// Carries what a data folder knows of hosts and repos into a cluster that was just made. `progress` is told how many repos
/// are in, of how many.
pub async fn import(
    dir: &Path,
    cluster: &storage_cluster::config::Config,
    clock: &Clock,
    progress: impl Fn(u64, u64),
) -> Result<Carried, Error> {
    if !dir.is_dir() {
        return Err(Error::NoFolder(dir.to_owned()));
    }
    let folder = open_folder(folder(dir, clock)).await?;
    let stores = folder.stores();
    let all = stores.repos.count().await?;
    let carried = moving::into_cluster(cluster, &stores, |done| progress(done, all)).await;
    folder.close().await?;
    Ok(carried?)
}

/// Carries what a cluster knows, that stands still, into a new data folder, whose first seq is `seq_start`, or else
/// [`moving::MARGIN`] above the cluster's.
pub async fn export(
    cluster: &storage_cluster::config::Config,
    dir: &Path,
    seq_start: Option<Seq>,
    clock: &Clock,
    progress: impl Fn(u64),
) -> Result<Carried, Error> {
    if dir.exists() {
        return Err(Error::FolderTaken(dir.to_owned()));
    }
    let standing = Standing::open(cluster).await?;
    let next_seq = seq_start.unwrap_or(Seq(standing.next_seq().0.saturating_add(moving::MARGIN)));
    if next_seq < standing.next_seq() {
        return Err(Error::SeqTaken { asked: next_seq, next: standing.next_seq() });
    }
    let folder = open_folder(storage_local::Config { seq_start: Some(next_seq), ..folder(dir, clock) }).await?;
    let hosts = folder.stores().hosts;
    let mut carried = Carried { hosts: 0, repos: 0, next_seq };
    let mut after = None;
    loop {
        let page = standing.hosts(after.as_ref()).await?;
        for host in &page {
            carried.hosts += u64::from(hosts.add(host).await?);
        }
        let Some(last) = page.into_iter().last() else { break };
        after = Some(last.name);
    }
    hosts.set_policy(&standing.policy().await?).await?;
    let mut after = None;
    loop {
        let page = standing.repos(after.as_ref()).await?;
        after = page.last().map(|(did, _)| did.clone());
        if after.is_none() {
            folder.close().await?;
            return Ok(carried);
        }
        carried.repos += page.len() as u64;
        tokio::task::block_in_place(|| folder.seed(page))?;
        progress(carried.repos);
    }
}

/// A data folder of which nothing is to be deleted.
fn folder(dir: &Path, clock: &Clock) -> storage_local::Config {
    let now = clock.clone();
    let config = storage_local::Config::new(dir, LANES, Arc::new(move || now.now_micros()), Registry::new());
    storage_local::Config { window: None, window_bytes: None, ..config }
}

async fn open_folder(config: storage_local::Config) -> Result<storage_local::Opened, Error> {
    let opened = tokio::task::spawn_blocking(move || storage_local::open(config)).await;
    Ok(opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
}

/// Opens the stores that the process's roles need. Of a folder it reads the newest part of the log, which may take a while.
pub async fn open(config: &Config, clock: &Clock, registry: &Registry) -> Result<Opened, Error> {
    let now = clock.clone();
    let now_micros = Arc::new(move || now.now_micros());
    match &config.store {
        Store::Local(local) => {
            let config = storage_local::Config {
                window: Some(local.window),
                window_bytes: Some(local.window_bytes.get()),
                seq_start: local.seq_start,
                ..storage_local::Config::new(&local.data_dir, LANES, now_micros, registry.clone())
            };
            Ok(Opened::Local(open_folder(config).await?))
        }
        Store::Cluster(cluster) => {
            let roles = Roles {
                crawls: config.crawl.is_some(),
                judges: config.validate.is_some(),
                serves: config.serve.is_some(),
            };
            let opened = Cluster::open(cluster, roles, clock.clone(), registry).await?;
            Ok(Opened::Cluster(Box::new(opened)))
        }
        Store::Memory(config::Memory { window_bytes, seq_start }) => {
            Ok(Opened::Memory(memory::open_with(memory::Config {
                window_bytes: window_bytes.get(),
                seq_start: seq_start.unwrap_or(Seq(1)),
                now_micros,
                ..memory::Config::default()
            })))
        }
    }
}

impl Opened {
    /// The four nouns.
    pub fn stores(&self) -> Stores {
        match self {
            Opened::Local(opened) => opened.stores(),
            Opened::Cluster(cluster) => cluster.stores(),
            Opened::Memory(stores) => stores.clone(),
        }
    }

    /// What looks how a cluster stands; `None` where there is none, or it was taken before.
    pub fn pulse(&mut self) -> Option<Pulse> {
        match self {
            Opened::Cluster(cluster) => cluster.pulse(),
            Opened::Local(_) | Opened::Memory(_) => None,
        }
    }

    /// Cancelled when the stores can't be used any more and the process must start anew. Those of a folder say so with
    /// every answer.
    pub fn broken(&self) -> Option<CancellationToken> {
        match self {
            Opened::Cluster(cluster) => Some(cluster.broken()),
            Opened::Local(_) | Opened::Memory(_) => None,
        }
    }

    /// Makes everything durable and lets go of it; what others may take over is theirs at once.
    pub async fn close(self) -> Result<(), storage::error::Error> {
        match self {
            Opened::Local(opened) => opened.close().await,
            Opened::Cluster(cluster) => cluster.close().await,
            Opened::Memory(_) => Ok(()),
        }
    }
}
