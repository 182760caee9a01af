//! Real servers on one side, real clients on the other: a PLC directory and two PDSs tell a story, npm `@atproto/sync`
//! and Python `atproto` read it through the relay with their own verification on: one process, or a cluster of two of
//! each role, of which one fan-out node is read live and the other replays.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use atproto::{
    event::{self, Event, Kind},
    syntax::{Did, HostName},
};
use bytes::Bytes;
use loadtest::{
    cluster::{self, Cluster, Counts, Role, Servers, free_ports},
    judge::{Digest, Expect, Extent, Fault, Judge, Truth},
    relay_process::{self, RelayProcess, get},
    subscriber::{self, Keep, Reading, Subscriber},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::harness::{LONG, alone, mainstem, refused_of, replay_from, wait_until};

/// Programs and packages that are installed once a machine.
fn install() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("realnet/install.sh");
    let output = Command::new("bash").arg(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the real servers and clients can't be installed");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap())
}

/// A program of `realnet/`, which talks in lines of JSON and ends with its input.
struct Talker {
    name: &'static str,
    /// Killed with its value.
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Talker {
    fn start(name: &'static str, mut command: Command) -> Talker {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Talker { name, child, input, output: BufReader::new(output).lines() }
    }

    /// What it says next.
    async fn hear(&mut self) -> Value {
        match timeout(LONG, self.output.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} said: {line}", self.name)),
            Ok(Ok(None)) => panic!("{} has ended", self.name),
            Ok(Err(error)) => panic!("{}: {error}", self.name),
            Err(_) => panic!("{} says nothing", self.name),
        }
    }

    async fn go_on(&mut self) {
        self.input.write_all(b"\n").await.unwrap();
    }
}

/// The scripts of `realnet/` beside the packages that they import.
struct Stage {
    packages: PathBuf,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let packages = install();
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("realnet")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        std::os::unix::fs::symlink(packages.join("node_modules"), folder.path().join("node_modules")).unwrap();
        Stage { packages, folder }
    }

    fn node(&self, script: &str) -> Command {
        self.command(&self.packages.join("node/node_modules/.bin/node"), script)
    }

    fn python(&self, script: &str) -> Command {
        self.command(&self.packages.join("venv/bin/python"), script)
    }

    fn command(&self, program: &Path, script: &str) -> Command {
        let mut command = Command::new(program);
        command.arg(self.folder.path().join(script)).current_dir(self.folder.path());
        command
    }
}

/// What a real client has seen.
#[derive(Clone, Default)]
struct Seen {
    seqs: BTreeSet<u64>,
    errors: Vec<String>,
}

/// A real client of the relay, which tells what it sees.
struct Client {
    name: &'static str,
    seen: watch::Receiver<Seen>,
    /// It ends with its input, and is killed with its handle.
    _alive: (Child, ChildStdin),
    _listening: JoinSet<()>,
}

impl Client {
    /// Starts it and waits until it is there.
    async fn start(name: &'static str, command: Command) -> Client {
        let mut talker = Talker::start(name, command);
        talker.hear().await;
        let Talker { child, input, mut output, .. } = talker;
        let (told, seen) = watch::channel(Seen::default());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let said: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                told.send_modify(|seen| match said.get("seq").and_then(Value::as_u64) {
                    Some(seq) => drop(seen.seqs.insert(seq)),
                    None => seen.errors.push(said.to_string()),
                });
            }
        });
        Client { name, seen, _alive: (child, input), _listening: listening }
    }

    /// Waits until it has seen all of `seqs`.
    async fn wait_for(&self, seqs: &BTreeSet<u64>) -> bool {
        let mut seen = self.seen.clone();
        matches!(timeout(LONG, seen.wait_for(|seen| seqs.is_subset(&seen.seqs))).await, Ok(Ok(_)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_read_real_servers_through_the_relay_compressed() {
    read_through_the_relay("story.mjs", true, Form::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_read_real_servers_through_a_cluster() {
    read_through_the_relay("story.mjs", true, Form::Cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_a_migration_and_takedowns_under_load() {
    let told = read_through_the_relay("load.mjs", false, Form::Process).await;
    let (written, seconds) = (told["written"].as_u64().unwrap(), told["seconds"].as_f64().unwrap());
    // How many a second depends on the machine; that they go on through all steps does not.
    println!("{written} posts in {seconds:.1} s");
    assert!(written > 50, "not much of a load");
}

/// Tells a story on the PDSs, and judges what comes through the relay, and what its clients see. Gives the story's end.
/// Both clients offer compression; `compression` says whether the relay agrees.
async fn read_through_the_relay(story: &str, compression: bool, form: Form) -> Value {
    let _alone = alone().await;
    let stage = Stage::new();
    // The relay's ports are chosen first, because the PDSs are told whom to ask to crawl them.
    let [public, admin] = free_ports(Ipv4Addr::LOCALHOST).unwrap();
    let password = stage.folder.path().join("password");
    fs::write(&password, "a password of the test\n").unwrap();
    let args = vec![
        "--admin-password-file".to_owned(),
        password.to_str().unwrap().to_owned(),
        "--compression".to_owned(),
        if compression { "on" } else { "off" }.to_owned(),
    ];
    let mut network = stage.node("realnet.mjs");
    network.arg(stage.folder.path().join("servers")).arg(format!("http://{public}")).arg(story);
    let mut network = Talker::start("realnet.mjs", network);
    let ready = network.hear().await;
    let plc = ready["plc"].as_str().unwrap().to_owned();
    let hosts: Vec<HostName> = ready["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| HostName::parse(host.as_str().unwrap()).unwrap())
        .collect();

    // The relay knows no host; the PDSs ask to be crawled.
    let relay = Relay::start(form, public, admin, &stage.folder.path().join("relay"), &plc, args).await;
    network.go_on().await;
    network.hear().await;
    hosts_listed(&relay, &hosts).await;

    let own: Vec<Subscriber> = hosts.iter().map(|host| keep_frames(&format!("ws://{host}"))).collect();
    let through = keep_frames(&relay.stream_url());
    for subscriber in own.iter().chain([&through]) {
        assert!(wait_until(LONG, || subscriber.look(|reading| reading.connections) == 1).await);
    }
    let client = async |name, mut command: Command| {
        command.arg(relay.stream_url()).arg(&plc);
        Client::start(name, command).await
    };
    let sync = client("@atproto/sync", stage.node("read_sync.mjs")).await;
    let python = client("Python atproto", stage.python("read_python.py")).await;

    // Each step's events are through before the next, so that what each reader finds in the directory is what was in
    // force. Whoever writes meanwhile is not waited for.
    // Last among the hosts: the relay itself, which announces what its operator does.
    let itself = HostName::parse(&format!("localhost:{}", public.port())).unwrap();
    let mut truth = Truth::new(hosts.iter().cloned().chain([itself]).collect());
    let mut operated = Operated::default();
    let mut taken = vec![0; hosts.len()];
    let mut inactive: HashSet<(usize, Did)> = HashSet::new();
    let mut to_refuse: BTreeMap<String, u64> = BTreeMap::new();
    let accounts = loop {
        network.go_on().await;
        let said = network.hear().await;
        if let Some(accounts) = said.get("accounts") {
            break accounts.clone();
        }
        assert!(said.get("failed").is_none(), "step {}: {}", said["failed"], said["why"]);
        let step = said["step"].as_str().unwrap();
        for (host, subscriber) in own.iter().enumerate() {
            let seq = said["seqs"][host].as_u64().unwrap();
            let came = wait_until(LONG, || seq == 0 || subscriber.look(|reading| reading.last_seq >= Some(seq))).await;
            assert!(came, "step {step}: the PDS has not sent its event {seq}");
            subscriber.look(|reading| {
                for (frame, received) in reading.frames.iter().zip(&reading.received).skip(taken[host]) {
                    let did = Did::parse(&received.did).unwrap();
                    if let Ok(Event::Account(event)) = event::parse(frame) {
                        if event.active {
                            inactive.remove(&(host, did.clone()));
                        } else {
                            inactive.insert((host, did.clone()));
                        }
                    }
                    let reason = if host == 0 && said["refused"].as_str() == Some(did.as_str()) {
                        // The old host's word on an account that has moved away.
                        Some("wrong_host")
                    } else if received.kind == Kind::Commit && inactive.contains(&(host, did.clone())) {
                        // What was being written when the account was taken down is announced after that.
                        Some("account_inactive")
                    } else {
                        None
                    };
                    let expect = match reason {
                        Some(_) => Expect::Refuse,
                        // When the operator's word was there, is seen in what has passed.
                        None if operated.is(&received.did) => Expect::Either,
                        None => Expect::Pass,
                    };
                    if let Some(reason) = reason {
                        *to_refuse.entry(reason.to_owned()).or_default() += 1;
                    }
                    truth.sent(host, received.seq, &did, received.kind, frame, expect);
                    taken[host] += 1;
                }
            });
        }
        let expected: HashSet<Digest> =
            truth.events().iter().filter(|sent| sent.expect == Expect::Pass).map(|sent| sent.digest).collect();
        let passed = wait_until(Duration::from_secs(30), || {
            through.look(|reading| {
                let received: HashSet<Digest> = reading.received.iter().map(|received| received.digest).collect();
                expected.is_subset(&received)
            })
        });
        let passed = passed.await;
        println!("{step}: {} events", truth.events().len());
        assert!(
            passed,
            "step {step}: {} events came through of {}\n{}",
            through.events(),
            expected.len(),
            relay.log_tail(20)
        );
        let (with_content, all) =
            through.look(|reading| (seqs_with_content(reading, &operated), all_seqs(reading, &operated)));
        for (client, seqs) in [(&sync, with_content), (&python, all)] {
            assert!(
                client.wait_for(&seqs).await,
                "step {step}: {} has not seen all: {:?}",
                client.name,
                client.seen.borrow().errors
            );
        }
        if let Some(command) = said["operator"].as_str() {
            let did = Did::parse(said["did"].as_str().unwrap()).unwrap();
            if command == "restore" {
                only_the_takedown_is_served(&relay, &did, &through).await;
            }
            let (number, frame) = operated.act(&relay, &password, command, &did, &through).await;
            let host = hosts.len();
            truth.sent(host, number, &did, Kind::Account, &frame, Expect::Pass);
        }
    };
    println!("accounts: {accounts}");
    are_compressed(&relay, &password, compression).await;
    through.wait_for_quiet(Duration::from_millis(500), LONG).await;
    let all = through.events();
    let live = through.stop().await;
    let replayed = replay_from(&relay.other_stream_url(), all).await;

    let mut kinds = BTreeMap::new();
    for sent in truth.events() {
        *kinds.entry(sent.kind.as_str()).or_insert(0) += 1;
    }
    println!("sent: {kinds:?}");
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    let of_the_operated =
        truth.events().iter().filter(|sent| operated.is(sent.did.as_str()) && sent.host < hosts.len());
    let truth_of_it: Vec<Digest> = of_the_operated.map(|sent| sent.digest).collect();
    let mut judge = Judge::new(truth);
    for (name, reading) in [("live", &live), ("replay", &replayed)] {
        let report = judge.reading(&reading.received, Extent::Whole);
        println!("{name}: {report}");
        // Whoever was not yet there when an account was taken down misses what it had just written, and has a gap.
        let is_gap = |fault: &Fault| *fault == Fault::SeqGap && name == "live" && operated.did.is_some();
        assert!(report.faults.keys().all(is_gap), "{name}: {report}");
    }
    // Of the account that was taken down, one run of commits was refused; those before and after passed.
    if let Some(did) = &operated.did {
        let passed: HashSet<Digest> = replayed.received.iter().map(|received| received.digest).collect();
        let of_it = truth_of_it.iter().map(|digest| passed.contains(digest));
        let mut runs: Vec<(bool, u64)> = Vec::new();
        for passed in of_it {
            match runs.last_mut() {
                Some((last, count)) if *last == passed => *count += 1,
                Some(_) | None => runs.push((passed, 1)),
            }
        }
        println!("{did}: {runs:?}");
        let [(true, _), (false, refused), (true, _)] = runs[..] else { panic!("{did}: {runs:?}") };
        *to_refuse.entry("account_inactive".to_owned()).or_default() += refused;
    }

    let expected = [(&sync, seqs_with_content(&live, &operated)), (&python, all_seqs(&live, &operated))];
    for (client, expected) in expected {
        let seen = client.seen.borrow();
        println!("{}: {} events", client.name, seen.seqs.len());
        assert_eq!(seen.errors, Vec::<String>::new(), "{}", client.name);
        let of_the_operated = seqs_of(&replayed, &operated);
        let seqs: BTreeSet<u64> = seen.seqs.difference(&of_the_operated).copied().collect();
        assert_eq!(seqs, expected, "{} has seen other events", client.name);
    }

    // What was refused is what had to be, and nothing else.
    let refused = relay.refused(&hosts).await;
    println!("refused: {refused:?}");
    assert_eq!(refused, to_refuse);
    accounts
}

/// How the relay is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `mainstem run`.
    Process,
    /// Two processes of each role, on real servers.
    Cluster,
}

/// What is between the PDSs and their readers.
enum Relay {
    Process(Box<RelayProcess>),
    Cluster(Box<Cluster>),
}

impl Relay {
    /// It listens on `public`; of a cluster its first fan-out node does. `args` are those of whoever serves.
    async fn start(
        form: Form,
        public: SocketAddrV4,
        admin: SocketAddrV4,
        folder: &Path,
        plc_url: &str,
        args: Vec<String>,
    ) -> Relay {
        match form {
            Form::Process => {
                let config = relay_process::Config::new(mainstem(), folder, plc_url, &[]).unwrap();
                let ports = (public.port(), admin.port());
                Relay::Process(Box::new(
                    RelayProcess::start(relay_process::Config { args, ports, ..config }).await.unwrap(),
                ))
            }
            Form::Cluster => {
                let servers = Arc::new(Servers::start(1).await.unwrap());
                let config = cluster::Config {
                    program: mainstem().to_owned(),
                    name: "realnet".to_owned(),
                    folder: folder.to_owned(),
                    counts: Counts::TWO,
                    address: *public.ip(),
                    first_public: Some(public),
                    plc_url: Some(plc_url.to_owned()),
                    hosts: Vec::new(),
                    dev: true,
                    init_args: vec!["--lanes=8".to_owned(), "--host-partitions=8".to_owned()],
                    role_args: vec![(Role::Serve, args)],
                    sites: Vec::new(),
                };
                Relay::Cluster(Box::new(Cluster::start(config, servers).await.unwrap()))
            }
        }
    }

    fn stream_url(&self) -> String {
        match self {
            Relay::Process(relay) => relay.stream_url(),
            Relay::Cluster(cluster) => cluster.stream_urls().swap_remove(0),
        }
    }

    /// Where the same stream is served too, if anywhere.
    fn other_stream_url(&self) -> String {
        match self {
            Relay::Process(relay) => relay.stream_url(),
            Relay::Cluster(cluster) => cluster.stream_urls().swap_remove(1),
        }
    }

    fn public_url(&self) -> String {
        self.stream_url().replace("ws://", "http://")
    }

    fn admin_url(&self) -> String {
        match self {
            Relay::Process(relay) => relay.admin_url(),
            Relay::Cluster(cluster) => format!("http://{}", cluster.of(Role::Serve).next().unwrap().admin()),
        }
    }

    fn log_tail(&self, lines: usize) -> String {
        match self {
            Relay::Process(relay) => relay.config().log_tail(lines),
            Relay::Cluster(cluster) => {
                let tails = cluster.processes().iter();
                tails.map(|process| format!("--- {}\n{}\n", process.name(), process.log_tail(lines))).collect()
            }
        }
    }

    /// What was refused of these hosts, by reason. Of a cluster: of all hosts, as its validators count.
    async fn refused(&self, hosts: &[HostName]) -> BTreeMap<String, u64> {
        let mut refused = BTreeMap::new();
        match self {
            Relay::Process(relay) => {
                for host in hosts {
                    for (reason, count) in refused_of(relay, host).await {
                        *refused.entry(reason).or_insert(0) += count;
                    }
                }
            }
            Relay::Cluster(cluster) => {
                for process in cluster.of(Role::Validate) {
                    let (_, text) = get(&format!("http://{}/metrics", process.admin())).await.unwrap();
                    for line in String::from_utf8(text.to_vec()).unwrap().lines() {
                        let counter = line.strip_prefix("mainstem_events_refused_total{reason=\"");
                        if let Some((reason, count)) = counter.and_then(|counter| counter.split_once("\"} "))
                            && count != "0"
                        {
                            *refused.entry(reason.to_owned()).or_insert(0) += count.parse::<u64>().unwrap();
                        }
                    }
                }
            }
        }
        refused
    }
}

/// Waits until the relay lists the two clients, both compressed or neither, and ourselves, who ask for no compression.
async fn are_compressed(relay: &Relay, password: &Path, compression: bool) {
    let expected = if compression { [false, true, true] } else { [false; 3] };
    let started = Instant::now();
    loop {
        let said = admin(relay, password, &["subscribers", "list", "--json"]).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let subscribers = said["subscribers"].as_array().unwrap().iter();
        let mut compressed: Vec<bool> =
            subscribers.map(|subscriber| subscriber["compressed"].as_bool().unwrap()).collect();
        compressed.sort_unstable();
        if compressed == expected {
            return;
        }
        // Without events for some time, a client connects anew.
        assert!(started.elapsed() < LONG, "the relay lists {said:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Does something with `mainstem admin`. Gives what it says.
async fn admin(relay: &Relay, password: &Path, command: &[&str]) -> String {
    let mut admin = tokio::process::Command::new(mainstem());
    admin.arg("admin").args(command).args(["--url", &relay.admin_url(), "--password-file"]).arg(password);
    let output = admin.env_clear().output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn keep_frames(url: &str) -> Subscriber {
    Subscriber::start(subscriber::Config { url: url.to_owned(), cursor: Some(0), keep: Keep::Frames })
}

/// Waits until the relay lists the hosts.
async fn hosts_listed(relay: &Relay, hosts: &[HostName]) {
    let url = format!("{}/xrpc/com.atproto.sync.listHosts", relay.public_url());
    let started = Instant::now();
    loop {
        let (_, body) = get(&url).await.unwrap();
        let listed: Value = serde_json::from_slice(&body).unwrap();
        let names: Vec<&str> =
            listed["hosts"].as_array().unwrap().iter().filter_map(|host| host["hostname"].as_str()).collect();
        if hosts.iter().all(|host| names.contains(&host.as_str())) {
            return;
        }
        assert!(started.elapsed() < LONG, "the relay lists {names:?}\n{}", relay.log_tail(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The account that the relay's operator has taken down, and perhaps restored. Who saw what of it depends on how far
/// each had read.
#[derive(Default)]
struct Operated {
    did: Option<Did>,
}

impl Operated {
    fn is(&self, did: &str) -> bool {
        self.did.as_ref().is_some_and(|operated| operated.as_str() == did)
    }

    /// Does it with `mainstem admin`. Gives the relay's own event of it: its seq and its frame.
    async fn act(
        &mut self,
        relay: &Relay,
        password: &Path,
        command: &str,
        did: &Did,
        through: &Subscriber,
    ) -> (u64, Bytes) {
        self.did = Some(did.clone());
        let last = through.look(|reading| reading.last_seq).unwrap_or(0);
        let said = admin(relay, password, &["accounts", command, did.as_str()]).await;
        println!("{command}: {}", said.trim());
        let mut event = None;
        let came = wait_until(LONG, || {
            event = through.look(|reading| {
                let mut events = reading.received.iter().zip(&reading.frames).rev();
                let own = events.find(|(received, _)| received.kind == Kind::Account && self.is(&received.did));
                own.filter(|(received, _)| received.seq > last).map(|(received, frame)| (received.seq, frame.clone()))
            });
            event.is_some()
        });
        assert!(came.await, "nobody is told of {command}");
        event.unwrap()
    }
}

/// While an account is taken down, who reads all from the first event on finds nothing of it but that.
async fn only_the_takedown_is_served(relay: &Relay, did: &Did, through: &Subscriber) {
    let last = through.look(|reading| reading.last_seq);
    let reader = keep_frames(&relay.stream_url());
    assert!(wait_until(LONG, || reader.look(|reading| reading.last_seq) >= last).await);
    let reading = reader.stop().await;
    let of_it = reading.received.iter().filter(|received| *received.did == *did.as_str());
    assert_eq!(of_it.map(|received| received.kind).collect::<Vec<_>>(), [Kind::Account]);
}

fn seqs_of(reading: &Reading, operated: &Operated) -> BTreeSet<u64> {
    reading.received.iter().filter(|received| operated.is(&received.did)).map(|received| received.seq).collect()
}

fn all_seqs(reading: &Reading, operated: &Operated) -> BTreeSet<u64> {
    reading.received.iter().filter(|received| !operated.is(&received.did)).map(|received| received.seq).collect()
}

/// The events of which `@atproto/sync` tells: it says nothing of commits without ops.
fn seqs_with_content(reading: &Reading, operated: &Operated) -> BTreeSet<u64> {
    let empty = |frame: &[u8]| matches!(event::parse(frame), Ok(Event::Commit(commit)) if commit.ops.is_empty());
    let frames = reading.frames.iter().zip(&reading.received);
    frames
        .filter(|(frame, received)| received.kind != Kind::Commit || !empty(frame))
        .map(|(_, received)| received)
        .filter(|received| !operated.is(&received.did))
        .map(|received| received.seq)
        .collect()
}
