//! From the oldest event on, by the number of readers.

use std::{fmt, path::Path};

use serde_json::{Value, json};

use super::{
    Error, Sizes,
    report::{figure, number},
    stage::Stage,
};
use crate::{
    bench::{Bound, Check, Cost, Sockets, Spread},
    crowd::{self, Crowd, Request},
};

/// How fast the log is read, by the number of readers.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Events in the log.
    pub events: u64,
    /// By number.
    pub rows: Vec<ReplayRow>,
}

/// So many readers, from the same cursor.
#[derive(Clone, Debug)]
pub struct ReplayRow {
    /// How many.
    pub readers: usize,
    /// Bytes a second, all together, from connecting to the last one's last event; of each pass.
    pub bytes_per_second: Spread,
    /// Events a second, all together, in the median.
    pub events_per_second: f64,
    /// What the relay spent, a delivery; over all passes.
    pub relay: Cost,
    /// Bytes that the relay has read from files, as a multiple of the bytes that one reader got; over all passes.
    pub read_ratio: f64,
    /// Raw sockets, as many.
    pub sockets: Sockets,
    /// Most resident memory of the relay so far.
    pub rss_bytes_max: u64,
}

/// Bytes that a yardstick takes.
const YARDSTICK_BYTES: u64 = 2 << 30;
/// Bytes to be read before a number of passes is enough.
const BYTES_MIN: u64 = 1 << 30;
const PASSES_MAX: u64 = 7;

impl ReplayRow {
    /// Bytes a second, as a multiple of raw sockets.
    pub fn ratio(&self) -> f64 {
        self.bytes_per_second.median / self.sockets.bytes_per_second
    }
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Replay, Error> {
    let events = stage.fill(sizes.window_events).await?;
    let mut rows = Vec::new();
    for readers in sizes.replay.iter().copied() {
        rows.push(row(stage, readers, events).await?);
    }
    Ok(Replay { events, rows })
}

async fn row(stage: &Stage<'_>, readers: usize, events: u64) -> Result<ReplayRow, Error> {
    let bare_before = stage.yardstick(readers, YARDSTICK_BYTES).await?;
    let bytes_about = (events as f64 * stage.player.manifest().measured.frame_bytes_mean) as u64 * readers as u64;
    let passes = BYTES_MIN.div_ceil(bytes_about.max(1)).clamp(1, PASSES_MAX);
    stage.say(&format!("{readers} readers, {events} events, {passes} times"));
    let (before, read_before) = (stage.usage()?, bytes_read(stage.pid()));
    let (mut speeds, mut bytes_each) = (Vec::new(), 0.0);
    for _ in 0..passes {
        let crowd = Crowd::start(crowd::Config {
            requests: vec![Request { cursor: Some(0), ..Request::default() }],
            until: Some(events),
            ..stage.crowd_config(readers, 0)
        })?;
        if !crowd.wait_done(stage.limit()).await {
            return Err(match crowd.ended() {
                0 => stage.late("replaying", crowd.slowest(), events),
                _ => stage.not_served("replaying", &crowd),
            });
        }
        let wall = crowd.done().into_iter().max().unwrap_or_default();
        speeds.push(crowd.bytes() as f64 / wall.as_secs_f64());
        bytes_each = crowd.bytes() as f64 / readers as f64;
    }
    let (after, read_after) = (stage.usage()?, bytes_read(stage.pid()));
    let bare_after = stage.yardstick(readers, YARDSTICK_BYTES).await?;
    let bytes_per_second = Spread::of(speeds).ok_or(Error::Died)?;
    Ok(ReplayRow {
        readers,
        bytes_per_second,
        events_per_second: bytes_per_second.median / bytes_each * events as f64,
        relay: Cost::of(&before, &after, events * passes * readers as u64),
        read_ratio: match (read_before, read_after) {
            (Some(before), Some(after)) => (after - before) as f64 / (bytes_each * passes as f64),
            (Some(_) | None, _) => f64::NAN,
        },
        sockets: Sockets::mean(bare_before, bare_after),
        rss_bytes_max: after.rss_bytes_max,
    })
}

/// What a process has got from `read` so far, in the kernel's count: of a relay, files; sockets are not read that way.
pub(super) fn bytes_read(pid: i32) -> Option<u64> {
    let io = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: ")?.trim().parse().ok())
}

impl Replay {
    pub(super) fn checks(&self) -> Vec<Check> {
        let of = |readers| self.rows.iter().find(move |row| row.readers == readers);
        let mut checks = Vec::new();
        for (readers, least) in [(1, 0.4), (100, 0.8)] {
            checks.extend(of(readers).map(|row| {
                let name = format!("bytes a second in replay : raw sockets, {readers} readers");
                Check::new(name, row.ratio(), Bound::AtLeast(least))
            }));
        }
        checks.extend(of(100).map(|row| {
            Check::new("bytes read from files : bytes of the window, 100 readers", row.read_ratio, Bound::AtMost(1.2))
        }));
        checks
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "readers": row.readers,
                "bytes_per_second": row.bytes_per_second.to_json(),
                "events_per_second": row.events_per_second,
                "cpu_micros_per_delivery": row.relay.micros(),
                "user_micros_per_delivery": row.relay.user_micros,
                "system_micros_per_delivery": row.relay.system_micros,
                "read_ratio": number(row.read_ratio),
                "ratio": row.ratio(),
                "sockets": row.sockets.to_json(),
                "rss_bytes_max": row.rss_bytes_max,
            })
        });
        json!({"events": self.events, "rows": rows.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "replay of {} events from the oldest on", self.events)?;
        writeln!(
            f,
            "  {:>11} {:>24} {:>11} {:>9} {:>7} {:>7} {:>9} {:>9} {:>10} {:>9}",
            "readers", "MB/s", "events/s", "µs each", "user", "kernel", "raw MB/s", "× raw", "files read", "MiB most"
        )?;
        for row in &self.rows {
            let speed = &row.bytes_per_second;
            let speed = Spread { median: speed.median / 1e6, least: speed.least / 1e6, most: speed.most / 1e6 };
            writeln!(
                f,
                "  {:>11} {:>24} {:>11.0} {:>9.2} {:>7.2} {:>7.2} {:>9.0} {:>9.2} {:>10} {:>9.0}",
                row.readers,
                format!("{speed:.0}"),
                row.events_per_second,
                row.relay.micros(),
                row.relay.user_micros,
                row.relay.system_micros,
                row.sockets.bytes_per_second / 1e6,
                row.ratio(),
                figure(row.read_ratio, 2),
                row.rss_bytes_max as f64 / 1_048_576.0,
            )?;
        }
        Ok(())
    }
}
