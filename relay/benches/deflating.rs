//! What permessage-deflate saves and costs: each frame deflated by itself, as subscribers get it, by zlib-rs at each level
//! and by libdeflate beside it.
//!
//! ```text
//! cargo bench --workspace --bench deflating
//! cargo bench --workspace --bench deflating -- /more/frames        # a folder with a recorded frame a file
//! ```
//!
//! Two kinds of frames: those that real PDSs sent (`atproto/testdata/frames`), without the few that are made of megabytes
//! of one letter, and commits of the simulated network, whose trees and signatures are real and whose texts are made up.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use libdeflater::{CompressionLvl, Compressor};
use loadtest::network::{Config, Mix, Network, Pace};
use runtime::{clock::Clock, ws::Deflater};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What compression saves and costs.
#[derive(Parser)]
struct Args {
    /// Folders with recorded frames.
    folders: Vec<PathBuf>,
    /// Commits of the simulated network.
    #[arg(long, default_value_t = 2_000)]
    events: u64,
    /// How long each way of compressing is measured.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A frame over this is a test of limits, not traffic.
const FRAME_BYTES_MAX: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../atproto/testdata/frames");
    let mut corpora = Vec::new();
    for folder in std::iter::once(&own).chain(&args.folders) {
        let all = recorded(folder)?;
        let commits = all.iter().filter(|(name, _)| name.contains("-commit-")).map(|(_, frame)| frame.clone());
        corpora.push(("recorded commits", commits.collect::<Vec<_>>()));
        corpora.push(("recorded, all kinds", all.into_iter().map(|(_, frame)| frame).collect()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    corpora.push(("generated commits", runtime.block_on(generated(args.events))?));

    println!(
        "{:<20} {:<14} {:>7} {:>6} {:>7} {:>9} {:>6}",
        "frames", "by", "bytes", "after", "saved", "µs/event", "MB/s"
    );
    for (name, frames) in &corpora {
        let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
        let mut out = Vec::new();
        for level in [1, 2, 3, 4, 6, 9] {
            let mut deflater = Deflater::new(level);
            let row = measure(
                &args,
                &frames,
                |frame| if deflater.deflate(frame, &mut out) { out.len() } else { frame.len() },
            );
            row.print(name, &format!("zlib-rs {level}"));
        }
        for level in [1, 6] {
            let mut compressor =
                Compressor::new(CompressionLvl::new(level).map_err(|error| anyhow::anyhow!("{error:?}"))?);
            let row = measure(&args, &frames, |frame| {
                out.resize(compressor.deflate_compress_bound(frame.len()), 0);
                // Its last block is a final one, and one byte more makes a message of it (RFC 7692, section 7.2.3.4).
                compressor.deflate_compress(frame, &mut out).map_or(frame.len(), |len| (len + 1).min(frame.len()))
            });
            row.print(name, &format!("libdeflate {level}"));
        }
    }
    Ok(())
}

/// What came of one way over one kind of frames.
struct Row {
    frames: usize,
    before: usize,
    after: usize,
    /// For all frames once.
    took: Duration,
}

impl Row {
    fn print(&self, name: &str, by: &str) {
        let per_frame = |bytes: usize| bytes / self.frames;
        let saved = 100.0 - 100.0 * self.after as f64 / self.before as f64;
        let micros = self.took.as_secs_f64() * 1e6 / self.frames as f64;
        let rate = self.before as f64 / self.took.as_secs_f64() / 1e6;
        let (before, after) = (per_frame(self.before), per_frame(self.after));
        println!("{name:<20} {by:<14} {before:>7} {after:>6} {saved:>6.1}% {micros:>9.1} {rate:>6.0}");
    }
}

fn measure(args: &Args, frames: &[&[u8]], mut deflated_bytes: impl FnMut(&[u8]) -> usize) -> Row {
    let before = frames.iter().map(|frame| frame.len()).sum();
    let mut best = Duration::MAX;
    let mut after = 0;
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    // The best of several turns: whatever else the machine did is in the others.
    while best == Duration::MAX || Instant::now() < until {
        let began = Instant::now();
        after = frames.iter().map(|frame| black_box(deflated_bytes(frame))).sum();
        best = best.min(began.elapsed());
    }
    Row { frames: frames.len().max(1), before, after, took: best }
}

/// The frames of a folder with their names.
fn recorded(folder: &Path) -> anyhow::Result<Vec<(String, Bytes)>> {
    let mut frames = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let frame = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        if frame.len() <= FRAME_BYTES_MAX {
            frames.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), frame.into()));
        }
    }
    frames.sort();
    Ok(frames)
}

/// Commits of accounts that have some records.
async fn generated(events: u64) -> anyhow::Result<Vec<Bytes>> {
    let config = Config {
        hosts: 1,
        accounts: 100,
        records_per_repo: 500,
        pace: Pace::ByHand,
        mix: Mix::COMMITS,
        window_bytes: usize::MAX,
        ..Config::default()
    };
    let network = Network::start_paused(config, Clock::system()).await?;
    network.announce_all().await?;
    let before = network.frames(0).len();
    network.generate(events).await?;
    Ok(network.frames(0).split_off(before))
}
