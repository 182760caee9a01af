//! Making and looking, on a real broker.

use std::num::NonZeroU32;

use storage::{lane::LaneCount, seq::Seq};
use testservers::Kafka;

use super::{init, status};
use crate::{
    config::{Config, Cql, Kafka as KafkaConfig, Limits, Replication, Retention},
    testing::{blocking, wait_until},
};

fn config(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        lanes: LaneCount(NonZeroU32::new(3).unwrap()),
        kafka: KafkaConfig { brokers: vec![Kafka::shared().bootstrap()], tls: None, sasl: None },
        cql: Cql {
            contact_points: Vec::new(),
            datacenter: None,
            login: None,
            tls: None,
            patience: std::time::Duration::from_secs(1),
        },
        replication: Replication { kafka: 1, cql: 1 },
        retention: Retention::default(),
        limits: Limits::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn making_is_repeatable_and_says_what_differs() {
    let mut config = config("made");
    let made = init::topics(&config, Seq(42)).await.unwrap();
    assert_eq!(made, init::Made { differs: Vec::new(), began_at: Some(Seq(42)) });
    let again = init::topics(&config, Seq(99)).await.unwrap();
    assert_eq!(again, init::Made { differs: Vec::new(), began_at: None });
    let looked = config.clone();
    let status = blocking(move || status::topics(&looked, "made.validators")).await.unwrap();
    assert_eq!((status.next_seq, status.sequencer, status.lanes.len()), (Some(Seq(42)), None, 3));
    assert_eq!(status.lanes[2].ordered, Some(0));

    let registry = prometheus::Registry::new();
    let sequencer = crate::sequence::Sequencer::of(&config, &registry, runtime::clock::Clock::system()).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let running = tokio::spawn(sequencer.run(stop.clone()));
    let looked = config.clone();
    wait_until("the sequencer leads", || {
        let status = status::topics(&looked, "made.validators").unwrap();
        status.sequencer.is_some_and(|member| member.client == "made.sequencer") && status.sequencers == 1
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();

    config.lanes = LaneCount(NonZeroU32::new(4).unwrap());
    config.retention.window_bytes = Some(1 << 30);
    let differs = init::topics(&config, Seq(1)).await.unwrap().differs;
    for part in ["made.raw has 3 partitions", "made.verified has 3", "made.firehose: retention.bytes is -1"] {
        assert!(differs.iter().any(|what| what.contains(part)), "{part} in {differs:?}");
    }
}
