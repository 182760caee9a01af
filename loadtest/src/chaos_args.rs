//! `loadtest chaos`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use loadtest::chaos::{self, Fault, Options};

use crate::local_cluster::beside_us;

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest chaos --seed 7 --report chaos.json
      Every fault as often as the whole run has it: most of an hour.
  loadtest chaos --seed 7 --minutes 5
      The same faults in the same order, for five minutes.
  loadtest chaos --faults kill-validate=3,kill-broker=1 --brokers 3
      These alone.";

/// Options of `loadtest chaos`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program; beside this one if not given.
    #[arg(long, value_name = "FILE")]
    relay: Option<PathBuf>,
    /// All that is random follows from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Events a second over all hosts.
    #[arg(long, value_name = "N", default_value_t = 500.0)]
    rate: f64,
    /// Kafka brokers: 1 or 3.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    brokers: u8,
    /// Lanes of the cluster.
    #[arg(long, value_name = "N", default_value_t = 16)]
    lanes: u32,
    /// Which faults, NAME=TIMES or NAME, with commas between; all of them, as often as the whole run has each, if not given.
    #[arg(long, value_name = "NAME[=TIMES],…", value_delimiter = ',')]
    faults: Vec<String>,
    /// At most so many faults.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// No further fault after so long.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// How long Kafka is gone, when it is, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    kafka_gone: f64,
    /// Where logs and ledgers are kept; a folder that goes at the end if not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Writes what came of it: JSON, or markdown if the name ends in `.md`.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("mainstem-chaos-").tempdir().context("failed to make a folder")?;
    let minutes = |minutes: f64| Duration::try_from_secs_f64(60.0 * minutes).context("--minutes is no time");
    let options = Options {
        program: args.relay.map_or_else(beside_us, Ok)?,
        seed: args.seed,
        rate: args.rate,
        brokers: usize::from(args.brokers),
        lanes: args.lanes,
        faults: faults(&args.faults)?,
        rounds_max: args.rounds.unwrap_or(usize::MAX),
        time_max: args.minutes.map_or(Ok(Duration::MAX), minutes)?,
        kafka_gone: Duration::try_from_secs_f64(args.kafka_gone).context("--kafka-gone is no time")?,
        folder: args.folder.unwrap_or_else(|| temporary.path().to_owned()),
    };
    // Whatever was started ends with the run, also in the middle of it.
    let report = tokio::select! {
        ran = chaos::run(&options, &|said| println!("{said}")) => ran?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted");
        }
    };
    println!("\n{}", report.markdown());
    if let Some(path) = args.report {
        let text = match path.extension().is_some_and(|extension| extension == "md") {
            true => report.markdown(),
            false => format!("{:#}\n", report.json()),
        };
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    anyhow::ensure!(report.is_clean(), "something is wrong; seed {}", args.seed);
    anyhow::ensure!(report.keeps_targets(), "the stream stood still for longer than it may; seed {}", args.seed);
    Ok(())
}

fn faults(said: &[String]) -> anyhow::Result<Vec<(Fault, usize)>> {
    if said.is_empty() {
        return Ok(Fault::all().into_iter().map(|fault| (fault, fault.often())).collect());
    }
    let one = |said: &String| {
        let (name, times) = said.split_once('=').unwrap_or((said, "1"));
        Ok((name.parse()?, times.parse().with_context(|| format!("{times:?} is not how often"))?))
    };
    said.iter().map(one).collect()
}
