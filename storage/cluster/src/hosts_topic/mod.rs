//! Who crawls which hosts, and nudges: the topic `hosts`.
//!
//! ```text
//!   group gives ─▶ claiming ─▶ held ─▶ Given … Gone ─▶ released ─▶ the group has it back
//!                              ▲ └─ another claims it above us: claimed again, Renewed
//!                              └──────┘
//! ```
//!
//! A share of the hosts is a partition. The group says whose it is, and a claim, a record in the partition, gives that a
//! number: its offset, under which the share's cursors are saved. Whoever was replaced, and does not know it yet, saves in
//! vain. What must hold:
//! 1. a share is held only after our claim is in the topic, and is let go when its cursors are saved, or after
//!    [`RELEASE_WITHIN`];
//! 2. who holds a share has its highest claim before long: a late claim of somebody who was replaced is answered by a
//!    new one, and then all cursors of the share are saved again;
//! 3. a nudge says only that a row is to be looked at. It may be lost, or come late: rows are the truth.
//!
//! Whoever follows hosts reads all partitions from where they end, which are small: a claim now and then, and nudges.

mod metrics;
mod queue;
mod tail;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use atproto::syntax::HostName;
use futures_util::future::join_all;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::BaseConsumer,
    error::{KafkaError, KafkaResult},
    producer::{FutureProducer, FutureRecord},
};
use runtime::backoff::Backoff;
use storage::{
    error::Error,
    hosts::{Assignment, Change, Nudge, Shard, Shards},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

pub(crate) use self::metrics::Metrics;
use self::queue::Queue;
use crate::{
    cql::hosts::Claims,
    kafka::{
        failed,
        group::{Context, Group, Holder, JoinError, Running},
        quiet::Quiet,
    },
    wire::{
        hosts::{Record, Says},
        verified::Instance,
    },
};

/// How long the group waits for a share that is read here. Less than its patience with a member.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
/// How long a record may take: what it says is said again, or seen in time.
const SENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a share is left alone that another has claimed above us: whoever was replaced hears of it meanwhile.
const RENEW_AFTER: Duration = Duration::from_secs(1);
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(200);
const CLAIM_AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// What the assignment works with.
pub(crate) struct Parts {
    /// What all clients of Kafka have in common.
    pub(crate) settings: ClientConfig,
    /// The cluster's.
    pub(crate) name: String,
    /// Where claims and nudges are.
    pub(crate) topic: String,
    /// How many partitions it has.
    pub(crate) shards: Shards,
    pub(crate) metrics: Metrics,
}

/// The assignment. See the module's documentation.
pub(crate) struct HostsTopic {
    shared: Arc<Shared>,
    member: Mutex<Option<Running>>,
    /// Claims, and reads; ends with this value.
    _work: JoinSet<()>,
}

/// What the group's thread, the claimer, the reader and the crawler share.
struct Shared {
    parts: Parts,
    /// Tells this process's records from others'.
    instance: Instance,
    producer: FutureProducer<Quiet>,
    ours: Mutex<HashMap<Shard, Tenure>>,
    /// Told when a share was released.
    released: Condvar,
    queue: Queue,
    /// Whether all that is said from now on is heard here. Nothing is claimed before: a late claim above ours would be missed.
    listening: watch::Sender<bool>,
    /// Bounded by rebalances.
    claims: mpsc::UnboundedSender<ToClaim>,
}

/// Shares to be claimed together.
struct ToClaim {
    shards: Vec<Shard>,
    /// How long they are left alone before.
    after: Duration,
}

/// A share that the group has given us, or that somebody here is not done with.
enum Tenure {
    /// Our claim is under way. `above`: the highest claim of another that was seen meanwhile.
    Claiming { above: i64 },
    /// It was given to the crawler.
    Held(Held),
}

struct Held {
    /// The number of our claim.
    claim: i64,
    /// Whether the crawler was told to end.
    leaving: bool,
    /// Whether the group has given it to us again meanwhile.
    again: bool,
    /// Whether a new claim is under way.
    renewing: bool,
}

// === impl HostsTopic ===

impl HostsTopic {
    /// Hears nudges from now on; crawls nothing before [`HostsTopic::join`].
    pub(crate) fn follow(parts: Parts) -> Result<HostsTopic, KafkaError> {
        let producer = parts
            .settings
            .clone()
            .set("acks", "all")
            .set("message.timeout.ms", SENT_WITHIN.as_millis().to_string())
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "4096")
            .create_with_context(Quiet)?;
        let reader = tail::open(&parts.settings, &parts.name)?;
        let (claims, to_claim) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            parts,
            instance: rand::random(),
            producer,
            ours: Mutex::default(),
            released: Condvar::new(),
            queue: Queue::default(),
            listening: watch::Sender::new(false),
            claims,
        });
        let mut work = JoinSet::new();
        work.spawn(tail::run(reader, Arc::downgrade(&shared)));
        work.spawn(claim_all(Arc::downgrade(&shared), to_claim));
        Ok(HostsTopic { shared, member: Mutex::default(), _work: work })
    }

    /// Joins those who crawl: shares come as changes.
    pub(crate) fn join(&self) -> Result<(), JoinError> {
        let parts = &self.shared.parts;
        let group = Group {
            client: &parts.settings,
            name: format!("{}.crawlers", parts.name),
            topic: &parts.topic,
            thread: "hosts",
        };
        let running = group.join(Arc::clone(&self.shared))?;
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// Under which claim this process crawls a host.
    pub(crate) fn claims(&self) -> Claims {
        let shared = Arc::downgrade(&self.shared);
        Arc::new(move |host: &HostName| shared.upgrade()?.claim_of(host))
    }

    /// Gives all shares back and leaves the group; nothing of them may be read here any more.
    async fn leave_group(&self) {
        self.shared.release_all();
        let member = self.member.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(member) = member else { return };
        if tokio::task::spawn_blocking(move || member.leave()).await.is_err() {
            warn!("leaving the group of crawlers has panicked");
        }
    }

    /// See [`Running::desert`].
    #[cfg(test)]
    async fn desert(&self) {
        let member = self.member.lock().unwrap().take().unwrap();
        tokio::task::spawn_blocking(move || member.desert()).await.unwrap();
    }
}

#[async_trait]
impl Assignment for HostsTopic {
    fn shards(&self) -> Shards {
        self.shared.parts.shards
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn next(&self) -> Result<Change, Error> {
        Ok(self.shared.queue.next().await)
    }

    async fn released(&self, shard: Shard) {
        self.shared.release(shard);
    }

    async fn leave(&self) {
        self.leave_group().await;
    }

    async fn nudge(&self, nudge: Nudge) -> Result<(), Error> {
        let metrics = &self.shared.parts.metrics;
        let shard = match &nudge {
            Nudge::Host(host) => self.shards().of(host),
            Nudge::Policy => Shard(0),
        };
        match self.shared.send(shard, Says::Nudge(nudge)).await {
            Ok(_offset) => {
                metrics.nudges_sent.inc();
                Ok(())
            }
            Err(error) => {
                metrics.nudges_failed.inc();
                Err(failed("nudge whoever crawls a host")(error))
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn ours(&self) -> MutexGuard<'_, HashMap<Shard, Tenure>> {
        // Each change is one step, so a panic elsewhere leaves nothing to repair.
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_of(&self, host: &HostName) -> Option<i64> {
        match self.ours().get(&self.parts.shards.of(host))? {
            Tenure::Held(held) => Some(held.claim),
            Tenure::Claiming { .. } => None,
        }
    }

    /// Appends a record; gives its offset.
    async fn send(&self, shard: Shard, says: Says) -> Result<i64, KafkaError> {
        let payload = Record { from: self.instance, says }.encode();
        let record = FutureRecord::<(), [u8]>::to(&self.parts.topic).partition(partition(shard)).payload(&payload);
        match self.producer.send(record, SENT_WITHIN).await {
            Ok(delivered) => Ok(delivered.offset),
            Err((error, _record)) => Err(error),
        }
    }

    /// Claims shares, however often it fails, as long as they are to be ours.
    async fn claim(self: Arc<Self>, to_claim: ToClaim) {
        let mut backoff = Backoff::new(CLAIM_AGAIN_AFTER, CLAIM_AGAIN_AFTER_MAX);
        let mut shards = to_claim.shards;
        if self.listening.subscribe().wait_for(|listening| *listening).await.is_err() {
            return;
        }
        sleep(to_claim.after).await;
        loop {
            shards.retain(|shard| self.wants_claim(*shard));
            let claims = shards.iter().map(async |shard| (*shard, self.send(*shard, Says::Claim).await));
            let claimed = join_all(claims).await;
            shards.clear();
            let mut why = None;
            for (shard, claim) in claimed {
                match claim {
                    Ok(claim) => self.claimed(shard, claim),
                    Err(error) => {
                        shards.push(shard);
                        why = Some(error);
                    }
                }
            }
            let Some(error) = why else { break };
            warn!(%error, shares = shards.len(), "hosts can't be claimed yet");
            let wait = backoff.next(&mut rand::rng());
            sleep(wait).await;
        }
    }

    fn wants_claim(&self, shard: Shard) -> bool {
        match self.ours().get(&shard) {
            Some(Tenure::Claiming { .. }) => true,
            Some(Tenure::Held(held)) => held.renewing && !held.leaving,
            None => false,
        }
    }

    /// Our claim is in the topic.
    fn claimed(&self, shard: Shard, claim: i64) {
        self.parts.metrics.claims.inc();
        let mut ours = self.ours();
        match ours.get_mut(&shard) {
            Some(&mut Tenure::Claiming { above }) => {
                let held = Held { claim, leaving: false, again: false, renewing: false };
                ours.insert(shard, Tenure::Held(held));
                self.queue.push(Change::Given(shard));
                self.measure(&ours);
                drop(ours);
                self.seen_claim(shard, above);
            }
            Some(Tenure::Held(held)) if claim > held.claim => {
                held.claim = claim;
                held.renewing = false;
                if !held.leaving {
                    self.queue.push(Change::Renewed(shard));
                }
            }
            Some(Tenure::Held(_)) | None => {}
        }
    }

    /// Another has claimed a share.
    fn seen_claim(&self, shard: Shard, theirs: i64) {
        match self.ours().get_mut(&shard) {
            Some(Tenure::Claiming { above }) => *above = theirs.max(*above),
            Some(Tenure::Held(held)) if theirs > held.claim && !held.leaving && !held.renewing => {
                held.renewing = true;
                debug!(share = shard.0, "another has claimed hosts that are ours");
                self.start(vec![shard], RENEW_AFTER);
            }
            Some(Tenure::Held(_)) | None => {}
        }
    }

    fn start(&self, shards: Vec<Shard>, after: Duration) {
        // The claimer ends when all does.
        let _ends = self.claims.send(ToClaim { shards, after });
    }

    /// The group wants these back, or has given them to others: reading is to end.
    fn end(&self, shards: &[Shard]) {
        let mut ours = self.ours();
        for shard in shards {
            match ours.get_mut(shard) {
                Some(Tenure::Claiming { .. }) => {
                    ours.remove(shard);
                }
                Some(Tenure::Held(held)) => {
                    held.again = false;
                    if !std::mem::replace(&mut held.leaving, true) {
                        self.queue.push(Change::Gone(*shard));
                    }
                }
                None => {}
            }
        }
    }

    /// Nothing of the share is read any more.
    fn release(&self, shard: Shard) {
        let mut ours = self.ours();
        if let Some(Tenure::Held(held)) = ours.remove(&shard)
            && held.again
        {
            ours.insert(shard, Tenure::Claiming { above: -1 });
            self.start(vec![shard], Duration::ZERO);
        }
        self.measure(&ours);
        self.released.notify_all();
    }

    fn release_all(&self) {
        let mut ours = self.ours();
        ours.clear();
        self.measure(&ours);
        self.released.notify_all();
    }

    fn measure(&self, ours: &HashMap<Shard, Tenure>) {
        let held = ours.values().filter(|tenure| matches!(tenure, Tenure::Held(_))).count();
        self.parts.metrics.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    fn shards_of(&self, partitions: &[i32]) -> Vec<Shard> {
        partitions.iter().filter_map(|partition| shard_of(*partition, self.parts.shards)).collect()
    }
}

impl Holder for Shared {
    fn given(&self, _: &BaseConsumer<Context<Shared>>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let partitions: Vec<i32> = partitions.elements().iter().map(|place| place.partition()).collect();
        let mut fresh = Vec::new();
        let mut ours = self.ours();
        for shard in self.shards_of(&partitions) {
            match ours.get_mut(&shard) {
                // It was lost, and the crawler is not done with it yet.
                Some(Tenure::Held(held)) => held.again = true,
                Some(Tenure::Claiming { .. }) => {}
                None => {
                    ours.insert(shard, Tenure::Claiming { above: -1 });
                    fresh.push(shard);
                }
            }
        }
        drop(ours);
        self.start(fresh, Duration::ZERO);
        Ok(())
    }

    fn wanted_back(&self, _: &BaseConsumer<Context<Shared>>, partitions: &[i32]) {
        let shards = self.shards_of(partitions);
        let until = Instant::now() + RELEASE_WITHIN;
        self.end(&shards);
        let mut ours = self.ours();
        while shards.iter().any(|shard| ours.contains_key(shard)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!("hosts are given back though they are still read");
                break;
            }
            ours = self.released.wait_timeout(ours, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lost(&self, partitions: &[i32]) {
        let shards = self.shards_of(partitions);
        self.parts.metrics.lost.inc_by(shards.len() as u64);
        self.end(&shards);
    }

    fn rebalances(&self) {
        self.parts.metrics.rebalances.inc();
    }
}

/// Claims what is to be claimed, each batch by itself.
async fn claim_all(shared: std::sync::Weak<Shared>, mut to_claim: mpsc::UnboundedReceiver<ToClaim>) {
    let mut claimers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = claimers.join_next(), if !claimers.is_empty() => {}
            next = to_claim.recv() => {
                let (Some(next), Some(shared)) = (next, shared.upgrade()) else { return };
                claimers.spawn(shared.claim(next));
            }
        }
    }
}

/// A share's partition.
fn partition(shard: Shard) -> i32 {
    i32::try_from(shard.0).expect("shares are partitions")
}

fn shard_of(partition: i32, shards: Shards) -> Option<Shard> {
    u32::try_from(partition).ok().filter(|shard| *shard < shards.0.get()).map(Shard)
}

/// Of a process that crawls nothing.
pub(crate) fn no_claims() -> Claims {
    Arc::new(|_| None)
}

/// For a process that has nothing to do with hosts.
pub(crate) struct NoHosts(pub(crate) Shards);

#[async_trait]
impl Assignment for NoHosts {
    fn shards(&self) -> Shards {
        self.0
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn next(&self) -> Result<Change, Error> {
        std::future::pending().await
    }

    async fn released(&self, _shard: Shard) {}

    async fn leave(&self) {}

    async fn nudge(&self, _nudge: Nudge) -> Result<(), Error> {
        Ok(())
    }
}
