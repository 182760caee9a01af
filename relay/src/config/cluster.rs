//! The settings that say where a cluster is and how it is to be made.

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use storage::{lane::LaneCount, seq::Seq};
use storage_cluster::config::{
    Config, Cql, Kafka, Limits, Login, Plan, Replication, Retention, Sasl, SaslMechanism, Tls,
};

use super::{Row, none, number, seq_start, window, window_bytes};
use crate::cli::{ClusterArgs, ClusterInit};

/// How long a statement waits for CQL servers that do not answer: as long as a restart of all of them may take.
const CQL_PATIENCE: Duration = Duration::from_secs(300);

/// The most lanes and partitions of hosts: each is a partition of a topic, or of two.
const PARTITIONS_MAX: u64 = 4096;

/// The most copies.
const REPLICATION_MAX: u64 = 15;

/// The longest that a cluster's name may be: tables are named by it, and CQL's names have at most 48 characters.
const NAME_CHARS_MAX: usize = 48;

/// A setting of a cluster that can't be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name of topics and tables.
    #[error(
        "--cluster {value:?} can't name topics and tables; use a to z, 0 to 9 and -, at most {NAME_CHARS_MAX}, a letter \
         first"
    )]
    Name {
        /// What was given.
        value: String,
    },
    /// Not a list of servers.
    #[error("{flag} {value:?} is not a list of servers; write it like {example}")]
    Servers {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// A good one.
        example: &'static str,
    },
    /// Not a way to log in.
    #[error("--kafka-sasl {value:?} is not one of plain, scram-sha-256 and scram-sha-512")]
    Sasl {
        /// What was given.
        value: String,
    },
    /// A password that others could read on its way.
    #[error("--kafka-sasl plain sends the password as it is; add --kafka-tls, or use scram-sha-512")]
    PlainWithoutTls,
    /// A password's file can't be used.
    #[error("{flag} {} can't be read; it holds the password on its first line", path.display())]
    PasswordFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A password's file holds none.
    #[error("{flag} {} is empty; it holds the password on its first line", path.display())]
    EmptyPassword {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Not a size, or too small a one.
    #[error("--raw-bytes {value:?} is not a size of at least 64MiB; write it like 50GB or 20GiB")]
    RawBytes {
        /// What was given.
        value: String,
    },
}

/// How to make a cluster.
#[derive(Clone, Debug)]
pub struct Making {
    /// Where it is.
    pub cluster: Config,
    /// How large it is to be.
    pub plan: Plan,
    /// The seq of its first event.
    pub seq_start: Seq,
}

impl Making {
    /// Checks and converts the settings of `cluster init`.
    pub fn from_args(args: &ClusterInit) -> Result<Making, super::Error> {
        let partitions = |flag, value: &str| -> Result<NonZeroU32, super::Error> {
            let count = number(flag, value, PARTITIONS_MAX)?;
            Ok(NonZeroU32::try_from(count).expect("it is at most 4,096"))
        };
        let replicas = |flag, value: &str| -> Result<u16, super::Error> {
            Ok(u16::try_from(number(flag, value, REPLICATION_MAX)?.get()).expect("it is at most 15"))
        };
        let kafka = replicas("--replication", &args.replication)?;
        let cql = args.cql_replication.as_deref().map(|value| replicas("--cql-replication", value));
        Ok(Making {
            cluster: from_args(&args.cluster)?,
            plan: Plan {
                lanes: LaneCount(partitions("--lanes", &args.lanes)?),
                host_partitions: partitions("--host-partitions", &args.host_partitions)?,
                replication: Replication { kafka, cql: cql.transpose()?.unwrap_or(kafka) },
                retention: Retention {
                    window: Some(window(&args.window)?),
                    window_bytes: Some(window_bytes(&args.window_bytes)?.get()),
                },
                raw_bytes_max: window_bytes(&args.raw_bytes)
                    .map_err(|_| Error::RawBytes { value: args.raw_bytes.clone() })?
                    .get(),
            },
            seq_start: seq_start(args.seq_start.as_deref())?.unwrap_or(Seq(1)),
        })
    }
}

/// Checks and converts the settings that say where a cluster is; reads the files that they name.
pub fn from_args(args: &ClusterArgs) -> Result<Config, Error> {
    let tls = |asked: bool, ca: &Option<PathBuf>, own: &Option<PathBuf>| {
        (asked || ca.is_some() || own.is_some()).then(|| Tls { ca: ca.clone(), own: own.clone() })
    };
    let kafka_tls = tls(args.kafka_tls, &args.kafka_ca_file, &args.kafka_cert_file);
    let kafka_login = login(&args.kafka_user, &args.kafka_password_file, "--kafka-password-file")?;
    let mechanism = sasl(&args.kafka_sasl)?;
    if kafka_login.is_some() && kafka_tls.is_none() && mechanism == SaslMechanism::Plain {
        return Err(Error::PlainWithoutTls);
    }
    Ok(Config {
        name: name(&args.name)?,
        kafka: Kafka {
            brokers: servers("--kafka", &args.kafka, "127.0.0.1:9092")?,
            tls: kafka_tls,
            sasl: kafka_login.map(|login| Sasl { mechanism, login }),
        },
        cql: Cql {
            contact_points: servers("--cql", &args.cql, "127.0.0.1:9042")?,
            datacenter: args.cql_datacenter.clone(),
            login: login(&args.cql_user, &args.cql_password_file, "--cql-password-file")?,
            tls: tls(args.cql_tls, &args.cql_ca_file, &None),
            patience: CQL_PATIENCE,
        },
        limits: Limits::default(),
    })
}

/// The seq of `cluster restore-sequencer`.
pub fn next_seq(value: Option<&str>) -> Result<Option<Seq>, super::Error> {
    value.map(|text| number("--next-seq", text, Seq::MAX.0).map(|seq| Seq(seq.get()))).transpose()
}

/// The settings, for people.
pub(super) fn describe(config: &Config, rows: &mut Vec<Row>) {
    let tls = |tls: &Option<Tls>| (if tls.is_some() { "on" } else { "off" }).to_owned();
    let kafka_user = config.kafka.sasl.as_ref().map_or_else(none, |sasl| sasl.login.user.clone());
    rows.extend([
        ("cluster", "name", config.name.clone()),
        ("kafka", "kafka", config.kafka.brokers.join(",")),
        ("kafka-tls", "kafka_tls", tls(&config.kafka.tls)),
        ("kafka-user", "kafka_user", kafka_user),
        ("cql", "cql", config.cql.contact_points.join(",")),
        ("cql-tls", "cql_tls", tls(&config.cql.tls)),
        ("cql-user", "cql_user", config.cql.login.as_ref().map_or_else(none, |login| login.user.clone())),
    ]);
}

fn name(value: &str) -> Result<String, Error> {
    let fits = value.len() <= NAME_CHARS_MAX
        && value.starts_with(|first: char| first.is_ascii_lowercase())
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fits { Ok(value.to_owned()) } else { Err(Error::Name { value: value.to_owned() }) }
}

fn servers(flag: &'static str, value: &str, example: &'static str) -> Result<Vec<String>, Error> {
    let is_server = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    let servers: Vec<String> = value.split(',').map(|server| server.trim().to_owned()).collect();
    if servers.iter().all(|server| is_server(server)) {
        return Ok(servers);
    }
    Err(Error::Servers { flag, value: value.to_owned(), example })
}

fn sasl(value: &str) -> Result<SaslMechanism, Error> {
    match value {
        "plain" => Ok(SaslMechanism::Plain),
        "scram-sha-256" => Ok(SaslMechanism::ScramSha256),
        "scram-sha-512" => Ok(SaslMechanism::ScramSha512),
        _ => Err(Error::Sasl { value: value.to_owned() }),
    }
}

/// The command line takes a user only with a password, and the other way round.
fn login(user: &Option<String>, file: &Option<PathBuf>, flag: &'static str) -> Result<Option<Login>, Error> {
    let (Some(user), Some(path)) = (user, file) else { return Ok(None) };
    Ok(Some(Login { user: user.clone(), password: password(flag, path)? }))
}

fn password(flag: &'static str, path: &Path) -> Result<String, Error> {
    let read = fs::read_to_string(path);
    let text = read.map_err(|source| Error::PasswordFile { flag, path: path.to_owned(), source })?;
    match text.lines().next().map(str::trim) {
        None | Some("") => Err(Error::EmptyPassword { flag, path: path.to_owned() }),
        Some(password) => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_taken_as_written() {
        let good = |text: &str| servers("--kafka", text, "a:1").unwrap();
        assert_eq!(good("a:1"), ["a:1"]);
        assert_eq!(good("a.example:9092, 127.0.0.1:2,[::1]:3"), ["a.example:9092", "127.0.0.1:2", "[::1]:3"]);
        for bad in ["", "a", "a:", ":1", "a:x", "a:1,", "a:70000"] {
            assert!(servers("--kafka", bad, "a:1").is_err(), "{bad}");
        }
    }

    #[test]
    fn names_fit_topics_and_keyspaces() {
        for (text, fits) in
            [("mainstem", true), ("m-2", true), ("2m", false), ("", false), ("m_2", false), ("M", false)]
        {
            assert_eq!(name(text).is_ok(), fits, "{text}");
        }
    }
}
