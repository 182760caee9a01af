//! Keyspaces on a real server, and a log in memory whose states go into one.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use prometheus::Registry;
use storage::{
    Stores,
    conformance::{Backend, Running, Setup},
    error::Error,
    lane::{Lane, LaneCount},
    log::{Accepted, EventLog, LogHealth, Published, ReadError, Window},
    memory,
    seq::Seq,
};
use storage_cluster::{
    config::{Cql, Plan, Replication},
    cql::{
        Commands, CqlHosts, CqlIdentities, CqlRepos, Metrics, Rows, Session, Settled, TakedownRows, hosts::Claims,
        schema,
    },
};
use testservers::Cassandra;
use tokio::sync::{Mutex, watch};

pub(crate) const LANES: LaneCount = LaneCount(NonZeroU32::new(4).unwrap());
pub(crate) const RECENT_BYTES: u64 = 1 << 20;

/// How to reach a server that lets everybody in.
pub(crate) fn cql(node: &Cassandra) -> Cql {
    Cql {
        contact_points: vec![node.address()],
        datacenter: None,
        login: None,
        tls: None,
        patience: Duration::from_secs(120),
    }
}

pub(crate) fn metrics() -> Metrics {
    Metrics::register(&Registry::new()).unwrap()
}

/// A name that no other test has.
pub(crate) fn new_keyspace() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn plan(lanes: LaneCount) -> Plan {
    Plan { lanes, replication: Replication { kafka: 1, cql: 1 }, ..Plan::default() }
}

/// A keyspace of its own on the shared server.
pub(crate) struct Keyspace {
    pub(crate) cql: Cql,
    pub(crate) name: String,
    pub(crate) lanes: LaneCount,
}

impl Keyspace {
    pub(crate) async fn make() -> Keyspace {
        Keyspace::make_on(cql(Cassandra::shared()), LANES).await
    }

    pub(crate) async fn make_on(cql: Cql, lanes: LaneCount) -> Keyspace {
        let name = new_keyspace();
        schema::init(&cql, &name, &plan(lanes), metrics()).await.unwrap();
        Keyspace { cql, name, lanes }
    }

    pub(crate) async fn open(&self) -> (Arc<Session>, Settled) {
        let (session, settled) = schema::open(&self.cql, &self.name, metrics()).await.unwrap();
        (Arc::new(session), settled)
    }

    pub(crate) async fn rows(&self) -> Rows {
        let (session, settled) = self.open().await;
        Rows::prepare(session, settled, RECENT_BYTES).await.unwrap()
    }

    pub(crate) async fn hosts(&self, claims: Claims) -> CqlHosts {
        CqlHosts::prepare(self.open().await.0, claims).await.unwrap()
    }

    pub(crate) async fn commands(&self) -> Commands {
        Commands::prepare(self.open().await.0).await.unwrap()
    }
}

/// A log in memory whose states are in CQL before an append is answered. It stands for `verified`: an event's offset
/// counts the events of its lane.
pub(crate) struct AppliedLog {
    log: Arc<dyn EventLog>,
    lanes: LaneCount,
    offsets: Mutex<HashMap<Lane, i64>>,
    rows: std::sync::RwLock<Option<Arc<Rows>>>,
}

impl AppliedLog {
    pub(crate) fn new(lanes: LaneCount, log: Arc<dyn EventLog>) -> AppliedLog {
        AppliedLog { log, lanes, offsets: Mutex::default(), rows: std::sync::RwLock::default() }
    }

    pub(crate) fn write_to(&self, rows: Option<Arc<Rows>>) {
        *self.rows.write().unwrap() = rows;
    }
}

#[async_trait]
impl EventLog for AppliedLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        let rows = self.rows.read().unwrap().clone().ok_or(Error::Closed)?;
        let mut offsets = self.offsets.lock().await;
        let mut by_lane: HashMap<Lane, Vec<_>> = HashMap::new();
        for event in &batch {
            let lane = self.lanes.lane_of(&event.did);
            let offset = offsets.entry(lane).or_default();
            by_lane.entry(lane).or_default().push((event.did.clone(), event.state.clone(), *offset));
            *offset += 1;
        }
        self.log.append(batch).await?;
        for (lane, events) in by_lane {
            rows.apply(lane, &events).await?;
        }
        Ok(())
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        self.log.read(after, bytes_max).await
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.log.window()
    }

    fn health(&self) -> LogHealth {
        self.log.health()
    }
}

/// The rows under the suite: everything else is in memory, and outlives what stands for a process here.
pub(crate) struct RowsAlone;

pub(crate) struct Open {
    keyspace: Keyspace,
    memory: Stores,
    log: Arc<AppliedLog>,
    stores: Stores,
}

#[async_trait]
impl Backend for RowsAlone {
    async fn open(&self, setup: Setup) -> Box<dyn Running> {
        let keyspace = Keyspace::make_on(cql(Cassandra::shared()), setup.lanes).await;
        let memory = memory::open_with(memory::Config {
            lanes: setup.lanes,
            lane_bytes_max: setup.lane_bytes_max,
            window_bytes: setup.window_bytes,
            seq_start: setup.seq_start,
            ..memory::Config::default()
        });
        let log = Arc::new(AppliedLog::new(setup.lanes, memory.log.clone()));
        Box::new(Open::over(keyspace, memory, log).await)
    }
}

impl Open {
    async fn over(keyspace: Keyspace, memory: Stores, log: Arc<AppliedLog>) -> Open {
        let (session, settled) = keyspace.open().await;
        let rows = Arc::new(Rows::prepare(session.clone(), settled, RECENT_BYTES).await.unwrap());
        keyspace.lanes.all().for_each(|lane| rows.own(lane));
        log.write_to(Some(rows.clone()));
        let takedowns = TakedownRows::prepare(session.clone(), log.clone()).await.unwrap();
        let claims: Claims = Arc::new(|_| Some(1));
        let stores = Stores {
            log: log.clone(),
            repos: Arc::new(CqlRepos::new(rows, takedowns)),
            hosts: Arc::new(CqlHosts::prepare(session.clone(), claims).await.unwrap()),
            identities: Arc::new(CqlIdentities::prepare(session).await.unwrap()),
            ..memory.clone()
        };
        Open { keyspace, memory, log, stores }
    }

    async fn again(self) -> Option<Box<dyn Running>> {
        let Open { keyspace, memory, log, .. } = self;
        Some(Box::new(Open::over(keyspace, memory, log).await))
    }
}

#[async_trait]
impl Running for Open {
    fn stores(&self) -> Stores {
        self.stores.clone()
    }

    async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>> {
        self.again().await
    }

    async fn crash(self: Box<Self>) -> Option<Box<dyn Running>> {
        self.again().await
    }
}
