//! `loadtest bench`.

use std::time::Duration;

use clap::Args as ClapArgs;
use loadtest::bench::{self, Peer, Subject};

use crate::{bench_args::BenchArgs, profile_args::TrafficArgs};

/// Options of `loadtest bench`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    bench: BenchArgs,
    /// Measure it with so many workers, each in turns; `2,1` also tells the price of the second one.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    workers: Vec<usize>,
    /// Measure a cluster beside it, in turns: a process of each role, on Kafka and Cassandra, all on this machine.
    #[arg(long)]
    cluster: bool,
    /// Measure another relay beside it, in turns; the README says how to get one.
    #[arg(long, value_name = "indigo=PATH")]
    peer: Vec<Peer>,
    /// Turns of each relay; medians and ranges are told.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Events a second while latency is measured.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seconds that latency is measured, in each turn; 0 leaves it out.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    latency: u64,
    /// Seconds at the rate before that, which don't count. The servers of a cluster compile their code for some minutes.
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    lead_in: u64,
    /// Seconds that each phase may take.
    #[arg(long, default_value_t = 180)]
    limit: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = args.bench.folder()?;
    let subject = |workers| Subject::mainstem(&args.bench.relay, &args.bench.relay_args, workers);
    let mut subjects = match args.workers.as_slice() {
        [] => vec![subject(None)],
        workers => workers.iter().map(|workers| subject(Some(*workers))).collect(),
    };
    subjects.extend(args.cluster.then(|| Subject::cluster(&args.bench.relay)));
    subjects.extend(args.peer.iter().map(Subject::peer));
    let config = bench::Config {
        subjects,
        rounds: args.rounds.into(),
        folder: folder.path().to_owned(),
        traffic: args.traffic.generated("standard").await?,
        rate: args.rate,
        latency_time: Duration::from_secs(args.latency),
        lead_in: Duration::from_secs(args.lead_in),
        limit: Duration::from_secs(args.limit),
    };
    let report = bench::run(config, |doing| eprintln!("  {doing}")).await?;
    args.bench.show(&report, &report.to_json(), report.plots())
}
