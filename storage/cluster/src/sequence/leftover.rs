//! What an earlier leader has left open in the topics, ended before anything is published.
//!
//! Whoever takes the producer over has Kafka end the transaction that was open: with a mark in each of its partitions,
//! after which its records are gone, or there. But a broker that starts anew leaves out marks of partitions whose leader
//! it does not know yet, and says that all is done (seen with Kafka 4.3.1, one broker, killed, and away for longer than the
//! transaction's time). Records without a mark are open for good, and are committed by the next transaction of the same
//! producer: events would be in the firehose twice, under seqs that are then given to others.
//!
//! What must hold: before the first transaction of a leader nothing is open, or it is the rest of what the state says was
//! published. Three things may have been left, by which marks are missing:
//! 1. the last transaction was not committed: its records are ended by an aborted transaction of ours;
//! 2. it was, and its events are there, but not its state: the state is made of the events, which say where they come of;
//! 3. it was, and its state is there, but not its events: our next transaction commits them, in their place.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};
use storage::seq::Seq;
use tracing::warn;

use super::state::ReadError;
use crate::{
    kafka::{client::ends, quiet::Quiet, stretch},
    wire::{
        firehose::{Head, Record},
        sequencer::{KEY, LaneState, State},
    },
};

/// How long Kafka may take for one thing.
const PATIENCE: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);
/// So many offsets before the firehose's end are looked at first.
const STEP_BACK: i64 = 1024;

/// Where it may be.
pub(crate) struct Places<'a> {
    /// What all clients of Kafka have in common.
    pub(crate) client: &'a ClientConfig,
    /// The topic of events.
    pub(crate) firehose: &'a str,
    /// The topic of the order's state.
    pub(crate) state: &'a str,
}

/// Ends what was left open, as the leader who has taken `producer` over and has read `state`, which is corrected. Blocks.
pub(crate) fn settle<C: ProducerContext<DeliveryOpaque = ()>>(
    places: &Places<'_>,
    looking: &Looking,
    producer: &BaseProducer<C>,
    state: &mut State,
) -> Result<(), ReadError> {
    let (events, states) = (looking.open(places.firehose)?, looking.open(places.state)?);
    if events.is_none() && states.is_none() {
        return Ok(());
    }
    let published = looking.published(places.firehose, state.next_seq)?;
    if let Some((from, until)) = events
        && looking.rest(places.firehose, from, until)?.completes(&published, state.next_seq)
    {
        warn!(
            events = until - from,
            "the last transaction's events have no mark; the next transaction makes up for it"
        );
        return Ok(());
    }
    warn!(?events, ?states, "the last transaction was left open; it is ended");
    abort(places, producer, state)?;
    looking.await_closed(places)?;
    if published.correct(state) {
        warn!(next_seq = %state.next_seq, "the last transaction's state has no mark; it is made of its events");
        producer.begin_transaction()?;
        send(producer, places.state, Some(KEY), &state.encode())?;
        producer.flush(PATIENCE)?;
        persist(|| producer.commit_transaction(CALL))?;
    }
    Ok(())
}

/// An aborted transaction in both topics: its marks end whatever this producer has open there.
fn abort<C: ProducerContext<DeliveryOpaque = ()>>(
    places: &Places<'_>,
    producer: &BaseProducer<C>,
    state: &State,
) -> Result<(), ReadError> {
    producer.begin_transaction()?;
    send(producer, places.firehose, None, &[])?;
    send(producer, places.state, Some(KEY), &state.encode())?;
    // Only a partition that has a record of it is in the transaction.
    producer.flush(PATIENCE)?;
    persist(|| producer.abort_transaction(CALL))?;
    Ok(())
}

fn send<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    key: Option<&[u8]>,
    payload: &[u8],
) -> KafkaResult<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(payload);
    record.key = key;
    producer.send(record).map_err(|(error, _)| error)
}

fn persist(mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            result => return result,
        }
    }
}

/// What the firehose says was published, of the last events.
#[derive(Debug, Default)]
struct Published {
    /// The last seq of all.
    last: Option<Seq>,
    /// Events that the state does not know.
    unknown: Vec<Head>,
}

impl Published {
    /// Takes them into the state; gives whether there were any.
    fn correct(&self, state: &mut State) -> bool {
        for Head { seq, origin, .. } in &self.unknown {
            if let Some(lane) = state.lanes.get_mut(origin.lane.0 as usize) {
                *lane = LaneState { next_offset: origin.offset + 1, claim: Some(origin.claim) };
            }
            state.next_seq = seq.next();
        }
        !self.unknown.is_empty()
    }
}

/// The seqs of open records, in their order.
#[derive(Debug, Default)]
struct Rest(Vec<Seq>);

impl Rest {
    /// Whether they are all that is missing of what the state says was published.
    fn completes(&self, published: &Published, next: Seq) -> bool {
        let Some(mut expected) = published.last.map(Seq::next).or(self.0.first().copied()) else { return false };
        for seq in &self.0 {
            if *seq != expected {
                return false;
            }
            expected = seq.next();
        }
        !self.0.is_empty() && expected == next
    }
}

/// Two clients: one sees what is committed, one all. Made before they are needed: a take-over has no time for that.
pub(crate) struct Looking {
    committed: BaseConsumer<Quiet>,
    all: BaseConsumer<Quiet>,
}

impl Looking {
    pub(crate) fn new(places: &Places<'_>) -> KafkaResult<Looking> {
        let consumer = |isolation| {
            places
                .client
                .clone()
                // Never joined: assigning partitions asks for a name.
                .set("group.id", format!("{}.readers", places.state))
                .set("enable.auto.commit", "false")
                .set("isolation.level", isolation)
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "error")
                .create_with_context(Quiet)
        };
        Ok(Looking { committed: consumer("read_committed")?, all: consumer("read_uncommitted")? })
    }

    /// Has the clients find the partitions.
    pub(crate) fn connect(&self, places: &Places<'_>, within: Duration) -> KafkaResult<()> {
        for topic in [places.firehose, places.state] {
            self.committed.fetch_watermarks(topic, 0, within)?;
            self.all.fetch_watermarks(topic, 0, within)?;
        }
        Ok(())
    }

    /// Offsets from the first record that is open, to the end; `None` where none is.
    fn open(&self, topic: &str) -> KafkaResult<Option<(i64, i64)>> {
        let (_, stable) = ends(&self.committed, topic, 0, PATIENCE)?;
        let (_, end) = ends(&self.all, topic, 0, PATIENCE)?;
        Ok((stable < end).then_some((stable, end)))
    }

    fn await_closed(&self, places: &Places<'_>) -> KafkaResult<()> {
        let until = Instant::now() + PATIENCE;
        while self.open(places.firehose)?.is_some() || self.open(places.state)?.is_some() {
            if Instant::now() > until {
                return Err(KafkaError::MessageProduction(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What is committed, from the seq `next` on.
    fn published(&self, topic: &str, next: Seq) -> Result<Published, ReadError> {
        let (low, high) = ends(&self.committed, topic, 0, PATIENCE)?;
        let mut step = STEP_BACK;
        loop {
            let from = (high - step).max(low);
            let (mut found, mut known) = (Published::default(), false);
            stretch::read(&self.committed, topic, 0, from, high, |_, bytes| {
                let head = Record::decode(bytes)?.head;
                found.last = Some(head.seq);
                if head.seq < next {
                    known = true;
                } else {
                    found.unknown.push(head);
                }
                Ok(true)
            })?;
            if known || from == low {
                return Ok(found);
            }
            step = step.saturating_mul(16);
        }
    }

    fn rest(&self, topic: &str, from: i64, until: i64) -> Result<Rest, ReadError> {
        let mut rest = Rest::default();
        stretch::read(&self.all, topic, 0, from, until, |_, bytes| {
            // What an earlier try to end it has written is no event.
            rest.0.extend(Record::decode(bytes).map(|record| record.head.seq).ok());
            Ok(true)
        })?;
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use storage::lane::Lane;

    use super::*;
    use crate::wire::firehose::Origin;

    fn head(seq: u64, lane: u32, offset: i64) -> Head {
        let origin = Origin { lane: Lane(lane), offset, claim: 3 };
        Head { seq: Seq(seq), account: 0, taken_down: false, at_micros: 0, origin }
    }

    #[test]
    fn events_without_a_state_correct_it() {
        let mut state = State::start(Seq(10), 2);
        assert!(!Published::default().correct(&mut state));
        let published =
            Published { last: Some(Seq(12)), unknown: vec![head(10, 1, 7), head(11, 0, 4), head(12, 1, 9)] };
        assert!(published.correct(&mut state));
        assert_eq!(state.next_seq, Seq(13));
        let lanes: Vec<_> = state.lanes.iter().map(|lane| (lane.next_offset, lane.claim)).collect();
        assert_eq!(lanes, [(5, Some(3)), (10, Some(3))]);
    }

    #[test]
    fn only_the_whole_rest_of_what_was_published_may_be_committed() {
        let published = |last: u64| Published { last: (last > 0).then_some(Seq(last)), unknown: Vec::new() };
        let rest = |seqs: &[u64]| Rest(seqs.iter().copied().map(Seq).collect());
        for (open, last, next, completes) in [
            (&[5, 6][..], 4, 7, true),
            // The first events of all.
            (&[1, 2], 0, 3, true),
            // They were not committed: the state does not know them.
            (&[5, 6], 4, 5, false),
            (&[5], 4, 7, false),
            (&[6], 4, 7, false),
            (&[5, 5, 6], 4, 7, false),
            (&[], 4, 5, false),
            (&[], 4, 7, false),
        ] {
            assert_eq!(rest(open).completes(&published(last), Seq(next)), completes, "{open:?} {last} {next}");
        }
    }
}
