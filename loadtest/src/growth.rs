//! `loadtest growth`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::bench::{Folder, GrowthConfig, growth};

use crate::{
    measure::{draw, traffic_folder, write_json},
    profile_args::ProfileArgs,
};

/// Options of `loadtest growth`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program, a release build.
    #[arg(long, value_name = "PATH")]
    relay: PathBuf,
    /// Numbers of repos, one after another.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "200,2000,20000")]
    by_repos: Vec<usize>,
    /// Numbers of hosts that are connected.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,20,200,5000")]
    by_hosts: Vec<usize>,
    /// Numbers of workers.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2")]
    by_workers: Vec<usize>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Where traffic is kept once it is generated; a folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    traffic: Option<PathBuf>,
    /// Where the relays' data goes; the folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
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
    let config = GrowthConfig {
        relay: args.relay,
        relay_args: args.relay_args,
        profile: args.profile.profile()?,
        repos: args.by_repos,
        hosts: args.by_hosts,
        workers: args.by_workers,
        folder: folder.path().to_owned(),
        traffic: traffic_folder(args.traffic),
        limit: Duration::from_secs(args.limit),
    };
    let report = growth(config, |doing| eprintln!("  {doing}")).await?;
    println!("\n{report}");
    if let Some(file) = args.json {
        write_json(&file, &report.to_json())?;
    }
    if let Some(folder) = args.plots {
        draw(&folder, report.plots())?;
    }
    Ok(())
}
