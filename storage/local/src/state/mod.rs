//! Repos, Hosts and the cache of identities, in one fjall database.
//!
//! Owns the database; does not know the log. Repos are a view of the log: the log's writer gives the states of events
//! that are durable there ([`State::note`]), in the order of their seqs. They are in memory first, where they are seen at
//! once, and written to the database together, the watermark in the same batch ([`State::settle`]): now and then, when
//! they are many, and before anything is read that is not one account's state. After a crash the view is an older one,
//! and whoever opens it brings it up to the log's end.

mod hosts;
mod identities;
pub(crate) mod keys;
mod overlay;
mod recent;
mod repos;
mod settler;
mod value;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use atproto::syntax::{Did, HostName};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use storage::{
    error::Error,
    repos::{LocalStatus, RepoState},
    seq::Seq,
};

use self::{
    overlay::{Generation, Overlay},
    recent::Recent,
    settler::Signal,
    value::Counts,
};

pub(crate) use settler::Settler;

/// Repos, Hosts and Identities; cheap to clone.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

struct Shared {
    open: RwLock<Option<Arc<Keyspaces>>>,
    overlay: Overlay,
    overlay_bytes_max: usize,
    /// One at a time writes the overlay to the database.
    settling: Mutex<()>,
    /// What the settler is told.
    signal: (Mutex<Signal>, Condvar),
    /// The states up to this seq are known to be durable.
    synced: AtomicU64,
    recent: Recent,
    repo_count: AtomicU64,
    host_count: AtomicU64,
    /// One at a time looks whether a host is there and writes its row.
    host_rows: Mutex<()>,
    /// The generation of identities that takes new rows.
    identities_young: AtomicUsize,
    /// Rows put into it; locked while rows are put.
    identities_in_young: Mutex<u64>,
    /// Rows of a generation.
    identities_max: u64,
}

/// The database, open.
pub(crate) struct Keyspaces {
    db: Database,
    repos: Keyspace,
    takedowns: Keyspace,
    counts: Keyspace,
    hosts: Keyspace,
    cursors: Keyspace,
    identities: [Keyspace; 2],
    meta: Keyspace,
}

/// How much the state store may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Memory for the states of the accounts that were busy last.
    pub(crate) recent_bytes: u64,
    /// Memory for states that are not in the database yet.
    pub(crate) overlay_bytes: usize,
    /// Memory for the tables' blocks.
    pub(crate) block_cache_bytes: u64,
    /// Identities of each generation.
    pub(crate) identities_max: u64,
}

impl State {
    /// Opens the database, or makes it. Blocks.
    pub(crate) fn open(dir: &Path, bounds: Bounds) -> Result<State, fjall::Error> {
        let db = Database::builder(dir)
            .cache_size(bounds.block_cache_bytes)
            // What is not synced here is in the log.
            .manual_journal_persist(true)
            .max_journaling_size(128 << 20)
            .worker_threads(2)
            .open()?;
        let keyspace = |name, memtable_bytes| {
            db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes))
        };
        let keyspaces = Keyspaces {
            repos: keyspace(keys::REPOS, 16 << 20)?,
            takedowns: keyspace(keys::TAKEDOWNS, 1 << 20)?,
            counts: keyspace(keys::COUNTS, 4 << 20)?,
            hosts: keyspace(keys::HOSTS, 4 << 20)?,
            cursors: keyspace(keys::CURSORS, 4 << 20)?,
            identities: [keyspace(keys::IDENTITIES[0], 8 << 20)?, keyspace(keys::IDENTITIES[1], 8 << 20)?],
            meta: keyspace(keys::META, 1 << 20)?,
            db,
        };
        let repo_count = keyspaces.meta_u64(keys::REPO_COUNT)?.unwrap_or(0);
        let host_count = keyspaces.hosts.len()? as u64;
        let young = usize::from(keyspaces.meta_u64(keys::IDENTITIES_YOUNG)? == Some(1));
        let in_young = keyspaces.identities[young].approximate_len() as u64;
        Ok(State(Arc::new(Shared {
            open: RwLock::new(Some(Arc::new(keyspaces))),
            overlay: Overlay::default(),
            overlay_bytes_max: bounds.overlay_bytes,
            settling: Mutex::default(),
            signal: (Mutex::default(), Condvar::new()),
            synced: AtomicU64::new(0),
            recent: Recent::new(bounds.recent_bytes),
            repo_count: AtomicU64::new(repo_count),
            host_count: AtomicU64::new(host_count),
            host_rows: Mutex::default(),
            identities_young: AtomicUsize::new(young),
            identities_in_young: Mutex::new(in_young),
            identities_max: bounds.identities_max.max(1),
        })))
    }

    fn keyspaces(&self) -> Result<Arc<Keyspaces>, Error> {
        self.0.open.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Lets go of the database; every later call answers [`Error::Closed`].
    pub(crate) fn close(&self) {
        let keyspaces = self.0.open.write().unwrap_or_else(PoisonError::into_inner).take();
        // Joins its threads: not under the lock.
        drop(keyspaces);
    }

    /// Makes all that was noted durable. Blocks.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.settle()?;
        self.sync_settled()
    }

    /// Makes durable what is in the database. Blocks.
    fn sync_settled(&self) -> Result<(), Error> {
        let watermark = self.watermark()?;
        self.keyspaces()?.db.persist(PersistMode::SyncAll).map_err(may_have("sync the state store"))?;
        if let Some(Seq(seq)) = watermark {
            self.0.synced.fetch_max(seq, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the states up to an event durable, unless they are known to be. Blocks.
    pub(crate) fn sync_through(&self, seq: Seq) -> Result<(), Error> {
        if self.0.synced.load(Ordering::Relaxed) >= seq.0 { Ok(()) } else { self.sync() }
    }

    /// The last seq whose state is in the database; `None` where nothing ever was.
    pub(crate) fn watermark(&self) -> Result<Option<Seq>, Error> {
        let watermark = self.keyspaces()?.meta_u64(keys::WATERMARK).map_err(did_not("read the watermark"))?;
        Ok(watermark.map(Seq))
    }

    /// How many repos are in the database.
    pub(crate) fn repo_count(&self) -> u64 {
        self.0.repo_count.load(Ordering::Relaxed)
    }

    /// Takes the states that events made, in the order of their seqs, up to and including the event `through`. From then
    /// on they are seen. Writes to the database, and so blocks for long, only where too much waits for that.
    pub(crate) fn note(&self, states: impl Iterator<Item = (Seq, Did, RepoState)>, through: Seq) -> Result<(), Error> {
        let bytes = self.0.overlay.note(states, through);
        if bytes > self.0.overlay_bytes_max / 2 {
            self.signal(Signal::Grown);
        }
        if bytes > self.0.overlay_bytes_max { self.settle() } else { Ok(()) }
    }

    /// Writes to the database what was noted. Blocks.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let Some(through) = self.0.overlay.through() else { return Ok(()) };
        let keyspaces = self.keyspaces()?;
        let _one_at_a_time = self.0.settling.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(states) = self.0.overlay.retire() {
            self.write(&keyspaces, &states)?;
            self.0.overlay.forget();
            // What is noted meanwhile is the next one's.
            if states.through >= Some(through) {
                break;
            }
        }
        Ok(())
    }

    /// Writes states to the database, all or none.
    fn write(&self, keyspaces: &Keyspaces, states: &Generation) -> Result<(), Error> {
        // In the keys' order: neighbours share their way through the tree.
        let mut accounts: Vec<_> = states.accounts.iter().collect();
        accounts.sort_unstable_by_key(|(did, _)| *did);
        let mut moved: HashMap<HostName, (i64, i64)> = HashMap::new();
        let mut added = 0;
        let mut encoded = Vec::new();
        let mut batch = keyspaces.db.batch();
        for (did, newest) in &accounts {
            let (before, after) = (self.before(keyspaces, did)?, &newest.state);
            added += u64::from(before.is_none());
            let local = before.as_ref().map_or(LocalStatus::None, |before| before.local);
            if before.as_ref().is_none_or(|before| before.host != after.host || before.local != after.local) {
                for (state, by) in before.iter().map(|before| (before, -1)).chain([(after, 1)]) {
                    let (repos, throttled) = moved.entry(state.host.clone()).or_default();
                    *repos += by;
                    *throttled += by * i64::from(state.local == LocalStatus::Throttled);
                }
            }
            match (local, newest.taken_down_at) {
                (LocalStatus::TakenDown, Some(_)) if !newest.was_free => {}
                (_, Some(seq)) => batch.insert(&keyspaces.takedowns, did.as_str(), seq.0.to_le_bytes()),
                (LocalStatus::TakenDown, None) => batch.remove(&keyspaces.takedowns, did.as_str()),
                (LocalStatus::None | LocalStatus::Throttled, None) => {}
            }
            encoded.clear();
            after.encode(&mut encoded);
            batch.insert(&keyspaces.repos, did.as_str(), encoded.as_slice());
        }
        for (host, (repos, throttled)) in moved {
            let mut counts = keyspaces.counts_of(&host)?;
            counts.repos = counts.repos.saturating_add_signed(repos);
            counts.throttled = counts.throttled.saturating_add_signed(throttled);
            batch.insert(&keyspaces.counts, host.as_str(), value::write_counts(counts));
        }
        let repo_count = self.repo_count() + added;
        batch.insert(&keyspaces.meta, keys::REPO_COUNT, repo_count.to_le_bytes());
        if let Some(through) = states.through {
            batch.insert(&keyspaces.meta, keys::WATERMARK, through.0.to_le_bytes());
        }
        batch.commit().map_err(may_have("apply states"))?;
        // To the system: of a process that is killed only what is in the overlay is lost.
        keyspaces.db.persist(PersistMode::Buffer).map_err(may_have("apply states"))?;
        self.0.repo_count.store(repo_count, Ordering::Relaxed);
        for (did, newest) in accounts {
            self.0.recent.put(did, &newest.state);
        }
        Ok(())
    }

    /// An account's state in the database.
    fn before(&self, keyspaces: &Keyspaces, did: &Did) -> Result<Option<RepoState>, Error> {
        match self.0.recent.get(did) {
            Some(state) => Ok(Some(state)),
            None => keyspaces.repo(did),
        }
    }

    /// The database, with all that was noted so far in it: for what reads more than one account's state.
    async fn settled(&self) -> Result<Arc<Keyspaces>, Error> {
        if self.0.overlay.through().is_some() {
            let state = self.clone();
            blocking(move || state.settle()).await?;
        }
        self.keyspaces()
    }
}

impl Keyspaces {
    fn meta_u64(&self, key: &str) -> Result<Option<u64>, fjall::Error> {
        Ok(self.meta.get(key)?.and_then(|bytes| value::read_u64(&bytes)))
    }

    fn counts_of(&self, host: &HostName) -> Result<Counts, Error> {
        let counts = self.counts.get(host.as_str()).map_err(did_not("read a count"))?;
        let read =
            |bytes: fjall::Slice| value::read_counts(&bytes).ok_or_else(|| damaged("count", host.as_str().as_bytes()));
        counts.map_or(Ok(Counts::default()), read)
    }

    fn repo(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        let Some(bytes) = self.repos.get(did.as_str()).map_err(did_not("read a repo"))? else { return Ok(None) };
        let state = RepoState::decode(&bytes).ok_or_else(|| damaged("repo state", did.as_str().as_bytes()))?;
        Ok(Some(state))
    }
}

/// An error of a call that changed nothing.
fn did_not(what: &'static str) -> impl FnOnce(fjall::Error) -> Error {
    move |source| Error::Determinate { what, source: source.into() }
}

/// An error of a call that may have changed something.
fn may_have(what: &'static str) -> impl FnOnce(fjall::Error) -> Error {
    move |source| Error::Indeterminate { what, source: source.into() }
}

fn damaged(what: &str, key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key);
    Error::Damaged { what: format!("the {what} of {key}; `mainstem repair` can rebuild the state store from the log") }
}

/// Runs a call that may touch the disk off the async threads.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => answer,
        Err(panic) => Err(Error::Indeterminate { what: "run a blocking call", source: panic.into() }),
    }
}
