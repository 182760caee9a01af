//! Making a cluster's topics. Safe to repeat: what is there stays as it is, and what differs is told.

use std::time::Duration;

use rdkafka::{
    admin::AdminClient,
    client::DefaultClientContext,
    consumer::BaseConsumer,
    producer::{FutureProducer, FutureRecord},
};
use storage::{error::Error, lane::LaneCount, seq::Seq};

use crate::{
    config::{Config, Plan},
    kafka::{client::settings, failed, quiet::Quiet, reach::reach, topics},
    sequence::state::{ReadError, has_held, read_last},
    wire::sequencer::{KEY, State},
};

/// How long Kafka may take for one thing.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a new topic may take to be there for all.
const APPEARS_WITHIN: Duration = Duration::from_secs(60);

/// What making the topics came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What is not as it should be, in words; an operator decides. Empty where all is well.
    pub differs: Vec<String>,
    /// The seq of the first event, where the order was begun by this call.
    pub began_at: Option<Seq>,
}

/// Makes the topics that are missing, and begins the order at `seq_start` if nothing was ever ordered. Where the order's
/// state is missing though there was something, it says so and begins nothing: seqs would be used twice.
pub async fn topics(config: &Config, plan: &Plan, seq_start: Seq) -> Result<Made, Error> {
    reach(&config.kafka, &config.name)
        .await
        .map_err(|error| Error::Determinate { what: "make the topics", source: error.into() })?;
    let client = settings(&config.kafka, &format!("{}.init", config.name));
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(failed("make the topics"))?;
    let specs = topics::specs(&config.name, plan);
    topics::create(&admin, &specs, plan.replication.kafka).await?;
    let appears = tokio::time::Instant::now() + APPEARS_WITHIN;
    let mut differs = topics::check(&admin, &specs).await?;
    // What was just made may not have reached the broker that is asked.
    while !differs.is_empty() && tokio::time::Instant::now() < appears && differs.iter().any(|what| is_missing(what)) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        differs = topics::check(&admin, &specs).await?;
    }
    let (owned, lanes) = (config.clone(), plan.lanes);
    let found = tokio::task::spawn_blocking(move || look(&owned, lanes)).await;
    let found =
        found.map_err(|panic| Error::Determinate { what: "look at the order's state", source: panic.into() })?;
    let began_at = match found? {
        Found::State => None,
        Found::Nothing => {
            begin(config, plan.lanes, seq_start).await?;
            Some(seq_start)
        }
        Found::Lost { held } => {
            let state = topics::Topics::of(&config.name).sequencer_state;
            differs.push(format!(
                "{state} holds no state, though {held} has held records: make it anew with `mainstem cluster \
                 restore-sequencer`"
            ));
            None
        }
    };
    Ok(Made { differs, began_at })
}

fn is_missing(what: &str) -> bool {
    what.contains("has 0 partitions") || what.contains("Unknown")
}

/// How the order stands.
enum Found {
    State,
    Nothing,
    Lost { held: String },
}

fn look(config: &Config, lanes: LaneCount) -> Result<Found, Error> {
    let what = "look at the order's state";
    let client = settings(&config.kafka, &format!("{}.init", config.name));
    let names = topics::Topics::of(&config.name);
    let state = read_last(&client, &names.sequencer_state, ANSWER_WITHIN).map_err(|error| match error {
        ReadError::Kafka(error) => failed(what)(error),
        ReadError::Malformed(malformed) => Error::Damaged { what: malformed.to_string() },
    })?;
    if state.is_some() {
        return Ok(Found::State);
    }
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(failed(what))?;
    let lanes = i32::try_from(lanes.0.get()).expect("lanes are partitions");
    let places = std::iter::once((&names.firehose, 0)).chain((0..lanes).map(|lane| (&names.verified, lane)));
    for (topic, partition) in places {
        if has_held(&consumer, topic, partition, ANSWER_WITHIN).map_err(failed(what))? {
            return Ok(Found::Lost { held: topic.clone() });
        }
    }
    Ok(Found::Nothing)
}

async fn begin(config: &Config, lanes: LaneCount, seq_start: Seq) -> Result<(), Error> {
    let what = "begin the order";
    let producer: FutureProducer = settings(&config.kafka, &format!("{}.init", config.name))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .create()
        .map_err(failed(what))?;
    let topic = topics::Topics::of(&config.name).sequencer_state;
    let state = State::start(seq_start, lanes.0.get()).encode();
    let record = FutureRecord::to(&topic).partition(0).key(KEY).payload(&state);
    producer.send(record, ANSWER_WITHIN).await.map_err(|(error, _)| failed(what)(error))?;
    Ok(())
}
