//! Traces: events followed from their hosts to subscribers, as a collector sees them.

use std::{collections::BTreeSet, time::Duration};

use loadtest::{
    network::{Config, Mix, Pace},
    relay_process::RelayProcess,
};
use runtime::clock::Clock;

use crate::{
    collector::{Collector, Told},
    harness::{LONG, Scene, all_connected, alone, relay_of, seed, subscriber_of, wait_until},
};

const EVENTS: u64 = 600;

/// One in ten, so that the share can be judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_ten_events_is_followed_from_its_host_to_a_subscriber() {
    let _alone = alone().await;
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        seed: seed(),
        hosts: 2,
        accounts: 20,
        pace: Pace::PerSecond(200.0),
        mix: Mix::COMMITS,
        ..Config::default()
    };
    let network = loadtest::network::Network::start_paused(config, Clock::system()).await.unwrap();
    let mut relay = relay_of(&network, folder.path());
    relay.args.extend(["--traces-to", &collector.url, "--trace-one-in", "10"].map(str::to_owned));
    let relay = RelayProcess::start(relay).await.unwrap();
    all_connected(&network).await;
    let subscriber = subscriber_of(&relay);
    let scene = Scene { network, relay, subscriber, folder };
    scene.network.resume();
    assert!(scene.subscriber.wait_for(EVENTS, LONG).await, "{} events have come", scene.subscriber.events());
    scene.network.pause();
    scene.subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let events = scene.subscriber.events();

    let whole =
        |collector: &Collector| collector.traces().iter().filter(|trace| stages(trace).contains("send")).count();
    assert!(
        wait_until(LONG, || whole(&collector) as u64 > events / 20).await,
        "{} traces are whole",
        whole(&collector)
    );
    let (status, _took) = scene.relay.terminate(LONG).await.unwrap();
    assert!(status.success(), "{status}");
    let traces = collector.traces();
    let share = traces.len() as f64 / events as f64;
    assert!((0.05..0.2).contains(&share), "{} of {events} events are followed", traces.len());
    for trace in &traces {
        assert_eq!(
            stages(trace),
            BTreeSet::from(["receive", "judge", "validate", "append", "publish", "send"]),
            "{trace:#?}"
        );
        assert_one_way(trace);
    }
    scene.network.stop().await;
}

/// The names of a trace's parts.
pub(crate) fn stages(trace: &[Told]) -> BTreeSet<&str> {
    trace.iter().map(|told| &*told.stage).collect()
}

/// All of a trace is below what its crawler told, and each part begins where its event was by then.
pub(crate) fn assert_one_way(trace: &[Told]) {
    let of = |stage: &str| trace.iter().find(|told| told.stage == stage).unwrap();
    let root = of("receive");
    assert!(root.parent.is_empty(), "{root:?}");
    assert!(trace.iter().filter(|told| told.stage != "receive").all(|told| told.parent == root.span), "{trace:#?}");
    assert!(trace.iter().all(|told| told.began <= told.ended && root.began <= told.began), "{trace:#?}");
    assert_eq!(of("validate").values["verdict"], "accepted", "{trace:#?}");
    assert_eq!(of("validate").values["host"], root.values["host"], "{trace:#?}");
    assert_eq!(of("publish").values["seq"], of("send").values["seq"], "{trace:#?}");
    assert_eq!(of("publish").values["did"], root.values["did"], "{trace:#?}");
    assert!(of("judge").ended <= of("publish").began && of("publish").ended <= of("send").began, "{trace:#?}");
}
