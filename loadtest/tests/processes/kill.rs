//! SIGKILL at random moments, and what a subscriber sees of it: nothing but a cut connection.

use std::time::Duration;

use loadtest::{
    judge::{Extent, Judge},
    network::{Config, Mix, Pace},
    relay_process::RelayProcess,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::harness::{LONG, Scene, alone, replay, seed, wait_until};

const KILLS: usize = 20;
const EVENTS_PER_SECOND: f64 = 1_000.0;
/// Each relay passes on at least so many new events before it is killed, so that none dies unnoticed.
const EVENTS_BETWEEN: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing_and_repeat_nothing() {
    let _alone = alone().await;
    let seed = seed();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let config = Config {
        seed,
        hosts: 10,
        accounts: 300,
        pace: Pace::PerSecond(EVENTS_PER_SECOND),
        mix: Mix::STRICT,
        // All of the run, so that no host forgets what the relay has still to ask for again.
        window_bytes: 256 << 20,
        remember: true,
        ..Config::default()
    };
    let Scene { network, mut relay, subscriber, folder: _folder } = Scene::open(config).await;
    assert!(wait_until(LONG, || subscriber.look(|reading| reading.connections) == 1).await);
    network.resume();

    let mut in_flight_total = 0;
    for kill in 1..=KILLS {
        let before = subscriber.events();
        assert!(subscriber.wait_for(before + EVENTS_BETWEEN, LONG).await, "no events before kill {kill}");
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..1_500_000))).await;
        let (pid, uptime) = (relay.pid(), relay.uptime());
        assert!(relay.ended().is_none(), "the relay ended by itself: {}", relay.config().log_tail(20));
        let config = relay.kill().await.unwrap();
        let (sent, received) = (network.stats().events, subscriber.events());
        let in_flight = sent.saturating_sub(received);
        in_flight_total += in_flight;
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
        let connections = subscriber.look(|reading| reading.connections);
        relay = RelayProcess::start(config).await.unwrap();
        println!(
            "kill {kill:2}: process {pid} after {uptime:.2?}, {in_flight} of {sent} events in flight, ready again after {:.2?}",
            relay.uptime()
        );
        assert!(wait_until(LONG, || subscriber.look(|reading| reading.connections) > connections).await);
    }
    network.pause();

    let truth = network.truth();
    let all = truth.to_pass() as u64;
    let arrived = subscriber.wait_for(all, LONG).await;
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let live = subscriber.stop().await;
    let replayed = replay(&relay, all).await;
    let mut judge = Judge::new(truth);
    let report = judge.reading(&live.received, Extent::Whole);
    println!("live:   {report}");
    assert!(arrived && report.is_clean(), "live: {report}\n{:?}\n{}", live.notices, relay.config().log_tail(30));
    // The same judge, who remembers each seq's frame.
    let report = judge.reading(&replayed.received, Extent::Whole);
    println!("replay: {report}");
    assert!(report.is_clean(), "replay: {report}\n{:?}", replayed.notices);
    assert!(live.connections > KILLS as u64, "{} connections", live.connections);
    assert!(in_flight_total > 0, "no kill met an event in flight");
    network.stop().await;
}
