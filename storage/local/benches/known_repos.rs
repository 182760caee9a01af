//! What many known repos cost: memory, opening and reading, by `cargo bench --workspace --bench known_repos`.
//!
//! - `make` fills a data folder through the log, as a relay does: one event of each account. It ends in good order, or
//!   with `--kill` as a process that is killed, with Repos behind the log. `mainstem run --data-dir` opens such a folder.
//! - `open` opens it, says how long that took and what memory it needs, then reads states of accounts picked evenly, as
//!   lanes do whose accounts are in nobody's cache.
//! - With neither, both in a folder that goes afterwards, each in a process of its own.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use atproto::syntax::Did;
use clap::{Parser, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use storage::{Stores, conformance::sample, lane::LaneCount, log::Accepted};
use storage_local::{Config, Opened};

/// The relay's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The relay's.
const LANES: u32 = 16;
/// Accounts of a host.
const ACCOUNTS_OF_A_HOST: u64 = 100_000;
const BATCH: u64 = 500;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    step: Option<Step>,
    /// Known repos.
    #[arg(long, default_value_t = 1_000_000, global = true)]
    repos: u64,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 400, global = true)]
    frame_bytes: usize,
    /// States to read after opening.
    #[arg(long, default_value_t = 200_000, global = true)]
    reads: u64,
    /// End as a process that is killed.
    #[arg(long, global = true)]
    kill: bool,
    /// The data folder; a new one, that goes afterwards, where this is not given.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Step {
    /// Fill a folder.
    Make,
    /// Open a folder and read of it.
    Open,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match (args.step, &args.dir) {
        (Some(Step::Make), Some(dir)) => runtime.block_on(make(dir, &args)),
        (Some(Step::Open), Some(dir)) => runtime.block_on(open(dir, &args)),
        (Some(Step::Make | Step::Open), None) => anyhow::bail!("which folder? (--dir)"),
        (None, dir) => {
            let made = tempfile::tempdir_in(".")?;
            let dir = dir.as_deref().unwrap_or(made.path());
            for step in ["make", "open"] {
                let mut again = Command::new(std::env::current_exe()?);
                again.arg(step).arg("--dir").arg(dir).args(std::env::args().skip(1).filter(|arg| arg != "--bench"));
                let ended = again.status()?;
                // A step that was asked to end as if killed does.
                ensure!(ended.success() || (args.kill && step == "make"), "{step} failed: {ended}");
            }
            Ok(())
        }
    }
}

/// Fills the folder.
async fn make(dir: &Path, args: &Args) -> Result<()> {
    let begun = Instant::now();
    let opened = opened(dir)?;
    let log = opened.stores().log;
    let batches = (0..args.repos).step_by(BATCH as usize).map(|first| {
        let batch = (first..args.repos.min(first + BATCH)).map(|number| accepted(number, args.frame_bytes));
        let (batch, log): (Vec<Accepted>, _) = (batch.collect(), Arc::clone(&log));
        async move { log.append(batch).await }
    });
    stream::iter(batches).buffered(8).try_for_each(|()| async { Ok(()) }).await?;
    println!("made {} repos in {:.1?}", args.repos, begun.elapsed());
    if args.kill {
        std::process::abort();
    }
    opened.close().await?;
    Ok(())
}

/// Opens the folder and reads of it.
async fn open(dir: &Path, args: &Args) -> Result<()> {
    let begun = Instant::now();
    let opened = opened(dir)?;
    let took = begun.elapsed();
    let Stores { repos, log, .. } = opened.stores();
    ensure!(repos.count().await? == args.repos, "another number of repos than was asked for: {}", repos.count().await?);
    println!("opened {} repos, {} events in {took:.2?}; {}", args.repos, log.window().borrow().last, memory()?);
    let mut random = StdRng::seed_from_u64(1);
    let mut took = Vec::new();
    let begun = Instant::now();
    for _ in 0..args.reads {
        let did = did(random.random_range(0..args.repos));
        let asked = Instant::now();
        let state = repos.get(&did).await?;
        took.push(asked.elapsed());
        ensure!(state.is_some(), "{did} is not known");
    }
    let all = begun.elapsed();
    took.sort();
    let at = |part: f64| took.get((took.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or_default();
    println!(
        "{:.0} reads a second of accounts picked evenly: p50 {:.1?}, p99 {:.1?}, most {:.1?}; {}",
        args.reads as f64 / all.as_secs_f64().max(1e-9),
        at(0.5),
        at(0.99),
        at(1.0),
        memory()?
    );
    // Events of accounts picked evenly: each one's state has to be read before it can be written.
    let begun = Instant::now();
    let events = args.reads / 4;
    let batches: Vec<Vec<Accepted>> = (0..events.div_ceil(16))
        .map(|_| (0..16).map(|_| accepted(random.random_range(0..args.repos), args.frame_bytes)).collect())
        .collect();
    let appends = stream::iter(batches).map(|batch| log.append(batch)).buffered(16);
    appends.try_for_each(|()| async { Ok(()) }).await?;
    repos.count().await?;
    println!("{:.0} appends a second of the same; {}", events as f64 / begun.elapsed().as_secs_f64(), memory()?);
    opened.close().await?;
    Ok(())
}

fn opened(dir: &Path) -> Result<Opened> {
    let lanes = LaneCount(NonZeroU32::new(LANES).context("not 0")?);
    #[expect(clippy::disallowed_methods, reason = "a program without the runtime's clock")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now_micros = Arc::new(move || u64::try_from(now().as_micros()).unwrap_or(u64::MAX));
    Ok(storage_local::open(Config::new(dir, lanes, now_micros, prometheus::Registry::new()))?)
}

/// An account by number; such names spread as hashes do.
fn did(number: u64) -> Did {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = StdRng::seed_from_u64(number);
    let name: String = (0..24).map(|_| char::from(ALPHABET[random.random_range(0..32)])).collect();
    Did::parse(&format!("did:plc:{name}")).expect("24 letters and digits are a name")
}

fn accepted(number: u64, frame_bytes: usize) -> Accepted {
    let did = did(number);
    let (frame, seq_slot) = sample::frame(&did, number, frame_bytes);
    Accepted {
        state: sample::state(sample::host(number / ACCOUNTS_OF_A_HOST), number),
        did,
        frame,
        seq_slot,
        position: None,
    }
}

/// Resident memory, now and at most.
fn memory() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mebibytes = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes >> 10)
    };
    let (now, most) = (mebibytes("VmRSS").unwrap_or(0), mebibytes("VmHWM").unwrap_or(0));
    Ok(format!("{now} MiB resident, {most} at most"))
}
