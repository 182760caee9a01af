//! What an operator decides about accounts: takedowns and caps, through the whole program, with kills in between.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use atproto::{
    event::{self, Event, Kind as EventKind},
    syntax::Did,
};
use loadtest::{
    judge::Received,
    network::{Action, Config, Kind, Mix, Network, Pace},
    relay_process::{RelayProcess, get},
    subscriber::{self, Keep, Reading, Subscriber},
};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::{LONG, all_connected, alone, mainstem, refused_of, relay_of, seed, wait_until};

/// Two hosts with eight accounts each, that do what the test wants.
async fn network() -> Network {
    let config = Config {
        seed: seed(),
        hosts: 2,
        accounts: 16,
        pace: Pace::ByHand,
        mix: Mix::COMMITS,
        remember: true,
        ..Config::default()
    };
    Network::start_paused(config, Clock::system()).await.unwrap()
}

fn write(network: &Network, accounts: impl IntoIterator<Item = usize>) {
    for account in accounts {
        network.act(account, Action::Create(Kind::Post)).unwrap();
    }
}

fn reader(relay: &RelayProcess, cursor: u64) -> Subscriber {
    Subscriber::start(subscriber::Config { url: relay.stream_url(), cursor: Some(cursor), keep: Keep::Frames })
}

/// What a reading holds of an account: kinds, and what an `#account` says.
fn told_of(reading: &Reading, did: &Did) -> Vec<(EventKind, Option<String>)> {
    let of_it = reading.received.iter().zip(&reading.frames).filter(|(received, _)| *received.did == *did.as_str());
    of_it
        .map(|(received, frame)| {
            let status = match event::parse(frame) {
                Ok(Event::Account(event)) => Some(event.status.unwrap_or("active").to_owned()),
                Ok(_) | Err(_) => None,
            };
            (received.kind, status)
        })
        .collect()
}

/// `mainstem admin accounts COMMAND DID`
async fn admin(relay: &RelayProcess, password: &Path, command: &str, did: &Did) {
    let mut admin = tokio::process::Command::new(mainstem());
    admin.args(["admin", "accounts", command, did.as_str(), "--url", &relay.admin_url(), "--password-file"]);
    let output = admin.arg(password).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn status_of(relay: &RelayProcess, did: &Did) -> Option<String> {
    let url = format!("{}/xrpc/com.atproto.sync.getRepoStatus?did={did}", relay.public_url());
    let (_, body) = get(&url).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    match answer["active"].as_bool()? {
        true => Some("active".to_owned()),
        false => Some(answer["status"].as_str().unwrap().to_owned()),
    }
}

/// Of a taken-down account nothing is served but the takedown: to who was live, to who comes and reads all, and by a
/// process that was started after a kill. Once it is restored all is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takedown_holds_over_kills_and_ends_when_the_account_is_restored() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let network = network().await;
    let password = folder.path().join("password");
    fs::write(&password, "a password of the test\n").unwrap();
    let mut config = relay_of(&network, folder.path());
    config.args.extend(["--admin-password-file".to_owned(), password.to_str().unwrap().to_owned()]);
    let mut relay = RelayProcess::start(config).await.unwrap();
    all_connected(&network).await;
    let live = reader(&relay, 0);
    let (unwanted, other) = (network.accounts()[0].clone(), network.accounts()[1].clone());
    let count = |reading: &Reading, did: &Did| told_of(reading, did).len();
    let arrives = async |reader: &Subscriber, did: &Did, events: usize| {
        let arrived = wait_until(LONG, || reader.look(|reading| count(reading, did)) >= events).await;
        assert!(arrived, "{} of {events} events of {did}", reader.look(|reading| count(reading, did)));
    };
    write(&network, (0..16).chain(0..16));
    let before = network.truth().events().iter().filter(|sent| sent.did == unwanted).count();
    for did in [&unwanted, &other] {
        arrives(&live, did, before).await;
    }

    admin(&relay, &password, "takedown", &unwanted).await;
    // What it writes now is refused.
    write(&network, (0..16).chain(0..16));
    arrives(&live, &other, before + 2).await;
    let takedown = (EventKind::Account, Some("takendown".to_owned()));
    let all = live.look(|reading| told_of(reading, &unwanted));
    assert_eq!((all.len(), all.last()), (before + 1, Some(&takedown)));
    for kill in [false, true, true] {
        if kill {
            let config = relay.kill().await.unwrap();
            relay = RelayProcess::start(config).await.unwrap();
        }
        assert_eq!(status_of(&relay, &unwanted).await.as_deref(), Some("takendown"));
        let all = reader(&relay, 0);
        arrives(&all, &other, before + 2).await;
        let told = told_of(&all.stop().await, &unwanted);
        assert_eq!(told, std::slice::from_ref(&takedown), "after a kill: {kill}");
    }

    admin(&relay, &password, "restore", &unwanted).await;
    write(&network, [0]);
    let config = relay.kill().await.unwrap();
    let relay = RelayProcess::start(config).await.unwrap();
    let all = reader(&relay, 0);
    // The takedown, its end, and the commit after it; and before that what was refused meanwhile, where the host was asked
    // for it again after a kill.
    arrives(&all, &unwanted, before + 3).await;
    let told = told_of(&all.stop().await, &unwanted);
    let restored = (EventKind::Account, Some("active".to_owned()));
    assert_eq!(told[before..before + 2], [takedown, restored]);
    assert!(told[before + 2..].iter().all(|(kind, _)| *kind == EventKind::Commit), "{told:?}");
    assert_eq!(status_of(&relay, &unwanted).await.as_deref(), Some("active"));
    arrives(&live, &unwanted, told.len()).await;
    let live = live.stop().await;
    assert!(told_of(&live, &unwanted).starts_with(&told), "who was there all the time has the same");
    assert!(live.received.windows(2).all(|pair: &[Received]| pair[0].seq < pair[1].seq));
    network.stop().await;
}

/// A host with eight accounts may have five: three are throttled, by name and said once, and nothing else is touched.
/// When the file of limits allows them, each is taken with its next commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_over_a_hosts_cap_heal_when_the_file_of_limits_changes() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let network = network().await;
    let limits = folder.path().join("limits.toml");
    let capped = network.hosts()[0].clone();
    let allow = |accounts: u64| {
        fs::write(&limits, format!("[[rule]]\nhosts = [\"{capped}\"]\naccounts_max = {accounts}\n")).unwrap();
    };
    allow(5);
    let mut config = relay_of(&network, folder.path());
    config.args.extend(["--limits".to_owned(), limits.to_str().unwrap().to_owned()]);
    let mut relay = RelayProcess::start(config).await.unwrap();
    all_connected(&network).await;
    let live = reader(&relay, 0);
    write(&network, 0..16);
    let accounts = network.accounts();
    let statuses = async |relay: &RelayProcess| {
        let mut by_status: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
        for (n, did) in accounts.iter().enumerate() {
            by_status.entry(status_of(relay, did).await).or_default().push(n);
        }
        by_status
    };
    let (active, throttled) = (Some("active".to_owned()), Some("throttled".to_owned()));
    let expect = async |relay: &RelayProcess, counts: &[usize]| {
        let begun = Instant::now();
        loop {
            let found = statuses(relay).await;
            if found.values().map(Vec::len).eq(counts.iter().copied()) {
                return found;
            }
            assert!(begun.elapsed() < LONG, "{found:?}, not {counts:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let found = expect(&relay, &[13, 3]).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&active, &throttled]);
    let marked = found[&throttled].clone();
    assert!(marked.iter().all(|n| network.host_of(*n) == 0), "{marked:?}");

    // The counts are right after a kill too.
    write(&network, marked.clone());
    let sent = |n: usize| network.truth().events().iter().filter(|sent| sent.did == accounts[n]).count();
    let refused: usize = marked.iter().map(|n| sent(*n)).sum();
    let begun = Instant::now();
    while refused_of(&relay, &capped).await.get("account_throttled") != Some(&(refused as u64)) {
        assert!(begun.elapsed() < LONG, "{:?}, not {refused}", refused_of(&relay, &capped).await);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(refused_of(&relay, &capped).await.len(), 1, "nothing else is refused");
    relay = RelayProcess::start(relay.kill().await.unwrap()).await.unwrap();
    write(&network, 0..16);
    assert_eq!(expect(&relay, &[13, 3]).await[&throttled], marked);

    allow(8);
    let begun = Instant::now();
    loop {
        let found = statuses(&relay).await;
        let Some(left) = found.get(&throttled) else { break };
        assert!(begun.elapsed() < LONG, "{left:?} do not heal");
        write(&network, left.iter().copied());
        sleep(Duration::from_millis(200)).await;
    }
    write(&network, 0..16);
    // All that a healthy account sends has come; of those that were throttled first that, then that it is over.
    let all_there = || {
        live.look(|reading| {
            (0..16).filter(|n| !marked.contains(n)).all(|n| told_of(reading, &accounts[n]).len() == sent(n))
        })
    };
    assert!(wait_until(LONG, all_there).await);
    let last = |n: &usize| live.look(|reading| told_of(reading, &accounts[*n]).last().cloned());
    assert!(wait_until(LONG, || marked.iter().all(|n| last(n).is_some_and(|last| last.0 == EventKind::Commit))).await);
    let live = live.stop().await;
    for (n, account) in accounts.iter().enumerate().take(16) {
        let told: Vec<String> = told_of(&live, account).into_iter().filter_map(|(_, status)| status).collect();
        if marked.contains(&n) {
            assert_eq!(told, ["throttled", "active"], "account {n}");
        } else {
            // What its host says itself.
            assert!(told.iter().all(|status| status == "active"), "account {n}: {told:?}");
        }
    }
    network.stop().await;
}
