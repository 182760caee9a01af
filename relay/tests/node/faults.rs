//! Hosts that misbehave, beside others that do not: few tries, neighbours on time, and recovery without a hand.

use std::time::Duration;

use atproto::syntax::{Did, HostName};
use crawler::{End, HostView, Patience, Phase, Timing};
use loadtest::{
    judge::{Extent, Judge},
    network::{Action, Config as NetworkConfig, HostFault, Kind, Mix, Network, Pace},
    subscriber::{self, Keep, Subscriber},
};
use relay::config::{Config, Pace as CrawlPace};
use runtime::clock::Clock;
use storage::hosts::{HostStatus, ResetCause};
use tokio::time::{Instant, sleep};

use crate::harness::{LONG, Relay, config, crawl, get};

/// How long the faults last: many times every wait below.
const FAULTY_FOR: Duration = Duration::from_secs(8);

/// An event of a healthy host is out within this time, whatever its neighbours do. Generous, for a busy machine; a
/// relay that is held up by one of them is late by seconds for each.
const ON_TIME: Duration = Duration::from_secs(5);

/// The shortest wait between two tries of a host that fails, after a few of them: half of the cap.
const BACKOFF_CAP: Duration = Duration::from_secs(1);

fn quick(network: &Network) -> Config {
    let mut config = config(&[]);
    config.plc.as_mut().unwrap().url = network.plc_url().parse().unwrap();
    crawl(&mut config).hosts = network.hosts().to_vec();
    crawl(&mut config).pace = CrawlPace {
        timing: Timing {
            backoff_base: Duration::from_millis(100),
            backoff_cap: BACKOFF_CAP,
            nudge_gap: Duration::from_millis(100),
            ..Timing::default()
        },
        patience: Patience {
            ping_interval: Duration::from_millis(500),
            pong_within: Duration::from_secs(1),
            message_within: Duration::from_millis(1_500),
        },
        handshake_within: Duration::from_millis(500),
    };
    config
}

async fn network_of(hosts: usize) -> Network {
    let config = NetworkConfig {
        hosts,
        accounts: 2 * hosts,
        pace: Pace::ByHand,
        mix: Mix::COMMITS,
        remember: true,
        ..NetworkConfig::default()
    };
    let network = Network::start_paused(config, Clock::system()).await.unwrap();
    network.announce_all().await.unwrap();
    network
}

fn subscribe(relay: &Relay) -> Subscriber {
    let url = format!("ws://{}", relay.public);
    Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received })
}

fn view(relay: &Relay, host: &HostName) -> HostView {
    relay.app.hosts.host(host).unwrap()
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LONG, "never {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// An account of a host.
fn account_of(network: &Network, host: usize) -> usize {
    (0..network.accounts().len()).find(|account| network.host_of(*account) == host).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_survived_beside_healthy_neighbours() {
    let faults = [
        // The fault, how it ends, and connections at most while it lasts; one means that the socket stays.
        (HostFault::Drop, Some(End::Closed), None),
        (HostFault::Garbage, None, Some(1)),
        (HostFault::Redirect("http://127.0.0.1:1/".into()), Some(End::Refused), None),
        (HostFault::Unavailable, Some(End::Refused), None),
        (HostFault::Stall, Some(End::Silent), None),
        (HostFault::Deaf, Some(End::Silent), None),
        (HostFault::Silent, None, Some(1)),
        (HostFault::SlowHandshake, Some(End::Unreachable), None),
        (HostFault::BadFrame, Some(End::Protocol), None),
    ];
    let healthy = faults.len();
    let mut network = network_of(healthy + 1).await;
    let mut config = quick(&network);
    let nowhere = HostName::parse("no-such-host.invalid").unwrap();
    crawl(&mut config).hosts.push(nowhere.clone());
    let relay = Relay::start(config).await;
    let subscriber = subscribe(&relay);
    assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);

    let mut visits = Vec::new();
    for (host, (fault, _, _)) in faults.iter().enumerate() {
        visits.push(network.break_host(host, fault.clone()).await.unwrap());
    }
    let began = Instant::now();
    let neighbour = account_of(&network, healthy);
    let mut worst = Duration::ZERO;
    while began.elapsed() < FAULTY_FOR {
        let before = subscriber.events();
        network.act(neighbour, Action::Create(Kind::Post)).unwrap();
        let sent = Instant::now();
        assert!(subscriber.wait_for(before + 1, ON_TIME).await, "the neighbour waits");
        worst = worst.max(sent.elapsed());
        // Accounts of the broken hosts write on.
        for host in 0..healthy {
            network.act(account_of(&network, host), Action::Create(Kind::Post)).unwrap();
        }
        sleep(Duration::from_millis(200)).await;
    }
    let lasted = began.elapsed().as_secs_f64();
    println!("the slowest event of the neighbour took {worst:?}");

    // Half a cap between tries in the long run; five doublings until then.
    let tries_max = (lasted / (BACKOFF_CAP.as_secs_f64() / 2.0)) as u64 + 5;
    for (host, (fault, end, connections_max)) in faults.iter().enumerate() {
        let (view, came) = (view(&relay, &network.hosts()[host]), visits[host].connections());
        println!("{fault:?}: {came} connections in {lasted:.1} s, {:?}, {:?}", view.phase, view.ends);
        let least = if connections_max.is_some() { 1 } else { 2 };
        assert!((least..=connections_max.unwrap_or(tries_max)).contains(&came), "{fault:?}: {came} connections");
        match end {
            Some(end) => assert!(view.ends.iter().any(|(seen, _)| seen == end), "{fault:?}: {view:?}"),
            None => assert_eq!(view.phase, Phase::Active, "{fault:?}"),
        }
    }
    let garbage = get(relay.public, &format!("/host.json?hostname={}", network.hosts()[1])).await.json();
    assert!(garbage["refused"].as_array().is_some_and(|refused| !refused.is_empty()), "{garbage}");
    let lost = view(&relay, &nowhere);
    assert_eq!((lost.status, lost.last_end.unwrap().end), (HostStatus::Offline, End::Unreachable));
    assert!((2..=tries_max).contains(&lost.tries), "{} tries of a name that does not resolve", lost.tries);

    for host in 0..healthy {
        network.start_host(host).await.unwrap();
    }
    let all = network.truth().to_pass() as u64;
    assert!(subscriber.wait_for(all, LONG).await, "{} of {all}", subscriber.events());
    subscriber.wait_for_quiet(Duration::from_millis(300), LONG).await;
    let report = Judge::new(network.truth()).reading(&subscriber.stop().await.received, Extent::Whole);
    assert!(report.is_clean(), "{report}");
    for host in network.hosts() {
        assert_eq!(view(&relay, host).phase, Phase::Active, "{host}");
        assert_eq!(view(&relay, host).last_reset, None, "{host}");
    }
    relay.drain().await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_count_anew_are_read_on_recorded_and_can_be_rewound() {
    let mut network = network_of(2).await;
    let relay = Relay::start(quick(&network)).await;
    let subscriber = subscribe(&relay);
    assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);
    let names = network.hosts().to_vec();
    // Without a cursor there is nothing to be in the future.
    until("have cursors", || names.iter().all(|name| view(&relay, name).cursor.seq.is_some())).await;
    let before: Vec<_> = names.iter().map(|name| view(&relay, name).cursor).collect();

    let future = network.break_host(0, HostFault::FutureCursor).await.unwrap();
    let back = network.break_host(1, HostFault::SeqWentBack).await.unwrap();
    for (name, cause) in names.iter().zip([ResetCause::FutureCursor, ResetCause::SeqWentBack]) {
        until("reset", || view(&relay, name).last_reset.is_some()).await;
        let reset = view(&relay, name).last_reset.unwrap();
        assert_eq!((reset.cause, reset.to.epoch, reset.to.seq), (cause, 1, None));
    }
    assert_eq!(view(&relay, &names[0]).last_reset.unwrap().from.seq, before[0].seq);
    until("connected again", || names.iter().all(|name| view(&relay, name).connected_for.is_some())).await;
    // One reset each, and then the connection stays.
    assert!(future.connections() <= 3 && back.connections() <= 2, "{future:?} {back:?}");

    for host in [0, 1] {
        network.start_host(host).await.unwrap();
        let account = account_of(&network, host);
        network.act(account, Action::Create(Kind::Post)).unwrap();
        let last = network.truth().events().last().unwrap().digest;
        until("the new event is out", || subscriber.look(|reading| reading.received.iter().any(|r| r.digest == last)))
            .await;
    }

    // Read again from the oldest on: what is known comes out as repeats, that is, not at all.
    until("all is judged", || names.iter().all(|name| view(&relay, name).in_flight == 0)).await;
    subscriber.wait_for_quiet(Duration::from_millis(300), LONG).await;
    let count = subscriber.events();
    let refused: u64 = names.iter().map(|name| relay.app.refusals.count_of_host(name)).sum();
    for name in &names {
        let cursor = view(&relay, name).cursor;
        let rewound = relay.app.hosts.rewind(name, None).await.unwrap();
        assert_eq!((rewound.from, rewound.to.seq, rewound.to.epoch), (cursor, Some(0), cursor.epoch));
        until("read again", || view(&relay, name).cursor == cursor).await;
        assert_eq!(view(&relay, name).last_reset.unwrap().cause, ResetCause::Rewound);
    }
    subscriber.wait_for_quiet(Duration::from_millis(300), LONG).await;
    assert_eq!(subscriber.events(), count);
    assert_eq!(names.iter().map(|name| relay.app.refusals.count_of_host(name)).sum::<u64>(), refused);
    let did: Did = network.accounts()[0].clone();
    network.act(0, Action::Create(Kind::Post)).unwrap();
    let last = network.truth().events().last().unwrap().clone();
    assert_eq!(last.did, did);
    until("events go on", || subscriber.look(|reading| reading.received.iter().any(|r| r.digest == last.digest))).await;
    drop(subscriber);
    relay.drain().await;
    network.stop().await;
}
