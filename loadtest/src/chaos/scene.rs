//! A cluster between a simulated network and its subscribers, and what they saw of it.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use atproto::{crypto::sha256, syntax::Did};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Error, Fault, Options,
    plan::Round,
    report::{End, Outcome, Standstill},
    standstill::{Delivery, Parts, longest},
    strike::{self, OwnParts},
};
use crate::{
    cluster::{Cluster, Config, Counts, Role, Servers},
    follower::{self, Manner, follow, ledger, ledger_path},
    judge::{Digest, Expect, Extent, Judge, Received},
    lan::Lan,
    network::{self, Mix, Network, Pace},
    relay_process::get,
    subscriber::{Keep, Nodes, Subscriber},
};

const HOSTS: usize = 6;
const ACCOUNTS: usize = 400;
/// A host keeps all that it may have to send again: some minutes at any rate that two cores take.
const WINDOW_BYTES: usize = 256 << 20;
/// The limit of `raw` where it is to be reached: half a minute's events.
const RAW_BYTES: &str = "64MiB";
/// Without a word for so long, a subscriber goes to the other node.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// All that was sent before a fault's end must have come by then.
const BACK_WITHIN: Duration = Duration::from_secs(180);
/// A supervisor starts nobody again faster.
const REVIVE_AFTER: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(300);
/// Each fault meets a stream that flows.
const EVENTS_BEFORE: u64 = 100;
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Replays at the end, of each node.
const REPLAYS: usize = 4;

/// All of it, running.
pub struct Scene {
    pub(super) cluster: Cluster,
    pub(super) network: Network,
    pub(super) kafka_gone: Duration,
    /// One begins at each node; where its node is gone, it goes to the next.
    subscribers: Vec<Subscriber>,
    /// One at each node, which it does not leave.
    followers: JoinSet<io::Result<()>>,
    lanes: Parts,
    hosts: Parts,
    judged: Judged,
    options: Options,
    // Dropped last: processes run in it.
    _lan: Option<Lan>,
}

/// How far all was judged.
#[derive(Clone, Debug, Default)]
struct Judged {
    /// Events that were sent.
    sent: usize,
    /// Those of them that must pass.
    to_pass: u64,
    /// Events that each subscriber had received.
    received: Vec<usize>,
}

impl Scene {
    /// Starts everything and waits until all hosts are read and events flow.
    pub(super) async fn open(options: &Options) -> Result<Scene, Error> {
        let is_cut = |role| options.faults.iter().any(|(fault, times)| *fault == Fault::Cut(role) && *times > 0);
        let cut = Role::ALL.into_iter().filter(|role| is_cut(*role));
        let cut: Vec<_> = cut.flat_map(|role| (1..=Counts::TWO.of(role)).map(move |number| (role, number))).collect();
        let lan = match cut.is_empty() {
            true => None,
            false => Some(Lan::make_with_side(cut.len())?),
        };
        let sites = lan.iter().flat_map(Lan::sites).cloned();
        let sites = cut.into_iter().zip(sites).map(|((role, number), site)| (role, number, site)).collect();
        let address = lan.as_ref().and_then(Lan::side_address).unwrap_or(Ipv4Addr::LOCALHOST);
        let kafka_address = lan.as_ref().map_or(Ipv4Addr::LOCALHOST, Lan::relay_address);
        let servers = Arc::new(Servers::start_on(kafka_address, address, options.brokers).await?);
        let config = network::Config {
            seed: options.seed,
            address,
            hosts: HOSTS,
            accounts: ACCOUNTS,
            pace: Pace::PerSecond(options.rate),
            // A busy account's tree would grow with the length of the run.
            records_per_repo_max: 200,
            mix: Mix::STRICT,
            // Every lane has as much to do as any other, so that one which stands still is seen.
            skew: 0.0,
            window_bytes: WINDOW_BYTES,
            remember: true,
            ..network::Config::default()
        };
        let network = Network::start_paused(config, Clock::system()).await?;
        let mut init_args = vec![format!("--lanes={}", options.lanes), "--host-partitions=16".to_owned()];
        if options.faults.iter().any(|(fault, times)| *fault == Fault::RawFull && *times > 0) {
            init_args.push(format!("--raw-bytes={RAW_BYTES}"));
        }
        let fast_directory = ["--plc-rate", "10000", "--plc-concurrency", "256"].map(str::to_owned).to_vec();
        let config = Config {
            program: options.program.clone(),
            name: "chaos".to_owned(),
            folder: options.folder.clone(),
            counts: Counts::TWO,
            address,
            first_public: None,
            plc_url: Some(network.plc_url().to_owned()),
            hosts: network.hosts().to_vec(),
            dev: true,
            init_args,
            role_args: vec![(Role::Validate, fast_directory)],
            sites,
        };
        let cluster = Cluster::start(config, servers).await?;
        let urls = cluster.stream_urls();
        let subscribers: Vec<_> = (0..urls.len())
            .map(|first| {
                let mut urls = urls.clone();
                urls.rotate_left(first);
                Subscriber::start_among(Nodes { urls, silence_max: SILENCE_MAX }, Some(0), Keep::Received)
            })
            .collect();
        let followers = cluster.of(Role::Serve).filter_map(|process| Some((process.name(), process.public()?)));
        let followers = followers.map(|(name, public)| {
            follow(follower::Config {
                relay: public.into(),
                dir: options.folder.clone(),
                name,
                manner: Manner::FromStart,
                shard: None,
                compressed: false,
                seed: options.seed,
            })
        });
        // None of them moves: a move's verdicts would depend on how far the relay is behind.
        let accounts = network.accounts();
        let scene = Scene {
            followers: followers.collect(),
            judged: Judged { received: vec![0; subscribers.len()], ..Judged::default() },
            lanes: Parts::lanes(options.lanes, accounts.iter().map(Did::as_str)),
            hosts: Parts::by((0..).zip(&accounts).map(|(account, did)| (did.as_str(), network.host_of(account)))),
            kafka_gone: options.kafka_gone,
            cluster,
            network,
            subscribers,
            options: options.clone(),
            _lan: lan,
        };
        scene.all_hosts_read().await?;
        // Everybody is known before anything is measured.
        scene.network.announce_all().await?;
        scene.wait_for(scene.network.stats().events, "the start").await?;
        scene.network.resume();
        Ok(scene)
    }

    /// Breaks something and waits until all is as before. Gives what was seen of it.
    pub(super) async fn round(&mut self, round: &Round) -> Result<Outcome, Error> {
        let before = self.came();
        self.wait_for(before + EVENTS_BEFORE, "the last fault").await?;
        let calm_from = Instant::now();
        tokio::time::sleep(round.after).await;
        let from = Instant::now();
        let calm = self.standstill(calm_from, from);
        let struck = strike::strike(self, round).await?;
        let ended = self.recover(&round.fault.to_string()).await?;
        let to = Instant::now();
        let standstill = self.standstill(from, to);
        let parts = struck.own_parts.map(|own| match own {
            OwnParts::Lanes(held) => (held, self.parts_standstill(&self.lanes, from)),
            OwnParts::Hosts(held) => (held, self.parts_standstill(&self.hosts, from)),
        });
        let mut problems = struck.problems;
        problems.extend(self.judge().await?);
        self.network.resume();
        let may_end = |name: &String| round.fault.may_end_by_itself() && struck.victims.contains(name);
        let mut evidence = struck.evidence;
        for (name, how) in ended {
            match may_end(&name) {
                true => evidence.push(format!("{name} {how} by itself and was started again")),
                false => problems.push(format!("{name} {how}, though nobody had done anything to it")),
            }
        }
        // Those that stood still longest, as many as the victim had, are taken for its own.
        let own = parts.as_ref().and_then(|(held, longest)| (*held > 0).then(|| longest.first().copied())?);
        let others = parts.as_ref().and_then(|(held, longest)| longest.get(*held).copied());
        Ok(Outcome {
            fault: round.fault,
            evidence,
            standstill: Standstill { stream: standstill, calm, own, others },
            back_after: to - from,
            problems,
        })
    }

    /// Lets all come to the end, and compares everything with everything.
    pub(super) async fn end(mut self) -> Result<End, Error> {
        let mut problems = Vec::new();
        // Where a round came to no end, somebody may not run; all are needed now.
        let idle: Vec<_> = self.cluster.processes().iter().filter(|process| !process.is_running()).collect();
        for (role, number) in idle.into_iter().map(|process| (process.role(), process.number())).collect::<Vec<_>>() {
            problems.extend(self.cluster.process(role, number).start_supervised().await?);
        }
        problems.extend(self.judge().await?);
        let truth = self.network.truth();
        let mut judge = Judge::new(truth);
        let mut readings = Vec::new();
        for subscriber in std::mem::take(&mut self.subscribers) {
            readings.push(subscriber.stop().await);
        }
        for (number, reading) in readings.iter().enumerate() {
            let report = judge.reading(&reading.received, Extent::Whole);
            if !report.is_clean() {
                problems.push(format!("subscriber {number}, all of it: {report}"));
            }
            problems.extend(reading.notices.iter().map(|notice| format!("subscriber {number} was told: {notice}")));
        }
        let whole = readings.into_iter().next().map(|reading| reading.received).unwrap_or_default();
        problems.extend(self.replay(&whole).await);
        let (chains, of_ledgers) = self.compare_ledgers(&whole).await?;
        problems.extend(of_ledgers);
        self.followers.shutdown().await;
        let events = whole.len() as u64;
        self.network.stop().await;
        self.cluster.stop().await?;
        Ok(End { events, chains, problems })
    }

    /// The ends of all processes' logs.
    pub(super) fn logs(&self) -> String {
        let tails =
            self.cluster.processes().iter().map(|process| format!("--- {}\n{}", process.name(), process.log_tail(15)));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Digests of all that a subscriber has received.
    pub(super) fn received(&self) -> HashSet<Digest> {
        self.subscribers[0].look(|reading| reading.received.iter().map(|received| received.digest).collect())
    }

    /// Waits until nothing comes any more.
    pub(super) async fn quiet(&self) {
        for subscriber in &self.subscribers {
            subscriber.wait_for_quiet(Duration::from_secs(2), BACK_WITHIN).await;
        }
    }

    /// Each host's saved cursor, as a fan-out node tells it, and whether it reads that host now.
    pub(super) async fn cursors(&self) -> Result<HashMap<String, u64>, String> {
        let node = self.cluster.of(Role::Serve).next().and_then(|process| process.public()).ok_or("no fan-out node")?;
        let (status, body) = get(&format!("http://{node}/xrpc/com.atproto.sync.listHosts?limit=1000"))
            .await
            .map_err(|error| error.to_string())?;
        let listed: Value = serde_json::from_slice(&body).map_err(|error| format!("{status}: {error}"))?;
        let hosts = listed["hosts"].as_array().ok_or_else(|| format!("{status}: {listed}"))?;
        let cursor = |host: &Value| Some((host["hostname"].as_str()?.to_owned(), host["seq"].as_u64()?));
        Ok(hosts.iter().filter_map(cursor).collect())
    }

    /// What of a host's events up to a seq must have passed and is not in `received`.
    pub(super) fn missing(&self, cursors: &HashMap<String, u64>, received: &HashSet<Digest>) -> Vec<String> {
        let truth = self.network.truth();
        let promised = truth.events().iter().filter(|sent| {
            let cursor = cursors.get(truth.hosts()[sent.host].as_str());
            sent.expect == Expect::Pass && cursor.is_some_and(|cursor| sent.seq <= *cursor)
        });
        let missing = promised.filter(|sent| !received.contains(&sent.digest));
        missing.map(|sent| format!("seq {} of {}", sent.seq, truth.hosts()[sent.host])).collect()
    }

    fn came(&self) -> u64 {
        self.subscribers.iter().map(Subscriber::events).min().unwrap_or(0)
    }

    /// Waits until each subscriber has so many events.
    async fn wait_for(&self, events: u64, what: &str) -> Result<(), Error> {
        for subscriber in &self.subscribers {
            if !subscriber.wait_for(events, BACK_WITHIN).await {
                let missing = events.saturating_sub(subscriber.events());
                return Err(Error::Stuck { missing, limit: BACK_WITHIN, what: what.to_owned() });
            }
        }
        Ok(())
    }

    async fn all_hosts_read(&self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            let unread = (0..HOSTS).filter(|host| self.network.subscribers(*host) == 0).count() as u64;
            if unread == 0 {
                return Ok(());
            }
            if started.elapsed() > READY_WITHIN {
                let what = "the start: there are hosts that nobody reads".to_owned();
                return Err(Error::Stuck { missing: unread, limit: READY_WITHIN, what });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all has come that is sent by now, and starts again whoever ends by itself meanwhile. Gives who that was,
    /// and how it ended.
    async fn recover(&mut self, what: &str) -> Result<Vec<(String, String)>, Error> {
        let (started, sent) = (Instant::now(), self.network.stats().events);
        let mut ended = Vec::new();
        loop {
            for (role, number, how) in self.cluster.ended()? {
                let process = self.cluster.process(role, number);
                ended.push((process.name(), how));
                tokio::time::sleep(REVIVE_AFTER).await;
                process.spawn()?;
            }
            let missing = sent.saturating_sub(self.came());
            if missing == 0 {
                return Ok(ended);
            }
            if started.elapsed() > BACK_WITHIN {
                return Err(Error::Stuck { missing, limit: BACK_WITHIN, what: what.to_owned() });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The longest stretch in which a subscriber got nothing.
    fn standstill(&self, from: Instant, to: Instant) -> Duration {
        let of = |subscriber: &Subscriber| {
            subscriber.look(|reading| longest(since(&reading.times, from).iter().copied(), from, to))
        };
        self.subscribers.iter().map(of).max().unwrap_or_default()
    }

    /// How long each part stood still since `from`, longest first, at the subscriber where that was least: whose node was
    /// not in the way.
    fn parts_standstill(&self, parts: &Parts, from: Instant) -> Vec<Duration> {
        let truth = self.network.truth_after(self.judged.sent);
        let sent: HashMap<Digest, Instant> = truth.events().iter().map(|event| (event.digest, event.at)).collect();
        let of = |subscriber: &Subscriber| {
            subscriber.look(|reading| {
                let times = since(&reading.times, from);
                let received = &reading.received[reading.received.len() - times.len()..];
                let deliveries = times.iter().zip(received).filter_map(|(came, received)| {
                    let sent = *sent.get(&received.digest)?;
                    Some(Delivery { did: &received.did, sent, came: *came })
                });
                parts.longest(deliveries, from)
            })
        };
        self.subscribers.iter().map(of).min().unwrap_or_default()
    }

    /// Lets hosts pause and all that they sent arrive, and judges what has come since the last time.
    async fn judge(&mut self) -> Result<Vec<String>, Error> {
        self.network.pause();
        let truth = self.network.truth_after(self.judged.sent);
        let to_pass = self.judged.to_pass + truth.to_pass() as u64;
        let sent = self.judged.sent + truth.events().len();
        // Where something is lost, the judge says what.
        let arrived = self.wait_for(to_pass, "the hosts' pause").await;
        for subscriber in &self.subscribers {
            subscriber.wait_for_quiet(QUIET, BACK_WITHIN).await;
        }
        let mut judge = Judge::new(truth);
        let mut problems: Vec<String> = arrived.err().map(|error| error.to_string()).into_iter().collect();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let from = self.judged.received[number];
            let (received, last) = subscriber.look(|reading| {
                let last = from.checked_sub(1).map(|last| reading.received[last].seq);
                (reading.received[from..].to_vec(), last)
            });
            if let (Some(last), Some(first)) = (last, received.first())
                && first.seq != last + 1
            {
                problems.push(format!("subscriber {number} got seq {} after {last}", first.seq));
            }
            self.judged.received[number] += received.len();
            let report = judge.reading(&received, Extent::Whole);
            if !report.is_clean() {
                problems.push(format!("subscriber {number}: {report}"));
            }
        }
        (self.judged.sent, self.judged.to_pass) = (sent, to_pass);
        Ok(problems)
    }

    /// Reads from random cursors on, of each node, and compares with what came live.
    async fn replay(&self, whole: &[Received]) -> Vec<String> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.options.seed);
        let mut problems = Vec::new();
        for url in self.cluster.stream_urls() {
            for _ in 0..REPLAYS {
                let Some(last) = whole.len().checked_sub(1) else { continue };
                let at = rng.random_range(0..=last);
                let expected = &whole[at + 1..];
                let nodes = Nodes { urls: vec![url.clone()], silence_max: Duration::from_secs(30) };
                let subscriber = Subscriber::start_among(nodes, Some(whole[at].seq), Keep::Received);
                subscriber.wait_for(expected.len() as u64, BACK_WITHIN).await;
                subscriber.wait_for_quiet(QUIET, BACK_WITHIN).await;
                let reading = subscriber.stop().await;
                if reading.received != expected {
                    let same = reading.received.iter().zip(expected).take_while(|(a, b)| a == b).count();
                    problems.push(format!(
                        "{url} from cursor {}: {} events instead of {}; the first {same} are the same; told: {:?}",
                        whole[at].seq,
                        reading.received.len(),
                        expected.len(),
                        reading.notices,
                    ));
                }
            }
        }
        problems
    }

    /// Each node's SHA-256 over all seqs and their frames' SHA-256, which must be the same.
    async fn compare_ledgers(&self, whole: &[Received]) -> Result<(Vec<(String, String)>, Vec<String>), Error> {
        let last = whole.last().map(|received| received.seq);
        let (mut chains, mut problems) = (Vec::new(), Vec::new());
        let io = |source| Error::Io { what: "read a ledger", source };
        for process in self.cluster.of(Role::Serve) {
            let path = ledger_path(&self.options.folder, &process.name());
            let started = Instant::now();
            while ledger::end(&path).map_err(io)?.1 < last && started.elapsed() < BACK_WITHIN {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let entries = ledger::read(&path).map_err(io)?;
            let seqs = entries.iter().map(|entry| entry.seq);
            if !seqs.eq(whole.iter().map(|received| received.seq)) {
                problems.push(format!("{}: {} events, not those of its subscribers", process.name(), entries.len()));
            }
            let chain = entries
                .iter()
                .fold([0; 32], |chain, entry| sha256(&[&chain[..], &entry.seq.to_be_bytes(), &entry.sha256].concat()));
            chains.push((process.name(), chain.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        if chains.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            problems.push(format!("not the same bytes for the same seqs: {chains:?}"));
        }
        Ok((chains, problems))
    }
}

/// Of moments in order, those after one of them.
fn since(times: &[Instant], from: Instant) -> &[Instant] {
    &times[times.partition_point(|time| *time <= from)..]
}
