//! Hosts in CQL: the truth about them, which any node reads and administration writes.
//!
//! A host's row is spread over cells: what it was added as, which is written once, and what has changed since. What an
//! operator orders of it is in cells of its own, the later order wins. Status, notes and cursor are the crawler's alone. The
//! cursor's cells have the crawler's claim in their timestamp, so that who was replaced, and does not know it
//! yet, writes in vain; and who has no claim writes none.
//!
//! Hosts are some thousands, so their rows are in a few partitions, in the order of their names there.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use atproto::syntax::HostName;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use storage::{
    error::Error,
    hosts::{Host, HostCursor, HostStatus, Hosts, Notes, Order, Policy},
};

use super::{
    bucket_of, damaged,
    metrics::Kind,
    schema::Applied,
    session::{ConnectError, Effect, Session, Statement},
};

const BUCKETS: i16 = 16;
/// The one row of `policies`.
const POLICY: &str = "hosts";
/// Hosts that are known to be there, in memory.
const KNOWN_MAX: usize = 1_000_000;
const IN_FLIGHT: usize = 64;

/// Under which claim this process crawls a host; `None` where it does not. Claims of a host rise.
pub type Claims = Arc<dyn Fn(&HostName) -> Option<i64> + Send + Sync>;

/// The rows of hosts.
pub struct CqlHosts {
    session: Arc<Session>,
    claims: Claims,
    /// Rises with every save of cursors in this process.
    saves: AtomicU32,
    /// Hosts are never removed, so who was seen once is there.
    known: RwLock<HashSet<HostName>>,
    get: Statement,
    list: Statement,
    list_after: Statement,
    count: Statement,
    add: Statement,
    set_status: Statement,
    set_notes: Statement,
    set_banned: Statement,
    set_limits: Statement,
    set_rewind: Statement,
    set_cursor: Statement,
    policy: Statement,
    set_policy: Statement,
}

/// What a host was added as: JSON.
#[derive(Deserialize, Serialize)]
struct Added {
    status: String,
    added_at_micros: u64,
    notes: Notes,
    cursor: HostCursor,
}

/// `name`, `added`, `status`, `notes`, `cursor`, `banned`, `limits`, `rewind`.
type Row = (
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
    Option<bool>,
    Option<String>,
    Option<String>,
);

impl CqlHosts {
    /// Prepares the statements.
    pub async fn prepare(session: Arc<Session>, claims: Claims) -> Result<CqlHosts, ConnectError> {
        let read = async |kind, what, text| session.prepare(kind, Effect::Read, what, text).await;
        let write = async |kind, what, text| session.prepare(kind, Effect::Idempotent, what, text).await;
        let (put, order) = (Kind::HostPut, "keep an operator's order");
        Ok(CqlHosts {
            get: read(
                Kind::HostGet,
                "read a host",
                "SELECT name, added, status, notes, cursor, banned, limits, rewind FROM hosts WHERE bucket = ? AND name = ?",
            )
            .await?,
            list: read(
                Kind::HostList,
                "list hosts",
                "SELECT name, added, status, notes, cursor, banned, limits, rewind FROM hosts WHERE bucket = ?",
            )
            .await?,
            list_after: read(
                Kind::HostList,
                "list hosts",
                "SELECT name, added, status, notes, cursor, banned, limits, rewind FROM hosts WHERE bucket = ? AND name > ?",
            )
            .await?,
            count: read(Kind::HostList, "count hosts", "SELECT count(added) FROM hosts WHERE bucket = ?").await?,
            // A row of statuses or cursors alone is no host, so the condition is about the cell.
            add: session
                .prepare(
                    put,
                    Effect::Conditional,
                    "add a host",
                    "UPDATE hosts SET added = ? WHERE bucket = ? AND name = ? IF added = null",
                )
                .await?,
            set_status: write(put, "set a host's status", "UPDATE hosts SET status = ? WHERE bucket = ? AND name = ?")
                .await?,
            set_notes: write(put, "set a host's notes", "UPDATE hosts SET notes = ? WHERE bucket = ? AND name = ?")
                .await?,
            set_banned: write(put, order, "UPDATE hosts SET banned = ? WHERE bucket = ? AND name = ?").await?,
            set_limits: write(put, order, "UPDATE hosts SET limits = ? WHERE bucket = ? AND name = ?").await?,
            set_rewind: write(put, order, "UPDATE hosts SET rewind = ? WHERE bucket = ? AND name = ?").await?,
            set_cursor: write(
                Kind::HostCursorPut,
                "save a host's cursor",
                "UPDATE hosts USING TIMESTAMP ? SET cursor = ? WHERE bucket = ? AND name = ?",
            )
            .await?,
            policy: read(Kind::HostGet, "read the policy", "SELECT policy FROM policies WHERE name = ?").await?,
            set_policy: write(put, "set the policy", "UPDATE policies SET policy = ? WHERE name = ?").await?,
            session,
            claims,
            saves: AtomicU32::new(0),
            known: RwLock::default(),
        })
    }

    async fn is_known(&self, name: &HostName) -> Result<bool, Error> {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(true);
        }
        Ok(self.get(name).await?.is_some())
    }

    fn know<'a>(&self, names: impl Iterator<Item = &'a HostName>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if known.len() < KNOWN_MAX && !known.contains(name) {
                known.insert(name.clone());
            }
        }
    }

    /// Sets a cursor so that it wins over what was written under earlier claims, and by earlier saves of this process.
    async fn save_cursor(&self, name: &HostName, cursor: HostCursor, save: u32) -> Result<(), Error> {
        let Some(claim) = (self.claims)(name) else { return Ok(()) };
        if self.is_known(name).await? {
            let bytes = cursor.to_bytes();
            let key = (cursor_timestamp(claim, save), bytes, bucket(name), name.as_str());
            self.session.execute(&self.set_cursor, key).await?;
        }
        Ok(())
    }

    /// Hosts of one bucket.
    async fn list_bucket(&self, bucket: i16, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error> {
        let rows: Vec<Row> = match after {
            None => self.session.all(&self.list, (bucket,), limit).await?,
            Some(after) => self.session.all(&self.list_after, (bucket, after.as_str()), limit).await?,
        };
        rows.into_iter().filter_map(|row| host_of(row).transpose()).collect()
    }
}

#[async_trait]
impl Hosts for CqlHosts {
    async fn get(&self, name: &HostName) -> Result<Option<Host>, Error> {
        let row: Option<Row> = self.session.one(&self.get, (bucket(name), name.as_str())).await?;
        let host = row.map(host_of).transpose()?.flatten();
        self.know(host.iter().map(|host| &host.name));
        Ok(host)
    }

    async fn list(&self, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error> {
        let buckets: Vec<_> = (0..BUCKETS).map(|bucket| self.list_bucket(bucket, after, limit)).collect();
        let hosts: Vec<Vec<Host>> =
            stream::iter(buckets).buffer_unordered(usize::from(BUCKETS.unsigned_abs())).try_collect().await?;
        let mut hosts: Vec<Host> = hosts.into_iter().flatten().collect();
        hosts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        hosts.truncate(limit);
        self.know(hosts.iter().map(|host| &host.name));
        Ok(hosts)
    }

    async fn add(&self, host: &Host) -> Result<bool, Error> {
        let Host { name, status, cursor, added_at_micros, notes } = host;
        let added = Added {
            status: status.as_str().to_owned(),
            added_at_micros: *added_at_micros,
            notes: notes.clone(),
            cursor: *cursor,
        };
        let answer = self.session.one(&self.add, (json(&added), bucket(name), name.as_str())).await?;
        self.know(std::iter::once(name));
        Ok(answer.is_some_and(|Applied { applied }| applied))
    }

    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error> {
        if self.is_known(name).await? {
            self.session.execute(&self.set_status, (status.as_str(), bucket(name), name.as_str())).await?;
        }
        Ok(())
    }

    async fn set_notes(&self, name: &HostName, notes: &Notes) -> Result<(), Error> {
        if self.is_known(name).await? {
            self.session.execute(&self.set_notes, (json(notes), bucket(name), name.as_str())).await?;
        }
        Ok(())
    }

    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error> {
        if !self.is_known(name).await? {
            return Ok(());
        }
        let (bucket, key) = (bucket(name), name.as_str());
        match order {
            Order::Ban(banned) => self.session.execute(&self.set_banned, (*banned, bucket, key)).await?,
            Order::Limits(limits) => self.session.execute(&self.set_limits, (json(limits), bucket, key)).await?,
            Order::Rewind(rewind) => self.session.execute(&self.set_rewind, (json(rewind), bucket, key)).await?,
        };
        Ok(())
    }

    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error> {
        // Of a host that is there twice the later one counts.
        let cursors: HashMap<&HostName, HostCursor> = cursors.iter().map(|(name, cursor)| (name, *cursor)).collect();
        let save = self.saves.fetch_add(1, Ordering::Relaxed);
        let saves: Vec<_> = cursors.into_iter().map(|(name, cursor)| self.save_cursor(name, cursor, save)).collect();
        stream::iter(saves).buffer_unordered(IN_FLIGHT).try_for_each(|()| async { Ok(()) }).await
    }

    async fn count(&self) -> Result<u64, Error> {
        let mut sum = 0;
        for bucket in 0..BUCKETS {
            let row: Option<(i64,)> = self.session.one(&self.count, (bucket,)).await?;
            sum += row.map_or(0, |(count,)| count.unsigned_abs());
        }
        Ok(sum)
    }

    async fn policy(&self) -> Result<Policy, Error> {
        let row: Option<(Option<String>,)> = self.session.one(&self.policy, (POLICY,)).await?;
        let Some((Some(policy),)) = row else { return Ok(Policy::default()) };
        serde_json::from_str(&policy).map_err(|_| damaged("policy", POLICY))
    }

    async fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        self.session.execute(&self.set_policy, (json(policy), POLICY)).await?;
        Ok(())
    }
}

/// A cursor's cell: a later claim wins, and of one claim a later save. Some two billion claims and nudges fit in a
/// partition of hosts, and more than a hundred years of saves in a process's life.
fn cursor_timestamp(claim: i64, save: u32) -> i64 {
    (claim.clamp(0, i64::from(i32::MAX)) << 32) | i64::from(save)
}

fn bucket(name: &HostName) -> i16 {
    bucket_of(name.as_str(), BUCKETS)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of numbers and strings are JSON")
}

/// The host that a row is; `None` where it has only cells that make no host.
fn host_of((name, added, status, notes, cursor, banned, limits, rewind): Row) -> Result<Option<Host>, Error> {
    let Some(added) = added else { return Ok(None) };
    let host = || {
        let added: Added = serde_json::from_str(&added).ok()?;
        let was = HostStatus::parse(&added.status)?;
        // Where nobody has ordered a thing, it is as the host was added.
        let banned = banned.unwrap_or(was == HostStatus::Banned);
        let status = match status {
            _ if banned => HostStatus::Banned,
            Some(status) => match HostStatus::parse(&status)? {
                HostStatus::Banned => HostStatus::Idle,
                status => status,
            },
            None if was == HostStatus::Banned => HostStatus::Idle,
            None => was,
        };
        let notes: Notes = match &notes {
            None => added.notes.clone(),
            Some(notes) => serde_json::from_str(notes).ok()?,
        };
        Some(Host {
            name: HostName::parse(&name).ok()?,
            status,
            cursor: match &cursor {
                None => added.cursor,
                Some(bytes) => HostCursor::from_bytes(bytes)?,
            },
            added_at_micros: added.added_at_micros,
            notes: Notes {
                limits: match &limits {
                    None => added.notes.limits,
                    Some(limits) => serde_json::from_str(limits).ok()?,
                },
                rewind: match &rewind {
                    None => added.notes.rewind,
                    Some(rewind) => Some(serde_json::from_str(rewind).ok()?),
                },
                ..notes
            },
        })
    };
    host().map(Some).ok_or_else(|| damaged("row", &name))
}
