//! Where state lives: the one place that names a backend.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use prometheus::Registry;
use runtime::clock::Clock;
use storage::{Stores, lane::LaneCount, memory, seq::Seq};
use storage_cluster::{Cluster, Pulse, Roles};
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
            let opened = tokio::task::spawn_blocking(move || storage_local::open(config)).await;
            Ok(Opened::Local(opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?))
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
