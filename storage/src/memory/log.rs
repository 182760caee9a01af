use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use atproto::{
    frame,
    syntax::{Did, HostName},
};
use bytes::Bytes;
use tokio::sync::watch;

use super::Config;
use crate::{
    error::Error,
    log::{Accepted, EventLog, LogHealth, Published, ReadError, Window},
    repos::{LocalStatus, RepoState, Repos, Takedown, Takedowns},
    seq::Seq,
};

/// The log in a queue.
pub struct MemoryLog {
    config: Config,
    repos: MemoryRepos,
    events: Mutex<Events>,
    window: watch::Sender<Window>,
}

#[derive(Default)]
struct Events {
    kept: VecDeque<Event>,
    bytes: u64,
    last: Seq,
}

struct Event {
    published: Published,
    at_micros: u64,
}

impl MemoryLog {
    pub(super) fn new(config: Config, repos: MemoryRepos) -> MemoryLog {
        let last = Seq(config.seq_start.0.saturating_sub(1));
        let window = Window { first: last.next(), last, bytes: 0, first_at_micros: None };
        let events = Mutex::new(Events { last, ..Events::default() });
        MemoryLog { config, repos, events, window: watch::Sender::new(window) }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    fn append(&mut self, accepted: &Accepted, at_micros: u64) {
        self.last = self.last.next();
        let mut bytes = Vec::new();
        frame::write_with_seq(&mut bytes, &accepted.frame, accepted.seq_slot, self.last.0);
        self.bytes += bytes.len() as u64;
        let published = Published {
            seq: self.last,
            account: Did::lane_hash(accepted.did.as_str()),
            taken_down: accepted.state.local == LocalStatus::TakenDown,
            frame: Bytes::from(bytes),
        };
        self.kept.push_back(Event { published, at_micros });
    }

    fn retain(&mut self, window_bytes: u64) {
        while self.bytes > window_bytes && self.kept.len() > 1 {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.published.frame.len() as u64;
        }
    }

    fn window(&self) -> Window {
        let oldest = self.kept.front();
        Window {
            first: oldest.map_or(self.last.next(), |event| event.published.seq),
            last: self.last,
            bytes: self.bytes,
            first_at_micros: oldest.map(|event| event.at_micros),
        }
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, batch: Vec<Accepted>) -> Result<(), Error> {
        let at_micros = (self.config.now_micros)();
        let mut events = self.events();
        if Seq::MAX.0 - events.last.0 < batch.len() as u64 {
            return Err(Error::Determinate { what: "append to the log", source: "no seq is left".into() });
        }
        let before = events.last;
        for accepted in &batch {
            events.append(accepted, at_micros);
        }
        events.retain(self.config.window_bytes);
        // Under the lock, so that neither the window nor a repo ever steps back.
        self.repos.apply(batch, before);
        self.window.send_replace(events.window());
        Ok(())
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Published>, ReadError> {
        let events = self.events();
        if after >= events.last {
            return Ok(Vec::new());
        }
        let first = events.window().first;
        if after.next() < first {
            return Err(ReadError::Outdated { after, first });
        }
        let start = events.kept.partition_point(|event| event.published.seq <= after);
        let mut bytes = 0;
        let next = events.kept.range(start..).map(|event| &event.published).take_while(|published| {
            let room = bytes < bytes_max || bytes == 0;
            bytes += published.frame.len();
            room
        });
        Ok(next.cloned().collect())
    }

    fn window(&self) -> watch::Receiver<Window> {
        self.window.subscribe()
    }

    fn health(&self) -> LogHealth {
        LogHealth::Ready
    }
}

/// Repos in a map.
#[derive(Clone, Debug, Default)]
pub struct MemoryRepos {
    view: Arc<Mutex<View>>,
}

#[derive(Debug, Default)]
struct View {
    states: BTreeMap<Did, RepoState>,
    /// The takedowns that count, by account.
    takedowns: BTreeMap<Did, Seq>,
    as_of: Seq,
}

impl MemoryRepos {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, batch: Vec<Accepted>, before: Seq) {
        let mut view = self.view();
        view.as_of = before;
        for Accepted { did, state, .. } in batch {
            let seq = view.as_of.next();
            view.as_of = seq;
            if state.local == LocalStatus::TakenDown {
                view.takedowns.entry(did.clone()).or_insert(seq);
            } else {
                view.takedowns.remove(&did);
            }
            view.states.insert(did, state);
        }
    }
}

#[async_trait]
impl Repos for MemoryRepos {
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        Ok(self.view().states.get(did).cloned())
    }

    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let view = self.view();
        let page = view.states.range((start, Bound::Unbounded)).take(limit);
        Ok(page.map(|(did, state)| (did.clone(), state.clone())).collect())
    }

    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error> {
        Ok(self.view().states.values().filter(|state| state.host == *host).count() as u64)
    }

    async fn count_throttled_by_host(&self, host: &HostName) -> Result<u64, Error> {
        let is_throttled = |state: &&RepoState| state.host == *host && state.local == LocalStatus::Throttled;
        Ok(self.view().states.values().filter(is_throttled).count() as u64)
    }

    async fn takedowns(&self) -> Result<Takedowns, Error> {
        let view = self.view();
        let takedown = |(did, seq): (&Did, &Seq)| Takedown { account: Did::lane_hash(did.as_str()), seq: *seq };
        Ok(Takedowns { accounts: view.takedowns.iter().map(takedown).collect(), as_of: view.as_of })
    }

    async fn count(&self) -> Result<u64, Error> {
        Ok(self.view().states.len() as u64)
    }
}
