//! `loadtest fan-out`.

use std::time::Duration;

use anyhow::ensure;
use clap::Args as ClapArgs;
use loadtest::bench::{
    Subject,
    fan_out::{FanOutConfig, Scenario, Sizes, fan_out},
};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{bench_args::BenchArgs, profile_args::TrafficArgs};

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest fan-out live --relay target/release/mainstem
      What a delivery costs, by the number of subscribers, beside raw sockets.
  loadtest fan-out live --subscribers 100 --relay target/release/mainstem
      The same with a hundred only: some seconds.
  loadtest fan-out --relay target/release/mainstem --json fan-out.json --plots plots
      All scenarios.";

/// Options of `loadtest fan-out`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// What is measured: live, pace, replay, quiet, herd, slow, shards, compression; all of them, if not said.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    #[command(flatten)]
    bench: BenchArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// live: numbers of subscribers.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,10,100,500,2000")]
    subscribers: Vec<usize>,
    /// live: deliveries to measure for each number of subscribers, about.
    #[arg(long, value_name = "N", default_value_t = 3_000_000)]
    deliveries: u64,
    /// pace and herd: events a second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// pace: subscribers.
    #[arg(long, value_name = "N", default_value_t = 300)]
    paced: usize,
    /// pace: seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// replay: numbers of readers.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,100")]
    readers: Vec<usize>,
    /// replay: events that each reads.
    #[arg(long, value_name = "N", default_value_t = 40_000)]
    window: u64,
    /// quiet: subscribers.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    quiet: usize,
    /// herd: subscribers that come back at once.
    #[arg(long, value_name = "N", default_value_t = 500)]
    herd: usize,
    /// herd: how many events they are behind.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    behind: u64,
    /// herd: subscribers that are live meanwhile.
    #[arg(long, value_name = "N", default_value_t = 60)]
    herd_live: usize,
    /// slow: subscribers of each hostile kind.
    #[arg(long, value_name = "N", default_value_t = 50)]
    hostile: usize,
    /// Ends with an error where a target is missed.
    #[arg(long)]
    strict: bool,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    raise_limit();
    let folder = args.bench.folder()?;
    let config = FanOutConfig {
        subject: Subject::mainstem(&args.bench.relay, &args.bench.relay_args, None),
        scenarios: if args.scenarios.is_empty() { Scenario::ALL.into() } else { args.scenarios },
        folder: folder.path().to_owned(),
        traffic: args.traffic.generated("fan-out").await?,
        limit: Duration::from_secs(args.limit),
        sizes: Sizes {
            live: args.subscribers,
            deliveries: args.deliveries,
            rate: args.rate,
            paced: args.paced,
            paced_time: Duration::from_secs(args.seconds),
            replay: args.readers,
            window_events: args.window,
            quiet: args.quiet,
            herd: args.herd,
            behind: args.behind,
            herd_live: args.herd_live,
            hostile: args.hostile,
        },
    };
    let report = fan_out(config, |doing| eprintln!("  {doing}")).await?;
    args.bench.show(&report, &report.to_json(), report.plots())?;
    ensure!(report.holds() || !args.strict, "a target is missed");
    Ok(())
}

/// Thousands of sockets: the usual soft limit of open files is meant for other programs. The relay has its own.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised, sockets will say so.
    let _refused = setrlimit(Resource::Nofile, limit);
}
