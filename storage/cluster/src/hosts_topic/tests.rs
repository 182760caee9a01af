//! Shares of hosts, claims and nudges, on a real broker; and whose cursor counts, on a real server of rows.

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use prometheus::Registry;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use storage::conformance::sample;
use testservers::Kafka;
use tokio::time::timeout;

use super::*;
use crate::{config, kafka::client::settings};

const LONG: Duration = Duration::from_secs(60);
const SHARDS: Shards = Shards(NonZeroU32::new(4).unwrap());

/// A topic with nobody on it.
struct Topic {
    settings: ClientConfig,
    name: String,
}

impl Topic {
    async fn make() -> Topic {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hosts{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let brokers = tokio::task::spawn_blocking(|| vec![Kafka::shared().bootstrap()]).await.unwrap();
        let settings = settings(&config::Kafka { brokers, tls: None, sasl: None }, "test");
        let admin: AdminClient<DefaultClientContext> = settings.create().unwrap();
        let topic = format!("{name}.hosts");
        let partitions = i32::try_from(SHARDS.0.get()).unwrap();
        let topic = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|topic| drop(topic.unwrap()));
        Topic { settings, name }
    }

    /// A process that hears nudges.
    fn follow(&self) -> Crawls {
        let parts = Parts {
            settings: self.settings.clone(),
            name: self.name.clone(),
            topic: format!("{}.hosts", self.name),
            shards: SHARDS,
            metrics: Metrics::register(&Registry::new()).unwrap(),
        };
        Crawls { topic: HostsTopic::follow(parts).unwrap(), held: BTreeSet::new(), renewed: 0 }
    }

    /// A process that crawls.
    fn crawl(&self) -> Crawls {
        let crawls = self.follow();
        crawls.topic.join().unwrap();
        crawls
    }
}

/// Plays the crawler.
struct Crawls {
    topic: HostsTopic,
    held: BTreeSet<Shard>,
    renewed: usize,
}

impl Crawls {
    async fn change(&mut self) -> Option<Nudge> {
        match timeout(LONG, self.topic.next()).await.expect("nothing changes").unwrap() {
            Change::Given(shard) => assert!(self.held.insert(shard), "given twice"),
            Change::Gone(shard) => {
                assert!(self.held.remove(&shard), "it was not given");
                self.topic.released(shard).await;
            }
            Change::Renewed(shard) => {
                assert!(self.held.contains(&shard));
                self.renewed += 1;
            }
            Change::Nudged(nudge) => return Some(nudge),
        }
        None
    }

    async fn until_held(&mut self, count: usize) {
        while self.held.len() != count {
            self.change().await;
        }
    }

    /// The number of our claim on a share.
    fn claim(&self, shard: Shard) -> Option<i64> {
        self.topic.claims()(&host_of(shard))
    }

    async fn hears(&mut self, wanted: &Nudge) {
        while self.change().await.as_ref() != Some(wanted) {}
    }
}

/// Some host of a share.
fn host_of(shard: Shard) -> HostName {
    (0..).map(sample::host).find(|host| SHARDS.of(host) == shard).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_go_to_who_comes_and_back_from_who_leaves_each_with_a_higher_claim() {
    let topic = Topic::make().await;
    let mut first = topic.crawl();
    first.until_held(4).await;
    let before: HashMap<Shard, i64> = SHARDS.all().map(|shard| (shard, first.claim(shard).unwrap())).collect();
    let mut second = topic.crawl();
    tokio::join!(first.until_held(2), second.until_held(2));
    assert!(first.held.is_disjoint(&second.held));
    for shard in SHARDS.all() {
        let (ours, theirs) = (first.claim(shard), second.claim(shard));
        match first.held.contains(&shard) {
            true => assert_eq!((ours, theirs), (Some(before[&shard]), None), "what stays is not disturbed"),
            false => assert!(ours.is_none() && theirs > Some(before[&shard])),
        }
    }
    let began = Instant::now();
    tokio::join!(second.until_held(4), first.topic.leave());
    println!("handed over in {:?}", began.elapsed());
    assert!(SHARDS.all().all(|shard| second.claim(shard) > Some(before[&shard]) && first.claim(shard).is_none()));
    second.topic.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_without_a_word_is_replaced_and_its_claim_is_the_lower_one() {
    let topic = Topic::make().await;
    let (mut first, mut second) = (topic.crawl(), topic.follow());
    first.until_held(4).await;
    // It goes on as if nothing had happened.
    first.topic.desert().await;
    second.topic.join().unwrap();
    second.until_held(4).await;
    for shard in SHARDS.all() {
        assert!(first.claim(shard) < second.claim(shard), "{shard:?}");
    }
    second.topic.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_claim_of_who_was_replaced_is_answered() {
    let topic = Topic::make().await;
    let mut owner = topic.crawl();
    owner.until_held(4).await;
    let before = owner.claim(Shard(2)).unwrap();
    let zombie = topic.follow();
    let late = zombie.topic.shared.send(Shard(2), Says::Claim).await.unwrap();
    assert!(late > before);
    while owner.renewed == 0 {
        owner.change().await;
    }
    assert!(owner.claim(Shard(2)).unwrap() > late);
    owner.topic.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nudges_reach_all_others() {
    let topic = Topic::make().await;
    let (mut crawls, mut serves, tells) = (topic.crawl(), topic.follow(), topic.follow());
    crawls.until_held(4).await;
    let nudges = SHARDS.all().map(|shard| Nudge::Host(host_of(shard))).chain([Nudge::Policy]);
    for nudge in nudges {
        // Where a partition's end was not found yet, what comes meanwhile is not heard.
        let mut heard = std::pin::pin!(async { tokio::join!(crawls.hears(&nudge), serves.hears(&nudge)) });
        loop {
            tells.topic.nudge(nudge.clone()).await.unwrap();
            if timeout(Duration::from_millis(100), &mut heard).await.is_ok() {
                break;
            }
        }
    }
    assert!(tells.topic.shared.parts.metrics.nudges_sent.get() >= 5);
    assert_eq!(tells.topic.shared.parts.metrics.nudges_seen.get(), 0, "its own");
    crawls.topic.leave().await;
}
