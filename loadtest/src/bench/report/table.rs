//! Figures for people: a table for the terminal, that can stand in a document as it is.

use std::{fmt, time::Duration};

use super::{Measured, Report};
use crate::{
    bench::{Kind, Load, Spread},
    traffic::folder::Manifest,
};

/// The width of the first column.
const NAME: usize = 40;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        if let Some(first) = self.subjects.first() {
            self.breakdown(f, first)?;
            self.yardsticks(f)?;
        }
        self.comparison(f)?;
        self.roles(f)?;
        match self.two_workers_ratio() {
            Some(ratio) => writeln!(f, "\n  CPU an event with two workers : with one = {ratio:.2}"),
            None => Ok(()),
        }?;
        for measured in &self.subjects {
            if let Some(ratio) = measured.spread(Load::ratio) {
                writeln!(f, "  {}: CPU an event : bare verification = {ratio:.2}", measured.subject.name)?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}", self.date(), self.machine)?;
        let rounds = self.subjects.iter().map(|measured| measured.turns.len()).max().unwrap_or(0);
        let Manifest { measured, profile, .. } = &self.traffic;
        writeln!(
            f,
            "{} commits, mean frame {} B, {:.0} % P-256, of {} repos with {} records each on {} hosts; {}",
            thousands(measured.commits as f64),
            thousands(measured.frame_bytes_mean),
            100.0 * measured.commits_p256 as f64 / measured.commits.max(1) as f64,
            thousands(profile.repos as f64),
            thousands(profile.records as f64),
            profile.hosts,
            if rounds == 1 { "one round".to_owned() } else { format!("{rounds} rounds, median (range)") },
        )
    }

    fn breakdown(&self, f: &mut fmt::Formatter<'_>, first: &Measured) -> fmt::Result {
        writeln!(f, "\n  {:<NAME$}{:>24}{:>20}", "CPU an event", "µs", "× bare verification")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, of: &dyn Fn(&Load) -> f64| -> fmt::Result {
            let (Some(micros), Some(times)) =
                (first.spread(of), first.spread(|load| of(load) / load.bare().verify_micros))
            else {
                return Ok(());
            };
            writeln!(f, "  {name:<NAME$}{:>24}{:>20}", format!("{micros:.1}"), format!("{times:.2}"))
        };
        row(f, &first.subject.name, &|load| load.relay.micros())?;
        row(f, "  in user mode", &|load| load.relay.user_micros)?;
        row(f, "  in the kernel", &|load| load.relay.system_micros)?;
        for (name, micros) in first.threads() {
            if micros.median >= 0.1 {
                let of = |load: &Load| {
                    load.relay.threads.iter().find(|(found, _)| *found == name).map_or(0.0, |found| found.1)
                };
                row(f, &format!("  thread {name}"), &of)?;
            }
        }
        row(f, "hosts and subscriber (this program)", &|load| load.generator.micros())
    }

    fn yardsticks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after, mean] = self.bare();
        let bare = mean.map_or(f64::NAN, |mean| mean.median);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, micros: Option<Spread>| match micros {
            Some(micros) => {
                let times = format!("{:.2}", micros.median / bare);
                writeln!(f, "  {name:<NAME$}{:>24}{times:>20}", format!("{micros:.1}"))
            }
            None => Ok(()),
        };
        writeln!(f)?;
        row(f, "bare verification, one thread", mean)?;
        row(f, "  before each load", before)?;
        row(f, "  after each load", after)?;
        row(f, "  a signature of secp256k1", self.bare_part(|bare| bare.k256_micros))?;
        row(f, "  a signature of P-256", self.bare_part(|bare| bare.p256_micros))?;
        row(f, "SHA-256 of a frame", self.bare_part(|bare| bare.sha256_micros))?;
        row(
            f,
            "a frame over loopback, both ends",
            Spread::of([self.loopback.cpu_micros(self.traffic.measured.frame_bytes_mean)]),
        )?;
        row(f, "appending a frame, fsync each 100", Spread::of([self.append.cpu_micros]))?;
        writeln!(
            f,
            "\n  the machine: bare fsync of 4 KB p50 {} ms, p99 {} ms; {} frames/s appended; {:.1} GB/s over loopback",
            millis(self.fsync.times.quantile(0.5)),
            millis(self.fsync.times.quantile(0.99)),
            thousands(self.append.events_per_second),
            self.loopback.bytes_per_second / 1e9,
        )
    }

    /// What each role of a cluster spends, and its servers.
    fn roles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cluster) = self.subjects.iter().find(|measured| measured.subject.kind == Kind::Cluster) else {
            return Ok(());
        };
        let rate = cluster.latencies().map_or(0.0, |latencies| latencies.rate);
        writeln!(
            f,
            "\n  {:<NAME$}{:>24}{:>24}",
            "a cluster, µs of CPU an event",
            format!("{rate:.0}/s"),
            "as fast as read"
        )?;
        let loaded = cluster.threads();
        for (name, micros) in cluster.threads_at_rate() {
            let loaded = loaded.iter().find(|(other, _)| *other == name).map(|(_, micros)| format!("{micros:.1}"));
            writeln!(f, "    {name:<38}{:>24}{:>24}", format!("{micros:.1}"), loaded.unwrap_or_default())?;
        }
        match self.cluster_ratios() {
            Some((at_rate, loaded)) => {
                writeln!(f, "  {:<NAME$}{at_rate:>24.2}{loaded:>24.2}", "its roles together : one process")
            }
            None => Ok(()),
        }
    }

    fn comparison(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  {:<NAME$}", "")?;
        for measured in &self.subjects {
            write!(f, "{:>24}", measured.subject.name)?;
        }
        writeln!(f)?;
        let mib = f64::from(1 << 20);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, of: &dyn Fn(&Measured) -> Option<String>| {
            write!(f, "  {name:<NAME$}")?;
            for measured in &self.subjects {
                write!(f, "{:>24}", of(measured).unwrap_or_else(|| "–".to_owned()))?;
            }
            writeln!(f)
        };
        row(f, "µs of CPU an event", &|m| Some(format!("{:.1}", m.spread(|load| load.relay.micros())?)))?;
        row(f, "× bare verification", &|m| Some(format!("{:.2}", m.spread(Load::ratio)?)))?;
        row(f, "events/s, as fast as they are read", &|m| Some(format!("{:.0}", m.spread(Load::events_per_second)?)))?;
        row(f, "MiB resident after the load", &|m| {
            Some(format!("{:.0}", m.spread(|load| load.rss_bytes as f64 / mib)?))
        })?;
        row(f, "MiB resident, most", &|m| Some(format!("{:.0}", m.spread(|load| load.rss_bytes_max as f64 / mib)?)))?;
        row(f, "bytes written an event", &|m| Some(format!("{:.0}", m.spread(|load| load.relay.written_bytes)?)))?;
        let Some(rate) = self.subjects.iter().find_map(|measured| Some(measured.latencies()?.rate)) else {
            return Ok(());
        };
        let latency = |share: f64| {
            move |m: &Measured| {
                let latencies = m.latencies()?;
                let time = if share < 1.0 { latencies.times.quantile(share) } else { latencies.times.max() };
                Some(if latencies.void.is_some() { format!("void ({})", millis(time)) } else { millis(time) })
            }
        };
        row(f, &format!("latency at {rate:.0} events/s, ms: p50"), &latency(0.5))?;
        row(f, "  p99", &latency(0.99))?;
        row(f, "  most", &latency(1.0))?;
        row(f, "  µs of CPU an event meanwhile", &|m| Some(format!("{:.1}", m.latencies()?.cpu_micros?)))?;
        row(f, "  a bare fsync right before, ms: p50", &|m| Some(millis(m.latencies()?.fsync.quantile(0.5))))?;
        row(f, "  p99", &|m| Some(millis(m.latencies()?.fsync.quantile(0.99))))?;
        row(f, "  idle share of the machine, %", &|m| Some(format!("{:.0}", m.latencies()?.idle_share? * 100.0)))?;
        for measured in &self.subjects {
            if let Some(why) = measured.latencies().and_then(|latencies| latencies.void) {
                writeln!(f, "  void, {}: {why}; the latency is the machine's, not the relay's", measured.subject.name)?;
            }
        }
        Ok(())
    }
}

/// As milliseconds, with as many digits as tell something.
fn millis(time: Option<Duration>) -> String {
    let Some(time) = time else { return "–".to_owned() };
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.2}") } else { format!("{millis:.1}") }
}

/// `12,345`.
pub(in crate::bench) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn numbers_are_readable() {
        assert_eq!(["0", "999", "1,000", "1,234,568"], [0.0, 999.0, 1_000.0, 1_234_567.8].map(thousands));
        assert_eq!(
            [820, 9_994, 12_340].map(|micros| millis(Some(Duration::from_micros(micros)))),
            ["0.82", "9.99", "12.3"]
        );
    }

    #[test]
    fn the_table_says_what_is_void_and_why() {
        let table = report().to_string();
        for said in [
            "2026-09-21 14:13 UTC, A, 2 cores",
            "2.20 (2.00–3.00)",
            "before each load",
            "void (70.0)",
            "void, one: the machine was 10 % idle",
            "with two workers : with one = 1.10",
        ] {
            assert!(table.contains(said), "{said:?} is missing in\n{table}");
        }
    }
}
