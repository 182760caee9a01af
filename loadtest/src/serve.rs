//! `loadtest serve`.

use std::time::Duration;

use clap::Args as ClapArgs;
use loadtest::network::{Config, Mix, Network, Pace};
use runtime::clock::Clock;

/// Options of `loadtest serve`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Hosts.
    #[arg(long, default_value_t = 5)]
    hosts: usize,
    /// Accounts over all hosts.
    #[arg(long, default_value_t = 50)]
    accounts: usize,
    /// Events a second over all hosts; 0 is as fast as they are read.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Records that each repo has at the start.
    #[arg(long, default_value_t = 20)]
    records: usize,
    /// Share of accounts with P-256 keys.
    #[arg(long, default_value_t = 0.3)]
    p256: f64,
    /// Exponent of the Zipf law of activity; 0 is even.
    #[arg(long, default_value_t = 0.8)]
    skew: f64,
    /// The same seed tells the same story.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Commits only, no identity or account events.
    #[arg(long)]
    commits_only: bool,
    /// MiB of newest frames that each host keeps.
    #[arg(long, default_value_t = 16)]
    window_mib: usize,
    /// Seconds after which to stop; without it, runs until interrupted.
    #[arg(long)]
    seconds: Option<u64>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config {
        seed: args.seed,
        hosts: args.hosts,
        accounts: args.accounts,
        p256_share: args.p256,
        records_per_repo: args.records,
        pace: if args.rate > 0.0 { Pace::PerSecond(args.rate) } else { Pace::AsRead },
        mix: if args.commits_only { Mix::COMMITS } else { Mix::SHOWCASE },
        skew: args.skew,
        window_bytes: args.window_mib * 1024 * 1024,
        ..Config::default()
    };
    let network = Network::start(config, Clock::system()).await?;
    println!("PLC directory: {}", network.plc_url());
    println!("A relay reads it with:");
    print!("  mainstem run --dev --plc-url {}", network.plc_url());
    for host in network.hosts() {
        print!(" --host {host}");
    }
    println!();
    let stop_after = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = report(&network) => {}
        () = stop_after => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    network.stop().await;
    Ok(())
}

/// One line every ten seconds.
async fn report(network: &Network) {
    let mut ticks = tokio::time::interval(Duration::from_secs(10));
    ticks.tick().await;
    let mut before = network.stats();
    loop {
        ticks.tick().await;
        let now = network.stats();
        let subscribers: usize = (0..network.hosts().len()).map(|host| network.subscribers(host)).sum();
        println!(
            "{} events sent, {:.1}/s, mean frame {} B, {subscribers} subscribers, {} directory requests",
            now.events,
            (now.events - before.events) as f64 / 10.0,
            (now.bytes - before.bytes).checked_div(now.events - before.events).unwrap_or(0),
            network.directory().requests(),
        );
        before = now;
    }
}
