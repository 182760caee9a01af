//! All accounts on all hosts, and the one place where events are made.
//!
//! What must hold: an account's document is in the directory before the event that tells of it; each host's seq rises;
//! what is remembered of an event is what its host holds.

use std::{ops::RangeInclusive, sync::Arc};

use atproto::{
    cid::Cid,
    crypto::Curve,
    event::{AccountEvent, Event, IdentityEvent, Kind as EventKind},
    mst::MstError,
    syntax::{Did, Tid},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::index::sample};
use runtime::clock::Clock;

use super::{
    Config, SEQ_GAP_MAX, Stats,
    account::{Account, new_key},
    directory::{self, Directory, Form},
    host::{AccountStatus, Host},
    record::{self, Genre, Target},
    repo::{Change, Write},
    traffic::{Action, Traffic, activity},
};
use crate::judge::{Expect, Truth};

pub(super) struct World {
    rng: Xoshiro256PlusPlus,
    traffic: Traffic,
    multi_ops: RangeInclusive<u32>,
    records_max: usize,
    accounts: Vec<Account>,
    hosts: Vec<Arc<Host>>,
    directory: Arc<Directory>,
    truth: Option<Truth>,
    stats: Stats,
    clock: Clock,
    last_micros: u64,
}

impl World {
    /// Makes all accounts and puts them into the directory; sends nothing.
    pub(super) fn new(
        config: &Config,
        hosts: Vec<Arc<Host>>,
        directory: Arc<Directory>,
        clock: Clock,
    ) -> Result<World, MstError> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(config.seed);
        let mut accounts = Vec::with_capacity(config.accounts);
        let mut curves = Curves::new(config);
        for number in 0..config.accounts {
            let curve = curves.next(number);
            let form = if rng.random_bool(config.legacy_share.clamp(0.0, 1.0)) { Form::Legacy } else { Form::Multikey };
            let mut account = Account::new(number, number % hosts.len().max(1), curve, form, &mut rng);
            // History from before the simulation: of a record that nobody will ask for, any CID will do.
            let a_year_ago = clock.now_micros().saturating_sub(365 * 24 * 3_600 * 1_000_000);
            for _ in 0..config.records_per_repo {
                let genre = [Genre::Post, Genre::Like, Genre::Like, Genre::Follow][rng.random_range(0..4)];
                let mut digest = [0; 32];
                rng.fill(&mut digest);
                let path = genre.path(account.clock.next(a_year_ago));
                account.repo.preload(path, Cid { codec: atproto::cid::Codec::DagCbor, digest })?;
            }
            accounts.push(account);
        }
        let traffic = Traffic::new(&config.mix, accounts.len(), config.skew);
        let (multi_ops, records_max) = (config.mix.multi_ops.clone(), config.records_per_repo_max);
        let truth = config.remember.then(|| Truth::new(hosts.iter().map(|host| host.name.clone()).collect()));
        let mut world = World {
            rng,
            traffic,
            multi_ops,
            records_max,
            accounts,
            hosts,
            directory,
            truth,
            stats: Stats::default(),
            clock,
            last_micros: 0,
        };
        for account in 0..world.accounts.len() {
            world.publish_document(account);
        }
        Ok(world)
    }

    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub(super) fn truth(&self) -> Option<&Truth> {
        self.truth.as_ref()
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// The next thing that happens. An account whose turn comes for the first time is created first.
    pub(super) fn step(&mut self) -> Result<(), MstError> {
        match self.traffic.next(&mut self.rng) {
            Some((account, action)) => self.act(account, action),
            None => Ok(()),
        }
    }

    /// Sends the events of an account's creation if they have not been sent.
    pub(super) fn announce(&mut self, account: usize) -> Result<(), MstError> {
        if self.accounts[account].announced {
            return Ok(());
        }
        self.accounts[account].announced = true;
        self.send_identity(account, true);
        let first = self.change(account, Vec::new())?;
        self.send_account(account, true, None);
        self.send(account, EventKind::Commit, |seq, time| first.encode(seq, time));
        self.send_sync(account);
        Ok(())
    }

    /// One account does one thing. One that is not active is activated instead.
    pub(super) fn act(&mut self, account: usize, action: Action) -> Result<(), MstError> {
        self.announce(account)?;
        if !self.accounts[account].active {
            self.set_active(account, true);
            self.send_account(account, true, None);
            self.send_identity(account, true);
            self.send_sync(account);
            return Ok(());
        }
        let action = match action {
            Action::Create(_) if self.accounts[account].repo.records().len() >= self.records_max => Action::Delete,
            other => other,
        };
        match action {
            Action::Create(kind) => {
                let write = self.create(account, kind.genre());
                self.commit(account, vec![write])
            }
            Action::UpdateProfile => {
                let path = Genre::Profile.path(Tid::from_u64(0));
                let index = self.accounts[account].repo.records().iter().position(|held| *held.path == path);
                let write = match index {
                    Some(index) => Write::Update { index, record: self.record(Genre::Profile) },
                    None => self.create(account, Genre::Profile),
                };
                self.commit(account, vec![write])
            }
            Action::Update => {
                let held = self.accounts[account].repo.records().len();
                let write = match held {
                    0 => self.create(account, Genre::Post),
                    held => {
                        let index = self.rng.random_range(0..held);
                        self.update(account, index)
                    }
                };
                self.commit(account, vec![write])
            }
            Action::Delete => {
                let held = self.accounts[account].repo.records().len();
                let write = match held {
                    0 => self.create(account, Genre::Post),
                    held => Write::Delete { index: self.rng.random_range(0..held) },
                };
                self.commit(account, vec![write])
            }
            Action::Multi => {
                let writes = self.many(account);
                self.commit(account, writes)
            }
            Action::Sync => {
                self.send_sync(account);
                Ok(())
            }
            Action::Identity => {
                self.send_identity(account, true);
                Ok(())
            }
            Action::ChangeHandle => {
                let number: u32 = self.rng.random_range(1..1_000_000);
                self.accounts[account].handle = format!("user{account}-{number}.sim.test");
                self.publish_document(account);
                self.send_identity(account, true);
                Ok(())
            }
            Action::Deactivate => {
                self.set_active(account, false);
                self.send_account(account, false, Some("deactivated"));
                Ok(())
            }
            Action::Activate => Ok(()),
            Action::RotateKey => {
                self.rotate(account);
                Ok(())
            }
            Action::Migrate => {
                self.migrate(account);
                Ok(())
            }
        }
    }

    /// Sends a frame that no honest host would send; `build` makes it for the seq it is given.
    pub(super) fn send_raw(
        &mut self,
        host: usize,
        did: &Did,
        kind: EventKind,
        expect: Expect,
        build: impl FnOnce(u64, &str) -> Vec<u8>,
    ) {
        let (number, host) = (host, &self.hosts[host]);
        let gap = if self.rng.random_bool(0.02) { self.rng.random_range(1..=SEQ_GAP_MAX) } else { 0 };
        let seq = host.outbox.last_seq() + 1 + gap;
        self.last_micros = self.clock.now_micros().max(self.last_micros + 1);
        let frame = build(seq, &rfc3339(self.last_micros));
        if let Some(truth) = &mut self.truth {
            truth.sent(number, seq, did, kind, &frame, expect);
        }
        self.stats.events += 1;
        self.stats.bytes += frame.len() as u64;
        host.outbox.push(seq, Bytes::from(frame));
    }

    fn send(&mut self, account: usize, kind: EventKind, build: impl FnOnce(u64, &str) -> Vec<u8>) {
        let (host, did) = (self.accounts[account].host, self.accounts[account].did.clone());
        self.send_raw(host, &did, kind, Expect::Pass, build);
    }

    fn send_identity(&mut self, account: usize, with_handle: bool) {
        let (did, handle) = (self.accounts[account].did.clone(), self.accounts[account].handle.clone());
        self.send(account, EventKind::Identity, |seq, time| {
            let handle = with_handle.then_some(handle.as_str());
            Event::Identity(IdentityEvent { seq, did: did.as_str(), time, handle }).encode()
        });
    }

    fn send_account(&mut self, account: usize, active: bool, status: Option<&str>) {
        let did = self.accounts[account].did.clone();
        self.send(account, EventKind::Account, |seq, time| {
            Event::Account(AccountEvent { seq, did: did.as_str(), time, active, status }).encode()
        });
    }

    fn send_sync(&mut self, account: usize) {
        let did = self.accounts[account].did.clone();
        if let Some(head) = self.accounts[account].repo.head() {
            self.send(account, EventKind::Sync, |seq, time| head.encode_sync(&did, seq, time));
        }
    }

    fn commit(&mut self, account: usize, writes: Vec<Write>) -> Result<(), MstError> {
        let change = self.change(account, writes)?;
        self.send(account, EventKind::Commit, |seq, time| change.encode(seq, time));
        Ok(())
    }

    fn change(&mut self, account: usize, writes: Vec<Write>) -> Result<Change, MstError> {
        let now_micros = self.clock.now_micros();
        let Account { repo, key, clock, .. } = &mut self.accounts[account];
        let change = repo.commit(writes, clock.next(now_micros), key)?;
        self.show_status(account);
        Ok(change)
    }

    /// Signs the present state with the account's key of now.
    fn resign(&mut self, account: usize) {
        let now_micros = self.clock.now_micros();
        let Account { repo, key, clock, .. } = &mut self.accounts[account];
        repo.resign(clock.next(now_micros), key);
        self.show_status(account);
    }

    fn rotate(&mut self, account: usize) {
        let curve = self.accounts[account].key.public_key().curve();
        self.accounts[account].key = new_key(curve, &mut self.rng);
        self.publish_document(account);
        self.resign(account);
        self.send_identity(account, false);
        self.send_sync(account);
    }

    fn migrate(&mut self, account: usize) {
        let from = self.accounts[account].host;
        let to = (from + 1) % self.hosts.len();
        if from == to {
            return;
        }
        let did = self.accounts[account].did.clone();
        if let Some(status) = self.status(account) {
            self.hosts[from].set_account(&did, AccountStatus { active: false, status: Some("deactivated"), ..status });
        }
        // The new host signs with a key of its own.
        let curve = self.accounts[account].key.public_key().curve();
        self.accounts[account].key = new_key(curve, &mut self.rng);
        self.accounts[account].host = to;
        self.publish_document(account);
        self.resign(account);
        self.send_account(account, true, None);
        self.send_identity(account, true);
        self.send_sync(account);
        // Too late to count, unless the relay reads the old host's stream before it looks at the directory.
        self.send_raw(from, &did, EventKind::Account, Expect::Either, |seq, time| {
            Event::Account(AccountEvent { seq, did: did.as_str(), time, active: false, status: Some("deactivated") })
                .encode()
        });
    }

    fn set_active(&mut self, account: usize, active: bool) {
        self.accounts[account].active = active;
        self.show_status(account);
    }

    fn publish_document(&mut self, account: usize) {
        let Account { did, handle, host, key, form, .. } = &self.accounts[account];
        let document = directory::document(did, handle, &key.public_key(), &self.hosts[*host].name, *form);
        self.directory.put(did, document);
    }

    fn status(&self, account: usize) -> Option<AccountStatus> {
        let account = &self.accounts[account];
        let head = account.repo.head()?;
        let status = (!account.active).then_some("deactivated");
        Some(AccountStatus { active: account.active, status, rev: head.rev, head: head.commit })
    }

    fn show_status(&self, account: usize) {
        if let Some(status) = self.status(account) {
            let Account { did, host, .. } = &self.accounts[account];
            self.hosts[*host].set_account(did, status);
        }
    }

    fn create(&mut self, account: usize, genre: Genre) -> Write {
        let now_micros = self.clock.now_micros();
        let path = genre.path(self.accounts[account].clock.next(now_micros));
        Write::Create { path, record: self.record(genre) }
    }

    fn record(&mut self, genre: Genre) -> Vec<u8> {
        let created_at = rfc3339(self.clock.now_micros());
        let other = &self.accounts[self.rng.random_range(0..self.accounts.len())];
        let target = match other.repo.records() {
            [] => Target { did: &other.did, path: "app.bsky.actor.profile/self", cid: Cid::of_cbor(b"") },
            held => {
                let held = &held[self.rng.random_range(0..held.len())];
                Target { did: &other.did, path: &held.path, cid: held.cid }
            }
        };
        record::write(genre, &target, &created_at, &mut self.rng)
    }

    fn update(&mut self, account: usize, index: usize) -> Write {
        let genre = Genre::of_path(&self.accounts[account].repo.records()[index].path);
        Write::Update { index, record: self.record(genre) }
    }

    /// Writes of different records.
    fn many(&mut self, account: usize) -> Vec<Write> {
        let count = match self.multi_ops.is_empty() {
            true => 1,
            false => self.rng.random_range(self.multi_ops.clone()) as usize,
        };
        let held = self.accounts[account].repo.records().len();
        let old = sample(&mut self.rng, held, (count / 3).min(held)).into_vec();
        // What people create at once is of a kind: a thread, the follows of a starter pack.
        let genre = [Genre::Post, Genre::Like, Genre::Follow][self.rng.random_range(0..3)];
        let mut writes: Vec<Write> = (old.len()..count).map(|_| self.create(account, genre)).collect();
        for index in old {
            writes.push(if self.rng.random_bool(0.5) { self.update(account, index) } else { Write::Delete { index } });
        }
        writes
    }
}

/// Deals the curves: the first accounts do most, so that it is their activity that must have the share of P-256 that is
/// asked for, not their number.
struct Curves {
    p256_share: f64,
    skew: f64,
    dealt: f64,
    dealt_p256: f64,
}

impl Curves {
    fn new(config: &Config) -> Curves {
        Curves { p256_share: config.p256_share, skew: config.skew, dealt: 0.0, dealt_p256: 0.0 }
    }

    fn next(&mut self, account: usize) -> Curve {
        let activity = activity(account, self.skew);
        self.dealt += activity;
        // A little more than the share is let through, lest sums of fractions keep out what fits exactly.
        if self.dealt_p256 + activity <= self.p256_share * self.dealt * (1.0 + 1e-9) {
            self.dealt_p256 += activity;
            return Curve::P256;
        }
        Curve::K256
    }
}

/// `2026-11-22T08:53:09.160123Z`.
fn rfc3339(micros: u64) -> String {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}
