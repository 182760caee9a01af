//! A relay that knows nobody, and one that has been started again.

use std::time::Duration;

use loadtest::{
    network::cold::{self, ColdNetwork},
    relay_process::{self, RelayProcess, get},
    subscriber::{self, Keep, Subscriber},
};
use serde_json::Value;

use crate::harness::{LONG, alone, mainstem};

const ACCOUNTS: u64 = 20_000;
const RATE: u32 = 5_000;

async fn identities(relay: &RelayProcess) -> Value {
    let (_, body) = get(&format!("{}/status.json", relay.public_url())).await.unwrap();
    serde_json::from_slice::<Value>(&body).unwrap()["identities"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_asked_for_once_within_the_limit_and_known_after_a_restart() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let network = cold::Config { hosts: 10, accounts: ACCOUNTS, latency: Duration::ZERO };
    let network = ColdNetwork::start(network).await.unwrap();
    let data = folder.path().join("data");
    let mut config = relay_process::Config::new(mainstem(), &data, network.plc_url(), network.hosts()).unwrap();
    config.args = vec![format!("--plc-rate={RATE}"), "--plc-concurrency=256".to_owned()];
    let relay = RelayProcess::start(config.clone()).await.unwrap();
    let subscriber =
        Subscriber::start(subscriber::Config { url: relay.stream_url(), cursor: Some(0), keep: Keep::Received });
    assert!(subscriber.wait_for(ACCOUNTS, LONG).await, "{} events", subscriber.events());
    let asked = network.requests();
    // A request that a busy machine lets wait for too long is made again.
    assert_eq!((asked.all, asked.unknown), (ACCOUNTS + asked.again, 0));
    assert!(asked.again < ACCOUNTS / 100, "{asked:?}");
    // A tenth of a second's requests may leave together, and a busy machine may deliver late what left in time.
    assert!(asked.per_second_max <= 2 * RATE as usize, "{asked:?}");
    let shown = identities(&relay).await;
    assert_eq!(shown["perSecondMax"], RATE);
    assert_eq!(shown["waiting"], 0);
    assert!(shown["known"].as_u64().unwrap() >= ACCOUNTS / 2, "{shown}");
    let (_, metrics) = get(&format!("{}/metrics", relay.admin_url())).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let has = |line: &str| metrics.lines().any(|found| found == line);
    assert!(has("mainstem_identity_requests_total{method=\"plc\",result=\"document\"} 20000"), "{metrics}");
    assert!(has("mainstem_identity_requests_per_second_max 5000"), "{metrics}");
    let reading = subscriber.stop().await;
    assert_eq!(reading.received.len() as u64, ACCOUNTS);
    let (status, _) = relay.terminate(LONG).await.unwrap();
    assert!(status.success(), "{status}");

    // Whoever was known before is known again without a question.
    network.next_round();
    let relay = RelayProcess::start(config).await.unwrap();
    let config = subscriber::Config { url: relay.stream_url(), cursor: reading.last_seq, keep: Keep::Count };
    let subscriber = Subscriber::start(config);
    assert!(subscriber.wait_for(ACCOUNTS, LONG).await, "{} events", subscriber.events());
    assert_eq!(network.requests(), asked);
    subscriber.stop().await;
    relay.kill().await.unwrap();
}
