//! Making and looking, on a real broker.

use std::num::NonZeroU32;

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use storage::{
    lane::{Lane, LaneCount},
    seq::Seq,
};
use testservers::Kafka;

use super::{init, restore, status};
use crate::{
    config::{Config, Cql, Kafka as KafkaConfig, Limits, Plan, Replication},
    testing::{LANES, Topics, blocking, wait_until},
};

fn config(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        kafka: KafkaConfig { brokers: vec![Kafka::shared().bootstrap()], tls: None, sasl: None },
        cql: Cql {
            contact_points: Vec::new(),
            datacenter: None,
            login: None,
            tls: None,
            patience: std::time::Duration::from_secs(1),
        },
        limits: Limits::default(),
    }
}

fn plan() -> Plan {
    Plan {
        lanes: LaneCount(NonZeroU32::new(3).unwrap()),
        replication: Replication { kafka: 1, cql: 1 },
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn making_is_repeatable_and_says_what_differs() {
    let (config, mut plan) = (config("made"), plan());
    let made = init::topics(&config, &plan, Seq(42)).await.unwrap();
    assert_eq!(made, init::Made { differs: Vec::new(), began_at: Some(Seq(42)) });
    let again = init::topics(&config, &plan, Seq(99)).await.unwrap();
    assert_eq!(again, init::Made { differs: Vec::new(), began_at: None });
    let looked = config.clone();
    let status = blocking(move || status::topics(&looked)).await.unwrap();
    assert_eq!((status.next_seq, status.sequencer(), status.lanes.len()), (Some(Seq(42)), None, 3));
    assert_eq!((status.host_shares, status.first_kept), (64, None));
    assert_eq!(status.lanes[2].ordered, Some(0));

    let registry = prometheus::Registry::new();
    let sequencer = crate::sequence::Sequencer::open(
        &config,
        &registry,
        runtime::clock::Clock::system(),
        runtime::trace::Tracer::off(),
    )
    .await
    .unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let running = tokio::spawn(sequencer.run(stop.clone()));
    let looked = config.clone();
    wait_until("the sequencer leads", || {
        let status = status::topics(&looked).unwrap();
        let leads = status.sequencer().is_some_and(|member| member.client.starts_with("made.sequencer."));
        leads && status.sequencers.len() == 1
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();

    plan.lanes = LaneCount(NonZeroU32::new(4).unwrap());
    plan.retention.window_bytes = Some(1 << 30);
    let differs = init::topics(&config, &plan, Seq(1)).await.unwrap().differs;
    for part in ["made.raw has 3 partitions", "made.verified has 3", "made.firehose: retention.bytes is -1"] {
        assert!(differs.iter().any(|what| what.contains(part)), "{part} in {differs:?}");
    }
}

/// Deletes all records of a partition before an offset.
async fn delete_before(topics: &Topics, which: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = topics.client.create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topics.topic(which), partition, Offset::Offset(offset)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_made_anew_of_what_was_published() {
    let topics = Topics::create().await;
    let config = config(&topics.name);
    topics.start_at(50, LANES);
    topics.claim(0);
    (0..5).for_each(|number| topics.event(0, 0, &number.to_string()));
    topics.claim(1);
    topics.event(1, 0, "b");
    topics.flush();
    let running = topics.sequencer();
    wait_until("all are published", || running.metrics.events.get() == 6).await;
    running.end().await;
    topics.event(0, 0, "later");
    topics.flush();

    let options = restore::Options::default();
    let owned = config.clone();
    let nothing_wrong = blocking(move || restore::sequencer(&owned, options)).await.unwrap();
    assert_eq!(nothing_wrong, restore::Restored { next_seq: Seq(56), was_there: true, skipped: Vec::new() });

    topics.delete_topic("sequencer-state").await;
    topics.make("sequencer-state", 1).await;
    let owned = config.clone();
    let restored = blocking(move || restore::sequencer(&owned, options)).await.unwrap();
    assert_eq!(restored, restore::Restored { next_seq: Seq(56), was_there: false, skipped: Vec::new() });
    let running = topics.sequencer();
    wait_until("the later one is published", || running.metrics.events.get() == 1).await;
    running.end().await;

    // Two that nobody has published, and then they are gone; a third is there.
    (0..3).for_each(|number| topics.event(1, 0, &format!("gone{number}")));
    topics.flush();
    delete_before(&topics, "verified", 1, 4).await;
    let lost = topics.sequencer().task.await.unwrap().unwrap_err();
    assert!(matches!(lost, crate::sequence::Error::Lost { lane: 1, next_offset: 2, .. }), "{lost}");
    let owned = config.clone();
    blocking(move || restore::sequencer(&owned, options)).await.unwrap_err();
    let options = restore::Options { skip_lost: true, ..options };
    let restored = blocking(move || restore::sequencer(&config, options)).await.unwrap();
    assert_eq!(restored.skipped, [(Lane(1), 2, 4)]);
    let running = topics.sequencer();
    wait_until("what is left is published", || running.metrics.events.get() == 1).await;
    running.end().await;
}
