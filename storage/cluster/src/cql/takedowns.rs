//! The accounts that are taken down, each with its takedown's seq: a fold of the log, kept in CQL.
//!
//! Rows of repos come of `verified`, where nobody knows seqs yet, and may be ahead of what is served or behind it. So the
//! set is folded from the log itself, as fan-out does, and kept with the seq that it is of. Whoever asks reads the log on
//! from there, and writes what has changed. Any number may do so at once: what they write has the seq of the event that
//! says so as its timestamp, and they all read the same log.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage::{
    error::Error,
    log::{EventLog, ReadError},
    repos::{LocalStatus, Takedown, Takedowns},
    seq::Seq,
};
use tracing::warn;

use super::{
    metrics::Kind,
    repos::Rows,
    session::{ConnectError, Effect, Session, Statement},
};

const BUCKETS: u64 = 16;
/// The seq that the set is of, by this name in `marks`.
const AS_OF: &str = "takedowns_as_of";
/// What is read of the log at once.
const PIECE_BYTES: usize = 1 << 20;
/// The set is said to be of a later seq at the latest after so many.
const MARK_EVERY: u64 = 10_000;
const PAGE_REPOS: usize = 1000;

/// The rows of takedowns, and the log that they are folded from.
pub struct TakedownRows {
    session: Arc<Session>,
    log: Arc<dyn EventLog>,
    list: Statement,
    put: Statement,
    delete: Statement,
    mark: Statement,
    marked: Statement,
}

/// What a fold has changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    TakenDown { account: u64, seq: Seq },
    Restored { account: u64, seq: Seq },
}

impl TakedownRows {
    /// Prepares the statements.
    pub async fn prepare(session: Arc<Session>, log: Arc<dyn EventLog>) -> Result<TakedownRows, ConnectError> {
        let (kind, write, read) = (Kind::TakedownPut, "write a takedown", "list takedowns");
        Ok(TakedownRows {
            list: session
                .prepare(Kind::TakedownList, Effect::Read, read, "SELECT account, seq FROM takedowns WHERE bucket = ?")
                .await?,
            put: session
                .prepare(
                    kind,
                    Effect::Idempotent,
                    write,
                    "INSERT INTO takedowns (bucket, account, seq) VALUES (?, ?, ?) USING TIMESTAMP ?",
                )
                .await?,
            delete: session
                .prepare(
                    kind,
                    Effect::Idempotent,
                    write,
                    "DELETE FROM takedowns USING TIMESTAMP ? WHERE bucket = ? AND account = ?",
                )
                .await?,
            mark: session
                .prepare(kind, Effect::Idempotent, write, "UPDATE marks USING TIMESTAMP ? SET value = ? WHERE name = ?")
                .await?,
            marked: session
                .prepare(Kind::TakedownList, Effect::Read, read, "SELECT value FROM marks WHERE name = ?")
                .await?,
            session,
            log,
        })
    }

    /// The set as of the log's end. Costs what there are of them, and what the log has grown since it was last asked for:
    /// ask now and then.
    pub async fn load(&self, rows: &Rows) -> Result<Takedowns, Error> {
        let marked: Option<(Option<i64>,)> = self.session.one(&self.marked, (AS_OF,)).await?;
        let marked = marked.and_then(|(seq,)| seq).map_or(Seq(0), |seq| Seq(seq.unsigned_abs()));
        // Rows may be of a later time than the mark: folding in anew what they have changes nothing.
        let mut set = self.rows().await?;
        let first = self.log.window().borrow().first;
        let mut as_of = marked.max(Seq(first.0.saturating_sub(1)));
        if as_of > marked {
            self.complete(rows, &mut set, as_of).await?;
        }
        let mut saved = marked;
        loop {
            let events = match self.log.read(as_of, PIECE_BYTES).await {
                Ok(events) => events,
                Err(ReadError::Outdated { first, .. }) => {
                    as_of = Seq(first.0.saturating_sub(1));
                    self.complete(rows, &mut set, as_of).await?;
                    continue;
                }
                Err(ReadError::Store(error)) => return Err(error),
            };
            let end = events.last().map(|last| last.seq);
            let changes = fold(&mut set, events.iter().map(|event| (event.seq, event.account, event.taken_down)));
            as_of = end.unwrap_or(as_of);
            self.write(&changes).await?;
            if as_of > saved && (!changes.is_empty() || end.is_none() || as_of.0 - saved.0 >= MARK_EVERY) {
                self.session.execute(&self.mark, (cell(as_of), cell(as_of), AS_OF)).await?;
                saved = as_of;
            }
            if end.is_none() {
                let accounts = set.into_iter().map(|(account, seq)| Takedown { account, seq }).collect();
                return Ok(Takedowns { accounts, as_of });
            }
        }
    }

    async fn rows(&self) -> Result<HashMap<u64, Seq>, Error> {
        let buckets = (0..BUCKETS).map(async |bucket| {
            let rows: Vec<(i64, i64)> =
                self.session.all(&self.list, (i16::try_from(bucket).unwrap_or(0),), usize::MAX).await?;
            Ok::<_, Error>(rows)
        });
        let rows: Vec<Vec<(i64, i64)>> = stream::iter(buckets).buffer_unordered(4).try_collect().await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(account, seq)| (account.cast_unsigned(), Seq(seq.unsigned_abs())))
            .collect())
    }

    /// The log no longer has all since the set was last brought up to it: what it said is taken from the repos' own rows,
    /// all of them. A takedown that is found there has no event left that may be served.
    async fn complete(&self, rows: &Rows, set: &mut HashMap<u64, Seq>, as_of: Seq) -> Result<(), Error> {
        warn!(%as_of, "the set of takedowns is older than the log: reading all repos");
        let mut after = None;
        let mut changes = Vec::new();
        loop {
            let page = rows.list(after.as_ref(), PAGE_REPOS).await?;
            for (did, state) in &page {
                let account = atproto::syntax::Did::lane_hash(did.as_str());
                match (state.local, set.get(&account)) {
                    (LocalStatus::TakenDown, None) => {
                        set.insert(account, as_of);
                        changes.push(Change::TakenDown { account, seq: as_of });
                    }
                    (LocalStatus::None | LocalStatus::Throttled, Some(_)) => {
                        set.remove(&account);
                        changes.push(Change::Restored { account, seq: as_of });
                    }
                    (LocalStatus::TakenDown, Some(_)) | (LocalStatus::None | LocalStatus::Throttled, None) => {}
                }
            }
            let Some((last, _)) = page.into_iter().next_back() else { break };
            after = Some(last);
        }
        self.write(&changes).await
    }

    async fn write(&self, changes: &[Change]) -> Result<(), Error> {
        for change in changes {
            match *change {
                Change::TakenDown { account, seq } => {
                    let values = (bucket_of(account), account.cast_signed(), cell(seq), cell(seq));
                    self.session.execute(&self.put, values).await?;
                }
                Change::Restored { account, seq } => {
                    let values = (cell(seq), bucket_of(account), account.cast_signed());
                    self.session.execute(&self.delete, values).await?;
                }
            }
        }
        Ok(())
    }
}

/// Takes in what events say, each with its account and whether that is taken down after it.
fn fold(set: &mut HashMap<u64, Seq>, events: impl Iterator<Item = (Seq, u64, bool)>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (seq, account, taken_down) in events {
        if taken_down && !set.contains_key(&account) {
            set.insert(account, seq);
            changes.push(Change::TakenDown { account, seq });
        } else if !taken_down && set.remove(&account).is_some() {
            changes.push(Change::Restored { account, seq });
        }
    }
    changes
}

fn bucket_of(account: u64) -> i16 {
    i16::try_from(account % BUCKETS).unwrap_or_default()
}

fn cell(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_again_what_is_there_ends_the_same() {
        let events = [(1, 7, false), (2, 7, true), (3, 7, true), (4, 8, true), (5, 7, false), (6, 7, true)];
        let events = events.map(|(seq, account, taken_down)| (Seq(seq), account, taken_down));
        let mut whole = HashMap::new();
        let changes = fold(&mut whole, events.into_iter());
        assert_eq!(whole, HashMap::from([(7, Seq(6)), (8, Seq(4))]));
        assert_eq!(changes.len(), 4);
        // A set that is ahead of its mark.
        for ahead in 0..events.len() {
            let mut set = HashMap::new();
            fold(&mut set, events[..ahead].iter().copied());
            fold(&mut set, events.into_iter());
            assert_eq!(set, whole, "{ahead}");
        }
    }
}
