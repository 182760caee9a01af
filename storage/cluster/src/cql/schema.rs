//! The keyspace: made, brought up to this program's version, and checked at every start.
//!
//! Migrations are files, numbered from 1, that only ever get more. Each may be run again, so that one that was cut off is
//! simply repeated; who migrates holds a lock that ends by itself. In the table `settled` stands what was decided when
//! the cluster was made, and which migrations were run.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use scylla::errors::{ExecutionError, NewSessionError};
use storage::lane::LaneCount;
use tokio::time::Instant;
use tracing::info;

use super::{
    metrics::{Kind, Metrics},
    session::{ConnectError, Effect, Session},
};
use crate::config::{Cql, Plan};

/// The migrations, in their order; a schema's version is how many of them it has.
const MIGRATIONS: [&str; 1] = [include_str!("schema/0001_rows.cql")];

const SETTLED_TABLE: &str = "CREATE TABLE IF NOT EXISTS settled (name text PRIMARY KEY, value text)";

/// Names in `settled`.
const VERSION: &str = "schema_version";
const LANES: &str = "lanes";
const GENERATION: &str = "generation";
const HOST_PARTITIONS: &str = "host_partitions";
const RAW_BYTES_MAX: &str = "raw_bytes_max";
const LOCK: &str = "migrating";

/// The lock of somebody who died while he migrated ends after this long.
const LOCK_SECONDS: u32 = 120;
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was decided when the cluster was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How many lanes there are.
    pub lanes: LaneCount,
    /// How often the lanes' topics were made anew: positions of a later generation come after all earlier ones.
    pub generation: u32,
    /// The partitions of `hosts`.
    pub host_partitions: NonZeroU32,
    /// See [`Plan::raw_bytes_max`].
    pub raw_bytes_max: u64,
}

/// Why a keyspace can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It was never made.
    #[error("there is no keyspace {keyspace}: `mainstem cluster init` makes it")]
    Missing {
        /// Its name.
        keyspace: String,
    },
    /// An older program made it.
    #[error("the schema has version {found}, this program needs {known}: run `mainstem cluster init`")]
    Older {
        /// Its version.
        found: usize,
        /// This program's.
        known: usize,
    },
    /// A newer program made it.
    #[error("the schema has version {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// Its version.
        found: usize,
        /// The newest this program reads.
        known: usize,
    },
    /// It was made with another number of lanes.
    #[error("the cluster was made with {found} lanes, not {asked}: see docs/cluster.md for how to change that")]
    Lanes {
        /// What it was made with.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Rows can't be kept as often as asked for, and what was made could not be written.
    #[error(
        "each row is to be kept {replication} times, and there are {nodes} nodes: one copy (for trying out) needs one"
    )]
    TooFewNodes {
        /// Copies.
        replication: u16,
        /// Nodes of the datacenter.
        nodes: usize,
    },
    /// A row that has no sense.
    #[error("{value:?} is no {name}")]
    Damaged {
        /// Which row.
        name: &'static str,
        /// What is in it.
        value: String,
    },
    /// Somebody else migrates.
    #[error("somebody else migrates the schema, and does not end")]
    Locked,
    /// A name that can't be a keyspace's.
    #[error("{keyspace:?} can't be a keyspace: a to z, 0 to 9 and _, at most 48, with a letter first")]
    Name {
        /// The name.
        keyspace: String,
    },
    /// A statement was refused.
    #[error("the CQL server refused {statement:?}")]
    Statement {
        /// It.
        statement: String,
        /// Why.
        #[source]
        source: Box<ExecutionError>,
    },
    /// Metrics could not be made.
    #[error("failed to make metrics")]
    Metrics(#[from] prometheus::Error),
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A read or write failed.
    #[error(transparent)]
    Store(#[from] storage::error::Error),
}

/// The keyspace of a cluster.
pub fn keyspace_of(cluster: &str) -> String {
    cluster.replace('-', "_")
}

/// Makes the keyspace, or brings it up to this program's version, and says what is settled. May be repeated. Rows are kept
/// as often as planned in the datacenter that is named in [`Cql`], or in each.
pub async fn init(config: &Cql, keyspace: &str, plan: &Plan, metrics: Metrics) -> Result<Settled, SchemaError> {
    check_name(keyspace)?;
    let outside = Session::connect(config, None, metrics.clone()).await?;
    let replication = plan.replication.cql;
    let nodes = outside.nodes(config.datacenter.as_deref());
    // Else the keyspace would be there, and nothing could be written into it.
    if nodes < usize::from(replication) {
        return Err(SchemaError::TooFewNodes { replication, nodes });
    }
    let datacenter = config.datacenter.as_deref().unwrap_or("replication_factor");
    // A datacenter's name goes into a string of CQL.
    let datacenter = datacenter.replace('\'', "''");
    let make = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} \
         WITH replication = {{'class': 'NetworkTopologyStrategy', '{datacenter}': {replication}}}"
    );
    run(&outside, &make).await?;
    drop(outside);
    let session = Session::connect(config, Some(keyspace), metrics).await?;
    run(&session, SETTLED_TABLE).await?;
    let settled = Settlement::prepare(&session).await?;
    settled.lock().await?;
    let migrated = migrate(&session, &settled).await;
    settled.unlock().await?;
    migrated?;
    settled.settle(LANES, &plan.lanes.0.to_string()).await?;
    settled.settle(GENERATION, "0").await?;
    settled.settle(HOST_PARTITIONS, &plan.host_partitions.to_string()).await?;
    settled.settle(RAW_BYTES_MAX, &plan.raw_bytes_max.to_string()).await?;
    let settled = settled.read().await?;
    if settled.lanes != plan.lanes {
        return Err(SchemaError::Lanes { found: settled.lanes.0.get(), asked: plan.lanes.0.get() });
    }
    Ok(settled)
}

/// Connects to a keyspace of this program's version, and says what is settled there.
pub async fn open(config: &Cql, keyspace: &str, metrics: Metrics) -> Result<(Session, Settled), SchemaError> {
    check_name(keyspace)?;
    let missing = || SchemaError::Missing { keyspace: keyspace.to_owned() };
    let session = match Session::connect(config, Some(keyspace), metrics).await {
        Ok(session) => session,
        Err(ConnectError::Refused { source, .. }) if matches!(*source, NewSessionError::UseKeyspaceError(_)) => {
            return Err(missing());
        }
        Err(error) => return Err(error.into()),
    };
    // Without the table the statement is not taken.
    let settled = match Settlement::prepare(&session).await {
        Err(ConnectError::Prepare { .. }) => return Err(missing()),
        prepared => prepared?,
    };
    let version = settled.version().await?;
    match version.cmp(&MIGRATIONS.len()) {
        std::cmp::Ordering::Less => return Err(SchemaError::Older { found: version, known: MIGRATIONS.len() }),
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => return Err(SchemaError::Newer { found: version, known: MIGRATIONS.len() }),
    }
    let settled = settled.read().await?;
    Ok((session, settled))
}

/// After the lanes' topics were made anew, or were given more lanes: what comes of them from now on counts as later than
/// all rows there are. Only while no role runs, and once for each time. Gives what is settled by it.
pub async fn begin_generation(
    config: &Cql,
    keyspace: &str,
    lanes: LaneCount,
    metrics: Metrics,
) -> Result<Settled, SchemaError> {
    check_name(keyspace)?;
    let session = Session::connect(config, Some(keyspace), metrics).await?;
    let settled = Settlement::prepare(&session).await?;
    let generation = settled.read().await?.generation + 1;
    settled.put(GENERATION, &generation.to_string()).await?;
    settled.put(LANES, &lanes.0.to_string()).await?;
    settled.read().await
}

fn check_name(keyspace: &str) -> Result<(), SchemaError> {
    let fits = keyspace.len() <= 48
        && keyspace.starts_with(|first: char| first.is_ascii_lowercase())
        && keyspace.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if fits { Ok(()) } else { Err(SchemaError::Name { keyspace: keyspace.to_owned() }) }
}

async fn migrate(session: &Session, settled: &Settlement<'_>) -> Result<(), SchemaError> {
    let version = settled.version().await?;
    if version > MIGRATIONS.len() {
        return Err(SchemaError::Newer { found: version, known: MIGRATIONS.len() });
    }
    for (number, migration) in (1..).zip(MIGRATIONS).skip(version) {
        info!(number, "migrating the schema");
        for statement in statements(migration) {
            run(session, &statement).await?;
        }
        settled.put(VERSION, &number.to_string()).await?;
    }
    Ok(())
}

/// A file's statements, without its comments. No string in them has a semicolon.
fn statements(file: &str) -> Vec<String> {
    let code: Vec<&str> = file.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    code.join("\n").split(';').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

async fn run(session: &Session, statement: &str) -> Result<(), SchemaError> {
    let refused = |source| SchemaError::Statement { statement: statement.to_owned(), source: Box::new(source) };
    session.driver().query_unpaged(statement, ()).await.map(drop).map_err(refused)
}

/// The table `settled`.
struct Settlement<'a> {
    session: &'a Session,
    get: super::session::Statement,
    settle: super::session::Statement,
    put: super::session::Statement,
    lock: super::session::Statement,
    unlock: super::session::Statement,
}

impl<'a> Settlement<'a> {
    async fn prepare(session: &'a Session) -> Result<Settlement<'a>, ConnectError> {
        let (get, write) = ("read what is settled", "settle");
        let lock = format!("INSERT INTO settled (name, value) VALUES (?, '') IF NOT EXISTS USING TTL {LOCK_SECONDS}");
        let schema = Kind::Schema;
        Ok(Settlement {
            get: session.prepare(schema, Effect::Read, get, "SELECT value FROM settled WHERE name = ?").await?,
            settle: session
                .prepare(
                    schema,
                    Effect::Conditional,
                    write,
                    "INSERT INTO settled (name, value) VALUES (?, ?) IF NOT EXISTS",
                )
                .await?,
            put: session
                .prepare(
                    schema,
                    Effect::Conditional,
                    write,
                    "UPDATE settled SET value = ? WHERE name = ? IF value != ?",
                )
                .await?,
            lock: session.prepare(schema, Effect::Conditional, "lock the schema", &lock).await?,
            unlock: session
                .prepare(
                    schema,
                    Effect::Conditional,
                    "unlock the schema",
                    "DELETE FROM settled WHERE name = ? IF EXISTS",
                )
                .await?,
            session,
        })
    }

    async fn get(&self, name: &str) -> Result<Option<String>, SchemaError> {
        let row: Option<(Option<String>,)> = self.session.one(&self.get, (name,)).await?;
        Ok(row.and_then(|(value,)| value))
    }

    /// Only the first time.
    async fn settle(&self, name: &str, value: &str) -> Result<(), SchemaError> {
        self.session.execute(&self.settle, (name, value)).await?;
        Ok(())
    }

    /// By the same protocol as the rest: timestamps of the servers' agreement and of clients must not mix in one row.
    async fn put(&self, name: &str, value: &str) -> Result<(), SchemaError> {
        self.session.execute(&self.settle, (name, value)).await?;
        self.session.execute(&self.put, (value, name, value)).await?;
        Ok(())
    }

    async fn version(&self) -> Result<usize, SchemaError> {
        match self.get(VERSION).await? {
            None => Ok(0),
            Some(value) => value.parse().map_err(|_| SchemaError::Damaged { name: VERSION, value }),
        }
    }

    async fn read(&self) -> Result<Settled, SchemaError> {
        Ok(Settled {
            lanes: LaneCount(self.number(LANES).await?),
            generation: self.number(GENERATION).await?,
            host_partitions: self.number(HOST_PARTITIONS).await?,
            raw_bytes_max: self.number(RAW_BYTES_MAX).await?,
        })
    }

    async fn number<T: FromStr>(&self, name: &'static str) -> Result<T, SchemaError> {
        let value = self.get(name).await?.unwrap_or_default();
        value.parse().map_err(|_| SchemaError::Damaged { name, value })
    }

    /// Waits for who has it, at most until his lock would have ended by itself.
    async fn lock(&self) -> Result<(), SchemaError> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(u64::from(LOCK_SECONDS) + 10) {
            let answer = self.session.execute(&self.lock, (LOCK,)).await?;
            let answer = answer.into_rows_result().map_err(|source| self.lock.answered_oddly(source))?;
            // What else is in the answer depends on the server; whether it was done stands first.
            let done = answer.rows_num() == 1
                && answer.first_row::<Applied>().map_err(|source| self.lock.answered_oddly(source))?.applied;
            if done {
                return Ok(());
            }
            tokio::time::sleep(LOCK_LOOK_EVERY).await;
        }
        Err(SchemaError::Locked)
    }

    async fn unlock(&self) -> Result<(), SchemaError> {
        self.session.execute(&self.unlock, (LOCK,)).await?;
        Ok(())
    }
}

/// What a conditional statement answers first, whatever else.
pub(super) struct Applied {
    pub(super) applied: bool,
}

impl<'frame, 'metadata> scylla::deserialize::row::DeserializeRow<'frame, 'metadata> for Applied {
    fn type_check(
        columns: &[scylla::frame::response::result::ColumnSpec<'_>],
    ) -> Result<(), scylla::deserialize::TypeCheckError> {
        match columns.first() {
            Some(column) if column.name() == "[applied]" => Ok(()),
            _ => Err(scylla::deserialize::TypeCheckError::new(NoApplied)),
        }
    }

    fn deserialize(
        mut row: scylla::deserialize::row::ColumnIterator<'frame, 'metadata>,
    ) -> Result<Applied, scylla::deserialize::DeserializationError> {
        let column = row.next().ok_or_else(|| scylla::deserialize::DeserializationError::new(NoApplied))??;
        let applied = column.slice.is_some_and(|slice| slice.as_slice() == [1]);
        Ok(Applied { applied })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the answer does not say whether it was applied")]
struct NoApplied;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_apart() {
        let file = "-- About a; b\nCREATE TABLE a (x int);\n\n-- c\nALTER TABLE b\n  ADD y int;\n";
        assert_eq!(statements(file), ["CREATE TABLE a (x int)", "ALTER TABLE b\n  ADD y int"]);
        for migration in MIGRATIONS {
            assert!(statements(migration).iter().all(|statement| statement.starts_with("CREATE TABLE IF NOT EXISTS")));
        }
    }

    #[test]
    fn names_of_keyspaces_need_no_quotes() {
        for (name, fits) in
            [("mainstem", true), ("m_2", true), ("2m", false), ("", false), ("a-b", false), ("A", false)]
        {
            assert_eq!(check_name(name).is_ok(), fits, "{name}");
        }
        assert_eq!(keyspace_of("a-b-c"), "a_b_c");
    }
}
