//! `loadtest cold-start`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::{bench::Folder, cold_start, network::cold};

/// Options of `loadtest cold-start`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program.
    #[arg(long, value_name = "PATH")]
    relay: PathBuf,
    /// Accounts that the relay does not know.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    accounts: u64,
    /// Hosts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    hosts: u64,
    /// The relay's limit: requests to the directory in a second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Requests to the directory under way at once.
    #[arg(long, default_value_t = 256)]
    concurrency: u32,
    /// How long the directory takes for an answer, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    latency: u64,
    /// Where the relay's data goes, into a new folder `data`, and stays: a relay that knows so many accounts, to be copied
    /// and started by others. Without it all is removed at the end.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Seconds that it may take.
    #[arg(long, default_value_t = 1_200)]
    limit: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let temporary = Folder::new(&std::env::temp_dir()).context("failed to make a folder for the relay's data")?;
    let folder = match args.keep {
        Some(keep) => {
            anyhow::ensure!(!keep.join("data").exists(), "{} has data already", keep.display());
            std::fs::create_dir_all(&keep).context("failed to make a folder for the relay's data")?;
            keep
        }
        None => temporary.path().to_owned(),
    };
    let config = cold_start::Config {
        relay: args.relay,
        folder,
        network: cold::Config {
            hosts: args.hosts,
            accounts: args.accounts,
            latency: Duration::from_millis(args.latency),
        },
        rate: args.rate,
        concurrency: args.concurrency,
        limit: Duration::from_secs(args.limit),
    };
    let report = cold_start::run(config, |line| eprintln!("{line}")).await?;
    println!("\n{report}");
    Ok(())
}
