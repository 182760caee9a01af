//! A validator with everything it needs, and what a test feeds it and asks of it.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use atproto::{
    cid::Cid,
    event::{self, CommitEvent, Event, Kind, Routed, route},
    syntax::{Did, HostName, Tid},
};
use bytes::Bytes;
use loadtest::{
    judge::{Extent, Judge, Received, Report},
    network::Network,
    subscriber::{Config, Keep, Subscriber},
};
use prometheus::Registry;
use runtime::{
    clock::Clock,
    egress::{Egress, Policy},
    trace::Tracer,
};
use storage::{
    Stores,
    intake::{RawFrame, Receipts},
    limits::{Limits, Rules},
    memory,
    refusal::Refusals,
    repos::AccountStatus,
    seq::Seq,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;
use validator::{Parts, Validator, identity, verdict::Reason};

/// Long enough for anything on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Long enough to see that something does not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What hosts have sent, each in its order.
#[derive(Clone)]
pub(crate) struct Frames(Vec<(HostName, Vec<Bytes>)>);

/// All that the hosts of a network have sent so far, read over their sockets.
pub(crate) async fn frames_of(network: &Network) -> Frames {
    let truth = network.truth();
    let mut frames = Vec::new();
    for (index, host) in network.hosts().iter().enumerate() {
        let config = Config { url: format!("ws://{host}"), cursor: Some(0), keep: Keep::Frames };
        let subscriber = Subscriber::start(config);
        let sent = truth.events().iter().filter(|sent| sent.host == index).count() as u64;
        assert!(subscriber.wait_for(sent, LONG).await, "{host}: {} of {sent}", subscriber.events());
        frames.push((host.clone(), subscriber.stop().await.frames));
    }
    Frames(frames)
}

impl Frames {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|(_, frames)| frames.len()).sum()
    }

    /// So many parts, one after the other.
    pub(crate) fn parts(&self, count: usize) -> Vec<Frames> {
        let part = |n| {
            let of_host = |(host, frames): &(HostName, Vec<Bytes>)| {
                let (start, end) = (frames.len() * n / count, frames.len() * (n + 1) / count);
                (host.clone(), frames[start..end].to_vec())
            };
            Frames(self.0.iter().map(of_host).collect())
        };
        (0..count).map(part).collect()
    }

    /// Without the first so many of each host.
    pub(crate) fn after(&self, earlier: &Frames) -> Frames {
        let rest = self.0.iter().zip(&earlier.0);
        Frames(rest.map(|((host, all), (_, first))| (host.clone(), all[first.len()..].to_vec())).collect())
    }

    /// Those of some kinds.
    pub(crate) fn only(&self, kinds: &[Kind]) -> Frames {
        let keep = |frame: &&Bytes| Received::read(frame).is_some_and(|event| kinds.contains(&event.kind));
        let of_host =
            |(host, frames): &(HostName, Vec<Bytes>)| (host.clone(), frames.iter().filter(keep).cloned().collect());
        Frames(self.0.iter().map(of_host).collect())
    }

    /// Those of one host; the others stay, without frames.
    pub(crate) fn of_host(&self, only: &HostName) -> Frames {
        let of_host = |(host, frames): &(HostName, Vec<Bytes>)| {
            (host.clone(), if host == only { frames.clone() } else { Vec::new() })
        };
        Frames(self.0.iter().map(of_host).collect())
    }
}

/// A commit that is well formed and new, but its blocks are none.
pub(crate) fn empty_commit(did: &Did, seq: u64, time: &str) -> Vec<u8> {
    let rev = Tid::from_micros(Clock::system().now_micros(), 0).to_string();
    let event = CommitEvent {
        seq,
        repo: did.as_str(),
        time,
        rev: &rev,
        since: None,
        commit: Cid::of_cbor(b""),
        too_big: false,
        rebase: false,
        blocks: b"no car",
        ops: Vec::new(),
        prev_data: None,
    };
    Event::Commit(event).encode()
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Receipts for Counter {
    fn taken(&self, _upstream_seq: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A validator at work.
pub(crate) struct Court {
    pub(crate) stores: Stores,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) limits: Limits,
    registry: Registry,
    receipts: Arc<Counter>,
    shutdown: CancellationToken,
    directory: JoinSet<()>,
    lanes: JoinSet<Result<(), validator::Error>>,
}

impl Court {
    pub(crate) fn open(network: &Network, config: memory::Config) -> Court {
        Court::open_edited(network, config, |_| {})
    }

    pub(crate) fn open_edited(
        network: &Network,
        config: memory::Config,
        edit: impl FnOnce(&mut validator::Config),
    ) -> Court {
        Court::open_all(network, memory::open_with(config), edit)
    }

    pub(crate) fn open_on(network: &Network, stores: Stores) -> Court {
        Court::open_all(network, stores, |_| {})
    }

    fn open_all(network: &Network, stores: Stores, edit: impl FnOnce(&mut validator::Config)) -> Court {
        let lag = Duration::from_millis(20);
        let limits = Limits::new(Rules::default(), true);
        let (registry, clock, shutdown) = (Registry::new(), Clock::system(), CancellationToken::new());
        let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
        let mut names = identity::Config::new(Url::parse(network.plc_url()).unwrap());
        names.replica_lag = lag;
        names.timeout = Duration::from_millis(500);
        names.retry_max = Duration::from_millis(50);
        let (resolver, directory) =
            identity::build(names, egress.clone(), clock.clone(), stores.identities.clone(), &registry).unwrap();
        let mut config = validator::Config { replica_lag: lag, ..validator::Config::default() };
        edit(&mut config);
        let refusals = Arc::new(Refusals::default());
        let parts = Parts {
            stores: stores.clone(),
            resolver,
            egress,
            limits: limits.clone(),
            refusals: Arc::clone(&refusals),
            clock,
            tracer: Tracer::off(),
        };
        let validator = Validator::build(config, parts, &registry).unwrap();
        let stop = shutdown.clone();
        let (mut lanes, mut loops) = (JoinSet::new(), JoinSet::new());
        lanes.spawn(async move { validator.run_workers(NonZeroUsize::new(2).unwrap(), stop).await });
        loops.spawn(directory.run(shutdown.clone()));
        Court { stores, limits, refusals, registry, receipts: Arc::default(), directory: loops, lanes, shutdown }
    }

    /// Puts frames into the intake, a host in turn with the others.
    pub(crate) async fn feed(&self, frames: &Frames) {
        let longest = frames.0.iter().map(|(_, frames)| frames.len()).max().unwrap_or(0);
        for n in 0..longest {
            for (host, frames) in &frames.0 {
                if let Some(frame) = frames.get(n) {
                    let frame = self.raw(host, frame);
                    timeout(LONG, self.stores.intake.push(frame)).await.expect("the intake is stuck").unwrap();
                }
            }
        }
    }

    fn raw(&self, host: &HostName, bytes: &Bytes) -> RawFrame {
        let Ok(Routed::Event(route)) = route(bytes) else { panic!("not an event") };
        RawFrame {
            host: host.clone(),
            host_epoch: 0,
            upstream_seq: route.seq,
            received_at_micros: Clock::system().now_micros(),
            did: Did::parse(route.did).unwrap(),
            kind: route.kind,
            seq_slot: route.seq_slot,
            bytes: bytes.clone(),
            receipts: self.receipts.clone(),
        }
    }

    /// How many frames are judged and durable.
    pub(crate) fn taken(&self) -> usize {
        self.receipts.0.load(Ordering::SeqCst)
    }

    /// Waits for so many.
    pub(crate) async fn covered(&self, frames: usize) {
        let begun = Instant::now();
        while self.taken() < frames {
            assert!(begun.elapsed() < LONG, "{} of {frames} covered; refused {:?}", self.taken(), self.refused());
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.taken(), frames);
    }

    /// Holds the log against what the network has sent.
    pub(crate) async fn judge(&self, network: &Network, extent: Extent) -> Report {
        let mut received = Vec::new();
        let mut after = Seq(0);
        loop {
            let page = self.stores.log.read(after, 1 << 20).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            received.extend(page.iter().filter_map(|event| Received::read(&event.frame)));
        }
        Judge::new(network.truth()).reading(&received, extent)
    }

    /// The log's events of one account, with what an `#account` says.
    pub(crate) async fn events_of(&self, did: &Did) -> Vec<(Kind, Option<AccountStatus>)> {
        let (mut found, mut after) = (Vec::new(), Seq(0));
        loop {
            let page = self.stores.log.read(after, 1 << 20).await.unwrap();
            let Some(last) = page.last() else { return found };
            after = last.seq;
            for published in page.iter().filter(|event| event.account == Did::lane_hash(did.as_str())) {
                found.push(match event::parse(&published.frame).unwrap() {
                    Event::Commit(_) => (Kind::Commit, None),
                    Event::Sync(_) => (Kind::Sync, None),
                    Event::Identity(_) => (Kind::Identity, None),
                    Event::Account(event) => {
                        (Kind::Account, Some(AccountStatus::from_event(event.active, event.status)))
                    }
                });
            }
        }
    }

    /// What was refused, and how often.
    pub(crate) fn refused(&self) -> Vec<(Reason, u64)> {
        self.refusals.totals().filter(|(_, count)| *count > 0).collect()
    }

    /// A metric's sum over its labels, or over those with `name{label=value}`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (name, label) = match name.split_once('{') {
            Some((name, label)) => (name, label.trim_end_matches('}').split_once('=')),
            None => (name, None),
        };
        let families = self.registry.gather();
        // A family that has counted nothing yet has no labels, and is not gathered.
        let Some(family) = families.iter().find(|family| family.name() == name) else { return 0.0 };
        let is_meant = |metric: &&prometheus::proto::Metric| {
            label.is_none_or(|(key, value)| {
                metric.get_label().iter().any(|label| label.name() == key && label.value() == value)
            })
        };
        let value =
            |metric: &prometheus::proto::Metric| metric.get_counter().get_value() + metric.get_gauge().get_value();
        family.get_metric().iter().filter(is_meant).map(value).sum()
    }

    /// Shuts down; gives how many frames were taken in all.
    pub(crate) async fn close(mut self) -> usize {
        self.shutdown.cancel();
        timeout(LONG, self.lanes.join_next()).await.expect("the lanes did not end").unwrap().unwrap().unwrap();
        timeout(LONG, self.directory.join_next()).await.expect("the directory did not end").unwrap().unwrap();
        self.receipts.0.load(Ordering::SeqCst)
    }

    /// Waits for the lanes to fail.
    pub(crate) async fn died(mut self) -> validator::Error {
        self.lanes.join_next().await.unwrap().unwrap().unwrap_err()
    }
}
