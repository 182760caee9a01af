//! The program: reads its arguments and does one of its commands.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use relay::{
    audit, backend,
    cli::{self, Command, Origins, RepairArgs, RunArgs},
    cluster,
    config::Config,
    console, descriptors, huge_pages, limits_file,
    node::Node,
    tail, verify,
};
use runtime::{
    signals::Signals,
    tasks::{Cause, Tasks},
    telemetry,
};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time from the signal to the end of the process.
const DRAIN_MAX: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    huge_pages::avoid();
    let (cli, origins) = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let result = Runtime::new().context("failed to start the runtime").and_then(|runtime| {
        let result = runtime.block_on(command(cli.command, &origins));
        // What hangs on a disk must not hold up the end.
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

async fn command(command: Command, origins: &Origins) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run(Config::from_args(&args)?).await,
        Command::Crawl(args) => run(Config::of_crawl(&args)?).await,
        Command::Validate(args) => run(Config::of_validate(&args)?).await,
        Command::Sequence(args) => run(Config::of_sequence(&args)?).await,
        Command::Serve(args) => run(Config::of_serve(&args)?).await,
        Command::Cluster(args) => cluster::run(&args.command).await,
        Command::Tail(args) => tail::run(&args).await.context("tail"),
        Command::Audit(args) => audit::run(&args).await.context("audit"),
        Command::Verify(args) => verify::run(&args).await.context("verify"),
        Command::Repair(args) => repair(&args),
        Command::Admin(args) => Ok(console::run(&args).await),
        Command::Limits(args) => Ok(limits_file::check::run(&args, &mut std::io::stdout().lock())?),
        Command::Config(args) => print_config(&args, origins),
    }
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log.filter, config.log.format).context("--log")?;
    let mut signals = Signals::new().context("failed to listen for signals")?;
    let tasks = Tasks::new();

    // Opening may have to read a long log. Ending in the middle of it loses nothing.
    let node = tokio::select! {
        node = Node::build(config, tasks.clone()) => node?,
        signal = signals.stop() => {
            info!(cause = signal.as_str(), "ending before the start");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let descriptors = descriptors::raise_limit(node.descriptors_needed());
    if let Some(shortage) = descriptors.shortage() {
        warn!("{shortage}");
    }
    let (public, private) = (node.public_addr(), node.private_addr());
    info!(public = public.map(tracing::field::display), %private, descriptors = descriptors.limit, "listening");
    if let Some(public) = public {
        info!("status page: http://{public}/   firehose: ws://{public}   watch it: mainstem tail {public}");
    }
    let running = node.start();

    tokio::select! {
        signal = signals.stop() => tasks.shutdown(signal.as_str()),
        () = tasks.stopped() => {}
    }
    let cause = tasks.cause().cloned().context("a shutdown has a cause")?;
    info!(%cause, "shutting down");
    let drained = tokio::select! {
        drained = running.drain(DRAIN_MAX) => drained.context("failed to end in time"),
        signal = signals.stop() => Err(anyhow::anyhow!("{} again: ending at once", signal.as_str())),
    };
    if let Err(error) = &drained {
        error!(error = format!("{error:#}"), "some work was cut short; what was not durable is read again");
    }
    Ok(if drained.is_ok() && matches!(cause, Cause::Asked(_)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn repair(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    telemetry::init("warn", telemetry::Format::Auto)?;
    let repair = backend::repair(&args.dir, args.mend)?;
    println!("{}", repair.report);
    if !repair.sound && !args.mend {
        println!("mend it with: mainstem repair {} --mend", args.dir.display());
    }
    Ok(if repair.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_config(args: &RunArgs, origins: &Origins) -> anyhow::Result<ExitCode> {
    print!("{}", Config::from_args(args)?.describe(origins));
    Ok(ExitCode::SUCCESS)
}
