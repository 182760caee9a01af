//! The command line of `mainstem admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  export MAINSTEM_ADMIN_PASSWORD_FILE=/etc/mainstem/password
  mainstem admin hosts list --status offline       which hosts can't be reached
  mainstem admin hosts show pds.example.com        why a host is stuck, and what was refused of it
  mainstem admin hosts limits pds.example.com --accounts-max 50000
                                                   room for more accounts, at once
  mainstem admin accounts show did:plc:…           what is known of an account, and who says so
  mainstem admin accounts takedown did:plc:…       nothing of it is served any more
  mainstem admin subscribers list --json | jq .    for programs
  mainstem admin request-crawl off                 nobody can add hosts by asking
  mainstem admin coverage                          what other relays have that this one lacks
  mainstem admin audit                             who changed what

The relay has administration on where it was started with --admin-password-file or --admin-token-file.
The same password or token is given here by --password-file or --token-file, or in the environment:
MAINSTEM_ADMIN_PASSWORD_FILE, MAINSTEM_ADMIN_TOKEN_FILE, MAINSTEM_ADMIN_PASSWORD, MAINSTEM_ADMIN_TOKEN.
Where there is a token, it is taken.

Exit codes: 0 done; 1 the relay turned it down; 2 wrong usage; 3 no relay answers; 4 wrong password or token.";

/// Arguments of `admin`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct AdminArgs {
    /// Where the relay is, and the key to it.
    #[command(flatten)]
    pub relay: RelayArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// Where the relay is, and the key to it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Relay")]
pub struct RelayArgs {
    /// Where the relay's --admin-bind is
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:2471",
        env = "MAINSTEM_ADMIN_URL"
    )]
    pub url: String,

    /// A file with the password: the relay's --admin-password-file
    #[arg(long, global = true, value_name = "FILE", env = "MAINSTEM_ADMIN_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,

    /// A file with a token, or the relay's --admin-token-file; the first one is taken
    #[arg(long, global = true, value_name = "FILE", env = "MAINSTEM_ADMIN_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// The password itself; meant for the environment, because arguments can be seen by others
    #[arg(long, global = true, hide = true, hide_env_values = true, env = "MAINSTEM_ADMIN_PASSWORD")]
    pub password: Option<String>,

    /// The token itself; meant for the environment, because arguments can be seen by others
    #[arg(long, global = true, hide = true, hide_env_values = true, env = "MAINSTEM_ADMIN_TOKEN")]
    pub token: Option<String>,

    /// Print the relay's answer as JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What is looked at or changed.
#[derive(Clone, Debug, Subcommand)]
pub enum AdminCommand {
    /// Hosts (PDSs): list, show, add, rewind, ban, unban, limits
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// Domains whose hosts are not read: list, ban, unban
    #[command(subcommand)]
    Domains(DomainsCommand),
    /// Accounts: show, takedown, restore, re-resolve
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Who reads the firehose: list, disconnect
    #[command(subcommand)]
    Subscribers(SubscribersCommand),
    /// Who may have hosts crawled by asking (requestCrawl): show, on, off, quota
    #[command(subcommand)]
    RequestCrawl(RequestCrawlCommand),
    /// What the other relays of --coverage-peer have that is missing here
    Coverage,
    /// What was changed, when and by whom, the newest first
    Audit {
        /// How many changes
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those before the change with this number
        #[arg(long, value_name = "ID")]
        before: Option<u64>,
    },
}

/// Hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum HostsCommand {
    /// All hosts, by name
    List {
        /// Only hosts with this status
        #[arg(long, value_enum)]
        status: Option<HostStatus>,
        /// Only hosts whose name holds this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// One host: how it is read, what is wrong with it, what was refused of it and why
    Show {
        /// The host: pds.example.com, localhost:2583
        host: String,
    },
    /// Read a host from now on, without asking it first
    Add {
        /// The host: pds.example.com, localhost:2583
        host: String,
        /// Where to begin with a new host [default: live; with --dev the oldest event]
        #[arg(long, value_enum)]
        from: Option<From>,
    },
    /// Read a host again: what was refused is judged anew, what was accepted is known as a repeat
    Rewind {
        /// The host: pds.example.com, localhost:2583
        host: String,
        /// The host's seq after which to begin [default: its oldest event]
        #[arg(long, value_name = "SEQ")]
        to: Option<u64>,
    },
    /// Read a host no more, until the ban is lifted; it need not be known
    Ban {
        /// The host: pds.example.com, localhost:2583
        host: String,
    },
    /// Read a banned host again, from where it was
    Unban {
        /// The host: pds.example.com, localhost:2583
        host: String,
    },
    /// What a host may send, and which rule says so; with flags, an exception for this host alone
    #[command(after_help = LIMITS)]
    Limits(LimitsArgs),
}

const LIMITS: &str = "\
Examples:
  mainstem admin hosts limits pds.example.com                        what is in force
  mainstem admin hosts limits pds.example.com --accounts-max 50000   an exception; it holds at once
  mainstem admin hosts limits pds.example.com --clear                as the rules say again

The flags together are the host's exception, and take the place of the one before.
Over a rate a host is read more slowly, and nothing is lost.";

/// Arguments of `hosts limits`.
#[derive(Args, Clone, Debug)]
pub struct LimitsArgs {
    /// The host: pds.example.com, localhost:2583
    pub host: String,
    /// Events a second: a number, or unlimited
    #[arg(long, value_name = "N", value_parser = limit)]
    pub events_per_second: Option<Limit>,
    /// Events an hour: a number, or unlimited
    #[arg(long, value_name = "N", value_parser = limit)]
    pub events_per_hour: Option<Limit>,
    /// Events a day: a number, or unlimited
    #[arg(long, value_name = "N", value_parser = limit)]
    pub events_per_day: Option<Limit>,
    /// Bytes a second: a number, or unlimited
    #[arg(long, value_name = "N", value_parser = limit)]
    pub bytes_per_second: Option<Limit>,
    /// Accounts: a number, or unlimited; more are throttled until it is raised
    #[arg(long, value_name = "N", value_parser = limit)]
    pub accounts_max: Option<Limit>,
    /// Take the exception back
    #[arg(
        long,
        conflicts_with_all = ["events_per_second", "events_per_hour", "events_per_day", "bytes_per_second", "accounts_max"]
    )]
    pub clear: bool,
}

/// A limit as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most so many.
    AtMost(u64),
}

fn limit(text: &str) -> Result<Limit, &'static str> {
    match (text, text.replace(['_', ','], "").parse()) {
        ("unlimited", _) => Ok(Limit::Unlimited),
        (_, Ok(number)) => Ok(Limit::AtMost(number)),
        (_, Err(_)) => Err("write a whole number, or unlimited"),
    }
}

/// Domains.
#[derive(Clone, Debug, Subcommand)]
pub enum DomainsCommand {
    /// Banned domains
    List,
    /// Read no host of a domain any more, known or not: example.com covers everything below it
    Ban {
        /// The domain: example.com
        domain: String,
    },
    /// Take a ban of a domain back; hosts that are banned themselves stay so
    Unban {
        /// The domain: example.com
        domain: String,
    },
}

/// Requests to be crawled.
#[derive(Clone, Debug, Subcommand)]
pub enum RequestCrawlCommand {
    /// Whether requests are taken, the quota, and how much of it is used
    Show,
    /// Take requests for hosts that are not known
    On,
    /// Take no requests for hosts that are not known; known ones are read on
    Off,
    /// Set how many hosts requests may add in a day
    Quota {
        /// Hosts in any 24 hours
        #[arg(value_name = "HOSTS_PER_DAY", required_unless_present = "per_domain")]
        per_day: Option<u32>,
        /// Hosts of one registrable domain in any 24 hours
        #[arg(long, value_name = "HOSTS_PER_DAY")]
        per_domain: Option<u32>,
    },
}

/// A host's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostStatus {
    /// Being read
    Active,
    /// Not being read; nothing is wrong
    Idle,
    /// Can't be reached; tried again for ever
    Offline,
    /// Read slower than it sends
    Throttled,
    /// Not read, by an operator's word
    Banned,
}

/// Where the reading of a host begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// With what it sends from now on
    Live,
    /// With the oldest event it has
    Oldest,
}

/// Accounts.
#[derive(Clone, Debug, Subcommand)]
pub enum AccountsCommand {
    /// One account: its status at its host and here, its repo, its identity as it is cached
    Show {
        /// The account: did:plc:… or did:web:…
        did: String,
    },
    /// Serve nothing of an account any more, live or from replay, until it is restored
    Takedown {
        /// The account: did:plc:… or did:web:…
        did: String,
    },
    /// End a takedown: what its host says of the account counts again
    Restore {
        /// The account: did:plc:… or did:web:…
        did: String,
    },
    /// Fetch an account's identity anew, after a change that the relay has missed
    ReResolve {
        /// The account: did:plc:… or did:web:…
        did: String,
    },
}

/// Subscribers.
#[derive(Clone, Debug, Subcommand)]
pub enum SubscribersCommand {
    /// Who reads the firehose, and how far behind each is
    List,
    /// Send a subscriber away, after the last whole frame; it may come again
    Disconnect {
        /// Its number in the list
        id: u64,
    },
}
