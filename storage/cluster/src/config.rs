//! What a cluster is called, how large it is, and how its servers are reached.

use std::{fmt, path::PathBuf, time::Duration};

use storage::lane::LaneCount;

/// A cluster, as each of its processes must know it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, before the names of all topics and in that of the keyspace: several clusters may share servers.
    pub name: String,
    /// How many lanes it has: the partitions of `raw` and `verified`.
    pub lanes: LaneCount,
    /// Where its topics are.
    pub kafka: Kafka,
    /// Where its rows are.
    pub cql: Cql,
    /// How often everything is kept.
    pub replication: Replication,
    /// How long events are kept.
    pub retention: Retention,
    /// Bounds of this process.
    pub limits: Limits,
}

/// The Kafka brokers.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Some of the brokers, `host:port`; the others are found through them.
    pub brokers: Vec<String>,
    /// Whether to speak TLS, and how.
    pub tls: Option<Tls>,
    /// Who we are there, and how that is proved.
    pub sasl: Option<Sasl>,
}

/// How we prove to Kafka who we are.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// In which way.
    pub mechanism: SaslMechanism,
    /// Who we are.
    pub login: Login,
}

/// A way to prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself: only where TLS is spoken.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// How often everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Replicas of each partition.
    pub kafka: u16,
    /// Replicas of each row.
    pub cql: u16,
}

impl Default for Replication {
    fn default() -> Replication {
        Replication { kafka: 3, cql: 3 }
    }
}

/// How long the firehose keeps events: until either is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Their age.
    pub window: Option<Duration>,
    /// Their bytes.
    pub window_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { window: Some(Duration::from_secs(72 * 3600)), window_bytes: None }
    }
}

/// Bounds of one process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What a crawler may have under way to `raw`.
    pub pushed_bytes_max: usize,
    /// What a validator reads ahead of one lane.
    pub read_ahead_bytes: usize,
    /// What a lane may have under way to `verified` and into rows.
    pub appended_bytes_max: usize,
    /// Memory for the states of repos, all lanes together.
    pub states_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pushed_bytes_max: 64 << 20,
            read_ahead_bytes: 4 << 20,
            appended_bytes_max: 16 << 20,
            states_bytes_max: 64 << 20,
        }
    }
}

/// The CQL servers.
#[derive(Clone, Debug)]
pub struct Cql {
    /// Some of the servers, `host:port`; the others are found through them.
    pub contact_points: Vec<String>,
    /// The datacenter whose quorum counts. `None` where there is only one.
    pub datacenter: Option<String>,
    /// Who we are there.
    pub login: Option<Login>,
    /// Whether to speak TLS, and how.
    pub tls: Option<Tls>,
    /// How long a statement that may be repeated is sent again, where servers do not answer.
    pub patience: Duration,
}

/// A user and a password.
#[derive(Clone)]
pub struct Login {
    /// Who.
    pub user: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How servers prove who they are.
#[derive(Clone, Debug)]
pub struct Tls {
    /// A PEM file of certificates that theirs must be signed by; `None` for the public authorities.
    pub ca: Option<PathBuf>,
}
