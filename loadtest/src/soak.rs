//! `loadtest soak`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Args as ClapArgs;
use loadtest::bench::{Folder, SoakConfig, Subject, soak};

use crate::measure::{draw, write_json};

/// Options of `loadtest soak`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program, a release build.
    #[arg(long, value_name = "PATH")]
    relay: PathBuf,
    /// Seconds at full rate; it is idle for a tenth of them then, and full again for a fifth.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(30..))]
    seconds: u64,
    /// Hosts.
    #[arg(long, default_value_t = 20)]
    hosts: usize,
    /// Repos over all hosts.
    #[arg(long, default_value_t = 2_000)]
    repos: usize,
    /// Records in each repo before.
    #[arg(long, default_value_t = 500)]
    records: usize,
    /// The relay's --window-bytes, in MB: small, so that old segments go while it runs.
    #[arg(long, default_value_t = 512, value_name = "MB", value_parser = clap::value_parser!(u64).range(64..))]
    window_mb: u64,
    /// Where the relay's data goes; the folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the figures, as SVG files in this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// More arguments for `mainstem run`, after `--`.
    #[arg(last = true)]
    relay_args: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let parent = args.folder.unwrap_or_else(std::env::temp_dir);
    let folder = Folder::new(&parent).context("failed to make a folder for the relay's data")?;
    let config = SoakConfig {
        subject: Subject::mainstem(&args.relay, &args.relay_args, None),
        folder: folder.path().to_owned(),
        hosts: args.hosts,
        repos: args.repos,
        records: args.records,
        window_bytes: args.window_mb * 1_048_576,
        time: Duration::from_secs(args.seconds),
        limit: Duration::from_secs(180),
    };
    let report = soak(config, |doing| eprintln!("  {doing}")).await?;
    println!("\n{report}");
    if let Some(file) = args.json {
        write_json(&file, &report.to_json())?;
    }
    if let Some(folder) = args.plots {
        draw(&folder, report.plots())?;
    }
    ensure!(report.holds(), "something grew that should not");
    Ok(())
}
