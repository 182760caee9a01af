//! `loadtest bench`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::bench::{self, Folder};

/// Options of `loadtest bench`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program, a release build.
    #[arg(long, value_name = "PATH")]
    relay: PathBuf,
    /// Hosts.
    #[arg(long, default_value_t = 20)]
    hosts: usize,
    /// Accounts over all hosts.
    #[arg(long, default_value_t = 2_000)]
    accounts: usize,
    /// Records that each repo has before; they decide the size of proofs.
    #[arg(long, default_value_t = 500)]
    records: usize,
    /// Commits to measure.
    #[arg(long, default_value_t = 30_000)]
    events: u64,
    /// Share of accounts with P-256 keys.
    #[arg(long, default_value_t = 0.3)]
    p256: f64,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// More arguments for `mainstem run`, after `--`.
    #[arg(last = true)]
    relay_args: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = Folder::new(&std::env::temp_dir()).context("failed to make a folder for the relay's data")?;
    let config = bench::Config {
        relay: args.relay,
        folder: folder.path().to_owned(),
        hosts: args.hosts,
        accounts: args.accounts,
        records_per_repo: args.records,
        events: args.events,
        p256_share: args.p256,
        seed: args.seed,
        limit: Duration::from_secs(args.limit),
        relay_args: args.relay_args,
    };
    let report = bench::run(config, |doing| eprintln!("  {doing}")).await?;
    println!("\n{report}");
    if let Some(file) = args.json {
        let json = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(&file, json + "\n").with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}
