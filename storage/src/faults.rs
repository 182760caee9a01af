//! The fault injector: a backend whose failures a test decides.
//!
//! [`Faults::wrap`] puts itself before another backend's nouns. A test plans a fault for a call, by its count, and can
//! ask afterwards whether it fired, so that a test whose fault never happens fails.
//!
//! ```text
//!   let (stores, faults) = Faults::wrap(memory::open());
//!   let lost = faults.plan(Call::Append, Fault::LostAnswer).after(3).times(2);
//!   …
//!   faults.assert_all_fired();
//! ```

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use atproto::syntax::{Did, HostName};
use tokio::sync::{Notify, watch};

use crate::{
    Stores,
    error::Error,
    hosts::{Host, HostCursor, HostStatus, Hosts, Notes, Order, Policy},
    identities::Identities,
    intake::{Command, Intake, Position, RawFrame, Taken},
    lane::{Lane, LaneCount},
    log::{Accepted, Block, EventLog, LogHealth, Published, ReadError, Window},
    repos::{RepoState, Repos, Takedowns},
    seq::Seq,
};

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Intake::push`] and [`Intake::push_command`]
    Push,
    /// [`Intake::pull`]
    Pull,
    /// [`Intake::cover`]
    Cover,
    /// [`Intake::settle`]
    Settle,
    /// [`EventLog::append`]
    Append,
    /// [`EventLog::read`] and [`EventLog::read_block`]
    Read,
    /// [`Repos::get`]
    RepoGet,
    /// [`Repos::list`] and [`Repos::takedowns`]
    RepoList,
    /// [`Repos::count_by_host`], [`Repos::count_throttled_by_host`] and [`Repos::count`]
    RepoCount,
    /// [`Hosts::get`]
    HostGet,
    /// [`Hosts::list`]
    HostList,
    /// [`Hosts::add`]
    HostAdd,
    /// [`Hosts::set_status`]
    HostSetStatus,
    /// [`Hosts::save_cursors`]
    HostSaveCursors,
    /// [`Hosts::count`]
    HostCount,
    /// [`Hosts::set_notes`]
    HostSetNotes,
    /// [`Hosts::order`]
    HostOrder,
    /// [`Hosts::policy`]
    HostPolicy,
    /// [`Hosts::set_policy`]
    HostSetPolicy,
    /// [`Identities::get`]
    IdentityGet,
    /// [`Identities::put`]
    IdentityPut,
}

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It does not happen, and says so.
    Determinate,
    /// It does not happen, and nobody can tell.
    LostCall,
    /// It happens, and nobody can tell.
    LostAnswer,
    /// It says that stored data is damaged.
    Damaged,
    /// It says that the store is closed.
    Closed,
    /// It happens later.
    Delay(Duration),
    /// It happens when the gate is opened.
    Hold(Gate),
}

/// Holds calls back until it is opened. They go through one after another, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    open: watch::Sender<bool>,
    reached: Notify,
    /// Whose turn it is; tokio's mutex is fair.
    turn: tokio::sync::Mutex<()>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets through whoever waits, and everybody after.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Waits until a call stands before the gate.
    pub async fn reached(&self) {
        self.0.reached.notified().await;
    }

    /// Waits until it is open and all who came before are through. The next comes through when this is dropped.
    async fn pass(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.reached.notify_one();
        let turn = self.0.turn.lock().await;
        let mut opened = self.0.open.subscribe();
        // The sender lives as long as this gate.
        let _open = opened.wait_for(|open| *open).await;
        turn
    }
}

/// A fault that is planned, and how often it has fired. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Planned(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    call: Call,
    fault: Fault,
    skip: AtomicU64,
    times: AtomicU64,
    fired: AtomicU64,
}

impl Planned {
    /// Lets this many calls through first; none by default.
    pub fn after(self, calls: u64) -> Planned {
        self.0.skip.store(calls, Ordering::SeqCst);
        self
    }

    /// Fires this often; once by default.
    pub fn times(self, times: u64) -> Planned {
        self.0.times.store(times, Ordering::SeqCst);
        self
    }

    /// Fires at every call from now on.
    pub fn always(self) -> Planned {
        self.times(u64::MAX)
    }

    /// Never fires again.
    pub fn cancel(&self) {
        self.0.times.store(0, Ordering::SeqCst);
    }

    /// How often it has fired.
    pub fn fired(&self) -> u64 {
        self.0.fired.load(Ordering::SeqCst)
    }

    /// Counts a call; whether it is one that fails.
    fn fires(&self) -> bool {
        let step = |counter: &AtomicU64| {
            counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
        };
        if step(&self.0.skip) || !step(&self.0.times) {
            return false;
        }
        self.0.fired.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// The faults of one backend; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Planned>>>);

impl Faults {
    /// Puts faults, none yet, before a backend.
    pub fn wrap(stores: Stores) -> (Stores, Faults) {
        let faults = Faults::default();
        let (assignment, crawled) = (Arc::clone(&stores.assignment), Arc::clone(&stores.crawled));
        let faulty = Arc::new(Faulty { inner: stores, faults: faults.clone() });
        let stores = Stores {
            intake: Arc::clone(&faulty) as _,
            log: Arc::clone(&faulty) as _,
            repos: Arc::clone(&faulty) as _,
            hosts: Arc::clone(&faulty) as _,
            identities: faulty,
            assignment,
            crawled,
        };
        (stores, faults)
    }

    /// Plans a fault for the next such call. Of several for one call, the one planned first fires.
    pub fn plan(&self, call: Call, fault: Fault) -> Planned {
        let planned = Planned(Arc::new(Plan {
            call,
            fault,
            skip: AtomicU64::new(0),
            times: AtomicU64::new(1),
            fired: AtomicU64::new(0),
        }));
        self.planned().push(planned.clone());
        planned
    }

    /// Panics where a planned fault has not fired.
    #[track_caller]
    pub fn assert_all_fired(&self) {
        let silent: Vec<_> = self.planned().iter().filter(|planned| planned.fired() == 0).cloned().collect();
        assert!(silent.is_empty(), "planned, but never fired: {silent:?}");
    }

    fn planned(&self) -> MutexGuard<'_, Vec<Planned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, call: Call) -> Option<Fault> {
        let planned = self.planned();
        planned.iter().find(|planned| planned.0.call == call && planned.fires()).map(|planned| planned.0.fault.clone())
    }

    /// Makes a call, or what a fault makes of it.
    async fn call<T, E: From<Error>>(&self, call: Call, inner: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match self.next(call) {
            None => inner.await,
            Some(Fault::Determinate) => Err(Error::Determinate { what: call.as_str(), source: Injected.into() }.into()),
            Some(Fault::LostCall) => Err(lost(call).into()),
            Some(Fault::LostAnswer) => {
                inner.await?;
                Err(lost(call).into())
            }
            Some(Fault::Damaged) => Err(Error::Damaged { what: format!("injected into {}", call.as_str()) }.into()),
            Some(Fault::Closed) => Err(Error::Closed.into()),
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                inner.await
            }
            Some(Fault::Hold(gate)) => {
                let _turn = gate.pass().await;
                inner.await
            }
        }
    }
}

fn lost(call: Call) -> Error {
    Error::Indeterminate { what: call.as_str(), source: Injected.into() }
}

impl Call {
    fn as_str(self) -> &'static str {
        match self {
            Call::Push => "push a frame",
            Call::Pull => "pull frames",
            Call::Cover => "cover a lane",
            Call::Settle => "settle frames",
            Call::Append => "append to the log",
            Call::Read => "read the log",
            Call::RepoGet => "read a repo",
            Call::RepoList => "list repos",
            Call::RepoCount => "count repos",
            Call::HostGet => "read a host",
            Call::HostList => "list hosts",
            Call::HostAdd => "add a host",
            Call::HostSetStatus => "set a host's status",
            Call::HostSaveCursors => "save cursors",
            Call::HostCount => "count hosts",
            Call::HostSetNotes => "set a host's notes",
            Call::HostOrder => "keep an operator's order",
            Call::HostPolicy => "read the policy",
            Call::HostSetPolicy => "set the policy",
            Call::IdentityGet => "read an identity",
            Call::IdentityPut => "keep identities",
        }
    }
}

/// The cause of every injected error.
#[derive(Debug)]
struct Injected;

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected by a test")
    }
}

impl std::error::Error for Injected {}

/// All stores with faults before them.
struct Faulty {
    inner: Stores,
    faults: Faults,
}

#[async_trait]
impl Intake for Faulty {
    fn lanes(&self) -> LaneCount {
        self.inner.intake.lanes()
    }

    async fn push(&self, frame: RawFrame) -> Result<(), Error> {
        self.faults.call(Call::Push, self.inner.intake.push(frame)).await
    }

    async fn push_command(&self, command: Command) -> Result<(), Error> {
        self.faults.call(Call::Push, self.inner.intake.push_command(command)).await
    }

    async fn pull(&self, lane: Lane, bytes_max: usize) -> Result<Vec<Taken>, Error> {
        self.faults.call(Call::Pull, self.inner.intake.pull(lane, bytes_max)).await
    }

    async fn cover(&self, lane: Lane, position: Position) -> Result<(), Error> {
        self.faults.call(Call::Cover, self.inner.intake.cover(lane, position)).await
    }

    async fn settle(&self, lane: Lane, positions: &[Position]) -> Result<(), Error> {
        self.faults.call(Call::Settle, self.inner.intake.settle(lane, positions)).await
    }

    fn bytes_held(&self) -> u64 {
        self.inner.intake.bytes_held()
    }
}

#[async_trait]
impl EventLog for Faulty {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        self.faults.call(Call::Append, self.inner.log.append(batch)).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        self.faults.call(Call::Read, self.inner.log.read(after, bytes_max)).await
    }

    async fn read_block(&self, after: Seq, bytes_max: usize) -> Result<Block, ReadError> {
        self.faults.call(Call::Read, self.inner.log.read_block(after, bytes_max)).await
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.inner.log.window()
    }

    async fn catch_up(&self) -> Result<(), Error> {
        self.faults.call(Call::Read, self.inner.log.catch_up()).await
    }

    fn health(&self) -> LogHealth {
        self.inner.log.health()
    }
}

#[async_trait]
impl Repos for Faulty {
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        self.faults.call(Call::RepoGet, self.inner.repos.get(did)).await
    }

    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error> {
        self.faults.call(Call::RepoList, self.inner.repos.list(after, limit)).await
    }

    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error> {
        self.faults.call(Call::RepoCount, self.inner.repos.count_by_host(host)).await
    }

    async fn count_throttled_by_host(&self, host: &HostName) -> Result<u64, Error> {
        self.faults.call(Call::RepoCount, self.inner.repos.count_throttled_by_host(host)).await
    }

    async fn takedowns(&self) -> Result<Takedowns, Error> {
        self.faults.call(Call::RepoList, self.inner.repos.takedowns()).await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.faults.call(Call::RepoCount, self.inner.repos.count()).await
    }
}

#[async_trait]
impl Hosts for Faulty {
    async fn get(&self, name: &HostName) -> Result<Option<Host>, Error> {
        self.faults.call(Call::HostGet, self.inner.hosts.get(name)).await
    }

    async fn list(&self, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error> {
        self.faults.call(Call::HostList, self.inner.hosts.list(after, limit)).await
    }

    async fn add(&self, host: &Host) -> Result<bool, Error> {
        self.faults.call(Call::HostAdd, self.inner.hosts.add(host)).await
    }

    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error> {
        self.faults.call(Call::HostSetStatus, self.inner.hosts.set_status(name, status)).await
    }

    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error> {
        self.faults.call(Call::HostSaveCursors, self.inner.hosts.save_cursors(cursors)).await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.faults.call(Call::HostCount, self.inner.hosts.count()).await
    }

    async fn set_notes(&self, name: &HostName, notes: &Notes) -> Result<(), Error> {
        self.faults.call(Call::HostSetNotes, self.inner.hosts.set_notes(name, notes)).await
    }

    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error> {
        self.faults.call(Call::HostOrder, self.inner.hosts.order(name, order)).await
    }

    async fn policy(&self) -> Result<Policy, Error> {
        self.faults.call(Call::HostPolicy, self.inner.hosts.policy()).await
    }

    async fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        self.faults.call(Call::HostSetPolicy, self.inner.hosts.set_policy(policy)).await
    }
}

#[async_trait]
impl Identities for Faulty {
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, Error> {
        self.faults.call(Call::IdentityGet, self.inner.identities.get(did)).await
    }

    async fn put(&self, rows: Vec<(Did, Vec<u8>)>) -> Result<(), Error> {
        self.faults.call(Call::IdentityPut, self.inner.identities.put(rows)).await
    }
}
