//! The order's state made anew, after it or unpublished records were lost.
//!
//! Each record of `firehose` says which record of `verified` it is, so what was published last of each lane says where to
//! go on there: nothing is published twice, nothing that is still there is left out.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::BaseConsumer,
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use storage::{error::Error, lane::Lane, seq::Seq};

use crate::{
    config::Config,
    kafka::{
        client::{ends, partition, settings},
        failed,
        quiet::Quiet,
        stretch,
        topics::{FindError, Topics, find},
    },
    sequence::{
        leftover::{self, Looking, Places},
        state::{ReadError, read_last},
    },
    wire::{
        Malformed, firehose,
        sequencer::{KEY, LaneState, State},
        verified,
    },
};

/// How long Kafka may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many offsets before the end are looked at first, and then as many times more.
const STEP_BACK: i64 = 8192;

/// How far an operator goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Goes on after records of `verified` that are gone and were not published: their events are lost.
    pub skip_lost: bool,
    /// The seq to go on with where `firehose` holds nothing that could tell it. Must be above all that were ever served.
    pub next_seq: Option<Seq>,
}

/// Why the state can't be made anew.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Kafka does not answer, or has no such topics.
    #[error(transparent)]
    Topics(#[from] FindError),
    /// It can't be read or written, or records are gone.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What was found and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The seq of the next event.
    pub next_seq: Seq,
    /// Whether the state was there, so that at most lost records were skipped.
    pub was_there: bool,
    /// Lanes whose unpublished records are gone, and from where to where they are missing.
    pub skipped: Vec<(Lane, i64, i64)>,
}

/// Takes the sequencer's producer, so that a running sequencer can't commit meanwhile, finds where to go on, and writes
/// it. Changes nothing where nothing is wrong. Blocks.
pub fn sequencer(config: &Config, options: Options) -> Result<Restored, RestoreError> {
    let what = "restore the order's state";
    let names = Topics::of(&config.name);
    let client = settings(&config.kafka, &format!("{}.restore", config.name));
    let lanes = find(&client, &names, PATIENCE)?;
    let producer: BaseProducer =
        client.clone().set("transactional.id", format!("{}.sequencer", config.name)).create().map_err(failed(what))?;
    producer.init_transactions(PATIENCE).map_err(failed(what))?;
    let found = read_last(&client, &names.sequencer_state, PATIENCE).map_err(unreadable(what))?;
    let reader = Reader::new(&client, &names).map_err(failed(what))?;
    let was_there = found.is_some();
    let before = found.clone();
    let mut state = match found {
        Some(state) => state,
        None => reader.last_published(lanes.0.get(), options.next_seq)?,
    };
    let places = Places { client: &client, firehose: &names.firehose, state: &names.sequencer_state };
    let looking = Looking::new(&places).map_err(failed(what))?;
    leftover::settle(&places, &looking, &producer, &mut state).map_err(unreadable(what))?;
    let skipped = reader.skip_lost(&mut state, options.skip_lost)?;
    if before.as_ref() != Some(&state) {
        producer.begin_transaction().map_err(failed(what))?;
        let bytes = state.encode();
        let record = BaseRecord::to(&names.sequencer_state).partition(0).key(KEY).payload(&bytes);
        producer.send(record).map_err(|(error, _)| failed(what)(error))?;
        producer.commit_transaction(PATIENCE).map_err(failed(what))?;
    }
    Ok(Restored { next_seq: state.next_seq, was_there, skipped })
}

/// Reads stretches of the topics.
struct Reader<'a> {
    consumer: BaseConsumer<Quiet>,
    names: &'a Topics,
}

impl Reader<'_> {
    fn new<'a>(client: &ClientConfig, names: &'a Topics) -> Result<Reader<'a>, KafkaError> {
        let consumer = client
            .clone()
            .set("group.id", format!("{}.readers", names.firehose))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .create_with_context(Quiet)?;
        Ok(Reader { consumer, names })
    }

    /// What was published last of each lane.
    fn last_published(&self, lanes: u32, next_seq: Option<Seq>) -> Result<State, Error> {
        let topic = &self.names.firehose;
        let (low, high) = self.ends(topic, 0)?;
        let mut found: BTreeMap<Lane, firehose::Origin> = BTreeMap::new();
        let mut last = None;
        let (mut until, mut step) = (high, STEP_BACK);
        while until > low && found.len() < lanes as usize {
            let from = (until - step).max(low);
            // Of this stretch the last record of a lane counts; what was found behind it is newer.
            let mut here = BTreeMap::new();
            self.read(topic, 0, from, until, |_, bytes| {
                let head = firehose::Record::decode(bytes)?.head;
                here.insert(head.origin.lane, head.origin);
                last = last.max(Some(head.seq));
                Ok(true)
            })?;
            for (lane, origin) in here {
                found.entry(lane).or_insert(origin);
            }
            (until, step) = (from, step.saturating_mul(4));
        }
        let next_seq = last.map(Seq::next).max(next_seq).ok_or_else(|| Error::Determinate {
            what: "restore the order's state",
            source: format!("{topic} holds no event: say with which seq to go on (--next-seq)").into(),
        })?;
        let mut state = State::start(next_seq, lanes);
        for (lane, at) in (0..).map(Lane).zip(&mut state.lanes) {
            *at = match found.get(&lane) {
                Some(origin) => LaneState { next_offset: origin.offset + 1, claim: Some(origin.claim) },
                // Nothing of it is in the whole window: what was published of it is older, and trimmed.
                None => {
                    let (oldest, _) = self.ends(&self.names.verified, partition(lane))?;
                    LaneState { next_offset: oldest, claim: self.claim_at(lane, oldest)? }
                }
            };
        }
        Ok(state)
    }

    /// Moves lanes whose next record is gone to the first that is there.
    fn skip_lost(&self, state: &mut State, may: bool) -> Result<Vec<(Lane, i64, i64)>, Error> {
        let mut skipped = Vec::new();
        for (lane, at) in (0..).map(Lane).zip(&mut state.lanes) {
            let (low, high) = self.ends(&self.names.verified, partition(lane))?;
            if (low..=high).contains(&at.next_offset) {
                continue;
            }
            skipped.push((lane, at.next_offset, low));
            *at = LaneState { next_offset: low, claim: self.claim_at(lane, low)? };
        }
        if !skipped.is_empty() && !may {
            let lanes: Vec<_> = skipped.iter().map(|(lane, ..)| lane.0.to_string()).collect();
            let source = format!(
                "records that were not published are gone in lanes {}: --skip-lost goes on without them",
                lanes.join(", ")
            );
            return Err(Error::Determinate { what: "restore the order's state", source: source.into() });
        }
        Ok(skipped)
    }

    /// The claim in force before an offset. Where its record is gone, events name it: claims rise, and who has lost the
    /// lane names an earlier one. Where nobody names it, it does not matter.
    fn claim_at(&self, lane: Lane, at: i64) -> Result<Option<i64>, Error> {
        let topic = &self.names.verified;
        let (low, high) = self.ends(topic, partition(lane))?;
        let mut claim = None;
        self.read(topic, partition(lane), low, at.min(high), |offset, bytes| {
            claim = match verified::View::decode(bytes)? {
                verified::View::Claim(_) => Some(offset),
                verified::View::Event(event) => claim.max(Some(event.claim)),
            };
            Ok(true)
        })?;
        if claim.is_none() {
            self.read(topic, partition(lane), at.max(low), high, |_, bytes| {
                let verified::View::Event(event) = verified::View::decode(bytes)? else { return Ok(false) };
                claim = claim.max(Some(event.claim));
                Ok(true)
            })?;
        }
        Ok(claim.filter(|claim| *claim < at))
    }

    /// Gives the records of `from..until` to `take`, as long as it wants more.
    fn read(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        until: i64,
        take: impl FnMut(i64, &[u8]) -> Result<bool, Malformed>,
    ) -> Result<(), Error> {
        let read = stretch::read(&self.consumer, topic, partition, from, until, take);
        read.map_err(unreadable("read a topic"))
    }

    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        ends(&self.consumer, topic, partition, PATIENCE).map_err(failed("find a partition's ends"))
    }
}

fn unreadable(what: &'static str) -> impl Fn(ReadError) -> Error {
    move |error| match error {
        ReadError::Kafka(error) => failed(what)(error),
        ReadError::Malformed(malformed) => Error::Damaged { what: malformed.to_string() },
    }
}
