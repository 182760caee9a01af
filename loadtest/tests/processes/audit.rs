//! `mainstem audit` between relays of the same network, some of which lack something that the test took from them. What it
//! finds must be what the network knows that it sent, to the event.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use atproto::event::Kind as EventKind;
use loadtest::{
    judge::Truth,
    network::{Action, Config, Kind, Mix, Network, Pace},
    relay_process::RelayProcess,
    subscriber::Subscriber,
};
use runtime::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::harness::{LONG, all_connected, alone, mainstem, relay_of, seed, subscriber_of};

/// The settling time of all audits here: the relays and all else are on one machine.
const SETTLE: Duration = Duration::from_millis(2_000);

/// An audit that was started.
struct Audit(Child);

impl Audit {
    /// Of `ours` beside `theirs`, for so long.
    fn start(ours: &RelayProcess, theirs: &RelayProcess, network: &Network, read_for: &str) -> Audit {
        let mut command = Command::new(mainstem());
        command
            .args(["audit", &theirs.stream_url(), "--ours", &ours.stream_url(), "--for", read_for, "--json"])
            .args(["--settle", "2s", "--plc-url", network.plc_url()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Audit(command.spawn().unwrap())
    }

    /// As Ctrl-C does.
    fn interrupt(&self) {
        let pid = self.0.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    /// Its exit code and its report.
    async fn end(self) -> (Option<i32>, Value) {
        let output = tokio::time::timeout(LONG, self.0.wait_with_output()).await.expect("it ends").unwrap();
        let Output { status, stdout, stderr } = output;
        let report = serde_json::from_slice(&stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
        (status.code(), report)
    }
}

/// Waits until a relay has so many subscribers.
async fn subscribed(relay: &RelayProcess, subscribers: f64) {
    let begun = Instant::now();
    while relay.metric("mainstem_fanout_subscribers").await != Some(subscribers) {
        assert!(begun.elapsed() < LONG, "not {subscribers} subscribers");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What is told of the events for which `of` holds: how many, by kind, and of how many accounts.
fn told(truth: &Truth, of: impl Fn(usize, &str) -> bool) -> (Value, u64) {
    let mut kinds: BTreeMap<&str, u64> =
        ["commit", "sync", "identity", "account"].into_iter().map(|kind| (kind, 0)).collect();
    let mut accounts = BTreeSet::new();
    for sent in truth.events().iter().filter(|sent| of(sent.host, sent.did.as_str())) {
        let kind = match sent.kind {
            EventKind::Commit => "commit",
            EventKind::Sync => "sync",
            EventKind::Identity => "identity",
            EventKind::Account => "account",
        };
        *kinds.entry(kind).or_default() += 1;
        accounts.insert(&sent.did);
    }
    (json!(kinds), accounts.len() as u64)
}

fn is_whole(report: &Value) -> bool {
    let none = json!({ "commit": 0, "sync": 0, "identity": 0, "account": 0 });
    ["oursLacks", "theirsLacks", "differing"].iter().all(|part| report[part]["events"] == none)
        && ["ours", "theirs"].iter().all(|side| report[side]["repeats"] == 0 && report[side]["unreadable"] == 0)
}

/// `mainstem admin accounts takedown DID`
async fn take_down(relay: &RelayProcess, password: &Path, did: &str) {
    let mut admin = Command::new(mainstem());
    admin.args(["admin", "accounts", "takedown", did, "--url", &relay.admin_url(), "--password-file"]);
    let output = admin.arg(password).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Two whole relays, and one that was not given one of the hosts; each with a subscriber.
struct Scene {
    network: Network,
    whole: RelayProcess,
    other: RelayProcess,
    holed: RelayProcess,
    subscribers: [Subscriber; 3],
}

/// The host that the one relay lacks.
const HOLE: usize = 2;

impl Scene {
    async fn open(folder: &Path, password: &Path) -> Scene {
        let config = Config {
            seed: seed(),
            hosts: 3,
            accounts: 24,
            pace: Pace::ByHand,
            mix: Mix { sync: 100, identity: 100, handle: 50, deactivate: 60, ..Mix::STRICT },
            remember: true,
            ..Config::default()
        };
        let network = Network::start_paused(config, Clock::system()).await.unwrap();
        let relay = async |name: &str, hosts: usize| {
            let mut config = relay_of(&network, &folder.join(name));
            fs::create_dir(folder.join(name)).unwrap();
            config.hosts.truncate(hosts);
            config.args.extend(["--admin-password-file".to_owned(), password.to_str().unwrap().to_owned()]);
            RelayProcess::start(config).await.unwrap()
        };
        let (whole, other, holed) = (relay("whole", 3).await, relay("other", 3).await, relay("holed", HOLE).await);
        all_connected(&network).await;
        let subscribers = [&whole, &other, &holed].map(subscriber_of);
        let scene = Scene { network, whole, other, holed, subscribers };
        // Nobody has to be asked for an identity any more.
        scene.network.announce_all().await.unwrap();
        scene.settled(0).await;
        scene
    }

    /// Waits until all relays have all that was sent, but for so many events of the other whole one.
    async fn settled(&self, lacks: usize) {
        let truth = self.network.truth();
        let all = truth.events().len();
        let hole = truth.events().iter().filter(|sent| sent.host == HOLE).count();
        for (subscriber, events) in self.subscribers.iter().zip([all, all - lacks, all - hole]) {
            assert!(subscriber.wait_for(events as u64, LONG).await, "{} of {events} events", subscriber.events());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lacks_is_found_by_host_kind_and_account_and_nothing_else() {
    let _alone = alone().await;
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "a password of the test\n").unwrap();
    let mut scene = Scene::open(folder.path(), &password).await;

    // One relay beside its equal, beside one with a hole, and the other way round.
    let network = &scene.network;
    let same = Audit::start(&scene.whole, &scene.other, network, "10s");
    let theirs = Audit::start(&scene.whole, &scene.holed, network, "1h");
    let ours = Audit::start(&scene.holed, &scene.whole, network, "1h");
    for (relay, subscribers) in [(&scene.whole, 4.0), (&scene.other, 2.0), (&scene.holed, 3.0)] {
        subscribed(relay, subscribers).await;
    }
    sleep(SETTLE + Duration::from_millis(500)).await;
    let before = network.truth().events().len();
    network.generate(400).await.unwrap();
    let truth = network.truth_after(before);
    scene.settled(0).await;
    let (hole, accounts) = told(&truth, |host, _| host == HOLE);
    let (all, _) = told(&truth, |_, _| true);
    assert!(hole.as_object().unwrap().values().all(|events| *events != 0), "a hole of all kinds: {hole}");

    let (code, report) = same.end().await;
    assert_eq!(
        (code, &report["verdict"], &report["ended"]["by"]),
        (Some(0), &json!("whole"), &json!("time")),
        "{report:#}"
    );
    assert!(is_whole(&report) && report["both"] == all, "{report:#}");
    let later = report["oursLater"]["events"].as_u64().unwrap() + report["theirsLater"]["events"].as_u64().unwrap();
    assert_eq!(later, truth.events().len() as u64, "{report:#}");
    assert!(report["notJudged"] == json!({ "begin": 0, "end": 0, "gap": 0 }), "{report:#}");

    for (audit, lacks, has) in [(theirs, "theirsLacks", "oursLacks"), (ours, "oursLacks", "theirsLacks")] {
        audit.interrupt();
        let (code, report) = audit.end().await;
        assert_eq!((code, &report["verdict"]), (Some(1), &json!("lacking")), "{report:#}");
        let [host] = &report[lacks]["hosts"].as_array().unwrap()[..] else { panic!("{report:#}") };
        assert_eq!(host["host"], json!(network.hosts()[HOLE].as_str()), "{report:#}");
        assert_eq!((&host["events"], &host["accounts"]), (&hole, &json!(accounts)), "{report:#}");
        assert_eq!((&report[lacks]["events"], &report[lacks]["accounts"]), (&hole, &json!(accounts)));
        assert_eq!(report[has]["hosts"], json!([]), "{report:#}");
        assert_eq!(report["both"], told(&truth, |host, _| host != HOLE).0, "{report:#}");
    }

    // A relay that is killed is read on from where it was.
    let broken = Audit::start(&scene.whole, &scene.other, &scene.network, "1h");
    subscribed(&scene.whole, 2.0).await;
    subscribed(&scene.other, 2.0).await;
    sleep(SETTLE + Duration::from_millis(200)).await;
    scene.network.generate(100).await.unwrap();
    scene.settled(0).await;
    let config = scene.other.kill().await.unwrap();
    scene.network.generate(100).await.unwrap();
    scene.other = RelayProcess::start(config).await.unwrap();
    scene.network.generate(100).await.unwrap();
    scene.settled(0).await;
    subscribed(&scene.other, 2.0).await;
    sleep(2 * SETTLE).await;
    broken.interrupt();
    let (code, report) = broken.end().await;
    assert_eq!((code, &report["ended"]["by"]), (Some(0), &json!("interrupted")), "{report:#}");
    assert!(is_whole(&report), "{report:#}");
    let gaps = report["theirs"]["gaps"].as_array().unwrap();
    assert!(gaps.len() == 1 && gaps[0]["filled"] == true, "{report:#}");
    assert_eq!(report["ours"]["gaps"], json!([]));

    // Of an account that one relay has taken down it lacks everything.
    let gone = scene.network.accounts()[1].to_string();
    take_down(&scene.other, &password, &gone).await;
    let audit = Audit::start(&scene.whole, &scene.other, &scene.network, "1h");
    subscribed(&scene.whole, 2.0).await;
    subscribed(&scene.other, 2.0).await;
    sleep(SETTLE + Duration::from_millis(200)).await;
    let before = scene.network.truth().events().len();
    for account in 0..4 {
        scene.network.act(account, Action::Create(Kind::Post)).unwrap();
        scene.network.act(account, Action::Identity).unwrap();
    }
    let truth = scene.network.truth_after(before);
    sleep(2 * SETTLE).await;
    audit.interrupt();
    let (code, report) = audit.end().await;
    let (lacks, _) = told(&truth, |_, did| did == gone);
    let host = scene.network.hosts()[scene.network.host_of(1)].as_str();
    assert_eq!((code, &report["theirsLacks"]["events"]), (Some(1), &lacks), "{report:#}");
    assert_eq!(report["theirsLacks"]["hosts"][0]["host"], json!(host), "{report:#}");
    assert_eq!((&report["theirsLacks"]["accounts"], &report["oursLacks"]["accounts"]), (&json!(1), &json!(0)));

    println!("took {:.1?}", begun.elapsed());
    scene.network.stop().await;
}

/// What can't be audited is said with an exit code of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_can_not_be_read_is_told_from_wrong_usage() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let network = Network::start_paused(Config { hosts: 1, accounts: 1, ..Config::default() }, Clock::system());
    let network = network.await.unwrap();
    let relay = RelayProcess::start(relay_of(&network, folder.path())).await.unwrap();
    let url = relay.stream_url();
    let elsewhere = format!("{url}/nothing/here");
    for (args, code, said) in [
        (&[&*elsewhere][..], 3, "the server answered 404"),
        (&["no relay"], 2, "is not the address of a stream"),
        (&[&url, "--for", "ever"], 2, "--for"),
        (&[&url, "--settle", "0s"], 2, "--settle"),
        (&[&url, "--memory", "1kB"], 2, "--memory"),
        (&[&url, "--plc-url", "plc"], 2, "--plc-url"),
        (&[], 2, "Usage"),
    ] {
        let mut command = Command::new(mainstem());
        command.arg("audit").args(args).args(["--ours", &url]).env_clear().kill_on_drop(true);
        let output = tokio::time::timeout(LONG, command.output()).await.expect("it ends").unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
    network.stop().await;
}
