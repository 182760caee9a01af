//! Some never read, or hardly, or talk all the time, while others read on.

use std::{fmt, time::Instant};

use serde_json::{Value, json};

use super::{Error, Sizes, stage::Stage};
use crate::{
    bench::{Bound, Check, Cost},
    crowd::{Crowd, Hostile, Manner},
};

/// What hostile subscribers do to others, and to the relay.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Subscribers that read as they should.
    pub subscribers: usize,
    /// Hostile ones of each manner.
    pub hostile: usize,
    /// Those who read as they should, beside as many more of their kind as there are talkers later: these read all that
    /// there is, and to be sent it is no harm that they do.
    pub alone: SlowPhase,
    /// The same beside the hostile ones.
    pub beside: SlowPhase,
    /// Talkers that were not sent away.
    pub talkers_left: usize,
}

/// A load.
#[derive(Clone, Debug)]
pub struct SlowPhase {
    /// Events a second.
    pub events_per_second: f64,
    /// What the relay spent, a delivery to the subscribers that are counted.
    pub relay: Cost,
    /// The relay's resident memory right after, without the companions.
    pub rss_bytes: u64,
}

const SUBSCRIBERS: usize = 50;
const EVENTS: u64 = 15_000;
/// The share of their speed that others must keep.
const SPEED_LEAST: f64 = 0.8;
/// The most that a hostile one may take of the process.
const KIB_MOST: f64 = 64.0;

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Slow, Error> {
    let crowd = stage.crowd(SUBSCRIBERS, 0).await?;
    let events = EVENTS.min(stage.left() / 3);
    stage.drive("warming up", &crowd, events / 3).await?;
    let hostile = sizes.hostile;
    let companions = stage.crowd(hostile, 0).await?;
    let mut alone = phase(stage, &crowd, events).await?;
    drop(companions);
    alone.rss_bytes = stage.settled_bytes().await?;
    stage.say(&format!("{hostile} that never read, {hostile} that read a byte a second, {hostile} that talk"));
    let address = stage.address();
    let start = |manner| Hostile::start(address, manner, hostile);
    let (_silent, _trickle, talkers) = (start(Manner::Silent)?, start(Manner::Trickle)?, start(Manner::Talker)?);
    let beside = phase(stage, &crowd, events).await?;
    let talkers_left = talkers.left();
    Ok(Slow { subscribers: SUBSCRIBERS, hostile, alone, beside, talkers_left })
}

async fn phase(stage: &Stage<'_>, crowd: &Crowd, events: u64) -> Result<SlowPhase, Error> {
    let (before, started) = (stage.usage()?, Instant::now());
    let events = stage.drive("slow", crowd, events).await?;
    let (after, seconds) = (stage.usage()?, started.elapsed().as_secs_f64());
    Ok(SlowPhase {
        events_per_second: events as f64 / seconds,
        relay: Cost::of(&before, &after, events * SUBSCRIBERS as u64),
        rss_bytes: stage.settled_bytes().await?,
    })
}

impl Slow {
    fn kib_each(&self) -> f64 {
        self.beside.rss_bytes.saturating_sub(self.alone.rss_bytes) as f64 / 1024.0 / (3 * self.hostile).max(1) as f64
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let speed = self.beside.events_per_second / self.alone.events_per_second;
        vec![
            Check::new(
                "speed of others beside hostile subscribers : beside good ones",
                speed,
                Bound::AtLeast(SPEED_LEAST),
            ),
            Check::new("KiB of the process for a hostile subscriber", self.kib_each(), Bound::AtMost(KIB_MOST)),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        let phase = |phase: &SlowPhase| {
            json!({
                "events_per_second": phase.events_per_second,
                "cpu_micros_per_delivery": phase.relay.micros(),
                "rss_bytes": phase.rss_bytes,
            })
        };
        json!({
            "subscribers": self.subscribers,
            "hostile_of_each_manner": self.hostile,
            "alone": phase(&self.alone),
            "beside": phase(&self.beside),
            "kib_each": self.kib_each(),
            "talkers_left": self.talkers_left,
        })
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slow { subscribers, hostile, .. } = self;
        writeln!(
            f,
            "{subscribers} subscribers beside {hostile} that never read, {hostile} that read a byte a second, {hostile} that talk"
        )?;
        writeln!(f, "  {:<24} {:>9} {:>9} {:>13}", "", "events/s", "µs each", "MiB resident")?;
        for (when, phase) in
            [(format!("beside {hostile} of their kind"), &self.alone), ("beside them".to_owned(), &self.beside)]
        {
            writeln!(
                f,
                "  {when:<24} {:>9.0} {:>9.2} {:>13.1}",
                phase.events_per_second,
                phase.relay.micros(),
                phase.rss_bytes as f64 / 1_048_576.0,
            )?;
        }
        writeln!(
            f,
            "  {:.1} KiB of the process for each of them; {} of {hostile} talkers were let talk",
            self.kib_each(),
            self.talkers_left
        )
    }
}
