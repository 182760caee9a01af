//! What a cluster is called, how its servers are reached, and how it is to be made.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use storage::lane::LaneCount;

/// A cluster, as each of its processes must know it. How large it is stands in the cluster itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, before the names of all topics and in that of the keyspace: several clusters may share servers.
    pub name: String,
    /// Where its topics are.
    pub kafka: Kafka,
    /// Where its rows are.
    pub cql: Cql,
    /// Bounds of this process.
    pub limits: Limits,
}

/// How a cluster is to be made. Only who makes it knows this; all others find it there.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many lanes it has: the partitions of `raw` and `verified`.
    pub lanes: LaneCount,
    /// The partitions of `hosts`: so many crawlers can share the hosts.
    pub host_partitions: NonZeroU32,
    /// How often everything is kept.
    pub replication: Replication,
    /// How long events are kept.
    pub retention: Retention,
    /// How many bytes of `raw` may wait to be judged, all lanes together; past them crawlers wait.
    pub raw_bytes_max: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        let partitions = NonZeroU32::new(64).expect("64 is not 0");
        Plan {
            lanes: LaneCount(partitions),
            host_partitions: partitions,
            replication: Replication::default(),
            retention: Retention::default(),
            raw_bytes_max: 50_000_000_000,
        }
    }
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
    /// A PEM file with our own certificate and its key, where they ask for one. Of Kafka only.
    pub own: Option<PathBuf>,
}
