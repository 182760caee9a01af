//! A process's part of a cluster, opened: the four nouns, and what runs behind them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use prometheus::Registry;
use rdkafka::error::KafkaError;
use runtime::clock::Clock;
use storage::{
    Stores,
    error::Error,
    hosts::{self, Shards},
    lane::{Assignment, Change, Lane, LaneCount},
    log::{Accepted, Block, EventLog, LogHealth, Published, ReadError, Window},
    seq::Seq,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    config::Config,
    cql::{
        self, Commands, CqlHosts, CqlIdentities, CqlRepos, Settled, TakedownRows,
        schema::{self, SchemaError},
        session::ConnectError,
    },
    firehose::{self, Firehose},
    hosts_topic::{self, HostsTopic, NoHosts},
    intake::{self, RawIntake},
    kafka::{
        Unreachable,
        client::{client_id, settings},
        producer::Producer,
        reach::reach,
        reader::Reader,
        topics::{self, FindError, Topics},
    },
    lanes::{self, JoinError, Lanes, Running},
    metrics::Metrics,
    pulse::{self, Pulse},
    room::{self, NoThread, RawRoom, Room},
    rows::CqlLaneRows,
};

/// What a process does with a cluster. Whatever its role, it may push into the intake and read rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Crawls hosts: shares of them are given to it.
    pub crawls: bool,
    /// Judges lanes: pulls and appends.
    pub judges: bool,
    /// Reads the firehose.
    pub serves: bool,
}

impl Roles {
    /// What Kafka's clients are called by.
    fn as_str(self) -> &'static str {
        match self {
            Roles { judges: true, .. } => "validator",
            Roles { judges: false, serves: true, .. } => "server",
            Roles { judges: false, serves: false, .. } => "crawler",
        }
    }
}

/// How long a CQL server is left alone that did not let us in.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long servers may take to answer at a process's start.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Why a process can't take its part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The topics.
    #[error(transparent)]
    Topics(#[from] FindError),
    /// Topics and rows are not of one cluster.
    #[error("the topics have {topics} lanes and the rows {rows}: see docs/cluster.md for how to change that")]
    Lanes {
        /// Partitions of `raw`.
        topics: u32,
        /// What was settled with the keyspace.
        rows: u32,
    },
    /// The rows.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A statement is not taken.
    #[error(transparent)]
    Rows(#[from] ConnectError),
    /// Kafka does not answer, or does not let us in.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Kafka's clients can't be made: the settings are wrong.
    #[error("failed to make a client of kafka")]
    Kafka(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody can look what `raw` holds.
    #[error(transparent)]
    Room(#[from] NoThread),
    /// A metric could not be registered.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
    /// Reading what was opened failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<KafkaError> for OpenError {
    fn from(error: KafkaError) -> OpenError {
        OpenError::Kafka(error.into())
    }
}

impl From<JoinError> for OpenError {
    fn from(error: JoinError) -> OpenError {
        OpenError::Kafka(error.into())
    }
}

/// How many lanes the cluster's topics have, once Kafka answers.
pub(crate) async fn find_topics(config: &Config) -> Result<LaneCount, OpenError> {
    reach(&config.kafka, &config.name).await?;
    let (client, topics) = (settings(&config.kafka, &config.name), Topics::of(&config.name));
    match tokio::task::spawn_blocking(move || topics::find(&client, &topics, ANSWERS_WITHIN)).await {
        Ok(found) => Ok(found?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Connects to the cluster's rows, as soon as a server lets us in: they may be starting, as we are.
async fn find_rows(
    config: &Config,
    keyspace: &str,
    metrics: cql::Metrics,
) -> Result<(cql::Session, Settled), SchemaError> {
    let until = Instant::now() + ANSWERS_WITHIN;
    loop {
        match schema::open(&config.cql, keyspace, metrics.clone()).await {
            Err(SchemaError::Connect(error @ ConnectError::Refused { .. })) if Instant::now() < until => {
                warn!(error = &error as &dyn std::error::Error, "the cql servers don't let us in yet");
                tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
            }
            opened => return opened,
        }
    }
}

/// A process's part, open. Dropping it ends it as a crash would; [`Cluster::close`] hands over in good order.
pub struct Cluster {
    stores: Stores,
    intake: Arc<RawIntake>,
    producer: Arc<Producer>,
    judging: Option<Judging>,
    pulse: Option<Pulse>,
    hosts: Option<Arc<HostsTopic>>,
}

/// The lanes, and the membership by which they come and go.
struct Judging {
    lanes: Arc<Lanes>,
    member: Mutex<Option<Running>>,
}

impl Cluster {
    /// Opens what these roles need.
    pub async fn open(config: &Config, roles: Roles, clock: Clock, registry: &Registry) -> Result<Cluster, OpenError> {
        let found = find_topics(config).await?;
        let keyspace = schema::keyspace_of(&config.name);
        let cql_metrics = cql::Metrics::register(registry)?;
        let (session, settled) = find_rows(config, &keyspace, cql_metrics).await?;
        let (lanes, raw_bytes_max) = (settled.lanes, settled.raw_bytes_max);
        if found != lanes {
            return Err(OpenError::Lanes { topics: found.0.get(), rows: lanes.0.get() });
        }
        let session = Arc::new(session);
        let rows = Arc::new(cql::Rows::prepare(Arc::clone(&session), settled, config.limits.states_bytes_max).await?);
        let commands = Commands::prepare(Arc::clone(&session)).await?;
        let lane_rows: Arc<CqlLaneRows> = Arc::new(CqlLaneRows::new(Arc::clone(&rows), commands));

        let metrics = Metrics::register(registry)?;
        let topics = Topics::of(&config.name);
        let client = settings(&config.kafka, &client_id(&config.name, roles.as_str()));
        let limits = config.limits;
        // What is under way is bounded by who sends.
        let lane_bytes = limits.appended_bytes_max.saturating_mul(lanes.0.get() as usize);
        let producer = Arc::new(Producer::new(&client, 2 * (limits.pushed_bytes_max + lane_bytes))?);
        let mut judging = None;
        let mut judged = None;
        let mut read_by = None;
        if roles.judges {
            let reader = Arc::new(Reader::new(&client, &config.name, limits.read_ahead_bytes)?);
            reader.prepare([topics.raw.clone(), topics.verified.clone()]).await;
            let parts = lanes::Parts {
                reader: Arc::clone(&reader),
                settings: client.clone(),
                name: config.name.clone(),
                lanes,
                topics: topics.clone(),
                producer: Arc::clone(&producer),
                rows: Arc::clone(&lane_rows) as _,
                limits,
                clock,
                metrics: metrics.clone(),
            };
            let (owned, member) = Lanes::new(parts);
            let owned = Arc::new(owned);
            judged = Some(Arc::clone(&owned));
            read_by = Some(reader);
            judging = Some(Judging { lanes: owned, member: Mutex::new(Some(member.join()?)) });
        }
        let shards = Shards(settled.host_partitions);
        let hosts = match roles.crawls || roles.serves {
            true => Some(Arc::new(HostsTopic::follow(hosts_topic::Parts {
                settings: client.clone(),
                name: config.name.clone(),
                topic: topics.hosts,
                shards,
                metrics: hosts_topic::Metrics::register(registry)?,
            })?)),
            false => None,
        };
        let crawled: Arc<dyn hosts::Assignment> = match &hosts {
            Some(hosts) => Arc::clone(hosts) as _,
            None => Arc::new(NoHosts(shards)),
        };
        let claims = hosts.as_ref().map_or_else(hosts_topic::no_claims, |hosts| hosts.claims());
        let raw = match roles.crawls {
            true => Some(Room::watch(room::Parts {
                settings: client,
                topic: topics.raw.clone(),
                lanes,
                bytes_max: raw_bytes_max,
                metrics: room::Metrics::register(registry)?,
            })?),
            false => None,
        };
        let intake = Arc::new(RawIntake::new(intake::Parts {
            topic: topics.raw.clone(),
            lanes,
            producer: Arc::clone(&producer),
            rows: lane_rows,
            metrics,
            bytes_max: limits.pushed_bytes_max,
            raw,
            judged: judged.clone(),
        }));
        let firehose = if roles.serves {
            let metrics = firehose::Metrics::register(registry)?;
            Some(Arc::new(Firehose::open(firehose::Config::of(config), metrics).await?))
        } else {
            None
        };
        let pulse = pulse::Parts {
            producer: Arc::clone(&producer),
            topic: topics.raw,
            session: Arc::clone(&session),
            lanes: judged.clone().zip(read_by),
            firehose: firehose.clone(),
        };
        let pulse = Some(Pulse::new(pulse, registry)?);
        let log: Arc<dyn EventLog> =
            Arc::new(ClusterLog { lanes: judged.clone(), firehose, nothing: watch::Sender::default() });
        let takedowns = TakedownRows::prepare(Arc::clone(&session), Arc::clone(&log)).await?;
        let assignment: Arc<dyn Assignment> = match judged {
            Some(lanes) => lanes,
            None => Arc::new(NoLanes),
        };
        let stores = Stores {
            intake: Arc::clone(&intake) as _,
            log,
            repos: Arc::new(CqlRepos::new(rows, takedowns)),
            hosts: Arc::new(CqlHosts::prepare(Arc::clone(&session), claims).await?),
            identities: Arc::new(CqlIdentities::prepare(session).await?),
            assignment,
            crawled,
        };
        if roles.crawls
            && let Some(hosts) = &hosts
        {
            hosts.join()?;
        }
        Ok(Cluster { stores, intake, producer, judging, pulse, hosts })
    }

    /// The four nouns.
    pub fn stores(&self) -> Stores {
        self.stores.clone()
    }

    /// What looks how it stands; `None` when it was taken before.
    pub fn pulse(&mut self) -> Option<Pulse> {
        self.pulse.take()
    }

    /// Cancelled when what was sent may not be in Kafka: nothing more can be, and the process must start anew.
    pub fn broken(&self) -> CancellationToken {
        self.producer.ended().clone()
    }

    /// What `raw` holds, of what it may, in a process that crawls: pushes wait where that is full.
    pub fn raw(&self) -> Option<watch::Receiver<RawRoom>> {
        self.intake.raw()
    }

    /// The intake takes no more frames. The first step of a drain.
    pub fn close_intake(&self) {
        self.intake.close();
    }

    /// Gives all lanes and hosts back and leaves: others take them at once. Whoever follows [`Stores::assignment`] must still
    /// do so, or have released them; nothing may be crawled any more.
    pub async fn close(self) -> Result<(), Error> {
        self.intake.close();
        if let Some(hosts) = &self.hosts {
            hosts::Assignment::leave(&**hosts).await;
        }
        let member = self
            .judging
            .as_ref()
            .and_then(|judging| judging.member.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(member) = member {
            let left = tokio::task::spawn_blocking(move || member.leave()).await;
            left.map_err(|panic| Error::Indeterminate { what: "leave the lanes", source: panic.into() })?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.intake.close();
        if let Some(judging) = &self.judging {
            judging.lanes.fence_all();
        }
    }
}

/// The log as a process of these roles sees it.
struct ClusterLog {
    lanes: Option<Arc<Lanes>>,
    firehose: Option<Arc<Firehose>>,
    /// What who does not serve sees.
    nothing: watch::Sender<Window>,
}

#[async_trait]
impl EventLog for ClusterLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        self.lanes.as_ref().ok_or(Error::Closed)?.append(batch).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        self.firehose.as_ref().ok_or(Error::Closed)?.read(after, bytes_max).await
    }

    async fn read_block(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        self.firehose.as_ref().ok_or(Error::Closed)?.read_block(after, bytes_max).await
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.firehose.as_ref().map_or_else(|| self.nothing.subscribe(), |firehose| firehose.window())
    }

    async fn catch_up(&self) -> Result<(), Error> {
        self.firehose.as_ref().ok_or(Error::Closed)?.catch_up().await.map(drop)
    }

    fn health(&self) -> LogHealth {
        LogHealth::Ready
    }
}

/// For a process that judges nothing.
struct NoLanes;

#[async_trait]
impl Assignment for NoLanes {
    async fn next(&self) -> Result<Change, Error> {
        std::future::pending().await
    }

    async fn released(&self, _lane: Lane) {}
}
