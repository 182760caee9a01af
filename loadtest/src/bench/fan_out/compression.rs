//! None, one and all of the same readers take messages compressed, live; and readers from the oldest event on do.

use std::{fmt, time::Instant};

use serde_json::{Value, json};

use super::{Error, Sizes, report::number, stage::Stage};
use crate::{
    bench::{Bound, Check, Cost},
    crowd::{self, Crowd, Request},
};

/// What it costs to compress messages, and what it saves.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Live: none compressed, one, all.
    pub live: [CompressionLive; 3],
    /// From the oldest event on: plain by one, compressed by one, compressed by several.
    pub replay: [CompressionReplay; 3],
}

/// Live, with so many who take messages compressed.
#[derive(Clone, Debug)]
pub struct CompressionLive {
    /// How many read.
    pub readers: usize,
    /// How many of them compressed.
    pub compressed: usize,
    /// Events in a second.
    pub events_per_second: f64,
    /// What the relay spent, a delivery.
    pub relay: Cost,
    /// Bytes of a delivery as they came from the sockets, of all readers on average.
    pub wire_bytes: f64,
    /// Bytes of events that the relay compressed, for each event, before and after that.
    pub deflated_bytes: [f64; 2],
    /// The share of messages that came compressed to those who take them so.
    pub compressed_share: f64,
    /// Messages that readers inflated, and that were events.
    pub inflated: u64,
    /// The relay's resident memory right after.
    pub rss_bytes: u64,
    /// Bytes of compressed events that it held then.
    pub held_bytes: f64,
}

/// From the oldest event on.
#[derive(Clone, Debug)]
pub struct CompressionReplay {
    /// How many read.
    pub readers: usize,
    /// Whether they take messages compressed.
    pub compressed: bool,
    /// Events in a second that each gets, by the slowest of them.
    pub events_per_second: f64,
    /// What the relay spent, a delivery.
    pub relay: Cost,
    /// Bytes of a delivery as they came from the sockets.
    pub wire_bytes: f64,
    /// Bytes of events that the relay compressed, for each event, before and after that.
    pub deflated_bytes: [f64; 2],
    /// Most resident memory of the relay so far.
    pub rss_bytes_max: u64,
}

const READERS: usize = 100;
const REPLAYING: usize = 8;
const EVENTS: u64 = 12_000;
/// Of each so many messages, one is inflated: enough to notice, and little beside the rest of a reader's work.
const LOOK_EVERY: u64 = 500;
/// The most of a message that may be left on the wire.
const WIRE_MOST: f64 = 0.75;
/// How often an event may be compressed, at most, for all who asked.
const ONCE_MOST: f64 = 1.05;
/// The least share of messages that get shorter.
const SHARE_LEAST: f64 = 0.9;

/// The program's arguments without which there is nothing to measure.
pub(super) const RELAY_ARGS: [&str; 2] = ["--compression", "on"];

const DEFLATE_READ: &str = "mainstem_fanout_deflate_read_bytes_total";
const DEFLATE_MADE: &str = "mainstem_fanout_deflate_made_bytes_total";
const DEFLATED: &str = "mainstem_fanout_deflated_bytes";

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Compression, Error> {
    let events = EVENTS.min(stage.left() / 6);
    let live = [live(stage, 0, events).await?, live(stage, 1, events).await?, live(stage, READERS, events).await?];
    let events = stage.fill(sizes.window_events.min(stage.left())).await?;
    let replay = [
        replay(stage, 1, false, events).await?,
        replay(stage, 1, true, events).await?,
        replay(stage, REPLAYING, true, events).await?,
    ];
    Ok(Compression { live, replay })
}

async fn live(stage: &Stage<'_>, compressed: usize, events: u64) -> Result<CompressionLive, Error> {
    stage.say(&format!("{READERS} readers, {compressed} of them compressed"));
    let request = |number| Request { deflate: number < compressed, ..Request::default() };
    let requests = (0..READERS).map(request).collect();
    let crowd = stage.connected(crowd::Config { requests, ..stage.crowd_config(READERS, LOOK_EVERY) }).await?;
    stage.drive("compressed", &crowd, events / 10).await?;
    let earlier = deflated(stage).await;
    let (bytes, came, inflated) = (crowd.bytes(), crowd.compressed(), crowd.inflated());
    let (before, started) = (stage.usage()?, Instant::now());
    let events = stage.drive("compressed", &crowd, events).await?;
    let (seconds, after) = (started.elapsed().as_secs_f64(), stage.usage()?);
    let now = deflated(stage).await;
    let deliveries = events * READERS as u64;
    Ok(CompressionLive {
        readers: READERS,
        compressed,
        events_per_second: events as f64 / seconds,
        relay: Cost::of(&before, &after, deliveries),
        wire_bytes: (crowd.bytes() - bytes) as f64 / deliveries as f64,
        deflated_bytes: [0, 1].map(|of| (now[of] - earlier[of]) / events as f64),
        compressed_share: (crowd.compressed() - came) as f64 / (events * compressed as u64) as f64,
        inflated: crowd.inflated() - inflated,
        rss_bytes: after.rss_bytes,
        held_bytes: stage.metric(DEFLATED).await,
    })
}

async fn replay(stage: &Stage<'_>, readers: usize, compressed: bool, events: u64) -> Result<CompressionReplay, Error> {
    stage.say(&format!("{readers} from the oldest event on{}", if compressed { ", compressed" } else { "" }));
    let (before, earlier) = (stage.usage()?, deflated(stage).await);
    let crowd = Crowd::start(crowd::Config {
        requests: vec![Request { cursor: Some(0), deflate: compressed, ..Request::default() }],
        until: Some(events),
        ..stage.crowd_config(readers, LOOK_EVERY)
    })?;
    if !crowd.wait_done(stage.limit()).await {
        return Err(match crowd.ended() {
            0 => stage.late("replaying", crowd.slowest(), events),
            _ => stage.not_served("replaying", &crowd),
        });
    }
    let wall = crowd.done().into_iter().max().unwrap_or_default();
    let (after, now) = (stage.usage()?, deflated(stage).await);
    let deliveries = events * readers as u64;
    Ok(CompressionReplay {
        readers,
        compressed,
        events_per_second: events as f64 / wall.as_secs_f64(),
        relay: Cost::of(&before, &after, deliveries),
        wire_bytes: crowd.bytes() as f64 / deliveries as f64,
        deflated_bytes: [0, 1].map(|of| (now[of] - earlier[of]) / events as f64),
        rss_bytes_max: after.rss_bytes_max,
    })
}

/// Bytes of events that the relay has compressed so far, before and after that.
async fn deflated(stage: &Stage<'_>) -> [f64; 2] {
    [stage.metric(DEFLATE_READ).await, stage.metric(DEFLATE_MADE).await]
}

impl CompressionLive {
    /// How often an event was compressed: the bytes that were, by the bytes of the same events once, as readers got them.
    /// Where one of many takes them compressed, that is nearly their average in plain.
    fn times(&self) -> f64 {
        let [before, after] = self.deflated_bytes;
        if self.compressed == self.readers { after / self.wire_bytes } else { before / self.wire_bytes }
    }

    /// What is left of an event where all take them compressed.
    fn wire_share(&self) -> f64 {
        self.wire_bytes / self.deflated_bytes[0]
    }

    /// What the relay spent on an event and all its deliveries, microseconds.
    fn event_micros(&self) -> f64 {
        self.relay.micros() * self.readers as f64
    }
}

impl CompressionReplay {
    /// As [`CompressionLive::times`]; less than once where some of it was still there from before.
    fn times(&self) -> f64 {
        self.deflated_bytes[1] / self.wire_bytes
    }
}

impl Compression {
    pub(super) fn checks(&self) -> Vec<Check> {
        let [_, one, all] = &self.live;
        let [plain, alone, together] = &self.replay;
        let once = |who: &str, times| {
            let name = format!("times that an event is compressed for {who}");
            Check::new(name, times, Bound::AtMost(ONCE_MOST))
        };
        vec![
            Check::new("bytes on the wire, compressed : plain, live", all.wire_share(), Bound::AtMost(WIRE_MOST)),
            Check::new(
                "bytes on the wire, compressed : plain, replay",
                alone.wire_bytes / plain.wire_bytes,
                Bound::AtMost(WIRE_MOST),
            ),
            Check::new("messages that readers inflated, all events", all.inflated as f64, Bound::AtLeast(1.0)),
            Check::new("share of messages that came compressed", all.compressed_share, Bound::AtLeast(SHARE_LEAST)),
            once("one who asked, live", one.times()),
            once(&format!("{} who asked, live", all.compressed), all.times()),
            once("one who asked, replay", alone.times()),
            once(&format!("{} who asked, replay", together.readers), together.times()),
        ]
    }

    /// What it is worth, in a sentence.
    fn verdict(&self) -> String {
        let [plain, _, all] = &self.live;
        let saved = (all.deflated_bytes[0] - all.wire_bytes) * all.readers as f64;
        let micros = all.event_micros() - plain.event_micros();
        format!(
            "an event for {} who asked: {:.0} kB less on the wire ({:.0} %), {:.0} µs {} of the relay's CPU",
            all.readers,
            saved / 1e3,
            (1.0 - all.wire_share()) * 100.0,
            micros.abs(),
            if micros > 0.0 { "more" } else { "less" },
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let live = self.live.iter().map(|live| {
            json!({
                "readers": live.readers,
                "compressed": live.compressed,
                "events_per_second": live.events_per_second,
                "cpu_micros_per_delivery": live.relay.micros(),
                "wire_bytes_per_delivery": live.wire_bytes,
                "deflated_bytes_per_event": live.deflated_bytes,
                "compressed_share": number(live.compressed_share),
                "inflated": live.inflated,
                "rss_bytes": live.rss_bytes,
                "held_bytes": live.held_bytes,
            })
        });
        let replay = self.replay.iter().map(|replay| {
            json!({
                "readers": replay.readers,
                "compressed": replay.compressed,
                "events_per_second": replay.events_per_second,
                "cpu_micros_per_delivery": replay.relay.micros(),
                "wire_bytes_per_delivery": replay.wire_bytes,
                "deflated_bytes_per_event": replay.deflated_bytes,
                "rss_bytes_max": replay.rss_bytes_max,
            })
        });
        json!({
            "live": live.collect::<Vec<_>>(),
            "replay": replay.collect::<Vec<_>>(),
            "verdict": self.verdict(),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [plain, ..] = &self.live;
        writeln!(f, "{} readers, live, of whom some take messages compressed", plain.readers)?;
        writeln!(
            f,
            "  {:>11} {:>9} {:>9} {:>7} {:>7} {:>9} {:>9} {:>8} {:>9}",
            "compressed", "events/s", "µs each", "user", "kernel", "wire B", "times", "MiB", "MiB held"
        )?;
        for live in &self.live {
            writeln!(
                f,
                "  {:>11} {:>9.0} {:>9.2} {:>7.2} {:>7.2} {:>9.0} {:>9.2} {:>8.0} {:>9.1}",
                live.compressed,
                live.events_per_second,
                live.relay.micros(),
                live.relay.user_micros,
                live.relay.system_micros,
                live.wire_bytes,
                live.times(),
                live.rss_bytes as f64 / 1_048_576.0,
                live.held_bytes / 1_048_576.0,
            )?;
        }
        let [replayed, ..] = &self.replay;
        writeln!(f, "from the oldest event on")?;
        writeln!(
            f,
            "  {:>11} {:>9} {:>9} {:>7} {:>7} {:>9} {:>8} {:>9} {:>9}",
            "readers", "events/s", "µs each", "user", "kernel", "wire B", "× plain", "times", "MiB most"
        )?;
        for replay in &self.replay {
            writeln!(
                f,
                "  {:>11} {:>9.0} {:>9.2} {:>7.2} {:>7.2} {:>9.0} {:>8.2} {:>9.2} {:>9.0}",
                format!("{}{}", replay.readers, if replay.compressed { " compr." } else { "" }),
                replay.events_per_second,
                replay.relay.micros(),
                replay.relay.user_micros,
                replay.relay.system_micros,
                replay.wire_bytes,
                replay.wire_bytes / replayed.wire_bytes,
                replay.times(),
                replay.rss_bytes_max as f64 / 1_048_576.0,
            )?;
        }
        writeln!(f, "  {}", self.verdict())
    }
}
