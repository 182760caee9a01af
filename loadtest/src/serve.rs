//! `loadtest serve`.

use std::{path::PathBuf, time::Duration};

use atproto::syntax::HostName;
use clap::Args as ClapArgs;
use loadtest::{
    network::{Config, Mix, Network, Pace},
    traffic::{self, Names},
};
use runtime::clock::Clock;

use crate::play;

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest serve
      A gentle network of all kinds of events to look at. It prints the `mainstem run` that reads it.
  loadtest serve --traffic /tmp/standard --rate 500
      What `loadtest gen` has signed, 500 events a second. In another terminal, start the relay with the line that is
      printed, then `loadtest subscribe ws://127.0.0.1:2470` shows how long events take through it.
  loadtest serve --traffic /tmp/standard
      The same as fast as the relay reads.";

/// Options of `loadtest serve`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// A folder of `loadtest gen`, to be sent instead of a simulated network; it decides all but --rate.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["hosts", "accounts", "records", "p256", "skew", "seed", "commits_only", "window_mib"])]
    traffic: Option<PathBuf>,
    /// With --traffic: all hosts on one port, as hNUMBER.localhost, instead of each on its own.
    #[arg(long, requires = "traffic")]
    one_port: bool,
    /// Hosts.
    #[arg(long, default_value_t = 5)]
    hosts: usize,
    /// Accounts over all hosts.
    #[arg(long, default_value_t = 50)]
    accounts: usize,
    /// Events a second over all hosts; 0 is as fast as they are read. 20 if not given, with --traffic 0.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
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
    let rate = args.rate.unwrap_or(if args.traffic.is_some() { 0.0 } else { 20.0 });
    anyhow::ensure!(rate.is_finite() && rate >= 0.0, "--rate must be 0 or more");
    if let Some(folder) = &args.traffic {
        let names = if args.one_port { Names::Labels } else { Names::Ports };
        let pace = if rate > 0.0 { traffic::Pace::PerSecond(rate) } else { traffic::Pace::AsRead };
        return play::run(folder, names, pace, args.seconds.map(Duration::from_secs)).await;
    }
    let config = Config {
        seed: args.seed,
        hosts: args.hosts,
        accounts: args.accounts,
        p256_share: args.p256,
        records_per_repo: args.records,
        pace: if rate > 0.0 { Pace::PerSecond(rate) } else { Pace::AsRead },
        mix: if args.commits_only { Mix::COMMITS } else { Mix::SHOWCASE },
        skew: args.skew,
        window_bytes: args.window_mib * 1024 * 1024,
        ..Config::default()
    };
    let network = Network::start(config, Clock::system()).await?;
    print_invitation(network.plc_url(), network.hosts());
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

/// Says how a relay finds the network.
pub(crate) fn print_invitation(plc_url: &str, hosts: &[HostName]) {
    println!("PLC directory: {plc_url}");
    println!("A relay reads it with:");
    print!("  mainstem run --dev --plc-url {plc_url}");
    for host in hosts {
        print!(" --host {host}");
    }
    println!();
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
