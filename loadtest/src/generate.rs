//! `loadtest gen`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::traffic::{
    generate::{Progress, generate},
    profile::Profile,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest gen --profile standard --out /tmp/standard
      The traffic that published figures are of: about 250 MB, a minute.
  loadtest gen --profile standard --repos 20000 --records 50 --out /tmp/many-repos
      The same, but of more and smaller repos.
  loadtest gen --profile mine.toml --out /tmp/mine
      A profile of one's own; loadtest/profiles/standard.toml explains each line.";

/// Options of `loadtest gen`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// A profile that is built in (standard, small), or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "standard")]
    profile: PathBuf,
    /// The folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Another number of hosts than the profile's.
    #[arg(long)]
    hosts: Option<usize>,
    /// Another number of repos than the profile's.
    #[arg(long)]
    repos: Option<usize>,
    /// Another number of records in each repo than the profile's.
    #[arg(long)]
    records: Option<usize>,
    /// Another number of commits than the profile's.
    #[arg(long)]
    commits: Option<u64>,
    /// Another seed than the profile's.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut profile = Profile::find(&args.profile).context("failed to read the profile")?;
    profile.hosts = args.hosts.unwrap_or(profile.hosts);
    profile.repos = args.repos.unwrap_or(profile.repos);
    profile.records = args.records.unwrap_or(profile.records);
    profile.commits = args.commits.unwrap_or(profile.commits);
    profile.seed = args.seed.unwrap_or(profile.seed);
    let out = args.out.clone();
    let tell = |progress: Progress| {
        let Progress { doing, done, all, per_second } = progress;
        eprintln!("  {doing}: {done} of {all}, {per_second:.0}/s");
    };
    let made = tokio::task::spawn_blocking(move || generate(&profile, &out, tell)).await??;
    let (warm_up, measured) = (made.warm_up, made.measured);
    let percent = |part: u64| 100.0 * part as f64 / measured.commits.max(1) as f64;
    println!("{}", args.out.display());
    println!("  {:<26}{:>10}  in {:.0} MB", "warm-up events", warm_up.events, warm_up.file_bytes as f64 / 1e6);
    println!("  {:<26}{:>10}  in {:.0} MB", "measured events", measured.events, measured.file_bytes as f64 / 1e6);
    println!("  {:<26}{:>10.0}  bytes", "mean frame", measured.frame_bytes_mean);
    println!("  {:<26}{:>10}", "commits", measured.commits);
    for (name, part) in [
        ("one create", measured.creates),
        ("one update", measured.updates),
        ("one delete", measured.deletes),
        ("several ops", measured.multi),
        ("signed with P-256", measured.commits_p256),
    ] {
        println!("    {name:<24}{part:>10}  {:.1} %", percent(part));
    }
    Ok(())
}
