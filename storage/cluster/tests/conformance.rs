//! The cluster against the suite: one Kafka and one Cassandra for all cases, and a cluster of its own on them for each.
//! Its process crawls, judges and serves; the sequencer is another's, and outlives it.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use prometheus::Registry;
use runtime::{clock::Clock, trace::Tracer};
use storage::{
    Stores,
    conformance::{Backend, Promises, Running, Setup},
    hosts::{Assignment as HostAssignment, Change as HostChange},
    lane::{Assignment, Change, Lane},
};
use storage_cluster::{
    Cluster, Roles, admin,
    config::{Config, Cql, Kafka as KafkaConfig, Limits, Plan, Replication, Retention},
    sequence::Sequencer,
};
use testservers::{Cassandra, Kafka};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long lanes may take to come.
const GIVEN_WITHIN: Duration = Duration::from_secs(90);

struct OnServers;

/// A process of a cluster, and the cluster.
struct Open {
    process: Process,
    made: Made,
}

/// A cluster, and its sequencer.
struct Made {
    config: Config,
    /// Ends the sequencer.
    _stop: DropGuard,
    _order: JoinSet<()>,
}

/// A process that crawls all hosts, judges all lanes and serves.
struct Process {
    cluster: Cluster,
    /// Follows which lanes and hosts there are.
    follows: JoinSet<()>,
}

#[async_trait]
impl Backend for OnServers {
    async fn open(&self, setup: Setup) -> Box<dyn Running> {
        let made = Made::make(setup).await;
        let process = Process::open(&made.config).await;
        Box::new(Open { process, made })
    }

    fn promises(&self) -> Promises {
        // Kafka deletes whole segments once what is left is still as much as it is to keep.
        Promises { holds_until_cover: false, one_order: false, window_excess_bytes: 2 << 20 }
    }
}

impl Made {
    async fn make(setup: Setup) -> Made {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let servers = tokio::task::spawn_blocking(|| (Kafka::shared().bootstrap(), Cassandra::shared().address()));
        let (kafka, cql) = servers.await.unwrap();
        let config = Config {
            name: format!("suite-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            kafka: KafkaConfig { brokers: vec![kafka], tls: None, sasl: None },
            cql: Cql {
                contact_points: vec![cql],
                datacenter: None,
                login: None,
                tls: None,
                patience: Duration::from_secs(120),
            },
            limits: Limits { pushed_bytes_max: setup.lane_bytes_max, ..Limits::default() },
        };
        let plan = Plan {
            lanes: setup.lanes,
            host_partitions: NonZeroU32::new(4).unwrap(),
            replication: Replication { kafka: 1, cql: 1 },
            retention: Retention { window: None, window_bytes: Some(setup.window_bytes) },
            ..Plan::default()
        };
        admin::schema::init(&config, &plan).await.unwrap();
        let topics = admin::init::topics(&config, &plan, setup.seq_start).await.unwrap();
        assert_eq!(topics.differs, Vec::<String>::new());
        let stop = CancellationToken::new();
        let mut order = JoinSet::new();
        let sequencer = Sequencer::open(&config, &Registry::new(), Clock::system(), Tracer::off()).await.unwrap();
        let stopped = stop.clone();
        order.spawn(async move { sequencer.run(stopped).await.unwrap() });
        Made { config, _stop: stop.drop_guard(), _order: order }
    }
}

impl Process {
    async fn open(config: &Config) -> Process {
        let roles = Roles { crawls: true, judges: true, serves: true };
        let cluster = Cluster::open(config, roles, Clock::system(), &Registry::new()).await.unwrap();
        let (held, mut now) = watch::channel(BTreeSet::new());
        let mut follows = JoinSet::new();
        follows.spawn(follow(cluster.stores().assignment, held));
        let lanes = cluster.stores().intake.lanes().0.get() as usize;
        let given = tokio::time::timeout(GIVEN_WITHIN, now.wait_for(|held| held.len() == lanes)).await;
        given.expect("all lanes are given").unwrap();
        let (held, mut now) = watch::channel(0);
        let crawled = cluster.stores().crawled;
        let shards = crawled.shards().0.get();
        follows.spawn(follow_hosts(crawled, held));
        let given = tokio::time::timeout(GIVEN_WITHIN, now.wait_for(|held| *held == shards)).await;
        given.expect("all hosts are given").unwrap();
        Process { cluster, follows }
    }

    async fn close(self) {
        let Process { cluster, follows } = self;
        cluster.close().await.unwrap();
        drop(follows);
    }
}

/// As a validator does that has nothing under way.
async fn follow(assignment: Arc<dyn Assignment>, held: watch::Sender<BTreeSet<Lane>>) {
    while let Ok(change) = assignment.next().await {
        match change {
            Change::Given(lane) => assert!(held.send_if_modified(|held| held.insert(lane)), "given twice"),
            Change::Gone(lane) => {
                assignment.released(lane).await;
                held.send_modify(|held| assert!(held.remove(&lane), "it was not given"));
            }
        }
    }
}

/// As a crawler does that reads nothing.
async fn follow_hosts(crawled: Arc<dyn HostAssignment>, held: watch::Sender<u32>) {
    while let Ok(change) = crawled.next().await {
        match change {
            HostChange::Given(_) => held.send_modify(|held| *held += 1),
            HostChange::Gone(shard) => {
                crawled.released(shard).await;
                held.send_modify(|held| *held -= 1);
            }
            HostChange::Renewed(_) | HostChange::Nudged(_) => {}
        }
    }
}

#[async_trait]
impl Running for Open {
    fn stores(&self) -> Stores {
        self.process.cluster.stores()
    }

    async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>> {
        let Open { process, made } = *self;
        process.close().await;
        let process = Process::open(&made.config).await;
        Some(Box::new(Open { process, made }))
    }

    async fn crash(self: Box<Self>) -> Option<Box<dyn Running>> {
        let Open { process, made } = *self;
        drop(process);
        let process = Process::open(&made.config).await;
        Some(Box::new(Open { process, made }))
    }
}

storage::conformance_suite!(crate::OnServers);
