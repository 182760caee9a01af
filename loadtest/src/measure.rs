//! `loadtest bench`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::{
    bench::{self, Folder, Peer, Subject},
    traffic::profile::Profile,
};
use serde_json::Value;

use crate::profile_args::ProfileArgs;

/// Options of `loadtest bench`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program, a release build.
    #[arg(long, value_name = "PATH")]
    relay: PathBuf,
    /// Measure it with so many workers, each in turns; `2,1` also tells the price of the second one.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    workers: Vec<usize>,
    /// Measure another relay beside it, in turns; the README says how to get one.
    #[arg(long, value_name = "indigo=PATH")]
    peer: Vec<Peer>,
    /// Turns of each relay; medians and ranges are told.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Where traffic is kept once it is generated; a folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    traffic: Option<PathBuf>,
    /// Events a second while latency is measured.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seconds that latency is measured, in each turn; 0 leaves it out.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    latency: u64,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// Where the relays' data goes; that disk is measured. The folder of temporary files, if not said.
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
    let traffic = traffic(args.profile.profile()?, args.traffic).await?;
    let subject = |workers| Subject::mainstem(&args.relay, &args.relay_args, workers);
    let mut subjects = match args.workers.as_slice() {
        [] => vec![subject(None)],
        workers => workers.iter().map(|workers| subject(Some(*workers))).collect(),
    };
    subjects.extend(args.peer.iter().map(Subject::peer));
    let config = bench::Config {
        subjects,
        rounds: args.rounds.into(),
        folder: folder.path().to_owned(),
        traffic,
        rate: args.rate,
        latency_time: Duration::from_secs(args.latency),
        limit: Duration::from_secs(args.limit),
    };
    let report = bench::run(config, |doing| eprintln!("  {doing}")).await?;
    println!("\n{report}");
    if let Some(file) = args.json {
        write_json(&file, &report.to_json())?;
    }
    if let Some(folder) = args.plots {
        draw(&folder, report.plots())?;
    }
    Ok(())
}

/// The folder with a profile's traffic, generated if it isn't there.
async fn traffic(profile: Profile, parent: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let parent = traffic_folder(parent);
    let made = tokio::task::spawn_blocking(move || bench::traffic(&profile, &parent, |doing| eprintln!("  {doing}")));
    Ok(made.await??)
}

/// Where traffic is kept.
pub(crate) fn traffic_folder(said: Option<PathBuf>) -> PathBuf {
    said.unwrap_or_else(|| std::env::temp_dir().join("mainstem-traffic"))
}

/// Writes figures for programs.
pub(crate) fn write_json(file: &Path, json: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(json)?;
    std::fs::write(file, text + "\n").with_context(|| format!("failed to write {}", file.display()))
}

/// Writes pictures into a folder, which is made if need be.
pub(crate) fn draw(folder: &Path, plots: Vec<(&str, String)>) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for (name, svg) in plots {
        let file = folder.join(name);
        std::fs::write(&file, svg).with_context(|| format!("failed to write {}", file.display()))?;
        println!("  drawn: {}", file.display());
    }
    Ok(())
}
