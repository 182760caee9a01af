//! `loadtest subscribe`.

use std::{io::Write, time::Duration};

use anyhow::bail;
use clap::Args as ClapArgs;
use loadtest::subscriber::{Config, Keep, Reading, Subscriber};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest subscribe ws://127.0.0.1:2470
      Reads what comes from now on, until interrupted; a line a second, a table at the end.
  loadtest subscribe ws://127.0.0.1:2470 --cursor 0 --count 100000
      Reads what the relay has kept, from the first, as fast as it gives it, and ends after 100,000 events.
  loadtest subscribe ws://127.0.0.1:2470 --seconds 60 --json
      A minute of it; figures as JSON on standard output, the line a second on standard error.";

/// Options of `loadtest subscribe`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The relay: ws://HOST:PORT.
    #[arg(value_name = "URL")]
    url: String,
    /// Begin after this seq; 0 is the oldest that there is. Without it, live.
    #[arg(long, value_name = "SEQ")]
    cursor: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Print the figures as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let url = args.url.trim_end_matches('/').to_owned();
    if !url.starts_with("ws://") {
        bail!("{url} is no ws:// address");
    }
    let started = Instant::now();
    let subscriber = Subscriber::start(Config { url, cursor: args.cursor, keep: Keep::Count });
    let counted = async {
        match args.count {
            Some(count) => drop(subscriber.wait_for(count, Duration::MAX).await),
            None => std::future::pending().await,
        }
    };
    let timed = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = counted => {}
        () = timed => {}
        () = tell(&subscriber) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let reading = subscriber.stop().await;
    let wall = started.elapsed();
    if reading.connections == 0 {
        bail!("no connection came about in {:.1} s", wall.as_secs_f64());
    }
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{:#}", figures(&reading))?,
        false => print_table(&mut out, &reading)?,
    }
    Ok(())
}

/// A line each second.
async fn tell(subscriber: &Subscriber) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let look = || subscriber.look(|reading| (reading.events, reading.bytes, reading.latencies.clone()));
    let (mut before, mut at) = (look(), Instant::now());
    loop {
        ticks.tick().await;
        let now = look();
        let seconds = at.elapsed().as_secs_f64();
        at = Instant::now();
        let last = now.2.since(&before.2);
        eprintln!(
            "{:>9} events  {:>7.0}/s  {:>6.1} MB/s  p50 {}  p99 {}  max {}",
            now.0,
            (now.0 - before.0) as f64 / seconds,
            (now.1 - before.1) as f64 / seconds / 1e6,
            millis(last.quantile(0.5)),
            millis(last.quantile(0.99)),
            millis(last.max()),
        );
        before = now;
    }
}

fn figures(reading: &Reading) -> serde_json::Value {
    let micros = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let latencies = &reading.latencies;
    let seconds = reading.span().as_secs_f64();
    json!({
        "events": reading.events,
        "bytes": reading.bytes,
        "seconds": seconds,
        "events_per_second": per_second(reading.events, seconds),
        "bytes_per_second": per_second(reading.bytes, seconds),
        "last_seq": reading.last_seq,
        "connections": reading.connections,
        "notices": reading.notices,
        "latency": {
            "events": latencies.count(),
            "p50_micros": micros(latencies.quantile(0.5)),
            "p99_micros": micros(latencies.quantile(0.99)),
            "max_micros": micros(latencies.max()),
        },
    })
}

fn print_table(out: &mut impl Write, reading: &Reading) -> std::io::Result<()> {
    let seconds = reading.span().as_secs_f64();
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<36}{value:>14}");
    row("events", reading.events.to_string())?;
    row("seconds, first to last", format!("{seconds:.1}"))?;
    row("events/s", format!("{:.0}", per_second(reading.events, seconds)))?;
    row("MB/s", format!("{:.1}", per_second(reading.bytes, seconds) / 1e6))?;
    row("mean frame, bytes", (reading.bytes / reading.events.max(1)).to_string())?;
    row("connections", reading.connections.to_string())?;
    for (name, time) in [
        ("latency since the host's send, p50", reading.latencies.quantile(0.5)),
        ("  p99", reading.latencies.quantile(0.99)),
        ("  max", reading.latencies.max()),
    ] {
        row(name, millis(time))?;
    }
    for notice in &reading.notices {
        writeln!(out, "  the relay said: {notice}")?;
    }
    Ok(())
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn millis(time: Option<Duration>) -> String {
    time.map_or("unknown".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
}
