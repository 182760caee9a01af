//! Whether the servers answer and this process has its part: looked at every two seconds, for readiness and metrics.

use std::{sync::Arc, time::Duration};

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cql::Session,
    firehose::Firehose,
    kafka::{client::partition, producer::Producer, reader::Reader},
    lanes::Lanes,
};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Lags cost a request a lane: they are looked at once in so many looks.
const LAGS_ONCE_IN: u64 = 3;

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since when no broker has answered; `None` where they do.
    pub kafka_silent_since: Option<Instant>,
    /// Since when no CQL server has answered; `None` where they do.
    pub cql_silent_since: Option<Instant>,
    /// Of a process that judges.
    pub lanes: Option<LanesHealth>,
    /// Of a process that serves.
    pub firehose: Option<FirehoseHealth>,
}

/// What a process that judges has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanesHealth {
    /// Lanes that are judged here.
    pub held: usize,
    /// Lanes that the group has given and that are being taken over.
    pub taking: usize,
    /// Whether any was ever held.
    pub was_given: bool,
}

/// How a process that serves keeps up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirehoseHealth {
    /// For how long it has not met the end; `None` where it has read all.
    pub behind: Option<Duration>,
    /// How many offsets it lacks.
    pub lag: u64,
}

/// Looks, for as long as it runs.
pub struct Pulse {
    parts: Parts,
    metrics: Metrics,
    health: watch::Sender<Health>,
}

/// What is looked at.
pub(crate) struct Parts {
    pub(crate) producer: Arc<Producer>,
    /// A topic that is always there.
    pub(crate) topic: String,
    pub(crate) session: Arc<Session>,
    pub(crate) lanes: Option<(Arc<Lanes>, Arc<Reader>)>,
    pub(crate) firehose: Option<Arc<Firehose>>,
}

#[derive(Clone)]
struct Metrics {
    silent: IntGaugeVec,
    lanes_taking: IntGauge,
    raw_lag: IntGauge,
    firehose_lag: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let opts = Opts::new("mainstem_cluster_silent", "1 where a server does not answer, 0 where it does.");
        let silent = IntGaugeVec::new(opts, &["server"])?;
        registry.register(Box::new(silent.clone()))?;
        Ok(Metrics {
            silent,
            lanes_taking: gauge("mainstem_lane_taking", "Lanes that were given and are being taken over.")?,
            raw_lag: gauge(
                "mainstem_lane_lag_records",
                "Records of raw that are not judged yet, in the lanes that this process owns.",
            )?,
            firehose_lag: gauge(
                "mainstem_firehose_lag_records",
                "Offsets of the firehose that are committed and not read here yet; marks of transactions count.",
            )?,
        })
    }
}

impl Pulse {
    pub(crate) fn new(parts: Parts, registry: &Registry) -> Result<Pulse, prometheus::Error> {
        let health = Health {
            lanes: parts.lanes.is_some().then(LanesHealth::default),
            firehose: parts.firehose.is_some().then(FirehoseHealth::default),
            ..Health::default()
        };
        Ok(Pulse { parts, metrics: Metrics::register(registry)?, health: watch::Sender::new(health) })
    }

    /// What was seen last.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Looks until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u64;
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let looked = stop.run_until_cancelled(self.look(count.is_multiple_of(LAGS_ONCE_IN))).await;
            if looked.is_none() {
                return;
            }
            count += 1;
        }
    }

    async fn look(&self, at_lags: bool) {
        let (kafka, cql) = tokio::join!(self.kafka_answers(), self.cql_answers());
        let firehose = self.parts.firehose.as_ref().map(|firehose| match firehose.behind() {
            Some((behind, lag)) => FirehoseHealth { behind: Some(behind), lag },
            None => FirehoseHealth::default(),
        });
        if let (Some((lanes, reader)), true, true) = (&self.parts.lanes, kafka, at_lags)
            && let Some(lag) = raw_lag(lanes, reader).await
        {
            self.metrics.raw_lag.set(lag);
        }
        let lanes = self.parts.lanes.as_ref().map(|(lanes, _)| lanes.counts());
        let now = Instant::now();
        let since = |silent: bool, before: Option<Instant>| silent.then(|| before.unwrap_or(now));
        self.metrics.silent.with_label_values(&["kafka"]).set(i64::from(!kafka));
        self.metrics.silent.with_label_values(&["cql"]).set(i64::from(!cql));
        self.health.send_modify(|health| {
            health.kafka_silent_since = since(!kafka, health.kafka_silent_since);
            health.cql_silent_since = since(!cql, health.cql_silent_since);
            if let (Some(now_held), Some((held, taking))) = (&mut health.lanes, lanes) {
                let was_given = now_held.was_given || held > 0;
                *now_held = LanesHealth { held, taking, was_given };
                self.metrics.lanes_taking.set(i64::try_from(taking).unwrap_or(i64::MAX));
            }
            if let Some(FirehoseHealth { lag, .. }) = firehose {
                self.metrics.firehose_lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
            }
            health.firehose = firehose;
        });
    }

    async fn kafka_answers(&self) -> bool {
        let (producer, topic) = (Arc::clone(&self.parts.producer), self.parts.topic.clone());
        let asked = tokio::task::spawn_blocking(move || producer.is_answered(&topic, ANSWER_WITHIN));
        asked.await.unwrap_or(false)
    }

    async fn cql_answers(&self) -> bool {
        timeout(ANSWER_WITHIN, self.parts.session.ask()).await.unwrap_or(false)
    }
}

/// How many records of `raw` are not covered, in the lanes held here; `None` where it is not known.
async fn raw_lag(lanes: &Arc<Lanes>, reader: &Arc<Reader>) -> Option<i64> {
    let (topic, places) = lanes.covered();
    let reader = Arc::clone(reader);
    let looked = tokio::task::spawn_blocking(move || {
        let lag = |(lane, covered): (_, u64)| {
            let (_, end) = reader.watermarks(&topic, partition(lane)).ok()?;
            Some(end.saturating_sub(i64::try_from(covered).unwrap_or(i64::MAX)).max(0))
        };
        places.into_iter().map(lag).sum::<Option<i64>>()
    });
    looked.await.ok().flatten()
}
