//! Figures of fan-out, for people and for programs.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Outcome;
use crate::{
    bench::{
        Check, Machine, Subject,
        plot::{Axis, Lines, Scale, Series, Title, quantiles},
        report::{date, thousands},
    },
    traffic::{folder::Manifest, latency::Latencies},
};

/// What was measured.
#[derive(Clone, Debug)]
pub struct FanOutReport {
    /// When it began, microseconds since 1970.
    pub at_micros: u64,
    /// Where.
    pub machine: Machine,
    /// With what.
    pub traffic: Manifest,
    /// Of what.
    pub subject: Subject,
    /// Of each scenario.
    pub outcomes: Vec<Outcome>,
}

impl FanOutReport {
    /// What must hold of what was measured.
    pub fn checks(&self) -> Vec<Check> {
        self.outcomes.iter().flat_map(Outcome::checks).collect()
    }

    /// Whether all of it does.
    pub fn holds(&self) -> bool {
        self.checks().iter().all(Check::holds)
    }

    /// All figures, by scenario.
    pub fn to_json(&self) -> Value {
        let outcomes: Map<String, Value> =
            self.outcomes.iter().map(|outcome| (outcome.name().to_owned(), outcome.to_json())).collect();
        json!({
            "at": date(self.at_micros),
            "machine": self.machine.to_json(),
            "traffic": self.traffic,
            "subject": {"name": self.subject.name, "program": self.subject.program, "args": self.subject.args},
            "holds": self.holds(),
            "checks": self.checks().iter().map(Check::to_json).collect::<Vec<_>>(),
            "scenarios": outcomes,
        })
    }

    /// File names and SVG documents.
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        self.outcomes.iter().flat_map(|outcome| self.plots_of(outcome)).collect()
    }

    fn plots_of(&self, outcome: &Outcome) -> Vec<(&'static str, String)> {
        let series = |name: &str, points: Vec<(f64, f64)>| Series {
            name: name.to_owned(),
            points: points.into_iter().filter(|(_, y)| y.is_finite()).collect(),
        };
        match outcome {
            Outcome::Live(live) => {
                let of = |of: fn(&super::LiveRow) -> f64| {
                    live.rows.iter().map(|row| (row.subscribers as f64, of(row))).collect::<Vec<_>>()
                };
                let lines = Lines {
                    title: self.title("CPU time of the relay for a delivery, live, as fast as it goes"),
                    x: Axis::log("subscribers"),
                    y: Axis::log("CPU time, µs"),
                    series: vec![
                        series("all of it, a delivery", of(|row| row.relay.micros())),
                        series("of one more subscriber", of(|row| row.marginal_micros)),
                        series("raw sockets, 64 KiB a write", of(super::LiveRow::bare_micros)),
                    ],
                    dots: true,
                    limit: None,
                };
                vec![("fan-out-cost.svg", lines.draw())]
            }
            Outcome::Replay(replay) => {
                let of = |of: fn(&super::ReplayRow) -> f64| {
                    replay.rows.iter().map(|row| (row.readers as f64, of(row) / 1e6)).collect::<Vec<_>>()
                };
                let lines = Lines {
                    title: self.title("Replay from the oldest event on, all readers together"),
                    x: Axis::log("readers"),
                    y: Axis::linear("MB/s"),
                    series: vec![
                        series("relay", of(|row| row.bytes_per_second.median)),
                        series("raw sockets, 64 KiB a write", of(|row| row.sockets.bytes_per_second)),
                    ],
                    dots: true,
                    limit: None,
                };
                vec![("fan-out-replay.svg", lines.draw())]
            }
            Outcome::Herd(herd) => {
                let lines = Lines {
                    title: self.title(&format!(
                        "{} come back at once, {} events behind: latency of {} others",
                        herd.herd, herd.behind, herd.live
                    )),
                    x: Axis { label: "percentile of deliveries, %".to_owned(), scale: Scale::Percentile },
                    y: Axis::log("latency, ms"),
                    series: vec![
                        quantiles("without them", &herd.without.times),
                        quantiles("while they are live too", &herd.before.times),
                        quantiles("while they catch up", &herd.during.times),
                    ],
                    dots: false,
                    limit: None,
                };
                vec![("fan-out-herd.svg", lines.draw())]
            }
            Outcome::Pace(paced) => {
                let lines = Lines {
                    title: self.title(&format!("Latency over all subscribers, {:.0} events/s", paced.rate)),
                    x: Axis { label: "percentile of deliveries, %".to_owned(), scale: Scale::Percentile },
                    y: Axis::log("latency, ms"),
                    series: vec![
                        quantiles("one subscriber", &paced.alone.times),
                        quantiles(&format!("{} subscribers", paced.subscribers), &paced.all.times),
                    ],
                    dots: false,
                    limit: None,
                };
                vec![("fan-out-pace.svg", lines.draw())]
            }
            Outcome::Quiet(_) | Outcome::Slow(_) | Outcome::Shards(_) | Outcome::Compression(_) => Vec::new(),
        }
    }

    fn title(&self, text: &str) -> Title {
        let frame = self.traffic.measured.frame_bytes_mean;
        let under = format!("{}, {}; mean frame {frame:.0} B", date(self.at_micros), self.machine);
        Title { text: text.to_owned(), under }
    }
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::Live(_) => "live",
            Outcome::Pace(_) => "pace",
            Outcome::Replay(_) => "replay",
            Outcome::Quiet(_) => "quiet",
            Outcome::Herd(_) => "herd",
            Outcome::Slow(_) => "slow",
            Outcome::Shards(_) => "shards",
            Outcome::Compression(_) => "compression",
        }
    }

    fn checks(&self) -> Vec<Check> {
        match self {
            Outcome::Live(live) => live.checks(),
            Outcome::Pace(paced) => paced.checks(),
            Outcome::Replay(replay) => replay.checks(),
            Outcome::Quiet(quiet) => quiet.checks(),
            Outcome::Herd(herd) => herd.checks(),
            Outcome::Slow(slow) => slow.checks(),
            Outcome::Shards(shards) => shards.checks(),
            Outcome::Compression(compression) => compression.checks(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Outcome::Live(live) => live.to_json(),
            Outcome::Pace(paced) => paced.to_json(),
            Outcome::Replay(replay) => replay.to_json(),
            Outcome::Quiet(quiet) => quiet.to_json(),
            Outcome::Herd(herd) => herd.to_json(),
            Outcome::Slow(slow) => slow.to_json(),
            Outcome::Shards(shards) => shards.to_json(),
            Outcome::Compression(compression) => compression.to_json(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Live(live) => live.fmt(f),
            Outcome::Pace(paced) => paced.fmt(f),
            Outcome::Replay(replay) => replay.fmt(f),
            Outcome::Quiet(quiet) => quiet.fmt(f),
            Outcome::Herd(herd) => herd.fmt(f),
            Outcome::Slow(slow) => slow.fmt(f),
            Outcome::Shards(shards) => shards.fmt(f),
            Outcome::Compression(compression) => compression.fmt(f),
        }
    }
}

impl fmt::Display for FanOutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}", date(self.at_micros), self.machine)?;
        let frame = thousands(self.traffic.measured.frame_bytes_mean);
        writeln!(f, "{}, mean frame {frame} B, of {} repos", self.subject.name, self.traffic.profile.repos)?;
        for outcome in &self.outcomes {
            write!(f, "\n{outcome}")?;
        }
        writeln!(f)?;
        for check in self.checks() {
            writeln!(f, "  {check}")?;
        }
        Ok(())
    }
}

/// A number, or null where it is none.
pub(super) fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { Value::Null }
}

/// A number in a table, or a dash where there is none.
pub(super) fn figure(value: impl Into<Option<f64>>, decimals: usize) -> String {
    match value.into().filter(|value: &f64| value.is_finite()) {
        Some(value) => format!("{value:.decimals$}"),
        None => "–".to_owned(),
    }
}

/// What a share of them took at most, milliseconds.
pub(super) fn millis(times: &Latencies, share: f64) -> Option<f64> {
    Some(times.quantile(share)?.as_secs_f64() * 1e3)
}
