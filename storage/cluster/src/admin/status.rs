//! How a cluster's topics stand: what is in each lane, how far the order is, who leads.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use storage::{error::Error, seq::Seq};

use super::groups::{self, Member};
use crate::{
    config::Config,
    firehose,
    kafka::{
        client::{ends, settings},
        failed,
        quiet::Quiet,
        topics::{FindError, Topics, find},
    },
    lanes::group_of,
    sequence::state::{ReadError, read_last},
};

/// How long Kafka may take for one thing.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a cluster can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Kafka does not answer, or has no such topics.
    #[error(transparent)]
    Topics(#[from] FindError),
    /// A question was not answered.
    #[error(transparent)]
    Store(#[from] Error),
}

/// How the topics stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Each lane, from 0.
    pub lanes: Vec<LaneStatus>,
    /// The seq of the next event; `None` where the order was not begun, or its state is lost.
    pub next_seq: Option<Seq>,
    /// Offsets of `firehose`: the first that is kept, and the one after the last.
    pub firehose: (i64, i64),
    /// The first event that is kept and when it was accepted, in microseconds since 1970.
    pub first_kept: Option<(Seq, u64)>,
    /// Partitions of `hosts`: shares of hosts for crawlers.
    pub host_shares: usize,
    /// Validators, as their group's coordinator knows them; their partitions are lanes.
    pub validators: Vec<Member>,
    /// Crawlers; their partitions are shares of hosts.
    pub crawlers: Vec<Member>,
    /// Sequencers; who has the one partition leads.
    pub sequencers: Vec<Member>,
}

impl Status {
    /// Who leads the order; `None` where nobody does.
    pub fn sequencer(&self) -> Option<&Member> {
        self.sequencers.iter().find(|member| !member.partitions.is_empty())
    }

    /// Who judges a lane; `None` where nobody does now.
    pub fn owner(&self, lane: usize) -> Option<&Member> {
        let lane = i32::try_from(lane).ok()?;
        self.validators.iter().find(|member| member.partitions.contains(&lane))
    }
}

/// How a lane stands, in offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Of `raw`: the first that is kept, and the one after the last.
    pub raw: (i64, i64),
    /// Where in `raw` a new owner would go on; `None` where nothing was committed.
    pub committed: Option<i64>,
    /// Of `verified`: the first that is kept, and the one after the last.
    pub verified: (i64, i64),
    /// Where in `verified` the order stands.
    pub ordered: Option<i64>,
    /// The claim in force there.
    pub claim: Option<i64>,
}

impl LaneStatus {
    /// Records of `raw` that are not judged, or not committed yet.
    pub fn raw_lag(&self) -> i64 {
        self.raw.1 - self.committed.unwrap_or(self.raw.0)
    }

    /// Records of `verified` that are not published yet.
    pub fn verified_lag(&self) -> i64 {
        self.verified.1 - self.ordered.unwrap_or(self.verified.0)
    }
}

/// Looks at all topics. Blocks for some requests a lane.
pub fn topics(config: &Config) -> Result<Status, StatusError> {
    let client = settings(&config.kafka, &format!("{}.status", config.name));
    let names = Topics::of(&config.name);
    let lane_count = find(&client, &names, ANSWER_WITHIN)?;
    let lanes_group = group_of(&config.name);
    let what = "look at the topics";
    let state = read_last(&client, &names.sequencer_state, ANSWER_WITHIN).map_err(|error| match error {
        ReadError::Kafka(error) => failed(what)(error),
        ReadError::Malformed(malformed) => Error::Damaged { what: malformed.to_string() },
    })?;
    let committed = committed(&client, &lanes_group, &names.raw, lane_count.0.get()).map_err(failed(what))?;
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(failed(what))?;
    let ends = |topic: &str, partition| ends(&consumer, topic, partition, ANSWER_WITHIN).map_err(failed(what));
    let mut lanes = Vec::new();
    for (partition, committed) in (0..).zip(committed) {
        let ordered = state.as_ref().and_then(|state| state.lanes.get(lanes.len()));
        lanes.push(LaneStatus {
            raw: ends(&names.raw, partition)?,
            committed,
            verified: ends(&names.verified, partition)?,
            ordered: ordered.map(|lane| lane.next_offset),
            claim: ordered.and_then(|lane| lane.claim),
        });
    }
    let hosts = consumer.fetch_metadata(Some(&names.hosts), ANSWER_WITHIN).map_err(failed(what))?;
    let group = |role: &str| {
        let name = format!("{}.{role}", config.name);
        groups::members(&consumer, &name, ANSWER_WITHIN).map_err(failed(what))
    };
    let kept = firehose::first_kept(config)?;
    Ok(Status {
        lanes,
        next_seq: state.map(|state| state.next_seq),
        firehose: ends(&names.firehose, 0)?,
        first_kept: kept,
        host_shares: hosts.topics().first().map_or(0, |topic| topic.partitions().len()),
        validators: group("validators")?,
        crawlers: group("crawlers")?,
        sequencers: group("sequencer")?,
    })
}

fn committed(client: &ClientConfig, group: &str, topic: &str, lanes: u32) -> Result<Vec<Option<i64>>, KafkaError> {
    let consumer: BaseConsumer<Quiet> = client.clone().set("group.id", group).create_with_context(Quiet)?;
    let mut places = TopicPartitionList::new();
    let lanes = i32::try_from(lanes).expect("lanes are partitions");
    places.add_partition_range(topic, 0, lanes - 1);
    let found = consumer.committed_offsets(places, ANSWER_WITHIN)?;
    let offset = |lane| match found.find_partition(topic, lane).map(|place| place.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _none => None,
    };
    Ok((0..lanes).map(offset).collect())
}
