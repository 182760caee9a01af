//! `loadtest`: a simulated network to point a relay at, and measurements of a relay from outside.

mod bench_args;
mod chaos_args;
mod cold;
mod fan_out;
mod follow;
mod generate;
mod growth;
mod local_cluster;
mod measure;
mod play;
mod profile_args;
mod serve;
mod soak;
mod subscribe;

use clap::{Parser, Subcommand};

/// A simulated AT Protocol network, and measurements of a relay that reads it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Signs traffic and writes it to a folder, for `serve --traffic` and `bench`.
    ///
    /// What it is like follows from a profile, a small TOML file: `standard` and `small` are built in. The same profile
    /// makes the same bytes on every machine.
    #[command(after_help = generate::EXAMPLES)]
    Gen(generate::Args),
    /// Runs hosts, a PLC directory and accounts that sign real commits, until stopped.
    ///
    /// Without --traffic a simulated network signs as it goes, with handles that change, keys that rotate and accounts
    /// that migrate. With --traffic it sends what `gen` has signed beforehand, at next to no cost.
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Args),
    /// Reads a relay's stream and tells how fast it is, and how long events take from their hosts' send.
    ///
    /// Latency is known of events whose `time` was written when they were sent, as `loadtest serve` does on the same
    /// machine; behind a relay of the real network it is the time since the host's commit, as far as clocks agree.
    #[command(after_help = subscribe::EXAMPLES)]
    Subscribe(subscribe::Args),
    /// Reads a relay's stream with several subscribers and keeps each event's seq and SHA-256, across cuts and restarts.
    ///
    /// Every one of them comes back at its last whole event. Whether the ledgers are what the relay's log holds is then
    /// for others to say; the tests of whole processes do.
    #[command(after_help = follow::EXAMPLES)]
    Follow(follow::Args),
    /// Runs a whole cluster on this machine, until stopped: Kafka, a CQL server and processes of every role.
    #[command(after_help = local_cluster::EXAMPLES)]
    LocalCluster(local_cluster::Args),
    /// Breaks a cluster on this machine again and again, under load, and judges what its subscribers saw of it.
    #[command(after_help = chaos_args::EXAMPLES)]
    Chaos(chaos_args::Args),
    /// Measures what an event costs a relay, beside the bare cost of verifying the same signatures.
    Bench(measure::Args),
    /// Measures what serving costs a relay: many subscribers, live and behind, beside raw sockets.
    #[command(after_help = fan_out::EXAMPLES)]
    FanOut(fan_out::Args),
    /// Shows whether memory, latency or disk grow over minutes at full rate, with a pause in between.
    Soak(soak::Args),
    /// Shows how cost and memory grow by repos, hosts and workers.
    Growth(growth::Args),
    /// Shows how fast a relay that knows nobody comes to know very many accounts.
    ColdStart(cold::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Gen(args) => generate::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Subscribe(args) => subscribe::run(args).await,
        Command::Follow(args) => follow::run(args).await,
        Command::LocalCluster(args) => local_cluster::run(args).await,
        Command::Chaos(args) => chaos_args::run(args).await,
        Command::Bench(args) => measure::run(args).await,
        Command::FanOut(args) => fan_out::run(args).await,
        Command::Soak(args) => soak::run(args).await,
        Command::Growth(args) => growth::run(args).await,
        Command::ColdStart(args) => cold::run(args).await,
    }
}
