//! `loadtest`: a simulated network to point a relay at, and measurements of a relay from outside.

mod cold;
mod measure;
mod serve;

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
    /// Runs hosts, a PLC directory and accounts that sign real commits, until stopped.
    Serve(serve::Args),
    /// Measures what an event costs a relay, beside the bare cost of verifying the same signatures.
    Bench(measure::Args),
    /// Shows how fast a relay that knows nobody comes to know very many accounts.
    ColdStart(cold::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Bench(args) => measure::run(args).await,
        Command::ColdStart(args) => cold::run(args).await,
    }
}
