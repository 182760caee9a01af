//! Every kind of the catalogue, eight times among right traffic, through the whole program.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Duration,
};

use loadtest::{
    judge::{Digest, Extent, Judge},
    network::{Config, Mix, Network, Pace},
    relay_process::RelayProcess,
    scenario::{Expectation, KINDS, Played, Stage},
};
use runtime::clock::Clock;
use tokio::time::Instant;

use crate::harness::{LONG, Scene, alone, refused_of, seed};

/// Each with both accounts of a kind.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_by_name_and_what_is_right_passes() {
    let _alone = alone().await;
    let config = Config {
        seed: seed(),
        // One for each kind, and one for the accounts that do not live where they are spoken of.
        hosts: KINDS.len() + 1,
        accounts: KINDS.len() + 1,
        pace: Pace::PerSecond(200.0),
        mix: Mix::STRICT,
        window_bytes: 256 << 20,
        remember: true,
        ..Config::default()
    };
    let Scene { network, relay, subscriber, folder: _folder } = Scene::open(config).await;

    // Right traffic of others goes on all the time.
    network.resume();
    let played = tokio::task::block_in_place(|| play(&network));
    network.pause();

    let truth = network.truth();
    let arrived = subscriber.wait_for(truth.to_pass() as u64, LONG).await;
    let refusals = refusals(&relay, &network, &played).await;
    subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let reading = subscriber.stop().await;

    let mut passed: HashMap<Digest, usize> = HashMap::new();
    for received in &reading.received {
        *passed.entry(received.digest).or_default() += 1;
    }
    let mut table = String::new();
    let mut wrong = Vec::new();
    let width = KINDS.iter().map(|kind| kind.name.len()).max().unwrap();
    for (played, refused) in played.iter().zip(&refusals) {
        let passed: usize = played.sent.iter().flatten().map(|digest| passed.get(digest).copied().unwrap_or(0)).sum();
        let (name, expect, sent) = (played.kind.name, played.kind.expect, played.sent.len());
        writeln!(table, "{name:width$}  {:24}  {sent:>4}  {passed:>6}  {refused:?}", expect.to_string()).unwrap();
        let right = match expect {
            Expectation::Refuse(reason) => {
                passed == 0 && *refused == BTreeMap::from([(reason.to_owned(), sent as u64)])
            }
            Expectation::Pass | Expectation::PassDiscontinuous => passed == sent && refused.is_empty(),
            Expectation::Ignore => passed == 0 && refused.is_empty(),
        };
        if !right || sent != ROUNDS * 2 {
            wrong.push(name);
        }
    }
    println!("{:width$}  {:24}  {:>4}  {:>6}  refused", "kind", "expected", "sent", "passed");
    println!("{table}");
    let report = Judge::new(truth).reading(&reading.received, Extent::Whole);
    println!("{report}");
    assert!(wrong.is_empty(), "judged wrongly: {wrong:#?}");
    assert!(arrived && report.is_clean(), "{report}\n{}", relay.config().log_tail(20));
    assert_eq!(reading.notices, Vec::<String>::new());
    let discontinuous = KINDS.iter().filter(|kind| kind.expect == Expectation::PassDiscontinuous).count();
    assert_eq!(relay.metric("mainstem_events_discontinuous_total").await.unwrap(), (discontinuous * ROUNDS * 2) as f64);
    // Nobody was hung up on.
    assert!((0..network.hosts().len()).all(|host| network.subscribers(host) == 1));
    network.stop().await;
}

/// All kinds take turns, so that the relay has something of each at any time.
fn play(network: &Network) -> Vec<Played> {
    let clock = Clock::system();
    let neighbour = KINDS.len();
    let mut stages: Vec<Stage<'_>> = KINDS
        .iter()
        .enumerate()
        .map(|(host, kind)| Stage::open(kind, network, host, neighbour, clock.clone()))
        .collect();
    for round in 0..ROUNDS {
        for stage in &mut stages {
            for who in 0..stage.accounts() {
                stage.play(who, round);
            }
        }
    }
    stages.into_iter().map(Stage::close).collect()
}

/// What was refused of each kind's host, by reason, once as much is refused as was wrong.
async fn refusals(relay: &RelayProcess, network: &Network, played: &[Played]) -> Vec<BTreeMap<String, u64>> {
    let to_refuse = |played: &Played| match played.kind.expect {
        Expectation::Refuse(_) => played.sent.len() as u64,
        Expectation::Pass | Expectation::PassDiscontinuous | Expectation::Ignore => 0,
    };
    let started = Instant::now();
    let mut all = Vec::new();
    for played in played {
        all.push(loop {
            let refused = refused_of(relay, &network.hosts()[played.host]).await;
            if refused.values().sum::<u64>() >= to_refuse(played) || started.elapsed() > Duration::from_secs(30) {
                break refused;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
    }
    all
}
