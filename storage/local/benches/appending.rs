//! What an event costs between `append` and its answer, fed from memory: `cargo bench --workspace --bench appending`.
//!
//! As many callers as a relay has lanes append batches of events whose accounts follow a zipf distribution; a reader
//! tails the log and copies every frame, as the hub does. Printed are events a second, CPU of each thread an event, how
//! long an append waits, and memory. `--rate` appends at a rate instead of as fast as it goes: then the wait is what the
//! writer adds to an event's way.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use storage::{conformance::sample, lane::LaneCount, log::Accepted, seq::Seq};
use storage_local::Config;

/// The relay's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Debug, Parser)]
struct Args {
    /// Events to append.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Accounts they are of.
    #[arg(long, default_value_t = 2_000)]
    accounts: u64,
    /// Skew of the accounts; 0 is uniform.
    #[arg(long, default_value_t = 1.2)]
    zipf: f64,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 3_800)]
    frame_bytes: usize,
    /// Callers at once.
    #[arg(long, default_value_t = 16)]
    callers: u64,
    /// Events of a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Events a second; as many as it takes where this is not given.
    #[arg(long)]
    rate: Option<f64>,
    /// Where the data folder is made: on a disk, if syncs are to count.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let data = tempfile::tempdir_in(&args.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let registry = prometheus::Registry::new();
    let started = Instant::now();
    let config = Config {
        window_bytes: Some(1 << 30),
        ..Config::new(
            data.path(),
            LaneCount(NonZeroU32::new(16).context("16 is not 0")?),
            Arc::new(move || 1_700_000_000_000_000 + u64::try_from(started.elapsed().as_micros()).unwrap_or(0)),
            registry.clone(),
        )
    };
    runtime.block_on(async {
        let opened = storage_local::open(config)?;
        let stores = opened.stores();
        let picks = Arc::new(Picks::new(&args));
        // Accounts are known before the measured part.
        for first in (0..args.accounts).step_by(1_000) {
            let batch = (first..args.accounts.min(first + 1_000)).map(|account| sample::accepted(account, 0, 200));
            stores.log.append(batch.collect()).await?;
        }
        let begin = stores.log.window().borrow().last;
        let end = Seq(begin.0 + args.events);
        let reader = {
            let log = Arc::clone(&stores.log);
            #[expect(clippy::disallowed_methods, reason = "a program without the runtime's tasks")]
            tokio::spawn(async move {
                let (mut window, mut at, mut bytes) = (log.window(), begin, 0);
                let mut chunk = Vec::new();
                while at < end {
                    let found = log.read(at, 64 << 10).await?;
                    let Some(last) = found.last() else {
                        window.changed().await?;
                        continue;
                    };
                    at = last.seq;
                    chunk.clear();
                    found.iter().for_each(|event| chunk.extend_from_slice(&event.frame));
                    bytes += chunk.len();
                }
                Ok::<_, anyhow::Error>(bytes)
            })
        };
        let (cpu, begun) = (threads()?, Instant::now());
        let next = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..args.callers)
            .map(|number| {
                let caller = Caller { args: args.clone(), log: Arc::clone(&stores.log), picks: Arc::clone(&picks) };
                let next = Arc::clone(&next);
                #[expect(clippy::disallowed_methods, reason = "a program without the runtime's tasks")]
                tokio::spawn(caller.run(number, next, begun))
            })
            .collect();
        let mut waits = Vec::new();
        for caller in callers {
            waits.extend(caller.await??);
        }
        let bytes = reader.await??;
        let took = begun.elapsed();
        let after = threads()?;
        waits.sort();
        let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        println!("{:.0} events/s, {bytes} bytes of frames read", args.events as f64 / took.as_secs_f64());
        println!("an append waits: p50 {:?}, p99 {:?}, most {:?}", at(0.5), at(0.99), at(1.0));
        for (name, micros) in &after {
            let micros = micros - cpu.get(name).copied().unwrap_or(0.0);
            if micros / args.events as f64 >= 0.01 {
                println!("CPU an event, thread {name:16} {:6.2} µs", micros / args.events as f64);
            }
        }
        let metric = |wanted: &str| {
            let found = registry.gather().into_iter().find(|family| family.name() == wanted);
            found.map_or((0, 0.0), |family| {
                let histogram = family.get_metric()[0].get_histogram();
                (histogram.get_sample_count(), histogram.get_sample_sum())
            })
        };
        let (syncs, seconds) = metric("mainstem_log_sync_seconds");
        println!("{syncs} syncs of {:.2} ms", seconds * 1e3 / syncs as f64);
        let status = fs::read_to_string("/proc/self/status")?;
        let rss = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
        println!("{}", rss.collect::<Vec<_>>().join(", "));
        opened.close().await?;
        Ok(())
    })
}

/// Who appends batch after batch.
struct Caller {
    args: Args,
    log: Arc<dyn storage::log::EventLog>,
    picks: Arc<Picks>,
}

impl Caller {
    /// Appends until all events are out; gives how long each append waited.
    async fn run(self, number: u64, next: Arc<AtomicU64>, begun: Instant) -> Result<Vec<Duration>> {
        let Caller { args, log, picks } = self;
        let mut random = StdRng::seed_from_u64(number);
        let mut waits = Vec::new();
        loop {
            let first = next.fetch_add(args.batch as u64, Ordering::Relaxed);
            if first >= args.events {
                return Ok(waits);
            }
            if let Some(rate) = args.rate {
                let due = begun + Duration::from_secs_f64(first as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            let count = (args.events - first).min(args.batch as u64);
            let batch = (first..first + count).map(|event| picks.accepted(&mut random, number, event));
            let batch: Vec<Accepted> = batch.collect();
            let asked = Instant::now();
            log.append(batch).await?;
            waits.push(asked.elapsed());
        }
    }
}

/// Events ready to be appended.
struct Picks {
    callers: u64,
    accounts: Vec<Accepted>,
    /// The accounts' parts of all events, summed up.
    sums: Vec<f64>,
}

impl Picks {
    fn new(args: &Args) -> Picks {
        let mut sum = 0.0;
        let sums = (1..=args.accounts).map(|rank| {
            sum += (rank as f64).powf(-args.zipf);
            sum
        });
        let accounts = (0..args.accounts).map(|account| sample::accepted(account, 0, args.frame_bytes));
        Picks { callers: args.callers, sums: sums.collect(), accounts: accounts.collect() }
    }

    /// The next event of one of the caller's accounts.
    fn accepted(&self, random: &mut StdRng, caller: u64, number: u64) -> Accepted {
        let pick = random.random::<f64>() * self.sums.last().copied().unwrap_or(0.0);
        let account = self.sums.partition_point(|sum| *sum < pick) as u64;
        let account = (account - account % self.callers + caller).min(self.accounts.len() as u64 - 1);
        let event = &self.accounts[account as usize];
        let state = sample::state(event.state.host.clone(), number + 1);
        // A frame of its own, as one that came from a socket is.
        Accepted { state, frame: Bytes::copy_from_slice(&event.frame), ..event.clone() }
    }
}

/// CPU that the threads of each name have used, in microseconds.
fn threads() -> Result<BTreeMap<String, f64>> {
    let mut used = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let schedstat = fs::read_to_string(task.join("schedstat"))?;
        let nanos: f64 = schedstat.split(' ').next().context("an empty schedstat")?.parse()?;
        *used.entry(name).or_insert(0.0) += nanos / 1e3;
    }
    Ok(used)
}
