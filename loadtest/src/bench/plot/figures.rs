//! The pictures of a report.

use super::{Axis, Bar, Bars, Lines, Scale, Series, Title, colour};
use crate::{
    bench::{Report, Spread},
    traffic::latency::Latencies,
};

const MIB: f64 = 1_048_576.0;

impl Report {
    /// File names and SVG documents.
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        let mut plots = vec![("cost.svg", self.cost().draw()), ("memory.svg", self.memory().draw())];
        if self.subjects.iter().any(|measured| measured.latencies().is_some()) {
            plots.push(("latency.svg", self.latency().draw()));
        }
        plots
    }

    fn cost(&self) -> Bars {
        let median = |spread: Option<Spread>| spread.map_or(0.0, |spread| spread.median);
        let mut kinds: Vec<String> = Vec::new();
        let mut bars: Vec<Bar> = Vec::new();
        for measured in &self.subjects {
            let mut parts = Vec::new();
            for (thread, micros) in measured.threads() {
                let number = kinds.iter().position(|kind| *kind == thread).unwrap_or_else(|| {
                    kinds.push(thread.clone());
                    kinds.len() - 1
                });
                parts.push((thread, micros.median, colour(number)));
            }
            // What ended before it could be asked belongs to no thread that is known.
            let all = median(measured.spread(|load| load.relay.micros()));
            let rest = all - parts.iter().map(|(_, micros, _)| micros).sum::<f64>();
            if rest > all * 0.02 {
                parts.push(("other threads".to_owned(), rest, "#bbbbbb"));
            }
            bars.push(Bar { name: measured.subject.name.clone(), parts });
        }
        let bare = median(self.bare()[2]);
        let mut yardstick = |name: &str, micros: f64| {
            bars.push(Bar { name: name.to_owned(), parts: vec![(name.to_owned(), micros, "#9a9a9a")] });
        };
        yardstick("bare verification", bare);
        yardstick("SHA-256", median(self.bare_part(|bare| bare.sha256_micros)));
        yardstick("loopback, both ends", self.loopback.cpu_micros(self.traffic.measured.frame_bytes_mean));
        yardstick("append and fsync", self.append.cpu_micros);
        Bars {
            title: self.title("CPU time of an event, by threads of the relay, beside what the machine takes"),
            axis: Axis::linear("CPU time of an event, µs (medians)"),
            bars,
            marks: vec![(bare, "1×".to_owned()), (bare * 2.0, "2×".to_owned()), (bare * 2.5, "2.5×".to_owned())],
        }
    }

    fn latency(&self) -> Lines {
        let mut series = Vec::new();
        let mut fsync = Latencies::default();
        for (measured, latencies) in self.subjects.iter().filter_map(|m| Some((m, m.latencies()?))) {
            let void = if latencies.void.is_some() { " (void: the machine was busy)" } else { "" };
            series.push(quantiles(&format!("{}{void}", measured.subject.name), &latencies.times));
            fsync.add(&latencies.fsync);
        }
        series.push(quantiles("bare fsync of 4 KB", &fsync));
        let rate = self.subjects.iter().find_map(|measured| Some(measured.latencies()?.rate)).unwrap_or(0.0);
        Lines {
            title: self.title(&format!("Latency from the host's send to the subscriber's receipt, {rate:.0} events/s")),
            x: Axis { label: "percentile of events, %".to_owned(), scale: Scale::Percentile },
            y: Axis::log("latency, ms"),
            series,
            dots: false,
            limit: None,
        }
    }

    fn memory(&self) -> Lines {
        let lines = self.subjects.iter().flat_map(|measured| measured.turns.iter().map(move |turn| (measured, turn)));
        let series = lines.map(|(measured, turn)| Series {
            name: measured.subject.name.clone(),
            points: turn.memory.samples.iter().map(|(at, bytes)| (at.as_secs_f64(), *bytes as f64 / MIB)).collect(),
        });
        Lines {
            title: self.title("Resident memory of the relay: warm, then at a rate, then loaded"),
            x: Axis::linear("time since the relay was warm, s"),
            y: Axis::linear("resident, MiB"),
            series: series.collect(),
            dots: false,
            limit: None,
        }
    }

    fn title(&self, text: &str) -> Title {
        let under = format!(
            "{}, {}; {} commits a round, mean frame {:.0} B",
            self.date(),
            self.machine,
            super::axis::written(self.traffic.measured.commits as f64),
            self.traffic.measured.frame_bytes_mean,
        );
        Title { text: text.to_owned(), under }
    }
}

/// Milliseconds by percentile.
pub(in crate::bench) fn quantiles(name: &str, times: &Latencies) -> Series {
    let count = times.count() as f64;
    // The very last event has no percentile below the whole; it stands where half an event is left.
    let points = times.cumulated().map(|(time, so_far)| {
        let share = (so_far as f64).min(count - 0.5) / count;
        (share, time.as_secs_f64() * 1e3)
    });
    Series { name: name.to_owned(), points: points.collect() }
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::report;

    #[test]
    fn every_picture_has_axes_with_units() {
        let plots = report().plots();
        let names: Vec<&str> = plots.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cost.svg", "memory.svg", "latency.svg"]);
        for (name, svg) in plots {
            assert!(svg.contains(", µs") || svg.contains(", ms") || svg.contains(", MiB"), "{name}");
            assert!(svg.contains("2026-09-21"), "{name}");
        }
    }
}
