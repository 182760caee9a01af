//! What reading the log costs beside reading its files: `cargo bench --workspace --bench reading`.
//!
//! A log of some size is written, closed and opened, so that nothing is in the process's memory and all is in the
//! system's cache. Then it is read from its first event to its last, a piece after the other, in one thread that waits
//! for each; and beside it the bare segment files, into one buffer that is used again. Printed are GB/s of frames, and how
//! many bytes of files were read for a byte of them.

use std::{
    fs::{self, File},
    num::NonZeroU32,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Parser;
use storage::{conformance::sample, lane::LaneCount, seq::Seq};
use storage_local::Config;

/// The relay's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Debug, Parser)]
struct Args {
    /// Events in the log.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 2_500)]
    frame_bytes: usize,
    /// KiB of a piece.
    #[arg(long, value_delimiter = ',', default_value = "64,256,1024,4096")]
    pieces: Vec<usize>,
    /// Where the data folder is made.
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
    let config = |registry: &prometheus::Registry| -> Result<Config> {
        let lanes = LaneCount(NonZeroU32::new(4).context("4 is not 0")?);
        let now = Arc::new(|| 1_700_000_000_000_000);
        Ok(Config { window: None, ..Config::new(data.path(), lanes, now, registry.clone()) })
    };
    runtime.block_on(async {
        let opened = storage_local::open(config(&prometheus::Registry::new())?)?;
        for first in (0..args.events).step_by(500) {
            let batch = (first..args.events.min(first + 500)).map(|event| {
                let account = event % 200;
                sample::accepted(account, event, args.frame_bytes)
            });
            opened.stores().log.append(batch.collect()).await?;
        }
        opened.close().await?;
        bare(data.path().join("log"))?;
        let registry = prometheus::Registry::new();
        let opened = storage_local::open(config(&registry)?)?;
        for kib in args.pieces {
            let read_before = read_bytes(&registry);
            let (log, begun) = (opened.stores().log, Instant::now());
            let (mut at, mut bytes, mut pieces) = (Seq(0), 0, 0_u64);
            loop {
                let block = log.read_block(at, kib << 10).await?;
                let Some(last) = block.events.last() else { break };
                at = last.seq;
                bytes += block.events.iter().map(|event| event.frame.len()).sum::<usize>();
                pieces += 1;
            }
            let took = begun.elapsed();
            let read = read_bytes(&registry) - read_before;
            println!(
                "pieces of {kib:5} KiB: {:5.2} GB/s, {:4.0} µs a piece, {:.3} bytes read a byte",
                bytes as f64 / took.as_secs_f64() / 1e9,
                took.as_secs_f64() * 1e6 / pieces as f64,
                read / bytes as f64,
            );
        }
        opened.close().await?;
        Ok(())
    })
}

/// Reads all files of a folder, a MiB at a time.
fn bare(log: PathBuf) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, begun) = (0, Instant::now());
    for entry in fs::read_dir(log)? {
        let file = File::open(entry?.path())?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        bytes += at;
    }
    println!("bare files:          {:5.2} GB/s", bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
    Ok(())
}

fn read_bytes(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "mainstem_log_disk_read_bytes_total");
    family.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value())
}
