//! `loadtest growth`.

use std::time::Duration;

use clap::Args as ClapArgs;
use loadtest::bench::{GrowthConfig, growth};

use crate::{bench_args::BenchArgs, profile_args::TrafficArgs};

/// Options of `loadtest growth`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    bench: BenchArgs,
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
    traffic: TrafficArgs,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = args.bench.folder()?;
    let config = GrowthConfig {
        relay: args.bench.relay.clone(),
        relay_args: args.bench.relay_args.clone(),
        profile: args.traffic.profile.profile("standard")?,
        repos: args.by_repos,
        hosts: args.by_hosts,
        workers: args.by_workers,
        folder: folder.path().to_owned(),
        traffic: args.traffic.folder(),
        limit: Duration::from_secs(args.limit),
    };
    let report = growth(config, |doing| eprintln!("  {doing}")).await?;
    args.bench.show(&report, &report.to_json(), report.plots())
}
