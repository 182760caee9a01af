//! At a rate: what a delivery costs, and how late it is.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::{
    Error, Sizes,
    report::{figure, millis},
    stage::Stage,
};
use crate::{
    bench::{Bound, Check, Cost, Ticks},
    crowd::Crowd,
    traffic::{Pace, latency::Latencies},
};

/// Deliveries at a rate.
#[derive(Clone, Debug)]
pub struct Paced {
    /// Events a second.
    pub rate: f64,
    /// How many subscribers.
    pub subscribers: usize,
    /// With one.
    pub alone: PacedPhase,
    /// With all of them.
    pub all: PacedPhase,
}

/// Deliveries at a rate to so many.
#[derive(Clone, Debug)]
pub struct PacedPhase {
    /// Deliveries.
    pub deliveries: u64,
    /// How long it was looked at.
    pub seconds: f64,
    /// What the relay spent, a delivery.
    pub relay: Cost,
    /// From the hosts' send to the subscriber's receipt, over all subscribers.
    pub times: Latencies,
    /// The idle share of the machine meanwhile.
    pub idle_share: Option<f64>,
}

const LEAD_IN: Duration = Duration::from_millis(1_500);
/// Each so many messages of a subscriber, one is looked at.
const LOOK_EVERY: u64 = 3;
/// The most that one more delivery may cost, microseconds.
const MICROS_MOST: f64 = 1.5;
const P99_MILLIS_MOST: f64 = 30.0;

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Paced, Error> {
    let alone = phase(stage, sizes, 1).await?;
    let all = phase(stage, sizes, sizes.paced).await?;
    Ok(Paced { rate: sizes.rate, subscribers: sizes.paced, alone, all })
}

async fn phase(stage: &Stage<'_>, sizes: &Sizes, subscribers: usize) -> Result<PacedPhase, Error> {
    let seconds = sizes.paced_time.as_secs_f64();
    stage.say(&format!("{subscribers} subscribers, {:.0} events a second for {seconds:.0} s", sizes.rate));
    let crowd: Crowd = stage.crowd(subscribers, LOOK_EVERY).await?;
    stage.player.play(Pace::PerSecond(sizes.rate));
    tokio::time::sleep(LEAD_IN).await;
    crowd.take_latencies();
    let (before, messages, idle) = (stage.usage()?, crowd.messages(), Ticks::now().ok());
    tokio::time::sleep(sizes.paced_time).await;
    let (after, deliveries, idle_now) = (stage.usage()?, crowd.messages() - messages, Ticks::now().ok());
    let times = crowd.take_latencies();
    stage.player.pause();
    if crowd.ended() > 0 {
        return Err(stage.not_served("at a rate", &crowd));
    }
    Ok(PacedPhase {
        deliveries,
        seconds,
        relay: Cost::of(&before, &after, deliveries),
        times,
        idle_share: idle.and_then(|before| before.idle_share(idle_now?)),
    })
}

impl PacedPhase {
    fn quantile(&self, share: f64) -> f64 {
        self.times.quantile(share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// CPU time of the relay in a second, seconds.
    fn cores(&self) -> f64 {
        self.relay.micros() * self.deliveries as f64 / 1e6 / self.seconds
    }

    fn to_json(&self) -> Value {
        json!({
            "deliveries": self.deliveries,
            "seconds": self.seconds,
            "cores": self.cores(),
            "cpu_micros_per_delivery": self.relay.micros(),
            "user_micros_per_delivery": self.relay.user_micros,
            "system_micros_per_delivery": self.relay.system_micros,
            "p50_millis": millis(&self.times, 0.5),
            "p99_millis": millis(&self.times, 0.99),
            "max_millis": millis(&self.times, 1.0),
            "idle_share": self.idle_share,
        })
    }
}

impl Paced {
    /// CPU time of a delivery to all but one, less what the relay takes with one, microseconds.
    pub fn marginal_micros(&self) -> f64 {
        let others = self.rate * self.subscribers.saturating_sub(1).max(1) as f64;
        (self.all.cores() - self.alone.cores()) * 1e6 / others
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let with = format!("{} subscribers, {:.0} events/s", self.subscribers, self.rate);
        vec![
            Check::new(
                format!("µs of CPU of one more delivery, {with}"),
                self.marginal_micros(),
                Bound::AtMost(MICROS_MOST),
            ),
            Check::new(format!("p99 over all, ms, {with}"), self.all.quantile(0.99), Bound::AtMost(P99_MILLIS_MOST)),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "rate": self.rate,
            "subscribers": self.subscribers,
            "marginal_micros_per_delivery": self.marginal_micros(),
            "alone": self.alone.to_json(),
            "all": self.all.to_json(),
        })
    }
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {:.0} events a second; CPU of a delivery includes verifying and logging its event", self.rate)?;
        writeln!(
            f,
            "  {:>11} {:>13} {:>7} {:>9} {:>7} {:>7} {:>11} {:>8} {:>8} {:>8} {:>7}",
            "subscribers",
            "deliveries/s",
            "cores",
            "µs each",
            "user",
            "kernel",
            "one more",
            "p50, ms",
            "p99, ms",
            "most, ms",
            "idle %"
        )?;
        for (subscribers, phase, more) in
            [(1, &self.alone, f64::NAN), (self.subscribers, &self.all, self.marginal_micros())]
        {
            writeln!(
                f,
                "  {subscribers:>11} {:>13.0} {:>7.2} {:>9.2} {:>7.2} {:>7.2} {:>11} {:>8} {:>8} {:>8} {:>7}",
                phase.deliveries as f64 / phase.seconds,
                phase.cores(),
                phase.relay.micros(),
                phase.relay.user_micros,
                phase.relay.system_micros,
                figure(more, 2),
                figure(phase.quantile(0.5), 2),
                figure(phase.quantile(0.99), 2),
                figure(phase.quantile(1.0), 2),
                figure(phase.idle_share.map(|share| share * 100.0), 0),
            )?;
        }
        Ok(())
    }
}
