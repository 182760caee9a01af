//! The command line as it is written: strings and flags, with the help that explains them.
//!
//! This is the low form. [`crate::config`] turns it into values that cannot be wrong; nothing else reads it. Each flag
//! of `run` may also stand in the environment as `MAINSTEM_` and its name; the flag wins.

pub mod admin;

use std::path::PathBuf;

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::FalseyValueParser,
    parser::{ArgMatches, ValueSource},
};

use crate::{fanout::shard::Shard, version};

const ABOUT: &str =
    "An AT Protocol relay: reads the streams of many hosts, verifies every event, and serves one merged firehose";

const EXAMPLES: &str = "\
Examples:
  mainstem run --simulate                    look around: a simulated network beside the relay
  mainstem run --host pds.example.com        relay one host
  mainstem run --bootstrap https://relay.example.com --window 24h
                                             relay all hosts that another relay lists
  mainstem run --dev --plc-url http://localhost:2582 --host localhost:2583
                                             relay a development network
  mainstem tail                              watch the relay on this machine
  mainstem tail wss://relay.example.com --json | jq .
                                             watch another one, a JSON object a line
  mainstem audit wss://relay.example.com     what our stream lacks that another relay's has, and the other way
  mainstem admin hosts list --status offline which hosts a running relay can't reach
  mainstem config --dev                      what a run with these flags would use, and why

A relay on several machines, over Kafka and ScyllaDB or Cassandra (--kafka and --cql, or MAINSTEM_KAFKA and MAINSTEM_CQL):
  mainstem cluster init                      make its topics and tables, once
  mainstem crawl --bootstrap https://relay.example.com
  mainstem validate                          each of these four as often as wanted, on any machine
  mainstem sequence
  mainstem serve --bind 0.0.0.0:2470
  mainstem cluster status                    lanes, lags, owners, the sequencer, the window";

/// The program's arguments.
#[derive(Debug, Parser)]
#[command(name = "mainstem", version = version::LONG, about = ABOUT, long_about = None, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the relay: crawl hosts, verify their events, and serve the merged firehose
    Run(RunArgs),
    /// A cluster's tier: read hosts into Kafka
    Crawl(CrawlRole),
    /// A cluster's tier: verify what crawlers have read
    Validate(ValidateRole),
    /// A cluster's tier: put what is verified into one order; one works, others stand by
    Sequence(SequenceRole),
    /// A cluster's tier: serve the merged firehose, the public methods and administration
    Serve(ServeRole),
    /// Make a cluster's topics and tables, and look at it
    Cluster(ClusterCommands),
    /// Watch a firehose, ours or another's, decoded
    Tail(TailArgs),
    /// Hold our firehose against another relay's for a while, and say what each lacks
    Audit(AuditArgs),
    /// Judge recorded frames, in order, as one stream; exit code 1 if one is refused
    Verify(VerifyArgs),
    /// Say what of a data folder is damaged and what is lost, and mend it when told to
    Repair(RepairArgs),
    /// Look at a running relay and change what it does: hosts, accounts, subscribers
    Admin(admin::AdminArgs),
    /// Say whether a file of limits is sound and what hosts would get by it, or print an example
    Limits(LimitsArgs),
    /// Print the settings that a run with these flags would use, and where each comes from
    Config(RunArgs),
}

/// Arguments of `run` and `config`: all roles in one process, on a data folder.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data: DataArgs,
    /// Whom to read.
    #[command(flatten)]
    pub crawl: CrawlArgs,
    /// How to verify.
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Who accounts are.
    #[command(flatten)]
    pub plc: PlcArgs,
    /// Whom to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Who may change what it does.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,

    /// Run a simulated network in this process and relay it (implies --dev; its data is kept apart)
    #[arg(long, env = "MAINSTEM_SIMULATE", value_parser = FalseyValueParser::new())]
    pub simulate: bool,
}

/// Arguments of `crawl`.
#[derive(Args, Clone, Debug)]
pub struct CrawlRole {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Whom to read.
    #[command(flatten)]
    pub crawl: CrawlArgs,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Arguments of `validate`.
#[derive(Args, Clone, Debug)]
pub struct ValidateRole {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How to verify.
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Who accounts are.
    #[command(flatten)]
    pub plc: PlcArgs,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Arguments of `sequence`.
#[derive(Args, Clone, Debug)]
pub struct SequenceRole {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Arguments of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeRole {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Whom to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Who accounts are.
    #[command(flatten)]
    pub plc: PlcArgs,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Who may change what it does.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Where the record of changes by administration is kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./data",
        env = "MAINSTEM_DATA_DIR",
        help_heading = "Administration"
    )]
    pub data_dir: PathBuf,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Where a cluster's servers are, and how to speak to them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The cluster's name: what its topics begin with, and its keyspace
    #[arg(long = "cluster", value_name = "NAME", default_value = "mainstem", env = "MAINSTEM_CLUSTER")]
    pub name: String,

    /// Kafka's brokers; some of them are enough
    #[arg(long, value_name = "HOST:PORT,…", env = "MAINSTEM_KAFKA")]
    pub kafka: String,

    /// Speak to Kafka over TLS
    #[arg(long, env = "MAINSTEM_KAFKA_TLS", value_parser = FalseyValueParser::new())]
    pub kafka_tls: bool,

    /// A file with PEM certificates that sign the brokers' (implies --kafka-tls) [default: the system's]
    #[arg(long, value_name = "FILE", env = "MAINSTEM_KAFKA_CA_FILE")]
    pub kafka_ca_file: Option<PathBuf>,

    /// A file with our own certificate and its key, in PEM, where brokers ask for one (implies --kafka-tls)
    #[arg(long, value_name = "FILE", env = "MAINSTEM_KAFKA_CERT_FILE")]
    pub kafka_cert_file: Option<PathBuf>,

    /// The user at Kafka
    #[arg(long, value_name = "NAME", env = "MAINSTEM_KAFKA_USER", requires = "kafka_password_file")]
    pub kafka_user: Option<String>,

    /// A file with the user's password on its first line
    #[arg(long, value_name = "FILE", env = "MAINSTEM_KAFKA_PASSWORD_FILE", requires = "kafka_user")]
    pub kafka_password_file: Option<PathBuf>,

    /// How the user says who it is: plain, scram-sha-256 or scram-sha-512
    #[arg(long, value_name = "HOW", default_value = "scram-sha-512", env = "MAINSTEM_KAFKA_SASL")]
    pub kafka_sasl: String,

    /// Nodes of ScyllaDB or Cassandra; some of them are enough
    #[arg(long, value_name = "HOST:PORT,…", env = "MAINSTEM_CQL")]
    pub cql: String,

    /// Of them the datacenter whose quorum counts, where there are several
    #[arg(long, value_name = "NAME", env = "MAINSTEM_CQL_DATACENTER")]
    pub cql_datacenter: Option<String>,

    /// Speak to them over TLS
    #[arg(long, env = "MAINSTEM_CQL_TLS", value_parser = FalseyValueParser::new())]
    pub cql_tls: bool,

    /// A file with PEM certificates that sign the nodes' (implies --cql-tls) [default: the public authorities']
    #[arg(long, value_name = "FILE", env = "MAINSTEM_CQL_CA_FILE")]
    pub cql_ca_file: Option<PathBuf>,

    /// The user there
    #[arg(long, value_name = "NAME", env = "MAINSTEM_CQL_USER", requires = "cql_password_file")]
    pub cql_user: Option<String>,

    /// A file with the user's password on its first line
    #[arg(long, value_name = "FILE", env = "MAINSTEM_CQL_PASSWORD_FILE", requires = "cql_user")]
    pub cql_password_file: Option<PathBuf>,
}

/// Arguments of `cluster`.
#[derive(Args, Clone, Debug)]
pub struct ClusterCommands {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to do with a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum ClusterCommand {
    /// Make the topics and the schema, or say what of them differs; safe to repeat
    Init(ClusterInit),
    /// Show lanes, lags, owners, the sequencer and the window
    Status(ClusterStatus),
    /// Make the state of the order anew of what was published, after its topic was lost
    RestoreSequencer(ClusterRestore),
    /// Carry what a data folder of `mainstem run` knows of hosts and repos into a cluster that was just made
    Import(ClusterImport),
    /// Carry what a cluster that stands still knows of hosts and repos into a new data folder for `mainstem run`
    Export(ClusterExport),
}

/// Arguments of `cluster init`.
#[derive(Args, Clone, Debug)]
pub struct ClusterInit {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Lanes: so many validators can share the work. Never to be changed without a stop (see docs/cluster.md)
    #[arg(long, value_name = "N", default_value = "64", env = "MAINSTEM_LANES")]
    pub lanes: String,

    /// Partitions of hosts: so many crawlers can share them
    #[arg(long, value_name = "N", default_value = "64", env = "MAINSTEM_HOST_PARTITIONS")]
    pub host_partitions: String,

    /// Copies of all data, in Kafka and in CQL; one is for trying out
    #[arg(long, value_name = "N", default_value = "3", env = "MAINSTEM_REPLICATION")]
    pub replication: String,

    /// Copies of rows in CQL, where there are not as many nodes as Kafka has brokers [default: as --replication]
    #[arg(long, value_name = "N", env = "MAINSTEM_CQL_REPLICATION")]
    pub cql_replication: Option<String>,

    /// How long events are kept for replay: 72h, 30m, 7days
    #[arg(long, value_name = "TIME", default_value = "72h", env = "MAINSTEM_WINDOW")]
    pub window: String,

    /// How many bytes of events are kept at most, whatever their age: 500GB, 20GiB
    #[arg(long, value_name = "SIZE", default_value = "500GB", env = "MAINSTEM_WINDOW_BYTES")]
    pub window_bytes: String,

    /// How many bytes of events may wait to be verified, in all lanes; past them crawlers stop reading
    #[arg(long, value_name = "SIZE", default_value = "50GB", env = "MAINSTEM_RAW_BYTES")]
    pub raw_bytes: String,

    /// The first seq to be given out, to go on above what another relay has given out
    #[arg(long, value_name = "N", env = "MAINSTEM_SEQ_START")]
    pub seq_start: Option<String>,
}

/// Arguments of `cluster status`.
#[derive(Args, Clone, Debug)]
pub struct ClusterStatus {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// JSON, for other programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cluster restore-sequencer`.
#[derive(Args, Clone, Debug)]
pub struct ClusterRestore {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Go on after verified events that are gone and were not published: they are lost
    #[arg(long)]
    pub skip_lost: bool,

    /// The next seq, where the firehose holds nothing that could tell it; above all that were ever served
    #[arg(long, value_name = "N")]
    pub next_seq: Option<String>,
}

/// Arguments of `cluster import`.
#[derive(Args, Clone, Debug)]
pub struct ClusterImport {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The data folder; `mainstem run` must have been stopped
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Arguments of `cluster export`.
#[derive(Args, Clone, Debug)]
pub struct ClusterExport {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The data folder to make
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The first seq that `mainstem run` gives out; above all that the cluster has given out [default: a million above]
    #[arg(long, value_name = "N")]
    pub seq_start: Option<String>,
}

/// Where the data is kept, and how much of it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Where all data is kept; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "./data", env = "MAINSTEM_DATA_DIR")]
    pub data_dir: PathBuf,

    /// How long events are kept for replay: 72h, 30m, 7days
    #[arg(long, value_name = "TIME", default_value = "72h", env = "MAINSTEM_WINDOW")]
    pub window: String,

    /// How many bytes of events are kept at most, whatever their age: 500GB, 20GiB
    #[arg(long, value_name = "SIZE", default_value = "20GB", env = "MAINSTEM_WINDOW_BYTES")]
    pub window_bytes: String,

    /// The first seq to be given out; for an empty data folder, to go on above what an older relay has given out
    #[arg(long, value_name = "N", env = "MAINSTEM_SEQ_START")]
    pub seq_start: Option<String>,
}

/// Whom to read.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Hosts")]
pub struct CrawlArgs {
    /// A host (PDS) to relay; may be given many times. In the environment: separated by commas
    #[arg(long = "host", value_name = "HOST[:PORT]", value_delimiter = ',', env = "MAINSTEM_HOST")]
    pub hosts: Vec<String>,

    /// A relay whose hosts (listHosts) are relayed too
    #[arg(long, value_name = "URL", env = "MAINSTEM_BOOTSTRAP")]
    pub bootstrap: Option<String>,
}

/// How events are verified.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Verification")]
pub struct ValidateArgs {
    /// Threads that verify events [default: one for each CPU]
    #[arg(long, value_name = "N", env = "MAINSTEM_WORKERS")]
    pub workers: Option<String>,
}

/// Who accounts are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identities")]
pub struct PlcArgs {
    /// The directory of did:plc identities
    #[arg(long, value_name = "URL", default_value = "https://plc.directory", env = "MAINSTEM_PLC_URL")]
    pub plc_url: String,

    /// Requests to the directory of did:plc identities in a second; a new relay knows nobody, and asks at this rate
    #[arg(long, value_name = "N", default_value = "200", env = "MAINSTEM_PLC_RATE")]
    pub plc_rate: String,

    /// Requests to the directory under way at once: the rate, times the seconds that an answer takes, and some more
    #[arg(long, value_name = "N", default_value = "64", env = "MAINSTEM_PLC_CONCURRENCY")]
    pub plc_concurrency: String,
}

/// Who is served, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Subscribers")]
pub struct ServeArgs {
    /// Where the stream, the public methods and the status page are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2470", env = "MAINSTEM_BIND")]
    pub bind: String,

    /// Subscribers served at once, those with a token not counted; one more is answered 503
    #[arg(long, value_name = "N", default_value = "1000", env = "MAINSTEM_SUBSCRIBERS_MAX")]
    pub subscribers_max: String,

    /// Of them from one address, or one /64 of IPv6; or none for no limit. Trusted proxies' own addresses have none
    #[arg(long, value_name = "N", default_value = "100", env = "MAINSTEM_SUBSCRIBERS_PER_ADDRESS")]
    pub subscribers_per_address: String,

    /// A file with tokens of subscribers, one a line: NAME:TOKEN, and if wanted max=N; each has seats of its own
    #[arg(long, value_name = "FILE", env = "MAINSTEM_SUBSCRIBER_TOKEN_FILE")]
    pub subscriber_token_file: Option<PathBuf>,

    /// Reverse proxies whose X-Forwarded-For is believed, as networks with commas between; or none
    #[arg(long, value_name = "CIDR,…", default_value = "127.0.0.0/8,::1", env = "MAINSTEM_TRUSTED_PROXIES")]
    pub trusted_proxies: String,

    /// Compress messages (permessage-deflate) for subscribers that offer it, as many libraries do unasked: off or on. It
    /// saves about a third of the bytes, and replay by such subscribers is as fast as a CPU compresses
    #[arg(long, value_name = "off|on", default_value = "off", env = "MAINSTEM_COMPRESSION")]
    pub compression: String,

    /// Whom to compare with.
    #[command(flatten)]
    pub coverage: CoverageArgs,
}

/// Whom to compare with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Coverage")]
pub struct CoverageArgs {
    /// Another relay, whose hosts and repos are looked up here now and then; may be given many times. What is missing is
    /// shown in the metrics (mainstem_coverage_…) and by `mainstem admin coverage`, and changes nothing else. In the
    /// environment: separated by commas
    #[arg(long = "coverage-peer", value_name = "URL", value_delimiter = ',', env = "MAINSTEM_COVERAGE_PEER")]
    pub coverage_peers: Vec<String>,

    /// How often, more or less; where several processes serve, each does it
    #[arg(long, value_name = "TIME", default_value = "10m", env = "MAINSTEM_COVERAGE_INTERVAL")]
    pub coverage_interval: String,
}

/// What holds of hosts in all roles that have to do with them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Development: hosts on this machine and private networks are allowed, over plain ws and http, without limits
    #[arg(long, env = "MAINSTEM_DEV", value_parser = FalseyValueParser::new())]
    pub dev: bool,

    /// A file with limits by hosts' names; read again when it changes or on SIGHUP (see `mainstem limits example`)
    #[arg(long, value_name = "FILE", env = "MAINSTEM_LIMITS")]
    pub limits: Option<PathBuf>,

    /// A file with PEM certificates that are trusted beside the public authorities': a private network's own
    #[arg(long, value_name = "FILE", env = "MAINSTEM_CA_FILE")]
    pub ca_file: Option<PathBuf>,

    /// Whom hosts' operators may write to; named in the crawler's User-Agent
    #[arg(long, value_name = "TEXT", env = "MAINSTEM_CONTACT")]
    pub contact: Option<String>,
}

/// Who may change what a process that serves does.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Administration")]
pub struct AdminArgs {
    /// A file with the password of the user `admin`; administration is off without a password or tokens
    #[arg(long, value_name = "FILE", env = "MAINSTEM_ADMIN_PASSWORD_FILE")]
    pub admin_password_file: Option<PathBuf>,

    /// A file with tokens for administration, one a line: NAME:TOKEN; changes are recorded under the name
    #[arg(long, value_name = "FILE", env = "MAINSTEM_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// What every process has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Where metrics and health are served, and administration by who serves; keep it private
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2471", env = "MAINSTEM_ADMIN_BIND")]
    pub admin_bind: String,

    /// What is logged: error, warn, info, debug, or directives such as info,crawler=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info,fjall=warn,lsm_tree=warn,scylla=error",
        env = "MAINSTEM_LOG"
    )]
    pub log: String,

    /// The form of the logs: auto (text on a terminal, else JSON), text or json
    #[arg(long, value_name = "FORM", default_value = "auto", env = "MAINSTEM_LOG_FORMAT")]
    pub log_format: String,

    /// Follow some events from host to subscriber, and send traces of them to this OpenTelemetry collector (OTLP over
    /// HTTP, as in http://127.0.0.1:4318)
    #[arg(long, value_name = "URL", env = "MAINSTEM_TRACES_TO")]
    pub traces_to: Option<String>,

    /// Of how many events one is followed; all processes of a cluster follow the same ones if they have the same number
    #[arg(long, value_name = "N", default_value = "1000", env = "MAINSTEM_TRACE_ONE_IN")]
    pub trace_one_in: String,
}

/// Arguments of `tail`.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    /// The relay or host: ws://HOST:PORT, wss://HOST, or just HOST or HOST:PORT
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:2470", env = "MAINSTEM_TAIL_URL")]
    pub url: String,

    /// Begin after this seq; 0 for the oldest event kept [default: live from now]
    #[arg(long, value_name = "N")]
    pub cursor: Option<u64>,

    /// Only the accounts of one of n parts, from 0/n on, where the server is a relay that has this (Mainstem)
    #[arg(long, value_name = "i/n")]
    pub shard: Option<Shard>,

    /// Ask for compressed messages (permessage-deflate)
    #[arg(long)]
    pub compressed: bool,

    /// One JSON object a line, complete, for other programs
    #[arg(long)]
    pub json: bool,
}

const AUDIT: &str = "\
Examples:
  mainstem audit wss://relay.example.com          the relay on this machine beside that one
  mainstem audit relay2.example.com --ours relay1.example.com
                                                  any two relays
  mainstem audit wss://relay.example.com --for 1h --settle 2m --json > audit.json
                                                  an hour, for programs; one may be two minutes late
  mainstem audit ws://127.0.0.1:3470 --for 30s --settle 3s --plc-url http://localhost:2582
                                                  two relays of a development network

An event is the same on both where account, kind and rev are (of #identity and #account: account, kind and time); what \
else it says must agree, and is named where it does not. Seqs are each relay's own. What comes on one stream alone lacks \
on the other, unless it came too near the beginning, the end or a break of a connection to be sure. So it reads for \
--for and twice --settle. A connection that breaks is made again at its cursor. Ctrl-C ends it earlier, with a report of \
what was read so far.

Some of what a relay says is its own, and so lacks on the other: an #account of a takedown there. And where a relay gives \
another handle or status than the other does, the event is said to differ.

The report goes by the accounts' hosts, which our relay is asked for (getRepo), and of accounts that it does not know \
their directory; those that nobody knows are `unknown`.

Exit codes: 0 nothing lacks; 1 something lacks or differs; 2 wrong usage; 3 a stream could not be read, or not for long \
enough to judge anything.";

/// Arguments of `audit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AUDIT)]
pub struct AuditArgs {
    /// The other relay: ws://HOST:PORT, wss://HOST, or just HOST or HOST:PORT
    #[arg(value_name = "URL")]
    pub url: String,

    /// Our relay, which is held against it
    #[arg(
        long,
        visible_alias = "with",
        value_name = "URL",
        default_value = "ws://127.0.0.1:2470",
        env = "MAINSTEM_AUDIT_OURS"
    )]
    pub ours: String,

    /// For how long to judge what comes
    #[arg(long = "for", value_name = "TIME", default_value = "10m")]
    pub read_for: String,

    /// How much later than on one stream an event may come on the other; so long is read before and after, too
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub settle: String,

    /// Memory for events; when it is full of such as came on one stream alone, reading ends
    #[arg(long, value_name = "SIZE", default_value = "256MB")]
    pub memory: String,

    /// Accounts whose hosts are looked up, those that lack most first
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub lookups: u16,

    /// The directory of did:plc identities, for accounts that our relay does not know
    #[arg(long, value_name = "URL", default_value = "https://plc.directory", env = "MAINSTEM_PLC_URL")]
    pub plc_url: String,

    /// Print the report as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Files with one recorded frame each, in the order they were sent
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// A JSON file with the accounts' keys and hosts; without it the real directories are asked
    #[arg(long, value_name = "FILE")]
    pub identities: Option<PathBuf>,

    /// The host that sent the frames; without it the host is not checked
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,

    /// The directory of did:plc identities
    #[arg(long, value_name = "URL", default_value = "https://plc.directory", env = "MAINSTEM_PLC_URL")]
    pub plc_url: String,

    /// Local directories and hosts are allowed, over plain http
    #[arg(long, env = "MAINSTEM_DEV", value_parser = FalseyValueParser::new())]
    pub dev: bool,
}

/// Arguments of `repair`.
#[derive(Args, Clone, Debug)]
pub struct RepairArgs {
    /// The data folder of a relay that is not running
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Mend what is damaged; without it nothing is changed
    #[arg(long)]
    pub mend: bool,
}

/// Arguments of `limits`.
#[derive(Args, Clone, Debug)]
pub struct LimitsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LimitsCommand,
}

/// What to do with limits.
#[derive(Subcommand, Clone, Debug)]
pub enum LimitsCommand {
    /// Say whether a file is sound, and what hosts would get by it; exit code 2 where it is not
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Hosts to look up
        #[arg(value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Print the limits that hold without a file, as a file to begin with
    Example,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// Neither.
    Default,
}

impl Origin {
    /// A word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Flag => "flag",
            Origin::Environment => "environment",
            Origin::Default => "default",
        }
    }
}

/// Where each setting of `run` comes from.
#[derive(Clone, Debug)]
pub struct Origins(ArgMatches);

impl Origins {
    /// Where the setting with this field's name in [`RunArgs`] comes from.
    pub fn of(&self, field: &str) -> Origin {
        match self.0.value_source(field) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ => Origin::Default,
        }
    }
}

/// Parses arguments; on a mistake, or when help is asked for, clap's error prints what to say.
pub fn parse<I, T>(arguments: I) -> Result<(Cli, Origins), clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let of_subcommand = matches.subcommand().map(|(_, matches)| matches.clone()).unwrap_or_default();
    Ok((cli, Origins(of_subcommand)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
