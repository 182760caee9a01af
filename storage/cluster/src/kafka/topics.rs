//! The topics: their names, their settings, how they are made and checked.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use storage::{error::Error, lane::LaneCount};

use super::{failed, quiet::Quiet};
use crate::config::{Plan, Retention};

/// How long the brokers may take to make or tell of a topic.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What is added around a frame, at most: DIDs, names of hosts and states have bounds far below this. Each topic allows
/// its records that much more than the topic before it, so that what was taken once always fits.
const ENVELOPE_BYTES_MAX: usize = 64 << 10;

/// The topics' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics {
    /// What is to be judged, a partition a lane.
    pub(crate) raw: String,
    /// What was judged good, a partition a lane.
    pub(crate) verified: String,
    /// The one order.
    pub(crate) firehose: String,
    /// Where the order goes on.
    pub(crate) sequencer_state: String,
    /// Nudges, a partition a share of the hosts.
    pub(crate) hosts: String,
}

impl Topics {
    /// Of the cluster of this name.
    pub(crate) fn of(name: &str) -> Topics {
        let topic = |of: &str| format!("{name}.{of}");
        Topics {
            raw: topic("raw"),
            verified: topic("verified"),
            firehose: topic("firehose"),
            sequencer_state: topic("sequencer-state"),
            hosts: topic("hosts"),
        }
    }
}

/// How a topic must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// Its partitions.
    pub(crate) partitions: i32,
    /// Its settings, where they are not the brokers'.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// How all topics of a cluster must be.
pub(crate) fn specs(name: &str, plan: &Plan) -> Vec<Spec> {
    let Topics { raw, verified, firehose, sequencer_state, hosts } = Topics::of(name);
    let lanes = i32::try_from(plan.lanes.0.get()).expect("lanes are partitions");
    let host_partitions = i32::try_from(plan.host_partitions.get()).expect("checked by who read the setting");
    let in_sync = plan.replication.kafka.saturating_sub(1).max(1);
    let spec = |name, partitions, order: usize, own: &[(&'static str, String)]| {
        let record_bytes_max = atproto::frame::FRAME_BYTES_MAX + order * ENVELOPE_BYTES_MAX;
        let mut settings = vec![
            ("min.insync.replicas", in_sync.to_string()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("max.message.bytes", record_bytes_max.to_string()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
        ];
        settings.extend_from_slice(own);
        Spec { name, partitions, settings }
    };
    // Whole segments are deleted: with small ones the disk has what is trimmed back soon.
    let until_trimmed = [
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("segment.bytes", (64 << 20).to_string()),
    ];
    let compacted = [("cleanup.policy", "compact".to_owned())];
    vec![
        spec(raw, lanes, 1, &until_trimmed),
        spec(verified, lanes, 2, &until_trimmed),
        spec(firehose, 1, 3, &window(plan.retention)),
        spec(sequencer_state, 1, 1, &compacted),
        spec(hosts, host_partitions, 1, &[("retention.ms", "86400000".to_owned())]),
    ]
}

fn window(retention: Retention) -> Vec<(&'static str, String)> {
    let Retention { window, window_bytes } = retention;
    let or_ever = |bound: Option<u128>| bound.map_or("-1".to_owned(), |bound| bound.to_string());
    // Whole segments are deleted: with smaller ones less is kept past the window.
    let segment_bytes = window_bytes.map_or(1 << 30, |bytes| (bytes / 8).clamp(1 << 20, 1 << 30));
    vec![
        ("retention.ms", or_ever(window.map(|window| window.as_millis()))),
        ("retention.bytes", or_ever(window_bytes.map(u128::from))),
        ("segment.bytes", segment_bytes.to_string()),
    ]
}

/// A cluster's topics are not as its processes need them.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No broker answers.
    #[error("no answer from kafka at {brokers}: is it running, and is --kafka right?")]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// The last word of the client.
        #[source]
        source: KafkaError,
    },
    /// There is no such topic, or it has no partitions.
    #[error("kafka has no topic {topic}: run `mainstem cluster init` first, with the same --cluster")]
    Missing {
        /// Its name.
        topic: String,
    },
    /// Two topics are not of one cluster.
    #[error("{one} has {lanes} partitions and {other} has {others}: they must be as many; see docs/cluster.md")]
    Uneven {
        /// A topic.
        one: String,
        /// Its partitions.
        lanes: usize,
        /// Another.
        other: String,
        /// Its partitions.
        others: usize,
    },
}

/// How many lanes a cluster's topics have. Blocks until a broker answers, at most for the time given.
pub(crate) fn find(settings: &ClientConfig, topics: &Topics, within: Duration) -> Result<LaneCount, FindError> {
    let brokers = settings.get("bootstrap.servers").unwrap_or_default().to_owned();
    let unreachable = |source| FindError::Unreachable { brokers: brokers.clone(), source };
    let consumer: BaseConsumer<Quiet> = settings.create_with_context(Quiet).map_err(unreachable)?;
    let until = Instant::now() + within;
    let partitions = |topic: &str| {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let metadata = consumer.fetch_metadata(Some(topic), left).map_err(unreachable)?;
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => Err(FindError::Missing { topic: topic.to_owned() }),
            count => Ok(count),
        }
    };
    let (lanes, others) = (partitions(&topics.raw)?, partitions(&topics.verified)?);
    partitions(&topics.firehose)?;
    partitions(&topics.sequencer_state)?;
    let missing = || FindError::Missing { topic: topics.raw.clone() };
    let count = u32::try_from(lanes).ok().and_then(NonZeroU32::new).ok_or_else(missing)?;
    if lanes != others {
        let (one, other) = (topics.raw.clone(), topics.verified.clone());
        return Err(FindError::Uneven { one, lanes, other, others });
    }
    Ok(LaneCount(count))
}

/// Makes the topics that are missing. Those that are there stay as they are.
pub(crate) async fn create(
    admin: &AdminClient<DefaultClientContext>,
    specs: &[Spec],
    replicas: u16,
) -> Result<(), Error> {
    let what = "make the topics";
    let topics: Vec<NewTopic<'_>> = specs
        .iter()
        .map(|spec| {
            let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(i32::from(replicas)));
            spec.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN));
    for result in admin.create_topics(&topics, &options).await.map_err(failed(what))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Error::Indeterminate { what, source: format!("{topic}: {code}").into() });
            }
        }
    }
    Ok(())
}

/// What of the topics is not as it must be, in words; empty where all is well.
pub(crate) async fn check(admin: &AdminClient<DefaultClientContext>, specs: &[Spec]) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    for spec in specs {
        let metadata =
            admin.inner().fetch_metadata(Some(&spec.name), ANSWER_WITHIN).map_err(failed("look at a topic"))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if i32::try_from(partitions) != Ok(spec.partitions) {
            wrong.push(format!("{} has {partitions} partitions, and should have {}", spec.name, spec.partitions));
        }
    }
    let resources: Vec<_> = specs.iter().map(|spec| ResourceSpecifier::Topic(&spec.name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let found = admin.describe_configs(&resources, &options).await.map_err(failed("look at the topics' settings"))?;
    for (spec, found) in specs.iter().zip(found) {
        match found {
            Ok(found) => {
                for (key, value) in &spec.settings {
                    let is = found.get(key).and_then(|entry| entry.value.as_deref());
                    if is != Some(value) {
                        wrong.push(format!(
                            "{}: {key} is {}, and should be {value}",
                            spec.name,
                            is.unwrap_or("not set")
                        ));
                    }
                }
            }
            Err(code) => wrong.push(format!("{}: {code}", spec.name)),
        }
    }
    Ok(wrong)
}
