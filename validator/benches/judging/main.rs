//! The judging path fed from memory: intake, lanes, docket and rules, to a log that answers at once. What is left is the
//! validator's own work, measured beside bare verification of the same signatures in the same run.
//!
//! ```text
//! cargo bench --workspace --bench judging                      # a table
//! cargo bench --workspace --bench judging -- --json FILE
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*judge_all_here*' judging --once
//! ```
//!
//! A round judges the same frames with one worker and then with two, each time by a validator that has just come to know
//! the accounts. The figures are medians over the rounds: the machine drifts, and both sides drift with it.

mod court;
mod stores;
mod traffic;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use loadtest::bench::{Bare, Signatures};
use serde_json::json;

use self::{
    court::{Court, Measured},
    traffic::Traffic,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the judge costs an event, fed from memory.
#[derive(Parser)]
struct Args {
    /// Accounts, over all hosts.
    #[arg(long, default_value_t = 2_000)]
    accounts: usize,
    /// Records that each repo has before.
    #[arg(long, default_value_t = 500)]
    records: usize,
    /// Hosts.
    #[arg(long, default_value_t = 20)]
    hosts: usize,
    /// Commits that are judged in each turn.
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Share of accounts with P-256 keys.
    #[arg(long, default_value_t = 0.3)]
    p256_share: f64,
    /// Exponent of the Zipf law of activity over accounts.
    #[arg(long, default_value_t = 1.2)]
    skew: f64,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Turns of each number of workers.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Writes the figures here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Judges the frames once, all lanes on this one thread, in a function named `judge_all_here`: for callgrind.
    #[arg(long)]
    once: bool,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let others = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    eprintln!("making {} accounts with {} records each", args.accounts, args.records);
    let began = Instant::now();
    let traffic = others.block_on(Traffic::make(&args))?;
    let events = traffic.events();
    eprintln!(
        "made {events} commits of {} bytes on average in {:.1} s",
        traffic.bytes() / events,
        began.elapsed().as_secs_f64()
    );
    let court = Court::open(&traffic, others.handle())?;
    if args.once {
        let took = court.judge_here()?;
        println!("{events} events in {took:?}");
        return Ok(());
    }

    let workers = [1, 2].map(|workers| NonZeroUsize::new(workers).expect("1 and 2 are not 0"));
    let mut turns: [Vec<Measured>; 2] = Default::default();
    let signatures = Signatures::of(&traffic.commits(), traffic.keys(), usize::MAX);
    let mut bare = Vec::new();
    for round in 1..=args.rounds {
        for (workers, turns) in workers.iter().zip(&mut turns) {
            let measured = court.judge(*workers)?;
            eprintln!(
                "round {round}, workers {workers}: {:.0} events/s, {:.1} µs of cpu an event",
                measured.events_per_second(events),
                measured.micros_per_event(events)
            );
            turns.push(measured);
        }
        bare.push(signatures.measure());
    }

    let bare_median = |of: fn(&Bare) -> f64| median(bare.iter().map(of));
    let (bare, sha256) = (bare_median(|bare| bare.verify_micros), bare_median(|bare| bare.sha256_micros));
    let [one, two] = turns.map(|turns| {
        let rate = median(turns.iter().map(|turn| turn.events_per_second(events)));
        let cpu = median(turns.iter().map(|turn| turn.micros_per_event(events)));
        (rate, cpu)
    });
    println!("{:<10} {:>10} {:>14} {:>12}", "workers", "events/s", "cpu µs/event", "times bare");
    for (workers, (rate, cpu)) in workers.iter().zip([one, two]) {
        println!("{workers:<10} {rate:>10.0} {cpu:>14.1} {:>12.2}", cpu / bare);
    }
    println!("{:<10} {:>10} {bare:>14.1} {:>12.2}", "bare", "", 1.0);
    println!("{:<10} {:>10} {sha256:>14.1} {:>12.2}", "sha-256", "", sha256 / bare);
    println!("two workers do {:.2} times as much as one, at {:.2} times the cpu", two.0 / one.0, two.1 / one.1);
    if let Some(path) = &args.json {
        let figures = |(rate, cpu): (f64, f64)| json!({ "events_per_second": rate, "cpu_micros_per_event": cpu, "times_bare": cpu / bare });
        let report = json!({
            "events": events,
            "mean_frame_bytes": traffic.bytes() / events,
            "rounds": args.rounds,
            "bare_verification_micros_per_event": bare,
            "sha256_micros_per_event": sha256,
            "one_worker": figures(one),
            "two_workers": figures(two),
            "speedup": two.0 / one.0,
            "cpu_of_two_workers_to_one": two.1 / one.1,
        });
        std::fs::write(path, format!("{report:#}\n")).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
