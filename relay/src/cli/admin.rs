//! The command line of `mainstem admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  export MAINSTEM_ADMIN_PASSWORD_FILE=/etc/mainstem/password
  mainstem admin hosts list --status offline       which hosts can't be reached
  mainstem admin hosts show pds.example.com        why a host is stuck, and what was refused of it
  mainstem admin accounts show did:plc:…           what is known of an account, and who says so
  mainstem admin accounts takedown did:plc:…       nothing of it is served any more
  mainstem admin subscribers list --json | jq .    for programs
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
    /// Hosts (PDSs): list, show, add, ban, unban
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// Accounts: show, takedown, restore, re-resolve
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Who reads the firehose: list, disconnect
    #[command(subcommand)]
    Subscribers(SubscribersCommand),
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
