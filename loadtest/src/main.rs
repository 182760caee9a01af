//! `loadtest`: a simulated network to point a relay at, and measurements of a relay from outside.

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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
    }
}
