//! Standing by, taking over, leading.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use atproto::frame::Renumbered;
use rand::rngs::SmallRng;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, DeliveryResult},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};
use runtime::{
    backoff::Backoff,
    clock::Clock,
    trace::{Span, Stage, Tracer, Value},
};
use storage::lane::{Lane, LaneCount};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Error, Metrics,
    core::{Broken, Entry, Order, Step},
    handoff::{Chunk, Following, Queue, Taken},
    leftover::{self, Looking, Places},
    metrics::Phase,
    seat::{Grant, Seat},
    state::{self, ReadError, StateReader, is_passing},
    trim::Trimmer,
};
use crate::{
    OpenError, cluster, config,
    kafka::{
        client::{client_id, partition, settings},
        quiet::{self, Quiet},
        topics::Topics,
    },
    lanes::group_of,
    wire::{
        Malformed,
        firehose::{Head, Origin},
        sequencer::{self, State},
        verified,
    },
};

/// How long one look at the group, the queue or a lane may take: how soon a call to stop is seen.
const LOOK: Duration = Duration::from_millis(50);
/// How long one call to Kafka may take before it is looked whether to go on with it.
const CALL: Duration = Duration::from_secs(2);
/// How often who stands by asks whether Kafka is there.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked how much is not read yet.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// How long Kafka may be silent before everything is built anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how long a transaction of one who is gone is ended, if nobody takes its producer over before.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(60);
/// After how long who was fenced, though the group has never taken the lead from it, tries again. Longer than the group's
/// session: a process that stood still has learnt by then who leads.
const FENCED_TIME: Duration = Duration::from_secs(15);
/// The shortest and the longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How much is handed over at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What a sequencer is made of.
#[derive(Clone)]
pub(crate) struct Config {
    /// What all clients of Kafka have in common.
    pub(crate) client: ClientConfig,
    /// The group of all sequencers, and the name of the one producer.
    pub(crate) name: String,
    /// The group that the lanes' owners are in.
    pub(crate) lanes_group: String,
    /// Topics.
    pub(crate) raw: String,
    pub(crate) verified: String,
    pub(crate) firehose: String,
    pub(crate) state: String,
    /// How many lanes there are.
    pub(crate) lanes: u32,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
}

/// How much is published together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A transaction is committed when it has so many bytes,
    pub(crate) transaction_bytes: usize,
    /// or is so old,
    pub(crate) transaction_time: Duration,
    /// or this has passed since its first record and nothing more waits.
    pub(crate) linger: Duration,
    /// What may wait meanwhile.
    pub(crate) queue_bytes_max: usize,
    /// How often what nobody needs any more is deleted. Until then it counts against what `raw` may hold.
    pub(crate) trim_every: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            transaction_bytes: 16 << 20,
            transaction_time: Duration::from_millis(500),
            linger: Duration::from_millis(20),
            queue_bytes_max: 16 << 20,
            trim_every: Duration::from_secs(10),
        }
    }
}

/// A process's part in making the order: leads or stands by.
pub struct Sequencer {
    config: Config,
    metrics: Metrics,
    tracer: Tracer,
    phase: watch::Sender<Phase>,
    /// The committed state, while this process leads.
    published: watch::Sender<Option<State>>,
}

/// Why a leader leaves, well.
enum Left {
    /// The process ends.
    Stopped,
    /// The group has given the lead to another.
    Revoked,
}

/// Why a leader can't go on.
enum Failure {
    /// Another has taken the producer.
    Fenced,
    /// Begin anew from the committed state.
    Passing { what: &'static str, error: KafkaError },
    /// An operator must act.
    Final(Error),
}

impl Failure {
    fn of(what: &'static str) -> impl Fn(KafkaError) -> Failure {
        move |error| match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => Failure::Fenced,
            _ => Failure::Passing { what, error },
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::Kafka(error) => Failure::of("find where to go on")(error),
            ReadError::Malformed(malformed) => malformed.into(),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure::Final(Error::Damaged(malformed.into()))
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        Failure::Final(Error::Damaged(broken.into()))
    }
}

impl Config {
    /// Of a cluster.
    pub(crate) fn of(config: &config::Config, lanes: LaneCount, clock: Clock) -> Config {
        let Topics { raw, verified, firehose, sequencer_state, .. } = Topics::of(&config.name);
        let name = format!("{}.sequencer", config.name);
        Config {
            client: settings(&config.kafka, &client_id(&config.name, "sequencer")),
            name,
            lanes_group: group_of(&config.name),
            raw,
            verified,
            firehose,
            state: sequencer_state,
            lanes: lanes.0.get(),
            limits: Limits::default(),
            clock,
        }
    }
}

impl Sequencer {
    /// A sequencer of a cluster that was made: Kafka must be there, nothing else.
    pub async fn open(
        config: &config::Config,
        registry: &prometheus::Registry,
        clock: Clock,
        tracer: Tracer,
    ) -> Result<Sequencer, OpenError> {
        let lanes = cluster::find_topics(config).await?;
        Ok(Sequencer { tracer, ..Sequencer::new(Config::of(config, lanes, clock), Metrics::register(registry)?) })
    }

    pub(crate) fn new(config: Config, metrics: Metrics) -> Sequencer {
        Sequencer {
            config,
            metrics,
            tracer: Tracer::off(),
            phase: watch::Sender::new(Phase::Unreachable),
            published: watch::Sender::default(),
        }
    }

    /// What it is doing; the receiver wakes when that changes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn enter(&self, phase: Phase) {
        self.metrics.set_phase(phase);
        self.phase.send_if_modified(|now| std::mem::replace(now, phase) != phase);
    }

    /// Leads or stands by until it is told to stop; then hands over at once. Fails only where an operator must act.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        // Kafka's client blocks: this has a thread of its own for as long as the process lives.
        let trimmer = Trimmer::new(self.config.clone(), self.metrics.clone(), self.published.subscribe());
        let running = tokio::task::spawn_blocking(move || self.stand_by(&stop));
        let ended = tokio::select! {
            ended = running => ended,
            never = trimmer.run() => match never {},
        };
        match ended {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn stand_by(&self, stop: &CancellationToken) -> Result<(), Error> {
        let Config { client, name, state, .. } = &self.config;
        let seat = Seat::take(client, name, state).map_err(|error| Error::Client(error.into()))?;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut rng: SmallRng = rand::make_rng();
        // The lead that another took by force, and when.
        let mut fenced: Option<(Grant, Instant)> = None;
        let mut clients: Option<Clients> = None;
        let mut asked = Instant::now();
        while !stop.is_cancelled() {
            let grant = seat.poll(LOOK);
            let waits = fenced.is_some_and(|(lost, at)| lost == grant && at.elapsed() < FENCED_TIME);
            if !grant.held || waits {
                if clients.is_none() {
                    clients = self.connect().inspect_err(|error| debug!(%error, "not connected yet")).ok();
                    asked = Instant::now();
                } else if asked.elapsed() > ASK_EVERY {
                    clients = clients.filter(|clients| self.answers(clients));
                    asked = Instant::now();
                }
                self.enter(if clients.is_some() { Phase::StandingBy } else { Phase::Unreachable });
                continue;
            }
            fenced = None;
            let began = Instant::now();
            let ended = self.lead(&seat, grant, clients.take(), stop);
            self.published.send_replace(None);
            self.metrics.age_seconds.set(0.0);
            self.metrics.lag_records.set(0);
            match ended {
                Ok(Left::Stopped) => {}
                Ok(Left::Revoked) => info!("another sequencer leads now"),
                Err(Failure::Fenced) => {
                    self.metrics.fenced.inc();
                    warn!("another sequencer has taken the lead");
                    fenced = Some((grant, Instant::now()));
                }
                Err(Failure::Passing { what, error }) => {
                    self.metrics.failed.inc();
                    if began.elapsed() > BACKOFF.1 {
                        backoff.reset();
                    }
                    let wait = backoff.next(&mut rng);
                    warn!(what, %error, ?wait, "the sequencer starts anew");
                    self.enter(Phase::BackingOff);
                    let until = Instant::now() + wait;
                    while !stop.is_cancelled() && Instant::now() < until {
                        seat.poll(LOOK);
                    }
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Clients that have found the brokers, so that taking over needs no more than its own requests.
    fn connect(&self) -> KafkaResult<Clients> {
        let Config { client, verified, firehose, state, .. } = &self.config;
        let (producer, looking) = (self.producer()?, Looking::new(&self.places())?);
        let clients = Clients { producer, state: StateReader::new(client, state)?, verified: self.reader()?, looking };
        clients.producer.client().fetch_metadata(Some(firehose), CALL)?;
        clients.state.watermarks(CALL)?;
        clients.verified.fetch_metadata(Some(verified), CALL)?;
        clients.looking.connect(&self.places(), CALL)?;
        Ok(clients)
    }

    fn places(&self) -> Places<'_> {
        let Config { client, firehose, state, .. } = &self.config;
        Places { client, firehose, state }
    }

    /// Whether Kafka still answers who stands by.
    fn answers(&self, clients: &Clients) -> bool {
        clients.verified.fetch_metadata(Some(&self.config.verified), CALL).is_ok()
    }

    fn lead(
        &self,
        seat: &Seat,
        grant: Grant,
        clients: Option<Clients>,
        stop: &CancellationToken,
    ) -> Result<Left, Failure> {
        self.enter(Phase::TakingOver);
        let began = Instant::now();
        let call = Call { stop, until: began + PATIENCE };
        let Clients { producer, state, verified, looking } =
            clients.map_or_else(|| self.connect(), Ok).map_err(Failure::of("connect"))?;
        // From here on nobody else can commit: what is read now is the last.
        if !call.persist("take the producer", || producer.init_transactions(CALL))? {
            return Ok(Left::Stopped);
        }
        let mut state = self.checked(state.last(PATIENCE)?)?;
        leftover::settle(&self.places(), &looking, &producer, &mut state)?;
        self.assign_lanes(&verified, &state).map_err(Failure::of("read verified"))?;
        self.metrics.take_over_seconds.observe(began.elapsed().as_secs_f64());
        info!(next_seq = %state.next_seq, "leads the order");
        self.published.send_replace(Some(state.clone()));
        self.enter(Phase::Leading);
        let queue = Queue::new(self.config.limits.queue_bytes_max);
        let committing_since = AtomicU64::new(NOTHING);
        let taken_through = AtomicI64::new(0);
        std::thread::scope(|scope| {
            let reading = Reading {
                sequencer: self,
                consumer: verified,
                order: Order::new(state),
                queue: &queue,
                committing_since: &committing_since,
                taken_through: &taken_through,
                aged: Instant::now(),
            };
            let thread = std::thread::Builder::new().name("sequencer-reads".into());
            // Its end is told through the queue.
            let spawned = thread.spawn_scoped(scope, || reading.run());
            if let Err(error) = spawned {
                return Err(Failure::Final(Error::Client(error.into())));
            }
            let thread = std::thread::Builder::new().name("sequencer-lag".into());
            // Without it one figure is missing.
            let _unmeasured = thread.spawn_scoped(scope, || self.watch_lag(&taken_through, &queue));
            let publishing =
                Publishing { sequencer: self, producer, queue: &queue, committing_since: &committing_since };
            let left = publishing.run(seat, grant, stop);
            queue.close();
            left
        })
    }

    /// Shows how many records are not read yet while the leader works, and whether Kafka answers it.
    fn watch_lag(&self, taken_through: &AtomicI64, queue: &Queue<Failure>) {
        let Ok(consumer) = self.reader() else { return };
        let mut looked = Instant::now();
        while !queue.is_closed() {
            std::thread::sleep(LOOK);
            if looked.elapsed() < LAG_EVERY {
                continue;
            }
            looked = Instant::now();
            let end = |lane| consumer.fetch_watermarks(&self.config.verified, partition(Lane(lane)), CALL);
            let ends: KafkaResult<i64> =
                (0..self.config.lanes).map(|lane| end(lane).map(|(_, high)| high)).sum::<KafkaResult<i64>>();
            match ends {
                Ok(ends) => {
                    self.metrics.lag_records.set((ends - taken_through.load(Ordering::Relaxed)).max(0));
                    self.enter(Phase::Leading);
                }
                Err(_silent) => self.enter(Phase::Unreachable),
            }
        }
    }

    fn producer(&self) -> KafkaResult<BaseProducer<Deliveries>> {
        let Limits { transaction_bytes, .. } = self.config.limits;
        let queue_kib = (2 * transaction_bytes).max(64 << 20) >> 10;
        self.config
            .client
            .clone()
            .set("transactional.id", &self.config.name)
            .set("transaction.timeout.ms", TRANSACTION_TIME_MAX.as_millis().to_string())
            .set("acks", "all")
            // Records are sent as they come, in batches of what came meanwhile.
            .set("linger.ms", "1")
            .set("batch.size", (1 << 20).to_string())
            .set("queue.buffering.max.kbytes", queue_kib.to_string())
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(Deliveries::default())
    }

    /// Where to go on, from what was found.
    fn checked(&self, found: Option<State>) -> Result<State, Failure> {
        let Config { state: topic, lanes, .. } = &self.config;
        let lanes = *lanes as usize;
        let Some(mut state) = found else { return Err(self.without_state()?) };
        if state.lanes.len() > lanes {
            let (topic, stored) = (topic.clone(), state.lanes.len());
            return Err(Failure::Final(Error::Lanes { topic, stored, configured: lanes }));
        }
        // Lanes that were added hold nothing that was read.
        state.lanes.resize_with(lanes, Default::default);
        Ok(state)
    }

    /// What is wrong where there is no state.
    fn without_state(&self) -> Result<Failure, Failure> {
        let Config { client, state: topic, verified, firehose, lanes, .. } = &self.config;
        let failed = Failure::of("look whether anything was ever written");
        let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(&failed)?;
        let lanes = (0..*lanes).map(|lane| (verified, partition(Lane(lane))));
        for (held, partition) in std::iter::once((firehose, 0)).chain(lanes) {
            if state::has_held(&consumer, held, partition, CALL).map_err(&failed)? {
                return Ok(Failure::Final(Error::StateLost { topic: topic.clone(), held: held.clone() }));
            }
        }
        Ok(Failure::Final(Error::NotMade { topic: topic.clone() }))
    }

    fn reader(&self) -> KafkaResult<BaseConsumer<Quiet>> {
        let Config { client, name, .. } = &self.config;
        client
            .clone()
            // Never joined: assigning partitions asks for a name.
            .set("group.id", format!("{name}.readers"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            // Nothing there is transactional.
            .set("isolation.level", "read_uncommitted")
            .set("queued.max.messages.kbytes", "16384")
            // A full queue is no reason to pause for a second.
            .set("fetch.queue.backoff.ms", "5")
            .create_with_context(Quiet)
    }

    /// All lanes are read from where the state stands.
    fn assign_lanes(&self, consumer: &BaseConsumer<Quiet>, state: &State) -> KafkaResult<()> {
        let mut partitions = TopicPartitionList::new();
        for (lane, at) in (0..).map(Lane).zip(&state.lanes) {
            let topic = &self.config.verified;
            partitions.add_partition_offset(topic, partition(lane), Offset::Offset(at.next_offset))?;
        }
        consumer.assign(&partitions)
    }
}

/// What a leader speaks to Kafka with.
struct Clients {
    producer: BaseProducer<Deliveries>,
    state: StateReader,
    verified: BaseConsumer<Quiet>,
    looking: Looking,
}

/// A call to Kafka that is made again while it can be, unless the process ends.
struct Call<'a> {
    stop: &'a CancellationToken,
    until: Instant,
}

impl Call<'_> {
    /// False where the process ends before it succeeds.
    fn persist(&self, what: &'static str, mut call: impl FnMut() -> KafkaResult<()>) -> Result<bool, Failure> {
        loop {
            match call() {
                Ok(()) => return Ok(true),
                Err(_) if self.stop.is_cancelled() => return Ok(false),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < self.until => {
                    debug!(what, %error, "once more");
                }
                Err(error) => return Err(Failure::of(what)(error)),
            }
        }
    }
}

// === Reading ===

/// Stands for no time stamp.
const NOTHING: u64 = 0;

/// The thread that reads lanes and lays records out.
struct Reading<'a> {
    sequencer: &'a Sequencer,
    consumer: BaseConsumer<Quiet>,
    order: Order,
    queue: &'a Queue<Failure>,
    /// When the oldest event of the transaction under way was accepted.
    committing_since: &'a AtomicU64,
    /// The sum of the lanes' offsets before which all is read.
    taken_through: &'a AtomicI64,
    /// When the age was shown last.
    aged: Instant,
}

/// Between two looks at what is delivered: short beside what a commit takes.
const DELIVERIES_LOOK: Duration = Duration::from_micros(500);

/// Records that are laid out and not handed over yet.
#[derive(Default)]
struct Laid {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    oldest_at_micros: Option<u64>,
    following: Vec<Following>,
    /// How many records of `verified` they are of, those included that don't count.
    taken: usize,
}

impl Reading<'_> {
    fn run(mut self) {
        if let Err(failure) = self.read() {
            self.queue.fail(failure);
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut laid = Laid::default();
        while !self.queue.is_closed() {
            self.show_age(&laid);
            // What is laid out goes as soon as nothing more is there.
            let wait = if laid.taken == 0 { LOOK } else { Duration::ZERO };
            // The message borrows the consumer, and taking it changes the rest.
            let Reading { consumer, order, sequencer, .. } = self;
            let went_on = match consumer.poll(wait) {
                Some(Ok(message)) => {
                    take(order, sequencer, &message, &mut laid)?;
                    true
                }
                Some(Err(error)) if is_passing(&error) => {
                    debug!(%error, "reading verified");
                    false
                }
                Some(Err(error)) => return Err(self.failure(error)),
                None => false,
            };
            let full = laid.bytes.len() >= CHUNK_BYTES;
            if laid.taken > 0 && (full || !went_on) && !self.hand_over(&mut laid) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False where nobody takes it any more.
    fn hand_over(&mut self, laid: &mut Laid) -> bool {
        let capacity = laid.bytes.len().min(2 * CHUNK_BYTES);
        let next = Laid { bytes: Vec::with_capacity(capacity), ..Laid::default() };
        let Laid { bytes, ends, oldest_at_micros, following, taken: _ } = std::mem::replace(laid, next);
        let state = self.order.state().clone();
        let mut chunk = Chunk { bytes, ends, state, oldest_at_micros, following };
        loop {
            match self.queue.put(chunk, LOOK) {
                Ok(None) => return true,
                Ok(Some(refused)) => chunk = refused,
                Err(_ended) => return false,
            }
            self.show_age(laid);
        }
    }

    fn show_age(&mut self, laid: &Laid) {
        if self.aged.elapsed() < LOOK {
            return;
        }
        self.aged = Instant::now();
        let through = self.order.state().lanes.iter().map(|lane| lane.next_offset).sum();
        self.taken_through.store(through, Ordering::Relaxed);
        let committing = Some(self.committing_since.load(Ordering::Relaxed)).filter(|at| *at != NOTHING);
        let oldest = committing.or_else(|| self.queue.oldest_at_micros()).or(laid.oldest_at_micros);
        let now = self.sequencer.config.clock.now_micros();
        // Another machine's clock may be ahead of ours.
        let age = oldest.map_or(0, |at| now.saturating_sub(at));
        self.sequencer.metrics.age_seconds.set(Duration::from_micros(age).as_secs_f64());
    }

    /// What an error means: of all that a reader can meet, only missing records are final.
    fn failure(&self, error: KafkaError) -> Failure {
        let what = "read verified";
        let lost = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if !lost {
            return Failure::of(what)(error);
        }
        let topic = &self.sequencer.config.verified;
        for (lane, at) in (0..).map(Lane).zip(&self.order.state().lanes) {
            match self.consumer.fetch_watermarks(topic, partition(lane), CALL) {
                Ok((low, high)) if (low..=high).contains(&at.next_offset) => {}
                Ok(_) => {
                    let (topic, lane, next_offset) = (topic.clone(), lane.0, at.next_offset);
                    return Failure::Final(Error::Lost { topic, lane, next_offset });
                }
                Err(error) => return Failure::of(what)(error),
            }
        }
        Failure::of(what)(error)
    }
}

/// Takes a record of `verified`, and lays it out where it counts.
fn take(
    order: &mut Order,
    sequencer: &Sequencer,
    message: &BorrowedMessage<'_>,
    laid: &mut Laid,
) -> Result<(), Failure> {
    let lane = Lane(u32::try_from(message.partition()).expect("partitions count from zero"));
    let record = verified::View::decode(message.payload().unwrap_or_default())?;
    let entry = match &record {
        verified::View::Claim(_) => Entry::Claim,
        verified::View::Event(event) => Entry::Event { claim: event.claim },
    };
    let step = order.take(lane, message.offset(), entry)?;
    laid.taken += usize::from(step != Step::Repeated);
    match (step, record) {
        (Step::Ordered(seq), verified::View::Event(event)) => {
            let origin = Origin { lane, offset: message.offset(), claim: event.claim };
            let (account, taken_down, at_micros) = (event.account, event.taken_down, event.at_micros);
            let head = Head { seq, account, taken_down, at_micros, origin };
            head.write(&mut laid.bytes, &Renumbered::new(event.frame, event.seq_slot, seq.0));
            laid.ends.push(laid.bytes.len());
            if let Some(followed) = sequencer.tracer.follows(event.frame, event.seq_slot.range()) {
                laid.following.push(Following { followed, seq, at_micros });
            }
            laid.oldest_at_micros = Some(laid.oldest_at_micros.map_or(at_micros, |oldest| oldest.min(at_micros)));
        }
        (Step::Stale, _) => sequencer.metrics.stale.inc(),
        (Step::Claimed | Step::Repeated | Step::Ordered(_), _) => {}
    }
    Ok(())
}

// === Publishing ===

/// The thread that sends and commits.
struct Publishing<'a> {
    sequencer: &'a Sequencer,
    producer: BaseProducer<Deliveries>,
    queue: &'a Queue<Failure>,
    committing_since: &'a AtomicU64,
}

impl Publishing<'_> {
    fn run(&self, seat: &Seat, grant: Grant, stop: &CancellationToken) -> Result<Left, Failure> {
        loop {
            if stop.is_cancelled() {
                seat.leave();
                return Ok(Left::Stopped);
            }
            if seat.poll(Duration::ZERO) != grant {
                return Ok(Left::Revoked);
            }
            match self.queue.take(Instant::now() + LOOK) {
                Taken::Chunk(chunk) => self.transact(chunk)?,
                Taken::Nothing => {}
                Taken::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Publishes a chunk and what follows it, within limits.
    fn transact(&self, first: Chunk) -> Result<(), Failure> {
        let Limits { transaction_bytes, transaction_time, linger, .. } = self.sequencer.config.limits;
        let Metrics { events, event_bytes, committed, transaction_events, commit_seconds, .. } =
            &self.sequencer.metrics;
        self.committing_since.store(first.oldest_at_micros.unwrap_or(NOTHING), Ordering::Relaxed);
        self.producer.begin_transaction().map_err(Failure::of("begin a transaction"))?;
        let began = Instant::now();
        let (mut sent, mut bytes) = (0, 0);
        let mut following = Vec::new();
        let mut chunk = first;
        let state = loop {
            self.send(&chunk)?;
            sent += chunk.ends.len();
            bytes += chunk.bytes.len();
            following.append(&mut chunk.following);
            if bytes >= transaction_bytes || began.elapsed() >= transaction_time {
                break chunk.state;
            }
            match self.queue.take(began + linger) {
                Taken::Chunk(next) => chunk = next,
                Taken::Nothing => break chunk.state,
                Taken::Failed(failure) => return Err(failure),
            }
        };
        let ending = Instant::now();
        self.send_record(&self.sequencer.config.state, Some(sequencer::KEY), &state.encode())?;
        self.commit()?;
        self.sequencer.published.send_replace(Some(state));
        let oldest = self.committing_since.swap(NOTHING, Ordering::Relaxed);
        if oldest != NOTHING {
            let waited = self.sequencer.config.clock.now_micros().saturating_sub(oldest);
            self.sequencer.metrics.wait_seconds.observe(Duration::from_micros(waited).as_secs_f64());
        }
        self.tell(&following);
        commit_seconds.observe(ending.elapsed().as_secs_f64());
        transaction_events.observe(sent as f64);
        events.inc_by(sent as u64);
        event_bytes.inc_by(bytes as u64);
        committed.inc();
        Ok(())
    }

    /// What is followed of a transaction is committed.
    fn tell(&self, following: &[Following]) {
        for Following { followed, seq, at_micros } in following {
            let (began_micros, ended_micros) = (*at_micros, self.sequencer.config.clock.now_micros());
            let values = [("seq", Value::Number(seq.0))];
            let span = Span { stage: Stage::Sequence, began_micros, ended_micros, values: &values };
            self.sequencer.tracer.tell(*followed, &span);
        }
    }

    fn send(&self, chunk: &Chunk) -> Result<(), Failure> {
        let topic = &self.sequencer.config.firehose;
        chunk.records().try_for_each(|record| self.send_record(topic, None, record))?;
        self.producer.poll(Duration::ZERO);
        self.check_deliveries()
    }

    fn send_record(&self, topic: &str, key: Option<&[u8]>, payload: &[u8]) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(payload);
        record.key = key;
        loop {
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused))
                    if Instant::now() < until =>
                {
                    self.await_deliveries();
                    refused
                }
                Err((error, _)) => return Err(Failure::of("send an event")(error)),
            };
            self.check_deliveries()?;
        }
    }

    fn commit(&self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        // The client's own flush waits in steps of 100 ms.
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            self.await_deliveries();
            self.check_deliveries()?;
        }
        loop {
            match self.producer.commit_transaction(CALL) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {
                    debug!(%error, "commits once more");
                }
                Err(error) => return Err(Failure::of("commit a transaction")(error)),
            }
        }
    }

    /// Takes in what is told of deliveries, or waits a moment where nothing is. A poll of the client's with a time waits
    /// to its end, whatever comes, and burns the last millisecond.
    fn await_deliveries(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(DELIVERIES_LOOK);
        }
    }

    fn check_deliveries(&self) -> Result<(), Failure> {
        match self.producer.context().failure.get() {
            None => Ok(()),
            Some(error) => Err(Failure::of("deliver an event")(error.clone())),
        }
    }
}

/// Notes the first record that could not be delivered.
#[derive(Default)]
struct Deliveries {
    failure: std::sync::OnceLock<KafkaError>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        quiet::told(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if let Err((error, _message)) = result {
            // Those after the first fail because of it.
            let _first_stays = self.failure.set(error.clone());
        }
    }
}
