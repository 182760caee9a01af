//! As fast as it goes, by the number of subscribers.

use std::{fmt, time::Instant};

use serde_json::{Value, json};

use super::{
    Error, Sizes,
    report::{figure, number},
    stage::Stage,
};
use crate::{
    bench::{Bound, Check, Cost, Sockets},
    crowd::Crowd,
};

/// What a delivery costs, by the number of subscribers.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// CPU time of the relay for an event with one subscriber, microseconds: before and after all others.
    pub alone_micros: [f64; 2],
    /// By number.
    pub rows: Vec<LiveRow>,
}

/// With so many subscribers.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// How many.
    pub subscribers: usize,
    /// Events that each of them got.
    pub events: u64,
    /// How long that took.
    pub seconds: f64,
    /// Bytes of all deliveries, as they came from the sockets.
    pub bytes: u64,
    /// What the relay spent, a delivery.
    pub relay: Cost,
    /// What it spent a delivery to all but one, less what it spends on an event with one.
    pub marginal_micros: f64,
    /// Raw sockets, as many.
    pub sockets: Sockets,
    /// The relay's resident memory right after.
    pub rss_bytes: u64,
}

/// Bytes that a yardstick takes.
const YARDSTICK_BYTES: u64 = 1 << 30;
const EVENTS_MIN: u64 = 1_500;
const EVENTS_MAX: u64 = 12_000;
/// The most that a delivery may cost, as a multiple of raw sockets.
const RATIO_MOST: f64 = 1.5;
/// The numbers of subscribers of which that must hold.
const RATIO_OF: [usize; 2] = [100, 500];

impl LiveRow {
    fn bytes_each(&self) -> f64 {
        self.bytes as f64 / (self.subscribers as u64 * self.events) as f64
    }

    /// What raw sockets take for a delivery, microseconds.
    pub fn bare_micros(&self) -> f64 {
        self.sockets.cpu_micros(self.bytes_each())
    }

    /// The marginal cost of a delivery, as a multiple of raw sockets.
    pub fn ratio(&self) -> f64 {
        self.marginal_micros / self.bare_micros()
    }

    /// In a second.
    pub fn deliveries_per_second(&self) -> f64 {
        self.subscribers as f64 * self.events as f64 / self.seconds
    }
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Live, Error> {
    // A row takes a quarter more than it counts; there are one before the others and one after.
    let has = stage.player.manifest().measured.events / (sizes.live.len() as u64 + 2);
    let events_max = EVENTS_MAX.min(has * 3 / 4);
    let first = row(stage, 1, events_max).await?;
    let mut rows = vec![first.clone()];
    for subscribers in sizes.live.iter().copied().filter(|subscribers| *subscribers > 1) {
        let events = (sizes.deliveries / subscribers as u64).max(EVENTS_MIN).min(events_max);
        rows.push(row(stage, subscribers, events).await?);
    }
    let last = row(stage, 1, events_max).await?;
    let alone_micros = [first.relay.micros(), last.relay.micros()];
    let alone = f64::midpoint(alone_micros[0], alone_micros[1]);
    for row in &mut rows {
        let others = row.subscribers.saturating_sub(1).max(1) as f64;
        row.marginal_micros = match row.subscribers {
            1 => f64::NAN,
            all => (row.relay.micros() * all as f64 - alone) / others,
        };
    }
    Ok(Live { alone_micros, rows })
}

async fn row(stage: &Stage<'_>, subscribers: usize, events: u64) -> Result<LiveRow, Error> {
    stage.say(&format!("{subscribers} subscribers, {events} events"));
    let bare_before = stage.yardstick(subscribers, YARDSTICK_BYTES).await?;
    let crowd: Crowd = stage.crowd(subscribers, 0).await?;
    // Buffers of sockets grow with the first megabytes.
    stage.drive("live", &crowd, (events / 4).min(EVENTS_MIN / 3)).await?;
    let (bytes, before, started) = (crowd.bytes(), stage.usage()?, Instant::now());
    let events = stage.drive("live", &crowd, events).await?;
    let (seconds, after) = (started.elapsed().as_secs_f64(), stage.usage()?);
    let bytes = crowd.bytes() - bytes;
    drop(crowd);
    let bare_after = stage.yardstick(subscribers, YARDSTICK_BYTES).await?;
    Ok(LiveRow {
        subscribers,
        events,
        seconds,
        bytes,
        relay: Cost::of(&before, &after, events * subscribers as u64),
        marginal_micros: f64::NAN,
        sockets: Sockets::mean(bare_before, bare_after),
        rss_bytes: after.rss_bytes,
    })
}

impl Live {
    pub(super) fn checks(&self) -> Vec<Check> {
        let rows = self.rows.iter().filter(|row| RATIO_OF.contains(&row.subscribers));
        rows.map(|row| {
            let name = format!("CPU of one more delivery : raw sockets, {} subscribers", row.subscribers);
            Check::new(name, row.ratio(), Bound::AtMost(RATIO_MOST))
        })
        .collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "subscribers": row.subscribers,
                "events": row.events,
                "seconds": row.seconds,
                "bytes": row.bytes,
                "deliveries_per_second": row.deliveries_per_second(),
                "cpu_micros_per_delivery": row.relay.micros(),
                "user_micros_per_delivery": row.relay.user_micros,
                "system_micros_per_delivery": row.relay.system_micros,
                "marginal_micros_per_delivery": number(row.marginal_micros),
                "raw_sockets_micros_per_delivery": row.bare_micros(),
                "ratio": number(row.ratio()),
                "sockets": row.sockets.to_json(),
                "rss_bytes": row.rss_bytes,
            })
        });
        json!({"alone_micros_per_event": self.alone_micros, "rows": rows.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.alone_micros;
        writeln!(
            f,
            "live, as fast as it goes; an event with one subscriber: {before:.1} µs of CPU before, {after:.1} after"
        )?;
        writeln!(
            f,
            "  {:>11} {:>9} {:>13} {:>8} {:>9} {:>7} {:>7} {:>11} {:>7} {:>8}",
            "subscribers", "events/s", "deliveries/s", "MB/s", "µs each", "user", "kernel", "one more", "raw", "× raw"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "  {:>11} {:>9.0} {:>13.0} {:>8.0} {:>9.2} {:>7.2} {:>7.2} {:>11} {:>7.2} {:>8}",
                row.subscribers,
                row.events as f64 / row.seconds,
                row.deliveries_per_second(),
                row.bytes as f64 / row.seconds / 1e6,
                row.relay.micros(),
                row.relay.user_micros,
                row.relay.system_micros,
                figure(row.marginal_micros, 2),
                row.bare_micros(),
                figure(row.ratio(), 2),
            )?;
        }
        Ok(())
    }
}
