//! Very many come back at once, far behind, while others read on.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Error, Sizes,
    replay::bytes_read,
    report::{figure, millis, number},
    stage::Stage,
};
use crate::{
    bench::{Bound, Check, Cost, FsyncWatch, MemoryWatch},
    crowd::{self, Crowd, Request},
    traffic::{Pace, latency::Latencies},
};

/// How a herd was served, and what the others felt of it.
#[derive(Clone, Debug)]
pub struct Herd {
    /// How many came back.
    pub herd: usize,
    /// How many events they were behind.
    pub behind: u64,
    /// How many were live meanwhile.
    pub live: usize,
    /// Events a second that the hosts sent meanwhile.
    pub rate: f64,
    /// Of those who were live and are not of the herd: without the herd.
    pub without: HerdPhase,
    /// While the herd was live too, before it left.
    pub before: HerdPhase,
    /// While it caught up.
    pub during: HerdPhase,
    /// Until the last of the herd had caught up.
    pub seconds: f64,
    /// Bytes that the herd got until then.
    pub bytes: u64,
    /// What the relay spent meanwhile, a delivery to the herd.
    pub relay: Cost,
    /// Bytes that the relay has read from files, as a multiple of the bytes that one of the herd got.
    pub read_ratio: f64,
    /// The relay's resident memory before.
    pub rss_bytes_before: u64,
    /// The most while the herd caught up.
    pub rss_bytes_max: u64,
}

/// A time with or without the herd.
#[derive(Clone, Debug)]
pub struct HerdPhase {
    /// From the host's send to the receipt by those who are live.
    pub times: Latencies,
    /// Bare writes with an fdatasync beside the relay's log: an event waits for one of the log's, and what the disk takes
    /// for it while the processors are busy is not the relay's doing.
    pub disk: Latencies,
}

const LEAD_IN: Duration = Duration::from_secs(1);
const BEFORE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// Caught up is who has all but the last moments' events.
const CAUGHT_UP: Duration = Duration::from_millis(500);

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Herd, Error> {
    stage.fill(sizes.behind).await?;
    let live = stage.crowd(sizes.herd_live, 1).await?;
    stage.say(&format!("{} live subscribers, {:.0} events a second", sizes.herd_live, sizes.rate));
    stage.player.play(Pace::PerSecond(sizes.rate));
    tokio::time::sleep(LEAD_IN).await;
    let disk = FsyncWatch::start(stage.folder())?;
    let phase = || HerdPhase { times: live.take_latencies(), disk: disk.take() };
    phase();
    tokio::time::sleep(BEFORE).await;
    let without = phase();

    stage.say(&format!("{} more are live", sizes.herd));
    let herd = crowd::Config { gives_way: true, ..stage.crowd_config(sizes.herd, 0) };
    let leaves = stage.connected(herd.clone()).await?;
    tokio::time::sleep(LEAD_IN).await;
    phase();
    tokio::time::sleep(BEFORE).await;
    let before = phase();
    drop(leaves);
    tokio::time::sleep(LEAD_IN).await;

    stage.say(&format!("they left, and come back {} events behind", sizes.behind));
    phase();
    let (usage, read, started) = (stage.usage()?, bytes_read(stage.pid()), Instant::now());
    let memory = MemoryWatch::start(vec![stage.pid()]);
    let back = Request { cursor: Some(0), ..Request::default() };
    let herd = Crowd::start(crowd::Config { requests: vec![back], ..herd })?;
    let late = (sizes.rate * CAUGHT_UP.as_secs_f64()) as u64;
    loop {
        let all = stage.warm_up() + stage.player.stats().events;
        if herd.slowest() + late >= all {
            break;
        }
        if herd.ended() > 0 {
            return Err(stage.not_served("the herd", &herd));
        }
        if started.elapsed() > stage.limit() {
            return Err(stage.late("the herd", herd.slowest(), all));
        }
        tokio::time::sleep(POLL).await;
    }
    let (seconds, during) = (started.elapsed().as_secs_f64(), phase());
    let (after, read_after) = (stage.usage()?, bytes_read(stage.pid()));
    stage.player.pause();
    if live.ended() > 0 {
        return Err(stage.not_served("live beside the herd", &live));
    }
    let (messages, bytes) = (herd.messages(), herd.bytes());
    let rss_bytes_max = memory.memory().samples.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
    Ok(Herd {
        herd: sizes.herd,
        behind: sizes.behind,
        live: sizes.herd_live,
        rate: sizes.rate,
        without,
        before,
        during,
        seconds,
        bytes,
        relay: Cost::of(&usage, &after, messages),
        read_ratio: match (read, read_after) {
            (Some(before), Some(after)) => (after - before) as f64 / (bytes as f64 / sizes.herd as f64),
            (Some(_) | None, _) => f64::NAN,
        },
        rss_bytes_before: usage.rss_bytes,
        rss_bytes_max,
    })
}

/// The most that the p99 of those who are live may grow by.
const P99_MOST: f64 = 2.0;
/// The most that each of a herd may take of the process.
const KIB_MOST: f64 = 128.0;

impl Herd {
    /// The p99 of those who were live, while the herd caught up, as a multiple of that before it left.
    pub fn p99_ratio(&self) -> f64 {
        let p99 = |times: &Latencies| times.quantile(0.99).map_or(f64::NAN, |time| time.as_secs_f64());
        p99(&self.during.times) / p99(&self.before.times)
    }

    fn kib_each(&self) -> f64 {
        self.rss_bytes_max.saturating_sub(self.rss_bytes_before) as f64 / 1024.0 / self.herd as f64
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let herd = format!("a herd of {}, {} behind", self.herd, self.behind);
        vec![
            Check::new(
                format!("p99 of those who are live, during : before, {herd}"),
                self.p99_ratio(),
                Bound::AtMost(P99_MOST),
            ),
            Check::new(format!("KiB more of the process for each of {herd}"), self.kib_each(), Bound::AtMost(KIB_MOST)),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        let times = |times: &Latencies| {
            json!({
                "count": times.count(),
                "p50_millis": millis(times, 0.5),
                "p99_millis": millis(times, 0.99),
                "max_millis": millis(times, 1.0),
            })
        };
        json!({
            "herd": self.herd,
            "behind": self.behind,
            "live": self.live,
            "rate": self.rate,
            "without": times(&self.without.times),
            "before": times(&self.before.times),
            "during": times(&self.during.times),
            "disk": {
                "without": times(&self.without.disk),
                "before": times(&self.before.disk),
                "during": times(&self.during.disk),
            },
            "seconds": self.seconds,
            "bytes": self.bytes,
            "cpu_micros_per_delivery": self.relay.micros(),
            "read_ratio": number(self.read_ratio),
            "rss_bytes_before": self.rss_bytes_before,
            "rss_bytes_max": self.rss_bytes_max,
        })
    }
}

impl fmt::Display for Herd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} come back at once, {} events behind; {} are live, {:.0} events a second",
            self.herd, self.behind, self.live, self.rate
        )?;
        writeln!(
            f,
            "  {:<24} {:>9} {:>9} {:>9}   {:>14} {:>9}",
            "live subscribers, ms", "p50", "p99", "most", "fdatasync, p99", "most"
        )?;
        let phases = [
            ("without the herd", &self.without),
            ("while it is live too", &self.before),
            ("while it catches up", &self.during),
        ];
        for (when, HerdPhase { times, disk }) in phases {
            let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| figure(millis(times, share), 2));
            let [sync, longest] = [0.99, 1.0].map(|share| figure(millis(disk, share), 2));
            writeln!(f, "  {when:<24} {p50:>9} {p99:>9} {most:>9}   {sync:>14} {longest:>9}")?;
        }
        writeln!(
            f,
            "  all caught up after {:.1} s: {:.0} MB/s, {:.2} µs of CPU a delivery, files read {} times the window",
            self.seconds,
            self.bytes as f64 / self.seconds / 1e6,
            self.relay.micros(),
            figure(self.read_ratio, 2),
        )?;
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        writeln!(f, "  {:.0} MiB resident before, {:.0} at most", mib(self.rss_bytes_before), mib(self.rss_bytes_max))
    }
}
