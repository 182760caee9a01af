//! The same readers, each in one stream, and each in several streams of a part of the accounts.

use std::{fmt, time::Instant};

use serde_json::{Value, json};

use super::{Error, Sizes, stage::Stage};
use crate::{
    bench::{Bound, Check, Cost},
    crowd::{self, Crowd, Request},
};

/// What it costs to serve readers in several streams instead of one.
#[derive(Clone, Debug)]
pub struct Shards {
    /// How many readers.
    pub readers: usize,
    /// Streams of each, in the second case.
    pub streams: usize,
    /// Live, in one stream each.
    pub whole: ShardsPhase,
    /// Live, in several.
    pub parts: ShardsPhase,
    /// Bytes a second of one reader from the oldest event on, in one stream.
    pub replay_whole_bytes_per_second: f64,
    /// The same in several streams, all together.
    pub replay_parts_bytes_per_second: f64,
}

/// A load.
#[derive(Clone, Debug)]
pub struct ShardsPhase {
    /// Deliveries in a second.
    pub deliveries_per_second: f64,
    /// What the relay spent, a delivery.
    pub relay: Cost,
}

const READERS: usize = 50;
const STREAMS: usize = 4;
const EVENTS: u64 = 12_000;
/// The most that a delivery in parts may cost, as a multiple of one in a whole stream: four times as many sockets.
const COST_MOST: f64 = 2.0;

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Shards, Error> {
    let events = EVENTS.min(stage.left() / 4);
    let whole = live(stage, 1, events).await?;
    let parts = live(stage, STREAMS, events).await?;
    let events = stage.fill(sizes.window_events.min(stage.left())).await?;
    Ok(Shards {
        readers: READERS,
        streams: STREAMS,
        whole,
        parts,
        replay_whole_bytes_per_second: replay(stage, 1, events).await?,
        replay_parts_bytes_per_second: replay(stage, STREAMS, events).await?,
    })
}

fn requests(streams: usize, cursor: Option<u64>) -> Vec<Request> {
    let shard = |number| (streams > 1).then(|| format!("{number}/{streams}"));
    (0..streams).map(|number| Request { cursor, shard: shard(number), ..Request::default() }).collect()
}

async fn live(stage: &Stage<'_>, streams: usize, events: u64) -> Result<ShardsPhase, Error> {
    stage.say(&format!("{READERS} readers, {streams} streams each"));
    let config = stage.crowd_config(READERS * streams, 0);
    let crowd = stage.connected(crowd::Config { requests: requests(streams, None), ..config }).await?;
    let taken = |crowd: &Crowd| if streams == 1 { crowd.slowest() } else { crowd.messages() / READERS as u64 };
    stage.drive_by("shards", &crowd, events / 10, taken).await?;
    let (before, started) = (stage.usage()?, Instant::now());
    let events = stage.drive_by("shards", &crowd, events, taken).await?;
    let (after, seconds) = (stage.usage()?, started.elapsed().as_secs_f64());
    let deliveries = events * READERS as u64;
    Ok(ShardsPhase { deliveries_per_second: deliveries as f64 / seconds, relay: Cost::of(&before, &after, deliveries) })
}

async fn replay(stage: &Stage<'_>, streams: usize, events: u64) -> Result<f64, Error> {
    stage.say(&format!("one reader from the oldest event on, {streams} streams"));
    let started = Instant::now();
    let crowd = Crowd::start(crowd::Config { requests: requests(streams, Some(0)), ..stage.crowd_config(streams, 0) })?;
    let all = crowd.wait(stage.limit(), || crowd.messages() >= events || crowd.ended() > 0).await;
    match (all, crowd.ended()) {
        (true, 0) => Ok(crowd.bytes() as f64 / started.elapsed().as_secs_f64()),
        (false, 0) => Err(stage.late("replaying in parts", crowd.messages(), events)),
        (_, _) => Err(stage.not_served("replaying in parts", &crowd)),
    }
}

impl Shards {
    pub(super) fn checks(&self) -> Vec<Check> {
        let name = format!("CPU of a delivery, {} streams a reader : one", self.streams);
        vec![Check::new(name, self.parts.relay.micros() / self.whole.relay.micros(), Bound::AtMost(COST_MOST))]
    }

    pub(super) fn to_json(&self) -> Value {
        let phase = |phase: &ShardsPhase| {
            json!({
                "deliveries_per_second": phase.deliveries_per_second,
                "cpu_micros_per_delivery": phase.relay.micros(),
            })
        };
        json!({
            "readers": self.readers,
            "streams": self.streams,
            "whole": phase(&self.whole),
            "parts": phase(&self.parts),
            "replay_whole_bytes_per_second": self.replay_whole_bytes_per_second,
            "replay_parts_bytes_per_second": self.replay_parts_bytes_per_second,
        })
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} readers, in one stream each and in {} streams of a part of the accounts",
            self.readers, self.streams
        )?;
        writeln!(
            f,
            "  {:<16} {:>13} {:>9} {:>7} {:>7} {:>24}",
            "streams", "deliveries/s", "µs each", "user", "kernel", "one reader's replay, MB/s"
        )?;
        for (streams, phase, replay) in [
            (1, &self.whole, self.replay_whole_bytes_per_second),
            (self.streams, &self.parts, self.replay_parts_bytes_per_second),
        ] {
            writeln!(
                f,
                "  {streams:<16} {:>13.0} {:>9.2} {:>7.2} {:>7.2} {:>24.0}",
                phase.deliveries_per_second,
                phase.relay.micros(),
                phase.relay.user_micros,
                phase.relay.system_micros,
                replay / 1e6,
            )?;
        }
        Ok(())
    }
}
