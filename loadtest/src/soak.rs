//! `loadtest soak`.

use std::time::Duration;

use anyhow::ensure;
use clap::Args as ClapArgs;
use loadtest::bench::{SoakConfig, Subject, soak};

use crate::bench_args::BenchArgs;

/// Options of `loadtest soak`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    bench: BenchArgs,
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
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = args.bench.folder()?;
    let config = SoakConfig {
        subject: Subject::mainstem(&args.bench.relay, &args.bench.relay_args, None),
        folder: folder.path().to_owned(),
        hosts: args.hosts,
        repos: args.repos,
        records: args.records,
        window_bytes: args.window_mb * 1_048_576,
        time: Duration::from_secs(args.seconds),
        limit: Duration::from_secs(180),
    };
    let report = soak(config, |doing| eprintln!("  {doing}")).await?;
    args.bench.show(&report, &report.to_json(), report.plots())?;
    ensure!(report.holds(), "something grew that should not");
    Ok(())
}
