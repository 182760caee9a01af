//! Dozens of subscribers in several network namespaces, whose links are cut, whose connections are reset and whose
//! processes are killed, as is the relay, while events flow: each ends with the log's own bytes, every event once.
//!
//! What it shows is in three parts: the log is what the hosts sent (the judge), every ledger is what the log holds (by
//! SHA-256 of each frame, against the segment files), and every fault was there (counted by the kernel or by those who
//! met it). Half of the subscribers take messages compressed: what they inflate is held against the same log.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use loadtest::{
    follower::{
        Manner, SILENCE_MAX, Shard,
        journal::{self, Ending, Note},
        journal_path, ledger, ledger_path,
    },
    judge::{Extent, Judge},
    lan::{Cut, Lan, Site},
    network::{Config, Mix, Network, Pace},
    relay_process::{self, RelayProcess},
    subscriber::Subscriber,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use runtime::clock::Clock;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use crate::{
    harness::{LONG, all_connected, alone, environment, relay_of, seed, subscriber_of, wait_until},
    log::{Log, difference},
};

const SITES: usize = 6;
/// At each site, from the beginning.
const FOLLOWERS: [(Manner, u64); 5] =
    [(Manner::Live, 3), (Manner::FromStart, 2), (Manner::Sipping, 1), (Manner::Restless, 1), (Manner::Sharded, 3)];
/// Come right before each round, so that it meets readers that are far behind.
const LATECOMERS: [(Manner, u64); 1] = [(Manner::FromStart, 2)];
const EVENTS_PER_SECOND: f64 = 500.0;
/// What there is before the first follower comes.
const EVENTS_BEFORE: u64 = 10_000;
/// A cut that connections outlive: nobody gives up so soon.
const BRIEF: Duration = Duration::from_millis(700);
/// A cut that they do not outlive.
const LASTING: Duration = SILENCE_MAX.saturating_add(Duration::from_millis(1_500));

const DEFLATE_READ: &str = "mainstem_fanout_deflate_read_bytes_total";
const DEFLATE_MADE: &str = "mainstem_fanout_deflate_made_bytes_total";

/// What happens while a site is cut off, or while none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// Nothing else.
    None,
    /// SIGKILL for the relay, which starts again at once.
    Kill,
    /// SIGTERM for the relay, which starts again at once.
    Terminate,
    /// All connections of another site are reset.
    Reset,
    /// SIGKILL for the subscribers of another site, which start again at once.
    KillFollowers,
}

/// A stretch of the run.
type Round = (Option<(Cut, Duration)>, Blow);

/// What every run meets, in an order that follows from the seed.
const ROUNDS: [Round; 12] = [
    (None, Blow::Kill),
    (None, Blow::Terminate),
    (None, Blow::Kill),
    (Some((Cut::LinkDown, LASTING)), Blow::Kill),
    (Some((Cut::LinkDown, LASTING)), Blow::Reset),
    (Some((Cut::Unplugged, LASTING)), Blow::KillFollowers),
    (Some((Cut::Unplugged, LASTING)), Blow::Terminate),
    (Some((Cut::LinkDown, BRIEF)), Blow::None),
    (Some((Cut::Unplugged, BRIEF)), Blow::None),
    (Some((Cut::Unplugged, BRIEF)), Blow::Reset),
    (Some((Cut::Unplugged, LASTING)), Blow::Kill),
    (None, Blow::KillFollowers),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_or_killed_every_subscriber_ends_with_the_bytes_of_the_log() {
    let _alone = alone().await;
    let lan = match Lan::make(SITES) {
        Ok(lan) => lan,
        Err(why) if environment("CI").is_none() => {
            eprintln!("\n*** NOT TESTED: cuts of the network. There are no network namespaces here: {why} ***\n");
            return;
        }
        Err(why) => panic!("no network namespaces here: {why}"),
    };
    let seed = seed();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut scene = Scene::open(lan, seed).await;
    let longer = environment("LOADTEST_CUTS_SECONDS").and_then(|seconds| seconds.parse().ok());
    let until = Instant::now() + Duration::from_secs(longer.unwrap_or(0));
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < until {
        let mut order = ROUNDS;
        order.shuffle(&mut rng);
        for round in order {
            rounds += 1;
            scene.round(rounds, round, &mut rng).await;
        }
    }
    scene.end().await;
}

/// The network, the relay, the sites with their followers, and what was done to them.
struct Scene {
    // Before the namespaces, which go last.
    /// One at each site.
    parties: Vec<Party>,
    latecomers: Vec<Party>,
    network: Network,
    relay: Option<RelayProcess>,
    /// Reads along on this side of all cuts, to tell how far the relay is.
    subscriber: Subscriber,
    address: SocketAddrV4,
    fired: Fired,
    /// Of the relay's data and all ledgers.
    folder: tempfile::TempDir,
    lan: Lan,
}

/// How often each fault was met.
#[derive(Clone, Debug, Default)]
struct Fired {
    kills: u64,
    /// Events that hosts had sent and no subscriber had when the relay was killed.
    events_on_their_way: u64,
    terminations: u64,
    cuts: BTreeMap<&'static str, u64>,
    /// Bytes given to the kernel and not acknowledged when a site was cut off.
    bytes_in_flight: u64,
    /// Connections that outlived a brief cut.
    outlived: u64,
    resets: u64,
    parties_killed: u64,
}

impl Scene {
    async fn open(lan: Lan, seed: u64) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            seed,
            hosts: 4,
            accounts: 150,
            pace: Pace::PerSecond(EVENTS_PER_SECOND),
            mix: Mix::STRICT,
            window_bytes: 256 << 20,
            remember: true,
            ..Config::default()
        };
        let network = Network::start_paused(config, Clock::system()).await.unwrap();
        let args = ["--compression", "on"].map(str::to_owned).into();
        let config = relay_process::Config { address: lan.relay_address(), args, ..relay_of(&network, folder.path()) };
        let relay = RelayProcess::start(config).await.unwrap();
        all_connected(&network).await;
        let subscriber = subscriber_of(&relay);
        network.generate(EVENTS_BEFORE).await.unwrap();
        assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);
        let address = relay.public_address();
        let parties = lan.sites().iter().enumerate().map(|(number, site)| {
            let dir = folder.path().join(site.address.to_string());
            let seed = seed.wrapping_add(number as u64);
            Party::start(site, dir, address, Crew { manners: &FOLLOWERS, compressed: number % 2 == 0, seed })
        });
        let parties = parties.collect();
        let fired = Fired::default();
        let (latecomers, relay) = (Vec::new(), Some(relay));
        let scene = Scene { parties, latecomers, network, relay, subscriber, address, fired, folder, lan };
        scene.wait_until_back(&vec![Tally::default(); SITES], 0..SITES).await;
        scene.network.resume();
        scene
    }

    /// Cuts a site off, strikes meanwhile, mends it, and waits until all are back.
    async fn round(&mut self, number: usize, (cut, blow): Round, rng: &mut Xoshiro256PlusPlus) {
        // So that each round meets events on their way.
        let before = self.subscriber.events();
        assert!(self.subscriber.wait_for(before + 100, LONG).await, "nothing comes before round {number}");
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..500_000))).await;
        let (victim, other) = (rng.random_range(0..SITES), rng.random_range(1..SITES));
        let other = (victim + other) % SITES;
        println!("round {number:2}: site {victim} {cut:?}, {blow:?}");
        let tallies = self.tallies();
        let site = self.lan.sites()[victim].clone();
        let latecomer = self.latecomer(&site, number).await;
        self.latecomers.push(latecomer);
        let through = cut.map(|(cut, _)| {
            self.fired.bytes_in_flight += site.bytes_in_flight(self.address).unwrap();
            site.cut(cut).unwrap();
            (site.bytes_towards(), Instant::now())
        });
        self.strike(blow, other).await;
        let mut gave_up = Vec::new();
        if let Some((cut, lasts)) = cut
            && let Some((through, since)) = through
        {
            tokio::time::sleep_until(since + lasts).await;
            if lasts == LASTING {
                // Nobody can tell what a busy machine has kept from running meanwhile.
                let all = wait_until(LONG, || self.parties[victim].tally().all_failed_since(&tallies[victim])).await;
                assert!(all, "site {victim} believes in its connections: {:?}", self.parties[victim].tally());
                gave_up.push(victim);
            }
            assert_eq!(site.bytes_towards(), through, "bytes went through a cable that was cut");
            *self.fired.cuts.entry(if lasts == LASTING { "lasting" } else { "brief" }).or_default() += 1;
            site.mend(cut).unwrap();
            let mended = wait_until(LONG, || site.bytes_towards() > through).await;
            assert!(mended, "nothing goes through the mended cable of site {victim}");
            if blow == Blow::None {
                let events = self.subscriber.events();
                assert!(self.subscriber.wait_for(events + 100, LONG).await, "nothing comes after round {number}");
                self.fired.outlived += self.parties[victim].tally().undisturbed_since(&tallies[victim]);
            }
        }
        let met_by: Vec<usize> = match blow {
            Blow::None => gave_up,
            Blow::Kill | Blow::Terminate => (0..SITES).collect(),
            Blow::Reset | Blow::KillFollowers => gave_up.into_iter().chain([other]).collect(),
        };
        self.wait_until_back(&tallies, met_by).await;
    }

    /// Somebody who begins at the oldest event, and has begun.
    async fn latecomer(&self, site: &Site, round: usize) -> Party {
        let dir = self.folder.path().join(format!("late-{round}"));
        let crew = Crew { manners: &LATECOMERS, compressed: round.is_multiple_of(2), seed: round as u64 };
        let party = Party::start(site, dir, self.address, crew);
        let reads = wait_until(LONG, || party.ends().all(|(_, end)| end.is_some())).await;
        assert!(reads, "a latecomer gets nothing: {:?}\n{}", party.tally(), log_tail(&self.relay));
        party
    }

    async fn strike(&mut self, blow: Blow, other: usize) {
        match blow {
            Blow::None => {}
            Blow::Kill => {
                let relay = self.relay.take().expect("it runs between rounds");
                let pid = relay.pid();
                let config = relay.kill().await.unwrap();
                let (sent, received) = (self.network.stats().events, self.subscriber.events());
                assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
                self.fired.kills += 1;
                self.fired.events_on_their_way += sent.saturating_sub(received);
                self.relay = Some(RelayProcess::start(config).await.unwrap());
            }
            Blow::Terminate => {
                let relay = self.relay.take().expect("it runs between rounds");
                let config = relay.config().clone();
                let (status, took) = relay.terminate(Duration::from_secs(30)).await.unwrap();
                assert!(status.success(), "{status} after {took:?}: {}", config.log_tail(20));
                self.fired.terminations += 1;
                self.relay = Some(RelayProcess::start(config).await.unwrap());
            }
            Blow::Reset => {
                let reset = self.lan.sites()[other].reset_connections(self.address).unwrap();
                assert!(reset > 0, "site {other} had no connection to reset");
                self.fired.resets += reset as u64;
            }
            Blow::KillFollowers => {
                self.parties[other].kill().await;
                self.fired.parties_killed += 1;
                self.parties[other].run();
            }
        }
    }

    fn tallies(&self) -> Vec<Tally> {
        self.parties.iter().map(Party::tally).collect()
    }

    /// Waits until every follower of `sites` has a connection that it had not before.
    async fn wait_until_back(&self, before: &[Tally], sites: impl IntoIterator<Item = usize>) {
        for site in sites {
            let party = &self.parties[site];
            let back = wait_until(LONG, || party.tally().all_opened_since(&before[site])).await;
            assert!(back, "site {site} does not come back: {:?}\n{}", party.tally(), log_tail(&self.relay));
        }
    }

    /// Lets all come to the end, and compares.
    async fn end(mut self) {
        self.network.pause();
        let truth = self.network.truth();
        assert!(self.subscriber.wait_for(truth.to_pass() as u64, LONG).await, "{}", log_tail(&self.relay));
        self.subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
        let received = self.subscriber.look(|reading| reading.received.clone());
        let last_of = |shard: Option<Shard>| {
            let mut newest = received.iter().rev();
            newest.find(|event| shard.is_none_or(|shard| shard.holds(&event.did))).map(|event| event.seq)
        };
        let lasts: BTreeMap<_, _> =
            self.parties[0].followers().map(|(_, name, shard)| (name, last_of(shard))).collect();
        for party in self.parties.iter().chain(&self.latecomers) {
            let arrived = wait_until(LONG, || party.ends().all(|(name, end)| end >= lasts[&name])).await;
            let ends: Vec<_> = party.ends().collect();
            assert!(arrived, "not all came to {lasts:?}: {ends:?}\n{}", log_tail(&self.relay));
        }
        let relay = self.relay.take().unwrap();
        let (read, made) = (relay.metric(DEFLATE_READ).await.unwrap(), relay.metric(DEFLATE_MADE).await.unwrap());
        println!("the last relay compressed {read} bytes to {made}");
        assert!(read > 0.0 && made < read, "{read} bytes were compressed to {made}");
        let data_dir = relay.config().data_dir.clone();
        let (status, _) = relay.terminate(Duration::from_secs(30)).await.unwrap();
        assert!(status.success(), "{status}");
        for party in self.parties.iter_mut().chain(&mut self.latecomers) {
            party.kill().await;
        }
        let log = Log::read(&data_dir).await;
        let report = Judge::new(truth).reading(&log.received(), Extent::Whole);
        println!("the log: {report}");
        assert!(report.is_clean(), "the log: {report}");
        let tally = self.compare(&log);
        self.show_that_all_fired(&tally);
        self.network.stop().await;
    }

    /// Compares every ledger with the log. Gives what happened to all of them together.
    fn compare(&self, log: &Log) -> Tally {
        let first = log.events.first().map(|event| event.entry.seq).unwrap();
        let (mut wrong, mut total) = (Vec::new(), Tally::default());
        let (mut followers, mut compressed) = (0, 0);
        for party in self.parties.iter().chain(&self.latecomers) {
            let tally = party.tally();
            for (manner, name, shard) in party.followers() {
                followers += 1;
                let who = format!("{name} of {}", party.site.address);
                let (opened, agreed) = (count(&tally.opened, &name), count(&tally.agreed, &name));
                if party.crew.compressed {
                    compressed += 1;
                    assert_eq!(agreed, opened, "{who} was refused compression");
                    assert!(count(&tally.inflated, &name) > 0, "{who} got nothing compressed");
                } else {
                    assert_eq!(agreed, 0, "{who} did not offer compression");
                }
                let entries = ledger::read(&ledger_path(&party.dir, &name)).unwrap();
                let mut begins = entries.first().map_or(0, |entry| entry.seq);
                match manner {
                    Manner::Live => assert!(begins > first, "{who} began with {begins}, so it was not live"),
                    Manner::FromStart | Manner::Sipping | Manner::Restless => {
                        assert_eq!(begins, first, "{who} began elsewhere");
                    }
                    // Its first event may be any; that it is the shard's first, the comparison shows.
                    Manner::Sharded => begins = first,
                }
                let difference = difference(&entries, log.from(begins, shard));
                wrong.extend(difference.map(|difference| format!("{who}: {difference}")));
            }
            total.add(tally);
        }
        println!("{followers} followers, {compressed} of them compressed, {} events: {total:#?}", log.events.len());
        assert!(compressed * 3 >= followers, "only {compressed} of {followers} were compressed");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(total.said.is_empty(), "the relay had something to say: {:?}", total.said);
        total
    }

    /// A fault that nobody met shows nothing.
    fn show_that_all_fired(&self, tally: &Tally) {
        let fired = &self.fired;
        println!("{fired:#?}");
        assert!(fired.kills >= 4 && fired.terminations >= 2 && fired.parties_killed >= 2, "{fired:?}");
        assert!(fired.cuts.values().all(|cuts| *cuts >= 3) && fired.cuts.len() == 2, "{fired:?}");
        assert!(fired.events_on_their_way > 0, "no kill of the relay met an event on its way");
        assert!(fired.bytes_in_flight > 0, "no cut met a byte on its way");
        assert!(fired.outlived > 0, "no connection outlived a brief cut");
        assert!(fired.resets > 0, "no connection was reset");
        for how in ["closed 1001", "broken", "silence", "left"] {
            assert!(tally.endings.get(how).is_some_and(|count| *count > 0), "no connection ended so: {how}");
        }
        assert!(!tally.endings.contains_key("protocol"), "the relay broke the protocol");
        assert!(tally.torn_by_others > 0, "no connection was cut within a frame but by its own follower");
    }
}

fn log_tail(relay: &Option<RelayProcess>) -> String {
    relay.as_ref().map_or_else(String::new, |relay| relay.config().log_tail(20))
}

/// The followers of one site, a process.
struct Party {
    site: Site,
    dir: PathBuf,
    relay: SocketAddrV4,
    crew: Crew,
    /// Killed with its value.
    process: Option<Child>,
}

/// Who the followers of a site are.
#[derive(Clone, Copy, Debug)]
struct Crew {
    manners: &'static [(Manner, u64)],
    /// All of them offer compression.
    compressed: bool,
    seed: u64,
}

/// What has happened to followers, by their journals.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Of whom this is.
    names: Vec<String>,
    /// Connections that came about, by follower.
    opened: BTreeMap<String, u64>,
    /// Those of them on which the relay agreed to compress messages, and those on which a compressed one came.
    agreed: BTreeMap<String, u64>,
    inflated: BTreeMap<String, u64>,
    /// Connections that ended and attempts that failed, by follower.
    failed: BTreeMap<String, u64>,
    /// Connections that ended, as far as their followers lived to tell.
    ended: u64,
    endings: BTreeMap<String, u64>,
    /// Connections that ended within a frame, though their followers would have read on.
    torn_by_others: u64,
    /// What the relay said beside events.
    said: Vec<String>,
}

impl Party {
    fn start(site: &Site, dir: PathBuf, relay: SocketAddrV4, crew: Crew) -> Party {
        let mut party = Party { site: site.clone(), dir, relay, crew, process: None };
        party.run();
        party
    }

    /// Every follower of it.
    fn followers(&self) -> impl Iterator<Item = (Manner, String, Option<Shard>)> {
        self.crew.manners.iter().flat_map(|(manner, count)| {
            let shard = |number| (*manner == Manner::Sharded).then_some(Shard { index: number, count: *count });
            (0..*count).map(move |number| (*manner, format!("{}-{number}", manner.as_str()), shard(number)))
        })
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.followers().map(|(_, name, _)| name)
    }

    fn run(&mut self) {
        let mut command = self.site.command(Path::new(env!("CARGO_BIN_EXE_loadtest")));
        command.arg("follow").arg(self.relay.to_string()).arg("--into").arg(&self.dir);
        command.args(["--until-eof", "--seed", &self.crew.seed.to_string()]);
        command.args(self.crew.compressed.then_some("--compressed"));
        for (manner, count) in self.crew.manners {
            command.arg(format!("--{}", manner.as_str())).arg(count.to_string());
        }
        // Never written to: it ends when this process does.
        command.stdin(Stdio::piped());
        self.process = Some(Command::from(command).kill_on_drop(true).spawn().unwrap());
    }

    /// SIGKILL, and waits until it is gone.
    async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        assert!(process.try_wait().unwrap().is_none(), "the followers of {} ended by themselves", self.site.address);
        process.kill().await.unwrap();
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for name in self.names() {
            tally.names.push(name.clone());
            for note in journal::read(&journal_path(&self.dir, &name)).unwrap() {
                tally.take(&name, note);
            }
        }
        tally
    }

    /// Each follower's last seq.
    fn ends(&self) -> impl Iterator<Item = (String, Option<u64>)> {
        self.names().map(|name| {
            let end = ledger::end(&ledger_path(&self.dir, &name)).unwrap().1;
            (name, end)
        })
    }
}

impl Tally {
    fn take(&mut self, name: &str, note: Note) {
        match note {
            Note::Refused { .. } => *self.failed.entry(name.to_owned()).or_default() += 1,
            Note::Opened { compressed, .. } => {
                *self.opened.entry(name.to_owned()).or_default() += 1;
                *self.agreed.entry(name.to_owned()).or_default() += u64::from(compressed);
            }
            Note::Inflated => *self.inflated.entry(name.to_owned()).or_default() += 1,
            Note::Said { what } => self.said.push(what),
            Note::Ended { ending, torn_bytes, .. } => {
                *self.failed.entry(name.to_owned()).or_default() += 1;
                self.ended += 1;
                self.torn_by_others += u64::from(torn_bytes > 0 && ending != Ending::Left);
                let how = match ending {
                    Ending::Closed { code } => format!("closed {}", code.unwrap_or(1005)),
                    Ending::Eof => "eof".to_owned(),
                    Ending::Broken { .. } => "broken".to_owned(),
                    Ending::Silence => "silence".to_owned(),
                    Ending::Left => "left".to_owned(),
                    Ending::Protocol { .. } => "protocol".to_owned(),
                };
                *self.endings.entry(how).or_default() += 1;
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.ended += other.ended;
        self.torn_by_others += other.torn_by_others;
        self.said.extend(other.said);
        for (mine, others) in [
            (&mut self.endings, other.endings),
            (&mut self.opened, other.opened),
            (&mut self.agreed, other.agreed),
            (&mut self.inflated, other.inflated),
            (&mut self.failed, other.failed),
        ] {
            others.into_iter().for_each(|(name, count)| *mine.entry(name).or_default() += count);
        }
    }

    /// Whether every follower has had a new connection since.
    fn all_opened_since(&self, before: &Tally) -> bool {
        self.names.iter().all(|name| count(&self.opened, name) > count(&before.opened, name))
    }

    /// Whether every follower has lost a connection since, or failed to get one.
    fn all_failed_since(&self, before: &Tally) -> bool {
        self.names.iter().all(|name| count(&self.failed, name) > count(&before.failed, name))
    }

    /// How many followers have still the connection that they had.
    fn undisturbed_since(&self, before: &Tally) -> u64 {
        let same = |name: &str| count(&self.failed, name) == count(&before.failed, name);
        self.names.iter().filter(|name| same(name)).count() as u64
    }
}

fn count(counts: &BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}
