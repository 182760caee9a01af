//! The settings of a run: types that cannot be wrong, made once from the command line and the environment.
//!
//! Nobody after this checks a setting again, and nobody else reads arguments or the environment.

pub mod cluster;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize, ParseIntError},
    path::{Path, PathBuf},
    time::Duration,
};

use atproto::syntax::{HostName, SyntaxError};
use bytesize::ByteSize;
use runtime::{
    egress::{self, Certificate, CertificatesError},
    networks::{Networks, NotANetwork},
    telemetry::Format,
    trace,
};
use sha2::{Digest, Sha256};
use storage::{limits::Rules, seq::Seq};
use url::Url;

use crate::{
    cli::{
        AdminArgs, CoverageArgs, CrawlArgs, CrawlRole, DataArgs, NetworkArgs, Origin, Origins, PlcArgs, ProcessArgs,
        RunArgs, SequenceRole, ServeArgs, ServeRole, ValidateArgs, ValidateRole,
    },
    coverage,
    fanout::{hub, subscriber},
    limits_file,
};

/// The settings of a process: what every process has, and a part for each role that this one plays.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the administrative listener binds.
    pub admin_bind: SocketAddr,
    /// The password of the user `admin`.
    pub admin_password: Option<Password>,
    /// Tokens for administration.
    pub admin_tokens: Vec<Token>,
    /// The folder for the record of changes by administration.
    pub audit_dir: PathBuf,
    /// What is logged, and how.
    pub log: Log,
    /// Where traces go; `None` where no event is followed.
    pub traces: Option<trace::Config>,
    /// Where state lives.
    pub store: Store,
    /// What holds of hosts.
    pub network: Network,
    /// Whom to ask who accounts are; `None` where nobody asks.
    pub plc: Option<Plc>,
    /// Reading hosts; `None` where other processes do.
    pub crawl: Option<Crawl>,
    /// Verifying events; `None` where other processes do.
    pub validate: Option<Validate>,
    /// Making the one order, which only a cluster's process does of its own.
    pub sequence: bool,
    /// Serving subscribers; `None` where other processes do.
    pub serve: Option<Serve>,
    /// Whether a simulated network runs in the process.
    pub simulate: bool,
}

/// Where state lives.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a folder of this machine, and the process plays all roles.
    Local(Local),
    /// In a cluster's Kafka and CQL, and the process plays some roles.
    Cluster(Box<storage_cluster::config::Config>),
    /// In memory, gone with the process: for tests.
    Memory(Memory),
}

/// What is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// How many bytes of events are kept at most.
    pub window_bytes: NonZeroU64,
    /// The first seq.
    pub seq_start: Option<Seq>,
}

/// A folder with all state.
#[derive(Clone, Debug)]
pub struct Local {
    /// The folder (of a simulated network: one of its own).
    pub data_dir: PathBuf,
    /// How long events are kept.
    pub window: Duration,
    /// How many bytes of events are kept at most.
    pub window_bytes: NonZeroU64,
    /// The first seq of an empty log.
    pub seq_start: Option<Seq>,
}

/// What holds of hosts, for all roles that have to do with them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Whether local hosts are allowed and unlimited.
    pub dev: bool,
    /// What hosts may do.
    pub rules: Rules,
    /// The file that the rules are from, which may change.
    pub limits_file: Option<PathBuf>,
    /// Certificates that are trusted beside the public authorities'.
    pub extra_roots: Vec<Certificate>,
    /// Whom hosts' operators may write to.
    pub contact: Option<String>,
}

/// The directory of did:plc.
#[derive(Clone, Debug)]
pub struct Plc {
    /// Where it is; a simulated network brings its own.
    pub url: Url,
    /// Requests to it in a second.
    pub rate: NonZeroU32,
    /// Requests to it under way at once.
    pub concurrency: NonZeroUsize,
}

/// Reading hosts.
#[derive(Clone, Debug)]
pub struct Crawl {
    /// Hosts to relay from the start.
    pub hosts: Vec<HostName>,
    /// The relay whose hosts are relayed too.
    pub bootstrap: Option<Url>,
    /// How hosts are waited for and kept; no flags, for tests.
    pub pace: Pace,
}

/// Verifying events.
#[derive(Clone, Debug)]
pub struct Validate {
    /// Threads that verify.
    pub workers: NonZeroUsize,
}

/// Serving subscribers.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Where the public listener binds.
    pub bind: SocketAddr,
    /// Subscribers served at once, those with a token not counted.
    pub subscribers_max: NonZeroUsize,
    /// Of them from one address; `None` for no limit.
    pub subscribers_per_address: Option<NonZeroUsize>,
    /// Tokens of subscribers.
    pub subscriber_tokens: Vec<SubscriberToken>,
    /// Whether messages are compressed for subscribers that offer it.
    pub compression: bool,
    /// Proxies that are believed in whom they serve.
    pub trusted_proxies: Networks,
    /// Other relays to compare with.
    pub coverage: coverage::Config,
    /// Sizes of the fan-out; no flags, for tests.
    pub hub: hub::Config,
    /// How subscribers are treated; no flags, for tests.
    pub subscriber: subscriber::Config,
}

/// How hosts are waited for and kept.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between tries.
    pub timing: crawler::Timing,
    /// With a connection.
    pub patience: crawler::Patience,
    /// With a handshake.
    pub handshake_within: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        let crawler::Config { timing, patience, handshake_within, .. } = crawler::Config::default();
        Pace { timing, patience, handshake_within }
    }
}

/// How the process logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// Directives such as `info,crawler=debug`.
    pub filter: String,
    /// The form.
    pub format: Format,
}

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password that is not empty.
    pub fn new(text: &str) -> Option<Password> {
        (!text.is_empty()).then(|| Password(text.to_owned()))
    }

    /// Whether this is it, found out in a time that tells nothing of it: by digests, which differ everywhere or nowhere,
    /// bit by bit.
    pub fn is(&self, given: &[u8]) -> bool {
        let (given, own) = (Sha256::digest(given), Sha256::digest(self.0.as_bytes()));
        given.iter().zip(own.iter()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The user of the password, and so no token's name.
pub const ADMIN: &str = "admin";

/// A token for administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What its changes are recorded under.
    pub name: String,
    /// The token itself.
    pub secret: Password,
}

/// A token of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberToken {
    /// What its subscribers are listed under.
    pub name: String,
    /// The token itself.
    pub secret: Password,
    /// Its own seats, whoever else is there.
    pub subscribers_max: NonZeroUsize,
}

/// A setting that can't be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address and port.
    #[error("{flag} {value:?} is not an address with a port; write it like 127.0.0.1:2470 or [::]:2470")]
    Address {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// Both listeners on the same port.
    #[error("--bind and --admin-bind are both {0}; give one of them another port")]
    SameAddress(SocketAddr),
    /// Not a URL, or not of http or https.
    #[error("{flag} {value:?} is not a URL; write it like https://example.com")]
    Url {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// Not the URL of a collector.
    #[error(
        "--traces-to {value:?} is not a http:// url; write it like http://127.0.0.1:4318, and let the collector that is \
             there send traces on over tls"
    )]
    Collector {
        /// What was given.
        value: String,
    },
    /// A plain URL outside of development.
    #[error("{flag} {value:?} is not https; use https, or --dev for a network on this machine")]
    NotHttps {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a host's name.
    #[error("--host {value:?} is {why}; write it like pds.example.com or localhost:2583")]
    Host {
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: SyntaxError,
    },
    /// A local host outside of development.
    #[error("--host {0} is on this machine or a private network; add --dev if that is meant")]
    LocalHost(HostName),
    /// Hosts beside a simulated network.
    #[error("{flag} can't be used with --simulate, which brings its own hosts; leave one of them out")]
    WithSimulate {
        /// The flag.
        flag: &'static str,
    },
    /// Not a time.
    #[error("--window {value:?} is not a time; write it like 72h, 30m or 7days")]
    Window {
        /// What was given.
        value: String,
    },
    /// Not a size, or too small a one.
    #[error("--window-bytes {value:?} is not a size of at least 64MiB; write it like 500GB or 20GiB")]
    WindowBytes {
        /// What was given.
        value: String,
    },
    /// Not a number in its range.
    #[error("{flag} {value:?} is not a whole number from {min} to {max}")]
    Number {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A peer twice.
    #[error("--coverage-peer {0} stands there twice; name each once")]
    PeerTwice(String),
    /// Not a time, or too short a one.
    #[error(
        "--coverage-interval {value:?} is not a time of at least {}; write it like 10m or 1h",
        humantime::format_duration(*least)
    )]
    CoverageInterval {
        /// What was given.
        value: String,
        /// The least.
        least: Duration,
    },
    /// Neither on nor off.
    #[error("--compression {value:?} is neither on nor off")]
    Compression {
        /// What was given.
        value: String,
    },
    /// The password's file can't be used.
    #[error("--admin-password-file {} can't be read; it holds the password on its first line", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The password's file holds none.
    #[error("--admin-password-file {} is empty; it holds the password on its first line", path.display())]
    EmptyPassword {
        /// The file.
        path: PathBuf,
    },
    /// A file of tokens can't be read.
    #[error("{flag} {} can't be read; it holds a NAME:TOKEN on each line", path.display())]
    TokenFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of tokens holds none.
    #[error("{flag} {} holds no token; write a NAME:TOKEN on each line", path.display())]
    NoToken {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A line of a file of tokens can't be used.
    #[error("{flag} {} line {line}: {why}", path.display())]
    Token {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a number, nor `none`.
    #[error("--subscribers-per-address {value:?} is not a whole number from 1 to {SUBSCRIBERS_MAX}, nor none")]
    PerAddress {
        /// What was given.
        value: String,
    },
    /// Not networks.
    #[error("--trusted-proxies can't be used; none trusts nobody")]
    TrustedProxies(#[from] NotANetwork),
    /// The file of limits can't be used.
    #[error("--limits can't be used; `mainstem limits example` prints a sound one")]
    Limits(#[from] limits_file::Error),
    /// The file of certificates can't be used.
    #[error("--ca-file {} can't be used", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificatesError,
    },
    /// A cluster's.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Not a form of logs.
    #[error("--log-format {value:?} is not one of auto, text and json")]
    LogFormat {
        /// What was given.
        value: String,
    },
}

/// The least that `--window-bytes` may be: a few segments of the log.
const WINDOW_BYTES_MIN: u64 = 64 << 20;

/// The least that `--coverage-interval` may be, and in a development network: peers are others' machines.
const COVERAGE_INTERVAL_MIN: Duration = Duration::from_secs(60);
const COVERAGE_INTERVAL_MIN_DEV: Duration = Duration::from_secs(1);

/// The most that `--plc-rate` may be.
const PLC_RATE_MAX: u32 = 100_000;

/// The most that `--plc-concurrency` may be.
const PLC_CONCURRENCY_MAX: u64 = 4096;

/// The most that `--workers` may be.
const WORKERS_MAX: u64 = 1024;

/// The most that `--subscribers-max` may be, and a token's `max`.
const SUBSCRIBERS_MAX: u64 = 100_000;

/// The seats of a subscriber's token that says nothing else.
const SUBSCRIBERS_PER_TOKEN: NonZeroUsize = NonZeroUsize::new(100).expect("100 is not 0");

impl Config {
    /// Of `mainstem run`: all roles on a folder. Checks and converts the command line's settings; reads the files that
    /// they name.
    pub fn from_args(args: &RunArgs) -> Result<Config, Error> {
        let dev = args.network.dev || args.simulate;
        if args.simulate && !args.crawl.hosts.is_empty() {
            return Err(Error::WithSimulate { flag: "--host" });
        }
        if args.simulate && args.crawl.bootstrap.is_some() {
            return Err(Error::WithSimulate { flag: "--bootstrap" });
        }
        let mut store = Local::from_args(&args.data)?;
        if args.simulate {
            store.data_dir.push("simulated");
        }
        let config = Config {
            crawl: Some(Crawl::from_args(&args.crawl, dev)?),
            validate: Some(Validate::from_args(&args.validate)?),
            serve: Some(Serve::from_args(&args.serve, dev)?),
            simulate: args.simulate,
            audit_dir: store.data_dir.clone(),
            network: Network::from_args(&args.network, dev)?,
            plc: Some(plc(&args.plc, dev)?),
            ..Config::of(&args.process, Store::Local(store))?.administered(&args.admin)?
        };
        config.with_ports_apart()
    }

    /// Of `mainstem crawl`.
    pub fn of_crawl(args: &CrawlRole) -> Result<Config, Error> {
        let dev = args.network.dev;
        Ok(Config {
            crawl: Some(Crawl::from_args(&args.crawl, dev)?),
            network: Network::from_args(&args.network, dev)?,
            ..Config::of(&args.process, Store::Cluster(Box::new(cluster::from_args(&args.cluster)?)))?
        })
    }

    /// Of `mainstem validate`.
    pub fn of_validate(args: &ValidateRole) -> Result<Config, Error> {
        let dev = args.network.dev;
        Ok(Config {
            validate: Some(Validate::from_args(&args.validate)?),
            network: Network::from_args(&args.network, dev)?,
            plc: Some(plc(&args.plc, dev)?),
            ..Config::of(&args.process, Store::Cluster(Box::new(cluster::from_args(&args.cluster)?)))?
        })
    }

    /// Of `mainstem sequence`.
    pub fn of_sequence(args: &SequenceRole) -> Result<Config, Error> {
        let store = Store::Cluster(Box::new(cluster::from_args(&args.cluster)?));
        Ok(Config { sequence: true, ..Config::of(&args.process, store)? })
    }

    /// Of `mainstem serve`.
    pub fn of_serve(args: &ServeRole) -> Result<Config, Error> {
        let dev = args.network.dev;
        let config = Config {
            serve: Some(Serve::from_args(&args.serve, dev)?),
            audit_dir: args.data_dir.clone(),
            network: Network::from_args(&args.network, dev)?,
            plc: Some(plc(&args.plc, dev)?),
            ..Config::of(&args.process, Store::Cluster(Box::new(cluster::from_args(&args.cluster)?)))?
                .administered(&args.admin)?
        };
        config.with_ports_apart()
    }

    /// What every process has, without a role.
    fn of(args: &ProcessArgs, store: Store) -> Result<Config, Error> {
        Ok(Config {
            // Only who serves has changes to record.
            audit_dir: PathBuf::new(),
            admin_bind: address("--admin-bind", &args.admin_bind)?,
            admin_password: None,
            admin_tokens: Vec::new(),
            log: Log { filter: args.log.clone(), format: log_format(&args.log_format)? },
            traces: traces(args)?,
            store,
            network: Network::default(),
            plc: None,
            crawl: None,
            validate: None,
            sequence: false,
            serve: None,
            simulate: false,
        })
    }

    /// With whom administration lets in.
    fn administered(self, args: &AdminArgs) -> Result<Config, Error> {
        Ok(Config {
            admin_password: args.admin_password_file.as_deref().map(password).transpose()?,
            admin_tokens: args.admin_token_file.as_deref().map_or_else(|| Ok(Vec::new()), admin_tokens)?,
            ..self
        })
    }

    fn with_ports_apart(self) -> Result<Config, Error> {
        match &self.serve {
            Some(serve) if serve.bind == self.admin_bind && serve.bind.port() != 0 => {
                Err(Error::SameAddress(serve.bind))
            }
            _ => Ok(self),
        }
    }

    /// The name of what this process does: a role of a cluster's, or `run` for all of them.
    pub fn role(&self) -> &'static str {
        match (&self.crawl, &self.validate, &self.serve) {
            (Some(_), Some(_), Some(_)) => "run",
            (Some(_), _, _) => "crawl",
            (None, Some(_), _) => "validate",
            (None, None, Some(_)) => "serve",
            (None, None, None) => "sequence",
        }
    }

    /// The settings, one a line, each with where it comes from.
    pub fn describe(&self, origins: &Origins) -> String {
        let mut rows = Vec::new();
        if let Some(serve) = &self.serve {
            rows.push(("bind", "bind", serve.bind.to_string()));
        }
        rows.push(("admin-bind", "admin_bind", self.admin_bind.to_string()));
        match &self.store {
            Store::Local(local) => local.describe(&mut rows),
            Store::Cluster(config) => cluster::describe(config, &mut rows),
            Store::Memory(_) => {}
        }
        if let Some(plc) = &self.plc {
            plc.describe(self.simulate, &mut rows);
        }
        if let Some(crawl) = &self.crawl {
            crawl.describe(&mut rows);
        }
        if let Some(validate) = &self.validate {
            rows.push(("workers", "workers", validate.workers.to_string()));
        }
        if let Some(serve) = &self.serve {
            serve.describe(&mut rows);
        }
        self.network.describe(&mut rows);
        rows.push(("simulate", "simulate", self.simulate.to_string()));
        self.describe_process(&mut rows);

        let width = rows.iter().map(|(_, _, value)| value.len()).max().unwrap_or(0).min(60);
        let mut text = String::new();
        for (flag, field, value) in rows {
            let origin = origins.of(field);
            let implied = field == "dev" && self.simulate && origin == Origin::Default;
            let origin = if implied { "implied by simulate" } else { origin.as_str() };
            text.push_str(&format!("{flag:<24} {value:<width$}  {origin}\n"));
        }
        text
    }

    fn describe_process(&self, rows: &mut Vec<Row>) {
        let password = if self.admin_password.is_some() { "(set)".to_owned() } else { none() };
        rows.extend([
            ("admin-password-file", "admin_password_file", password),
            ("admin-token-file", "admin_token_file", of_names(self.admin_tokens.iter().map(|token| &*token.name))),
            ("log", "log", self.log.filter.clone()),
            ("log-format", "log_format", log_format_name(self.log.format).to_owned()),
        ]);
        if let Some(trace::Config { collector, one_in }) = &self.traces {
            rows.push(("traces-to", "traces_to", collector.to_string()));
            rows.push(("trace-one-in", "trace_one_in", one_in.to_string()));
        }
    }
}

/// A setting: its flag, its field in the arguments, its value for people.
type Row = (&'static str, &'static str, String);

fn none() -> String {
    "(none)".to_owned()
}

fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { none() } else { format!("(of {})", names.join(", ")) }
}

impl Local {
    fn from_args(args: &DataArgs) -> Result<Local, Error> {
        Ok(Local {
            data_dir: args.data_dir.clone(),
            window: window(&args.window)?,
            window_bytes: window_bytes(&args.window_bytes)?,
            seq_start: seq_start(args.seq_start.as_deref())?,
        })
    }

    fn describe(&self, rows: &mut Vec<Row>) {
        rows.extend([
            ("data-dir", "data_dir", self.data_dir.display().to_string()),
            ("window", "window", humantime::format_duration(self.window).to_string()),
            ("window-bytes", "window_bytes", ByteSize(self.window_bytes.get()).display().si().to_string()),
            ("seq-start", "seq_start", self.seq_start.map_or_else(none, |seq| seq.to_string())),
        ]);
    }
}

impl Network {
    fn from_args(args: &NetworkArgs, dev: bool) -> Result<Network, Error> {
        Ok(Network {
            dev,
            rules: args.limits.as_deref().map_or_else(|| Ok(Rules::default()), limits_file::read)?,
            limits_file: args.limits.clone(),
            extra_roots: args.ca_file.as_deref().map_or_else(|| Ok(Vec::new()), certificates)?,
            contact: args.contact.clone(),
        })
    }

    fn describe(&self, rows: &mut Vec<Row>) {
        let limits = self.limits_file.as_ref().map_or_else(
            || "(built in)".to_owned(),
            |path| format!("{} (rules: {})", path.display(), self.rules.len()),
        );
        let certificates = match self.extra_roots.len() {
            0 => none(),
            count => format!("(certificates: {count})"),
        };
        rows.extend([
            ("limits", "limits", limits),
            ("ca-file", "ca_file", certificates),
            ("contact", "contact", self.contact.clone().unwrap_or_else(none)),
            ("dev", "dev", self.dev.to_string()),
        ]);
    }
}

impl Plc {
    fn describe(&self, simulate: bool, rows: &mut Vec<Row>) {
        let url = if simulate { "(the simulated directory)".into() } else { self.url.to_string() };
        rows.extend([
            ("plc-url", "plc_url", url),
            ("plc-rate", "plc_rate", self.rate.to_string()),
            ("plc-concurrency", "plc_concurrency", self.concurrency.to_string()),
        ]);
    }
}

impl Crawl {
    fn from_args(args: &CrawlArgs, dev: bool) -> Result<Crawl, Error> {
        Ok(Crawl {
            hosts: args.hosts.iter().map(|text| host(text, dev)).collect::<Result<_, _>>()?,
            bootstrap: args.bootstrap.as_deref().map(|text| service("--bootstrap", text, dev)).transpose()?,
            pace: Pace::default(),
        })
    }

    fn describe(&self, rows: &mut Vec<Row>) {
        let hosts: Vec<_> = self.hosts.iter().map(HostName::as_str).collect();
        rows.extend([
            ("host", "hosts", if hosts.is_empty() { none() } else { hosts.join(",") }),
            ("bootstrap", "bootstrap", self.bootstrap.as_ref().map_or_else(none, Url::to_string)),
        ]);
    }
}

impl Validate {
    fn from_args(args: &ValidateArgs) -> Result<Validate, Error> {
        let default = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let given = args.workers.as_deref();
        Ok(Validate { workers: given.map_or(Ok(default), |text| count("--workers", text, WORKERS_MAX))? })
    }
}

impl Serve {
    fn from_args(args: &ServeArgs, dev: bool) -> Result<Serve, Error> {
        Ok(Serve {
            bind: address("--bind", &args.bind)?,
            subscribers_max: count("--subscribers-max", &args.subscribers_max, SUBSCRIBERS_MAX)?,
            subscribers_per_address: per_address(&args.subscribers_per_address)?,
            subscriber_tokens: args
                .subscriber_token_file
                .as_deref()
                .map_or_else(|| Ok(Vec::new()), subscriber_tokens)?,
            compression: compression(&args.compression)?,
            trusted_proxies: trusted_proxies(&args.trusted_proxies)?,
            coverage: coverage(&args.coverage, dev)?,
            hub: hub::Config::default(),
            subscriber: subscriber::Config::default(),
        })
    }

    fn describe(&self, rows: &mut Vec<Row>) {
        let proxies = self.trusted_proxies.to_string();
        let per_address = self.subscribers_per_address.map_or_else(none, |max| max.to_string());
        let tokens = of_names(self.subscriber_tokens.iter().map(|token| &*token.name));
        let peers: Vec<_> = self.coverage.peers.iter().map(|peer| peer.url.to_string()).collect();
        rows.extend([
            ("subscribers-max", "subscribers_max", self.subscribers_max.to_string()),
            ("subscribers-per-address", "subscribers_per_address", per_address),
            ("subscriber-token-file", "subscriber_token_file", tokens),
            ("trusted-proxies", "trusted_proxies", if proxies.is_empty() { none() } else { proxies }),
            ("compression", "compression", (if self.compression { "on" } else { "off" }).to_owned()),
            ("coverage-peer", "coverage_peers", if peers.is_empty() { none() } else { peers.join(",") }),
            ("coverage-interval", "coverage_interval", humantime::format_duration(self.coverage.interval).to_string()),
        ]);
    }
}

fn address(flag: &'static str, value: &str) -> Result<SocketAddr, Error> {
    value.parse().map_err(|_| Error::Address { flag, value: value.to_owned() })
}

/// A service's URL: https, or http where it is local and this is development.
fn service(flag: &'static str, value: &str, dev: bool) -> Result<Url, Error> {
    let bad = || Error::Url { flag, value: value.to_owned() };
    let url = Url::parse(value).map_err(|_| bad())?;
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if url.has_host() && dev => Ok(url),
        "http" if url.has_host() => Err(Error::NotHttps { flag, value: value.to_owned() }),
        _ => Err(bad()),
    }
}

fn coverage(args: &CoverageArgs, dev: bool) -> Result<coverage::Config, Error> {
    let mut peers: Vec<coverage::Peer> = Vec::new();
    for value in &args.coverage_peers {
        let url = service("--coverage-peer", value, dev)?;
        let bad = || Error::Url { flag: "--coverage-peer", value: value.clone() };
        let name = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        if !url.username().is_empty() || url.password().is_some() || name.is_empty() {
            return Err(bad());
        }
        if peers.iter().any(|peer| peer.name == name) {
            return Err(Error::PeerTwice(name));
        }
        peers.push(coverage::Peer { name, url });
    }
    let value = &args.coverage_interval;
    let least = if dev { COVERAGE_INTERVAL_MIN_DEV } else { COVERAGE_INTERVAL_MIN };
    match humantime::parse_duration(value) {
        Ok(interval) if interval >= least => Ok(coverage::Config { peers, interval }),
        _ => Err(Error::CoverageInterval { value: value.clone(), least }),
    }
}

fn host(value: &str, dev: bool) -> Result<HostName, Error> {
    let host = HostName::parse(value).map_err(|why| Error::Host { value: value.to_owned(), why })?;
    if host.is_local() && !dev {
        return Err(Error::LocalHost(host));
    }
    Ok(host)
}

fn window(value: &str) -> Result<Duration, Error> {
    match humantime::parse_duration(value) {
        Ok(window) if !window.is_zero() => Ok(window),
        _ => Err(Error::Window { value: value.to_owned() }),
    }
}

fn window_bytes(value: &str) -> Result<NonZeroU64, Error> {
    let bad = || Error::WindowBytes { value: value.to_owned() };
    let size: ByteSize = value.parse().map_err(|_| bad())?;
    NonZeroU64::new(size.as_u64()).filter(|size| size.get() >= WINDOW_BYTES_MIN).ok_or_else(bad)
}

/// A number from 1 to `max`.
fn number(flag: &'static str, value: &str, max: u64) -> Result<NonZeroU64, Error> {
    let parsed: Result<NonZeroU64, ParseIntError> = value.parse();
    let bad = || Error::Number { flag, value: value.to_owned(), min: 1, max };
    parsed.ok().filter(|number| number.get() <= max).ok_or_else(bad)
}

fn count(flag: &'static str, value: &str, max: u64) -> Result<NonZeroUsize, Error> {
    let bad = |_| Error::Number { flag, value: value.to_owned(), min: 1, max };
    NonZeroUsize::try_from(number(flag, value, max)?).map_err(bad)
}

pub(crate) fn seq_start(value: Option<&str>) -> Result<Option<Seq>, Error> {
    value.map(|text| number("--seq-start", text, Seq::MAX.0).map(|seq| Seq(seq.get()))).transpose()
}

fn plc(args: &PlcArgs, dev: bool) -> Result<Plc, Error> {
    Ok(Plc {
        url: service("--plc-url", &args.plc_url, dev)?,
        rate: plc_rate(&args.plc_rate)?,
        concurrency: count("--plc-concurrency", &args.plc_concurrency, PLC_CONCURRENCY_MAX)?,
    })
}

fn plc_rate(value: &str) -> Result<NonZeroU32, Error> {
    let max = u64::from(PLC_RATE_MAX);
    let bad = |_| Error::Number { flag: "--plc-rate", value: value.to_owned(), min: 1, max };
    NonZeroU32::try_from(number("--plc-rate", value, max)?).map_err(bad)
}

fn password(path: &Path) -> Result<Password, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::PasswordFile { path: path.to_owned(), source })?;
    let first = text.lines().next().unwrap_or_default().trim();
    Password::new(first).ok_or_else(|| Error::EmptyPassword { path: path.to_owned() })
}

/// The least characters of a token: it is made by a machine and guessed by one.
const TOKEN_CHARS_MIN: usize = 16;

fn admin_tokens(path: &Path) -> Result<Vec<Token>, Error> {
    tokens("--admin-token-file", path, |name, secret| {
        if name == ADMIN {
            return Err("admin is the user of the password; give the token another name");
        }
        Ok(Token { name, secret: secret_of(secret)? })
    })
}

fn subscriber_tokens(path: &Path) -> Result<Vec<SubscriberToken>, Error> {
    tokens("--subscriber-token-file", path, |name, rest| {
        let (secret, max) = match rest.split_once(char::is_whitespace) {
            Some((secret, max)) => (secret, Some(max.trim())),
            None => (rest, None),
        };
        let bad = "behind the token stands nothing, or max= and a whole number from 1 to 100000";
        let subscribers_max = match max {
            None => SUBSCRIBERS_PER_TOKEN,
            Some(max) => max
                .strip_prefix("max=")
                .and_then(|max| count("--subscriber-token-file", max, SUBSCRIBERS_MAX).ok())
                .ok_or(bad)?,
        };
        Ok(SubscriberToken { name, secret: secret_of(secret)?, subscribers_max })
    })
}

fn secret_of(text: &str) -> Result<Password, &'static str> {
    if text.len() < TOKEN_CHARS_MIN || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("a token has at least 16 characters and no spaces; make one with: openssl rand -hex 32");
    }
    Password::new(text).ok_or("the token is missing")
}

/// The tokens of a file: `NAME:TOKEN` or just `TOKEN` on each line, of which `read` makes one; empty lines and those that
/// begin with `#` are left out.
fn tokens<T>(
    flag: &'static str,
    path: &Path,
    read: impl Fn(String, &str) -> Result<T, &'static str>,
) -> Result<Vec<T>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::TokenFile { flag, path: path.to_owned(), source })?;
    let mut tokens = Vec::new();
    let mut names = BTreeSet::new();
    for (line, text) in (1..).zip(text.lines()) {
        let bad = |why| Error::Token { flag, path: path.to_owned(), line, why };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name.trim().to_owned(), rest.trim()),
            None => (format!("token-{line}"), text),
        };
        let is_sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_sound) {
            return Err(bad("the name has letters, digits and - _ . @ only, at most 64"));
        }
        if !names.insert(name.clone()) {
            return Err(bad("the name stands there twice"));
        }
        tokens.push(read(name, rest).map_err(bad)?);
    }
    if tokens.is_empty() {
        return Err(Error::NoToken { flag, path: path.to_owned() });
    }
    Ok(tokens)
}

/// A number, or `none` (or 0) for no limit.
fn per_address(value: &str) -> Result<Option<NonZeroUsize>, Error> {
    match value {
        "none" | "0" => Ok(None),
        _ => match count("--subscribers-per-address", value, SUBSCRIBERS_MAX) {
            Ok(max) => Ok(Some(max)),
            Err(_) => Err(Error::PerAddress { value: value.to_owned() }),
        },
    }
}

fn trusted_proxies(value: &str) -> Result<Networks, Error> {
    match value.trim() {
        "none" => Ok(Networks::default()),
        networks => {
            Ok(networks.split(',').map(|network| network.trim().parse()).collect::<Result<_, NotANetwork>>()?)
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    egress::read_certificates(path).map_err(|source| Error::Certificates { path: path.to_owned(), source })
}

fn compression(value: &str) -> Result<bool, Error> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::Compression { value: value.to_owned() }),
    }
}

/// Where traces go, if they go anywhere.
fn traces(args: &ProcessArgs) -> Result<Option<trace::Config>, Error> {
    let one_in = number("--trace-one-in", &args.trace_one_in, u64::MAX)?;
    let collector = |value: &String| match Url::parse(value) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(url),
        _ => Err(Error::Collector { value: value.clone() }),
    };
    let collector = args.traces_to.as_ref().map(collector).transpose()?;
    Ok(collector.map(|collector| trace::Config { collector, one_in }))
}

fn log_format(value: &str) -> Result<Format, Error> {
    match value {
        "auto" => Ok(Format::Auto),
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(Error::LogFormat { value: value.to_owned() }),
    }
}

fn log_format_name(format: Format) -> &'static str {
    match format {
        Format::Auto => "auto",
        Format::Text => "text",
        Format::Json => "json",
    }
}
