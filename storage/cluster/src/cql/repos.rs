//! Repos in CQL: a view of the lanes, written by their owners alone.
//!
//! A repo is one row with one cell, whose timestamp is the place in `verified` that it came of. Beside it stands a table
//! of the accounts of each host, which is written where an account comes, moves or is throttled. What must hold, so that
//! whoever takes over a lane and writes again what may be missing mends all of it:
//! 1. the account's rows are written before the repo's own. Where that is there, so are they; where it is not, the state
//!    before is still found, and with it what to write;
//! 2. an event that puts its account elsewhere writes rows of accounts, also where a later one of its batch does so too:
//!    whoever writes again, in other batches, writes the same cells;
//! 3. the batches of a lane are written one after another, in the order of their positions.
//!
//! Repos are listed in the order of their tokens, the hashes by which rows are spread over the servers.

use std::{
    cmp::Ordering,
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use atproto::syntax::{Did, HostName};
use futures_util::{StreamExt, TryStreamExt, stream};
use storage::{
    error::Error,
    lane::{Lane, LaneCount},
    repos::{LocalStatus, RepoState, Repos, Takedowns},
};

use super::{
    damaged,
    metrics::Kind,
    recent::{LaneStates, Recent, Written},
    schema::Settled,
    session::{ConnectError, Effect, Session, Statement},
    takedowns::TakedownRows,
    timestamp,
};

/// Accounts of a batch that are looked up and written at once.
const IN_FLIGHT: usize = 128;
/// How many pieces the ring of tokens is counted in, and how many of them at once.
const COUNT_PIECES: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");
const COUNTS_AT_ONCE: usize = 8;
/// What is so few is counted anew whenever it is asked for.
const FEW: u64 = 20_000;
/// The count of more is good for so many times what counting took.
const COUNT_LASTS: u32 = 20;
/// What is kept of counts: of so many hosts.
const COUNTS_KEPT_MAX: usize = 10_000;

/// The rows of repos.
pub struct Rows {
    session: Arc<Session>,
    lanes: LaneCount,
    generation: u32,
    recent: Recent,
    /// One batch of a lane at a time.
    writing: HashMap<Lane, tokio::sync::Mutex<()>>,
    counts: Mutex<HashMap<Counted, Known>>,
    get: Statement,
    put: Statement,
    list: Statement,
    list_after: Statement,
    count: Statement,
    account_put: Statement,
    account_delete: Statement,
    account_count: Statement,
}

/// What may be counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Repos,
    AccountsOf(HostName),
}

/// A count.
#[derive(Clone, Copy)]
struct Known {
    all: u64,
    throttled: u64,
    at: Instant,
    took: Duration,
}

impl Rows {
    /// Prepares the statements. `recent_bytes_max` bounds the states kept in memory, of the lanes that are
    /// [owned](Rows::own) here.
    pub async fn prepare(session: Arc<Session>, settled: Settled, recent_bytes_max: u64) -> Result<Rows, ConnectError> {
        let read = async |kind, what, text| session.prepare(kind, Effect::Read, what, text).await;
        let write = async |kind, what, text| session.prepare(kind, Effect::Idempotent, what, text).await;
        let list = "list repos";
        let count = "count repos";
        let account = "write an account of a host";
        Ok(Rows {
            get: read(Kind::RepoGet, "read a repo", "SELECT state, writetime(state) FROM repos WHERE did = ?").await?,
            put: write(Kind::RepoPut, "write a repo", "UPDATE repos USING TIMESTAMP ? SET state = ? WHERE did = ?")
                .await?,
            list: read(Kind::RepoList, list, "SELECT did, token(did), state FROM repos").await?,
            list_after: read(
                Kind::RepoList,
                list,
                "SELECT did, token(did), state FROM repos WHERE token(did) >= token(?)",
            )
            .await?,
            count: read(
                Kind::RepoCount,
                count,
                "SELECT count(state) FROM repos WHERE token(did) > ? AND token(did) <= ?",
            )
            .await?,
            account_put: write(
                Kind::AccountPut,
                account,
                "INSERT INTO accounts_by_host (host, did, throttled) VALUES (?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            account_delete: write(
                Kind::AccountPut,
                account,
                "DELETE FROM accounts_by_host USING TIMESTAMP ? WHERE host = ? AND did = ?",
            )
            .await?,
            account_count: read(
                Kind::AccountCount,
                "count a host's accounts",
                "SELECT count(*), count(throttled) FROM accounts_by_host WHERE host = ?",
            )
            .await?,
            lanes: settled.lanes,
            generation: settled.generation,
            recent: Recent::new(settled.lanes, recent_bytes_max),
            writing: settled.lanes.all().map(|lane| (lane, tokio::sync::Mutex::default())).collect(),
            counts: Mutex::default(),
            session,
        })
    }

    /// The lane is ours: states that are written here stay in memory. Before the first [`Rows::apply`] of its new owner.
    pub fn own(&self, lane: Lane) {
        self.recent.own(lane);
    }

    /// The lane may be somebody else's by now: what is known of it is forgotten. At once when it is lost.
    pub fn disown(&self, lane: Lane) {
        self.recent.disown(lane);
    }

    /// Writes the states that events of a lane made, each with the event's offset in `verified`, in the order of these.
    /// When it answers Ok they are in the tables. A repeat changes nothing, and whoever is late changes nothing that a
    /// later offset has written. Batches of one lane wait for each other, in the order of the calls.
    pub async fn apply(&self, lane: Lane, events: &[(Did, RepoState, i64)]) -> Result<(), Error> {
        debug_assert!(events.is_sorted_by_key(|(_, _, offset)| offset));
        debug_assert!(events.iter().all(|(did, ..)| self.lanes.lane_of(did) == lane));
        let mut by_account: HashMap<&Did, Vec<(&RepoState, i64)>> = HashMap::new();
        for (did, state, offset) in events {
            by_account.entry(did).or_default().push((state, timestamp(self.generation, *offset)));
        }
        let known = self.recent.of(lane);
        let _one_at_a_time = match self.writing.get(&lane) {
            Some(writing) => Some(writing.lock().await),
            None => None,
        };
        let known = known.as_ref();
        let writes: Vec<_> = by_account.into_iter().map(|(did, states)| self.write(known, did, states)).collect();
        stream::iter(writes).buffer_unordered(IN_FLIGHT).try_for_each(|()| async { Ok(()) }).await
    }

    /// Writes an account's states, in their order. What each writes of the account's place depends on the state before it
    /// alone, so that it is the same in whatever batches they come.
    async fn write(&self, known: Option<&LaneStates>, did: &Did, states: Vec<(&RepoState, i64)>) -> Result<(), Error> {
        let mut before = match known.and_then(|known| known.get(did)) {
            Some(written) => Some(written),
            None => self.read(did).await?,
        };
        let written_at = before.as_ref().map(|written| written.at);
        for (state, at) in states {
            if before.as_ref().is_some_and(|before| before.at >= at) {
                // A repeat, or late: with its row, or a later one, its account's rows are there too.
                continue;
            }
            let place = |state: &RepoState| (state.host.clone(), state.local == LocalStatus::Throttled);
            let (old, new) = (before.as_ref().map(|before| place(&before.state)), place(state));
            if old.as_ref() != Some(&new) {
                let (host, throttled) = &new;
                let values = (host.as_str(), did.as_str(), throttled.then_some(true), at);
                self.session.execute(&self.account_put, values).await?;
            }
            if let Some((host, _)) = old.filter(|(host, _)| *host != new.0) {
                self.session.execute(&self.account_delete, (at, host.as_str(), did.as_str())).await?;
            }
            before = Some(Written { state: state.clone(), at });
        }
        let Some(last) = before.filter(|last| written_at != Some(last.at)) else { return Ok(()) };
        let mut bytes = Vec::new();
        last.state.encode(&mut bytes);
        self.session.execute(&self.put, (last.at, bytes, did.as_str())).await?;
        if let Some(known) = known {
            known.put(did, last);
        }
        Ok(())
    }

    /// A repo's state as of every batch that was answered.
    pub async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        let written = match self.recent.get(did) {
            Some(written) => Some(written),
            None => self.read(did).await?,
        };
        Ok(written.map(|written| written.state))
    }

    async fn read(&self, did: &Did) -> Result<Option<Written>, Error> {
        let row: Option<(Option<Vec<u8>>, Option<i64>)> = self.session.one(&self.get, (did.as_str(),)).await?;
        let Some((Some(bytes), Some(at))) = row else { return Ok(None) };
        let state = RepoState::decode(&bytes).ok_or_else(|| damaged("state", did.as_str()))?;
        Ok(Some(Written { state, at }))
    }

    /// Repos in the order of their tokens, after `after`, at most `limit`.
    pub async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error> {
        type Row = (String, i64, Option<Vec<u8>>);
        let rows: Vec<Row> = match after {
            None => self.session.all(&self.list, (), limit).await?,
            Some(after) => {
                // Two DIDs may have one token: those are in the order of their bytes. The DID itself is there or not.
                let token = self.token_of(after)?;
                let come_after = |(did, at, _): &Row| match at.cmp(&token) {
                    Ordering::Less => false,
                    Ordering::Equal => did.as_str() > after.as_str(),
                    Ordering::Greater => true,
                };
                let mut rows: Vec<Row> =
                    self.session.all(&self.list_after, (after.as_str(),), limit.saturating_add(2)).await?;
                rows.retain(come_after);
                rows.truncate(limit);
                rows
            }
        };
        let repos = rows.into_iter().filter_map(|(did, _, bytes)| {
            let bytes = bytes?;
            let state = RepoState::decode(&bytes);
            Some(Did::parse(&did).ok().zip(state).ok_or_else(|| damaged("state", &did)))
        });
        repos.collect()
    }

    fn token_of(&self, did: &Did) -> Result<i64, Error> {
        let token = self.get.token_of(&(did.as_str(),));
        token.ok_or_else(|| damaged("token", did.as_str()))
    }

    /// How many repos there are. Where there are many this was so some time ago: counting reads them all.
    pub async fn count(&self) -> Result<u64, Error> {
        let counted = self.counted(Counted::Repos, async {
            let pieces = token_ranges(COUNT_PIECES).map(async |range| self.session.one(&self.count, range).await);
            let counts = stream::iter(pieces).buffer_unordered(COUNTS_AT_ONCE);
            let sum = async |sum: i64, piece: Option<(i64,)>| Ok(sum + piece.map_or(0, |(count,)| count));
            Ok((counts.try_fold(0, sum).await?, 0))
        });
        Ok(counted.await?.all)
    }

    /// How many repos have this host in their state, and how many of them are throttled. As [`Rows::count`] says, some
    /// time ago where they are many.
    async fn counts_of(&self, host: &HostName) -> Result<Known, Error> {
        self.counted(Counted::AccountsOf(host.clone()), async {
            let row = self.session.one(&self.account_count, (host.as_str(),)).await?;
            Ok(row.unwrap_or((0, 0)))
        })
        .await
    }

    /// What is known if that is fresh, else what counting gives.
    async fn counted(
        &self,
        what: Counted,
        count: impl Future<Output = Result<(i64, i64), Error>>,
    ) -> Result<Known, Error> {
        let known = self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&what).copied();
        if let Some(known) = known.filter(|known| known.at.elapsed() < known.took * COUNT_LASTS) {
            return Ok(known);
        }
        let began = Instant::now();
        let (all, throttled) = count.await?;
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        let (at, took) = (Instant::now(), began.elapsed());
        let known = Known { all: number(all), throttled: number(throttled), at, took };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&what);
        if known.all > FEW && counts.len() < COUNTS_KEPT_MAX {
            counts.insert(what, known);
        }
        Ok(known)
    }
}

/// The ring of tokens in pieces, each from after its first to its second.
fn token_ranges(pieces: NonZeroU32) -> impl Iterator<Item = (i64, i64)> {
    // No row has the least token of all: it stands for "before the first".
    let pieces = i128::from(pieces.get());
    let bound = move |piece: i128| {
        let width = i128::from(i64::MAX) - i128::from(i64::MIN);
        i64::try_from(i128::from(i64::MIN) + width * piece / pieces).unwrap_or(i64::MAX)
    };
    (0..pieces).map(move |piece| (bound(piece), bound(piece + 1)))
}

/// Repos as the others see them: the rows, and the takedowns, which know the log.
pub struct CqlRepos {
    rows: Arc<Rows>,
    takedowns: TakedownRows,
}

impl CqlRepos {
    /// Of these.
    pub fn new(rows: Arc<Rows>, takedowns: TakedownRows) -> CqlRepos {
        CqlRepos { rows, takedowns }
    }
}

#[async_trait]
impl Repos for CqlRepos {
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        self.rows.get(did).await
    }

    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error> {
        self.rows.list(after, limit).await
    }

    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error> {
        Ok(self.rows.counts_of(host).await?.all)
    }

    async fn count_throttled_by_host(&self, host: &HostName) -> Result<u64, Error> {
        Ok(self.rows.counts_of(host).await?.throttled)
    }

    async fn takedowns(&self) -> Result<Takedowns, Error> {
        self.takedowns.load(&self.rows).await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.rows.count().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_cover_the_ring_once() {
        for pieces in [1, 2, 3, 64, 1000].map(|pieces| NonZeroU32::new(pieces).unwrap()) {
            let ranges: Vec<_> = token_ranges(pieces).collect();
            assert_eq!(ranges.len(), pieces.get() as usize);
            assert_eq!((ranges[0].0, ranges.last().unwrap().1), (i64::MIN, i64::MAX));
            assert!(ranges.windows(2).all(|two| two[0].1 == two[1].0));
            assert!(ranges.iter().all(|(after, to)| after < to));
        }
    }
}
