//! A soak's figures.

use std::fmt;

use serde_json::{Value, json};

use super::{
    Phase, Sample,
    verdict::{median, verdict},
};
use crate::bench::{
    Check, Machine,
    plot::{Axis, Lines, Series, Title},
    report::date,
};

/// What was seen.
#[derive(Clone, Debug)]
pub struct SoakReport {
    /// When it began, microseconds since 1970.
    pub at_micros: u64,
    /// Where.
    pub machine: Machine,
    /// The relay's `--window-bytes`.
    pub window_bytes: u64,
    /// Repos that were busy.
    pub repos: usize,
    /// Each second.
    pub samples: Vec<Sample>,
}

const MIB: f64 = 1_048_576.0;

impl SoakReport {
    /// What must hold.
    pub fn verdict(&self) -> Vec<Check> {
        verdict(&self.samples, self.window_bytes)
    }

    /// Whether all of it does.
    pub fn holds(&self) -> bool {
        self.verdict().iter().all(Check::holds)
    }

    /// All samples, and the verdict.
    pub fn to_json(&self) -> Value {
        let millis = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        let samples: Vec<Value> = self
            .samples
            .iter()
            .map(|sample| {
                json!({
                    "at_seconds": sample.at.as_secs_f64(),
                    "phase": sample.phase.name(),
                    "rss_bytes": sample.rss_bytes,
                    "log_bytes": sample.log_bytes,
                    "data_bytes": sample.data_bytes,
                    "events_per_second": sample.events_per_second,
                    "p50_millis": millis(sample.p50),
                    "p99_millis": millis(sample.p99),
                })
            })
            .collect();
        json!({
            "at": date(self.at_micros),
            "machine": self.machine.to_json(),
            "window_bytes": self.window_bytes,
            "repos": self.repos,
            "holds": self.holds(),
            "checks": self.verdict().iter().map(Check::to_json).collect::<Vec<_>>(),
            "samples": samples,
        })
    }

    /// File names and SVG documents.
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        let draw = |text: &str, y: Axis, of: &dyn Fn(&Sample) -> Option<f64>| {
            let series = [Phase::Full, Phase::Idle, Phase::Again].map(|phase| Series {
                name: phase.name().to_owned(),
                points: self
                    .samples
                    .iter()
                    .filter(|sample| sample.phase == phase)
                    .filter_map(|sample| Some((sample.at.as_secs_f64(), of(sample)?)))
                    .collect(),
            });
            let under = format!("{}, {}; {} busy repos", date(self.at_micros), self.machine, self.repos);
            Lines {
                title: Title { text: text.to_owned(), under },
                x: Axis::linear("time since the relay was warm, s"),
                y,
                series: series.into(),
                dots: false,
                limit: None,
            }
            .draw()
        };
        vec![
            (
                "soak-memory.svg",
                draw("Resident memory", Axis::linear("resident, MiB"), &|s| Some(s.rss_bytes as f64 / MIB)),
            ),
            (
                "soak-latency.svg",
                draw("Median latency of each second, at full rate", Axis::linear("latency, ms"), &|s| {
                    Some(s.p50?.as_secs_f64() * 1e3)
                }),
            ),
            (
                "soak-disk.svg",
                draw("The log on disk", Axis::linear("files of the log, MB"), &|s| Some(s.log_bytes as f64 / 1e6)),
            ),
        ]
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}", date(self.at_micros), self.machine)?;
        writeln!(
            f,
            "{} busy repos, --window-bytes {} MB; medians of each second\n",
            self.repos,
            self.window_bytes / 1_000_000
        )?;
        writeln!(
            f,
            "  {:<8}{:>8}{:>12}{:>14}{:>10}{:>10}{:>12}",
            "", "s", "events/s", "MiB resident", "p50, ms", "p99, ms", "MB of log"
        )?;
        for phase in [Phase::Full, Phase::Idle, Phase::Again] {
            let of = |value: &dyn Fn(&Sample) -> Option<f64>| {
                median(self.samples.iter().filter(|sample| sample.phase == phase).filter_map(value))
            };
            let shown = |value: f64| if value.is_nan() { "–".to_owned() } else { format!("{value:.1}") };
            writeln!(
                f,
                "  {:<8}{:>8}{:>12.0}{:>14.0}{:>10}{:>10}{:>12.0}",
                phase.name(),
                self.samples.iter().filter(|sample| sample.phase == phase).count(),
                of(&|sample| Some(sample.events_per_second)),
                of(&|sample| Some(sample.rss_bytes as f64 / MIB)),
                shown(of(&|sample| Some(sample.p50?.as_secs_f64() * 1e3))),
                shown(of(&|sample| Some(sample.p99?.as_secs_f64() * 1e3))),
                of(&|sample| Some(sample.log_bytes as f64 / 1e6)),
            )?;
        }
        writeln!(f)?;
        for check in self.verdict() {
            writeln!(f, "  {check}")?;
        }
        Ok(())
    }
}
