//! The file of limits, changed while the relay runs.

use std::{fs, time::Duration};

use loadtest::network::{Config as NetworkConfig, Mix, Network, Pace};
use runtime::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::harness::{LONG, Relay, config, crawl, get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_is_in_force_soon_and_a_bad_one_is_said_and_changes_nothing() {
    let network =
        NetworkConfig { hosts: 1, accounts: 4, pace: Pace::ByHand, mix: Mix::COMMITS, ..NetworkConfig::default() };
    let network = Network::start_paused(network, Clock::system()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.toml");
    // An hour's worth is the first two events of all there are; from then on, one in half an hour.
    fs::write(&file, "[[rule]]\nhosts = \"localhost\"\nevents_per_hour = 2\n").unwrap();
    let mut config = config(&["--limits", file.to_str().unwrap()]);
    config.plc.as_mut().unwrap().url = network.plc_url().parse().unwrap();
    crawl(&mut config).hosts = network.hosts().to_vec();
    let relay = Relay::start(config).await;
    network.announce_all().await.unwrap();
    let name = network.hosts()[0].clone();
    let page = format!("/host.json?hostname={name}");
    let eventually = async |what: &str, met: &dyn Fn(&serde_json::Value, &serde_json::Value) -> bool| {
        let began = Instant::now();
        loop {
            let (host, status) = (get(relay.public, &page).await, get(relay.public, "/status.json").await.json());
            // It is not known before the crawler has begun.
            if host.status == 200 && met(&host.json(), &status) {
                return (host.json(), status);
            }
            assert!(began.elapsed() < LONG, "never {what}: {host:?} {status}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (host, status) = eventually("throttled", &|host, _| !host["throttled"].is_null()).await;
    assert_eq!(host["throttled"]["by"], "events_per_hour");
    assert_eq!((&host["throttled"]["limit"], &host["limits"]["rule"]), (&2.into(), &"localhost".into()));
    assert!(host["throttled"]["untilMicros"].as_u64() > host["nowMicros"].as_u64());
    assert_eq!((&host["status"], &host["phase"]), (&"throttled".into(), &"throttled".into()));
    assert_eq!((&status["limitsFile"]["rules"], &status["limitsFile"]["error"]), (&1.into(), &serde_json::Value::Null));

    fs::write(&file, "[[rule]]\nhosts = \"localhost\"\nevents_per_hour = \"many\"\n").unwrap();
    let (host, _) = eventually("said", &|_, status| !status["limitsFile"]["error"].is_null()).await;
    assert_eq!(host["limits"]["eventsPerHour"], 2, "the rules before it stay");
    let metrics = get(relay.private, "/metrics").await.body;
    assert!(metrics.contains("mainstem_limits_file_bad 1"), "{metrics}");

    fs::write(&file, "[[rule]]\nhosts = \"localhost\"\nevents_per_hour = 100_000\n").unwrap();
    let all = network.stats().events;
    eventually("read to the end", &|host, status| {
        host["events"] == all && host["throttled"].is_null() && status["limitsFile"]["error"].is_null()
    })
    .await;
    relay.drain().await;
    network.stop().await;
}
