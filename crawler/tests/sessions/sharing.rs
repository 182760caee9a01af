//! Several crawlers that share the hosts, and one that reads none: on one store, with an assignment that the test makes.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use crawler::{Added, BannedBy, Config, Phase, Start};
use runtime::egress::Policy;
use storage::{
    error::Error,
    hosts::{Assignment, Change, Domain, HostCursor, HostStatus, Hosts, Nudge, Shard, Shards},
    limits::{self, Limit},
};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Pds, World, quick, until};

const SHARDS: Shards = Shards(NonZeroU32::new(4).unwrap());

fn at(epoch: u32, seq: u64) -> HostCursor {
    HostCursor { epoch, seq: Some(seq) }
}

/// One crawler's side of an assignment that the test plays.
#[derive(Default)]
struct Script {
    changes: Mutex<VecDeque<Change>>,
    changed: Notify,
    released: Mutex<Vec<Shard>>,
    left: AtomicBool,
    /// All that hear nudges of this one.
    peers: Mutex<Vec<Weak<Script>>>,
}

impl Script {
    fn says(&self, change: Change) {
        self.changes.lock().unwrap().push_back(change);
        self.changed.notify_one();
    }

    fn gives_all(&self) {
        SHARDS.all().for_each(|shard| self.says(Change::Given(shard)));
    }

    async fn releases(&self, shard: Shard) {
        until("released", || self.released.lock().unwrap().contains(&shard)).await;
    }
}

#[async_trait]
impl Assignment for Script {
    fn shards(&self) -> Shards {
        SHARDS
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn next(&self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.changes.lock().unwrap().pop_front() {
                return Ok(change);
            }
            self.changed.notified().await;
        }
    }

    async fn released(&self, shard: Shard) {
        self.released.lock().unwrap().push(shard);
    }

    async fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    async fn nudge(&self, nudge: Nudge) -> Result<(), Error> {
        let peers = self.peers.lock().unwrap().clone();
        peers.iter().filter_map(Weak::upgrade).for_each(|peer| peer.says(Change::Nudged(nudge.clone())));
        Ok(())
    }
}

/// Looks of their own never help them.
fn deaf() -> Config {
    Config { look_every: Duration::from_secs(3_600), ..quick() }
}

/// A crawler that was given nothing yet.
fn one_of_many(config: Config, hosts: &Arc<dyn Hosts>) -> (World, Arc<Script>) {
    let script = Arc::new(Script::default());
    let policy = Policy { allow_local: true, ..Policy::default() };
    (World::with_parts(config, hosts.clone(), script.clone(), policy), script)
}

fn hear_each_other(scripts: &[&Arc<Script>]) {
    for script in scripts {
        *script.peers.lock().unwrap() = scripts.iter().map(|script| Arc::downgrade(script)).collect();
    }
}

#[tokio::test]
async fn a_host_goes_from_one_crawler_to_another_and_loses_nothing() {
    let hosts = storage::memory::open().hosts;
    let ((first, first_script), (second, second_script)) = (one_of_many(deaf(), &hosts), one_of_many(deaf(), &hosts));
    hear_each_other(&[&first_script, &second_script]);
    let mut pds = Pds::new().await;
    let shard = SHARDS.of(&pds.name);
    first.read(&pds, Start::Oldest).await;
    until("known to the second", || second.handle.host(&pds.name).is_some()).await;
    assert!(!first.view(&pds).read_here && !second.view(&pds).read_here, "nobody was given it");

    first_script.says(Change::Given(shard));
    let mut connection = pds.accept_at(Some(0)).await;
    assert!(first.view(&pds).read_here);
    connection.events(&[1, 2, 3]).await;
    first.intake.has(&[1, 2, 3]).await;
    first.intake.take(&[1, 2]);
    first.saves(&pds, at(0, 2)).await;
    first_script.says(Change::Gone(shard));
    assert!(matches!(connection.next().await, Some(Message::Close(_))));
    first_script.releases(shard).await;
    assert_eq!((first.saved(&pds).await, first.view(&pds).read_here), (at(0, 2), false));
    // A receipt that comes too late moves nothing: the row is another's.
    first.intake.take(&[3]);

    second_script.says(Change::Given(shard));
    let mut connection = pds.accept_at(Some(2)).await;
    connection.events(&[3, 4]).await;
    second.intake.has(&[3, 4]).await;
    second.intake.take(&[3, 4]);
    second.saves(&pds, at(0, 4)).await;

    // The first is given it though the second still has it: both bring the same events.
    first_script.says(Change::Given(shard));
    let mut overlapping = pds.accept_at(Some(4)).await;
    connection.events(&[5, 6]).await;
    overlapping.events(&[5, 6]).await;
    second.intake.has(&[3, 4, 5, 6]).await;
    first.intake.has(&[1, 2, 3, 5, 6]).await;
    let (one, other) = (first.intake.frames(), second.intake.frames());
    let repeats = one[3..].iter().zip(&other[2..]);
    assert!(repeats.into_iter().all(|(a, b)| (a.host_epoch, &a.bytes) == (b.host_epoch, &b.bytes)));

    first.stopped().await;
    second.stopped().await;
    assert!([first_script, second_script].iter().all(|script| script.left.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn who_reads_nothing_administers_hosts_that_another_reads() {
    let hosts = storage::memory::open().hosts;
    let ((reads, reads_script), (serves, serves_script)) = (one_of_many(deaf(), &hosts), one_of_many(deaf(), &hosts));
    hear_each_other(&[&reads_script, &serves_script]);
    reads_script.gives_all();
    let mut pds = Pds::new().await;

    serves.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept_at(Some(0)).await;
    connection.events(&[1, 2, 3]).await;
    reads.intake.has(&[1, 2, 3]).await;
    reads.intake.take(&[1, 2, 3]);
    reads.saves(&pds, at(0, 3)).await;
    assert_eq!(serves.handle.request_crawl(&pds.name).await.unwrap(), Added::Known);

    let rewound = serves.handle.rewind(&pds.name, Some(1)).await.unwrap();
    assert_eq!((rewound.from, rewound.to), (at(0, 3), at(0, 1)));
    let mut connection = pds.accept_at(Some(1)).await;
    reads.saves(&pds, at(0, 1)).await;
    connection.events(&[2]).await;
    reads.intake.has(&[1, 2, 3, 2]).await;

    serves.handle.ban(&pds.name).await.unwrap();
    assert_eq!(serves.view(&pds).banned_by, Some(BannedBy::Host));
    until("banned", || reads.view(&pds).phase == Phase::Banned).await;
    assert_eq!(hosts.get(&pds.name).await.unwrap().unwrap().status, HostStatus::Banned);
    serves.handle.unban(&pds.name).await.unwrap();
    pds.accept_at(Some(1)).await;

    let change = limits::Change { accounts_max: Some(Limit::AtMost(3)), ..limits::Change::default() };
    serves.handle.set_limits(&pds.name, change).await.unwrap();
    until("limited", || reads.view(&pds).limits_exception == Some(change)).await;
    assert_eq!(serves.limits.of(&pds.name).accounts_max, Some(3));

    let domain = Domain::parse("127.0.0.1").unwrap();
    assert!(serves.handle.ban_domain(&domain).await.unwrap());
    until("banned", || reads.view(&pds).banned_by == Some(BannedBy::Domain(domain.clone()))).await;
    assert_eq!(serves.view(&pds).phase, Phase::Banned);
    reads.stopped().await;
    serves.stopped().await;
}

#[tokio::test]
async fn what_nobody_hears_is_seen_in_time() {
    let hosts = storage::memory::open().hosts;
    let sharp = || Config { look_every: Duration::from_millis(20), ..quick() };
    let ((reads, reads_script), (serves, _silent)) = (one_of_many(sharp(), &hosts), one_of_many(sharp(), &hosts));
    reads_script.gives_all();
    let mut pds = Pds::new().await;
    serves.read(&pds, Start::Oldest).await;
    pds.accept_at(Some(0)).await;
    serves.handle.ban(&pds.name).await.unwrap();
    until("banned", || reads.view(&pds).phase == Phase::Banned).await;
    until("shown", || serves.view(&pds).status == HostStatus::Banned).await;
    reads.stopped().await;
    serves.stopped().await;
}
