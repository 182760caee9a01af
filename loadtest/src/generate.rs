//! `loadtest gen`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadtest::traffic::generate::{Progress, generate};

use crate::profile_args::ProfileArgs;

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
    #[command(flatten)]
    profile: ProfileArgs,
    /// The folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let profile = args.profile.profile("standard")?;
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
