//! The simulated network, read as a relay would read it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::{collections::HashMap, time::Duration};

use atproto::{
    car::Car,
    cid::Cid,
    commit::Commit,
    crypto::PublicKey,
    did_doc::DidDocument,
    event::{self, Event, Routed},
    mst,
    syntax::Did,
};
use futures_util::StreamExt;
use loadtest::{
    judge::{self, Extent, Judge},
    network::{Action, Config, Kind, Mix, Network, Pace},
    subscriber::{self, Keep, Subscriber},
};
use runtime::clock::Clock;
use tokio_tungstenite::{connect_async, tungstenite::Message};

fn small() -> Config {
    Config { hosts: 2, accounts: 8, pace: Pace::ByHand, remember: true, ..Config::default() }
}

/// Reads a host's stream to the end of what it has.
async fn read(host: &str, query: &str, frames: usize) -> Vec<Vec<u8>> {
    let url = format!("ws://{host}/xrpc/com.atproto.sync.subscribeRepos{query}");
    let (mut socket, _) = connect_async(url).await.unwrap();
    let mut read = Vec::new();
    while read.len() < frames {
        let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.unwrap();
        match next {
            Some(Ok(Message::Binary(frame))) => read.push(frame.to_vec()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    read
}

async fn resolve(network: &Network, did: &str) -> DidDocument {
    let (status, body) = get(&format!("{}/{did}", network.plc_url())).await;
    assert_eq!(status, 200);
    DidDocument::parse(&body, &Did::parse(did).unwrap()).unwrap()
}

async fn get(url: &str) -> (u16, Vec<u8>) {
    use http_body_util::BodyExt;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    let client: Client<_, http_body_util::Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// What a relay would hold of a repo.
#[derive(Clone, Copy)]
struct Known {
    rev: u64,
    data: Cid,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_an_honest_network_verifies() {
    // Without rotations and migrations, today's documents are the right ones for all events.
    let config = Config { mix: Mix { multi: 300, ..Mix::STRICT }, ..small() };
    let network = Network::start(config, Clock::system()).await.unwrap();
    network.generate(1_500).await.unwrap();
    let truth = network.truth();
    let mut keys: HashMap<String, PublicKey> = HashMap::new();
    let mut repos: HashMap<String, Known> = HashMap::new();
    let (mut commits, mut kinds) = (0, HashMap::new());
    for (number, host) in network.hosts().iter().enumerate() {
        let sent: Vec<_> = truth.events().iter().filter(|sent| sent.host == number).collect();
        let frames = read(host.as_str(), "?cursor=0", sent.len()).await;
        assert_eq!(frames.len(), sent.len());
        for (frame, sent) in frames.iter().zip(sent) {
            let Routed::Event(route) = event::route(frame).unwrap() else { panic!("not an event") };
            assert_eq!((route.seq, route.did, route.kind), (sent.seq, sent.did.as_str(), sent.kind));
            assert_eq!(loadtest::judge::digest(frame, &route), sent.digest);
            *kinds.entry(route.kind).or_insert(0) += 1;
            if !keys.contains_key(route.did) {
                let document = resolve(&network, route.did).await;
                assert_eq!(document.pds.as_ref(), Some(host));
                keys.insert(route.did.to_owned(), document.signing_key.unwrap());
            }
            match event::parse(frame).unwrap() {
                Event::Commit(commit) => {
                    let known = check_commit(&commit, &keys[commit.repo], repos.get(commit.repo).copied());
                    repos.insert(commit.repo.to_owned(), known);
                    commits += 1;
                }
                Event::Sync(sync) => {
                    let car = Car::parse(sync.blocks).unwrap();
                    let block = Commit::parse(car.get(&car.root()).unwrap()).unwrap();
                    block.verify(&keys[sync.did]).unwrap();
                    assert_eq!((block.rev, block.did), (sync.rev, sync.did));
                }
                Event::Identity(_) | Event::Account(_) => {}
            }
        }
    }
    assert!(commits > 1_000, "{commits}");
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    network.stop().await;
}

fn check_commit(commit: &event::CommitEvent<'_>, key: &PublicKey, known: Option<Known>) -> Known {
    let car = Car::parse(commit.blocks).unwrap();
    assert_eq!(car.root(), commit.commit);
    let block = Commit::parse(car.get(&commit.commit).unwrap()).unwrap();
    block.verify(key).unwrap();
    assert_eq!((block.did, block.rev), (commit.repo, commit.rev));
    let rev = atproto::syntax::Tid::parse(commit.rev).unwrap().to_u64();
    for op in &commit.ops {
        if let Some(cid) = op.cid {
            assert!(car.get(&cid).is_some(), "record of {}", op.path);
        }
    }
    match known {
        Some(known) => {
            assert!(rev > known.rev);
            assert_eq!(commit.prev_data, Some(known.data));
            let ops: Vec<mst::Op<'_>> =
                commit.ops.iter().map(|op| mst::Op { path: op.path, prev: op.prev, cid: op.cid }).collect();
            assert_eq!(mst::invert(block.data, &car, &ops).unwrap(), known.data);
        }
        None => assert_eq!((commit.prev_data, commit.since), (None, None)),
    }
    Known { rev, data: block.data }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_comes_back_goes_on_where_it_was() {
    let mut network = Network::start(small(), Clock::system()).await.unwrap();
    network.announce_all().await.unwrap();
    let host = network.hosts()[0].clone();
    let before = read(host.as_str(), "?cursor=0", 4 * 4).await;
    network.stop_host(0).await;
    assert!(connect_async(format!("ws://{host}/xrpc/com.atproto.sync.subscribeRepos")).await.is_err());
    network.act(0, Action::Create(Kind::Post)).unwrap();
    network.start_host(0).await.unwrap();
    let after = read(host.as_str(), "?cursor=0", 4 * 4 + 1).await;
    assert_eq!(after[..before.len()], before[..]);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_answer_what_a_relay_asks() {
    let network = Network::start(small(), Clock::system()).await.unwrap();
    network.announce_all().await.unwrap();
    network.act(0, Action::Deactivate).unwrap();
    let (host, did) = (&network.hosts()[0], network.accounts()[0].to_string());
    let json = async |path: &str| {
        let (status, body) = get(&format!("http://{host}/xrpc/{path}")).await;
        (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
    };
    let (status, body) = json(&format!("com.atproto.sync.getRepoStatus?did={did}")).await;
    assert_eq!((status, body["active"].as_bool(), body["status"].as_str()), (200, Some(false), Some("deactivated")));
    let (status, body) = json("com.atproto.sync.getRepoStatus?did=did:plc:nobody").await;
    assert_eq!((status, body["error"].as_str()), (400, Some("RepoNotFound")));
    let (status, body) = json("com.atproto.sync.listRepos?limit=3").await;
    assert_eq!((status, body["repos"].as_array().unwrap().len()), (200, 3));
    let (_, body) =
        json(&format!("com.atproto.sync.listRepos?limit=3&cursor={}", body["cursor"].as_str().unwrap())).await;
    assert_eq!((body["repos"].as_array().unwrap().len(), body.get("cursor")), (1, None));
    let (status, body) = json("com.atproto.server.describeServer").await;
    assert!(status == 200 && body["did"].is_string());

    let future = read(host.as_str(), "?cursor=999999999", 5).await;
    assert_eq!(future.len(), 1);
    assert!(matches!(event::route(&future[0]), Ok(Routed::Error { error: "FutureCursor", .. })));
    assert_eq!(get(&format!("{}/did:plc:nobody", network.plc_url())).await.0, 404);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrated_account_goes_on_at_its_new_host() {
    let network = Network::start(small(), Clock::system()).await.unwrap();
    network.announce_all().await.unwrap();
    let did = network.accounts()[0].to_string();
    let old_key = resolve(&network, &did).await.signing_key;
    network.act(0, Action::Migrate).unwrap();
    network.act(0, Action::Create(Kind::Post)).unwrap();
    let document = resolve(&network, &did).await;
    assert_eq!(document.pds.as_ref(), Some(&network.hosts()[1]));
    assert_ne!(document.signing_key, old_key);
    let truth = network.truth();
    let last = truth.events().last().unwrap();
    assert_eq!((last.host, last.did.as_str()), (1, did.as_str()));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_finds_nothing_wrong_with_a_host_but_the_gaps_in_its_seq() {
    let config = Config { hosts: 1, mix: Mix::SHOWCASE, window_bytes: 64 << 20, ..small() };
    let mut network = Network::start(config, Clock::system()).await.unwrap();
    let url = format!("ws://{}", network.hosts()[0]);
    let subscriber = Subscriber::start(subscriber::Config { url, cursor: Some(0), keep: Keep::Received });
    network.generate(400).await.unwrap();
    assert!(subscriber.wait_for(200, Duration::from_secs(30)).await);
    // A cut in the middle: it comes back and goes on where it was.
    network.stop_host(0).await;
    network.generate(200).await.unwrap();
    network.start_host(0).await.unwrap();
    let truth = network.truth();
    assert!(subscriber.wait_for(truth.events().len() as u64, Duration::from_secs(30)).await);
    let reading = subscriber.stop().await;
    assert!(reading.connections >= 2);
    let report = Judge::new(truth).reading(&reading.received, Extent::Whole);
    assert!(report.faults.keys().all(|fault| *fault == judge::Fault::SeqGap), "{report}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pace_is_kept_and_as_read_waits_for_readers() {
    let paced = Network::start(Config { pace: Pace::PerSecond(200.0), ..small() }, Clock::system()).await.unwrap();
    let as_read = Network::start(Config { pace: Pace::AsRead, hosts: 1, ..small() }, Clock::system()).await.unwrap();
    let started = tokio::time::Instant::now();
    while paced.stats().events < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    // Never ahead of its pace; how far behind depends on the machine. A step may send four events.
    let (events, elapsed) = (paced.stats().events, started.elapsed().as_secs_f64());
    assert!(events as f64 <= elapsed * 200.0 + 250.0, "{events} in {elapsed}");
    assert_eq!(as_read.stats().events, 0);
    let url = format!("ws://{}", as_read.hosts()[0]);
    let subscriber = Subscriber::start(subscriber::Config { url, cursor: None, keep: Keep::Count });
    assert!(subscriber.wait_for(500, Duration::from_secs(60)).await);
    subscriber.stop().await;
    paced.stop().await;
    as_read.stop().await;
}

#[tokio::test]
async fn a_subscriber_leaves_a_node_that_says_nothing_for_the_next() {
    let network = Network::start_paused(Config { hosts: 1, ..small() }, Clock::system()).await.unwrap();
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = vec![
        format!("ws://{}", mute.local_addr().unwrap()),
        format!("ws://{gone}"),
        format!("ws://{}", network.hosts()[0]),
    ];
    let nodes = subscriber::Nodes { urls, silence_max: Duration::from_millis(200) };
    let subscriber = Subscriber::start_among(nodes, Some(0), Keep::Received);
    network.generate(20).await.unwrap();
    assert!(subscriber.wait_for(20, Duration::from_secs(60)).await);
    // It is left again, in its silence, and comes back at the cursor.
    let again = async {
        while subscriber.look(|reading| reading.connections) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
    network.generate(20).await.unwrap();
    assert!(subscriber.wait_for(network.stats().events, Duration::from_secs(60)).await);
    let reading = subscriber.stop().await;
    assert!(reading.received.is_sorted_by(|a, b| a.seq < b.seq), "something came twice");
}
