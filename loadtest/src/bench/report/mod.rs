//! Figures: what the turns of each subject say together. Shown to people by [`table`], to programs by [`json`].

mod json;
mod table;

pub(super) use self::table::thousands;
use super::{Append, Bare, Cost, Fsync, Kind, Latency, Load, Loopback, Machine, Spread, Subject, Turn};
use crate::traffic::{folder::Manifest, latency::Latencies};

/// What was measured in a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began, microseconds since 1970.
    pub at_micros: u64,
    /// Where.
    pub machine: Machine,
    /// With what.
    pub traffic: Manifest,
    /// The relays.
    pub subjects: Vec<Measured>,
    /// Bare syncs, on the file system of the relays' data.
    pub fsync: Fsync,
    /// Appending to a file there.
    pub append: Append,
    /// A raw socket.
    pub loopback: Loopback,
}

/// A subject and its turns.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The relay.
    pub subject: Subject,
    /// What each round said.
    pub turns: Vec<Turn>,
}

/// What all latency phases of a subject say together.
#[derive(Clone, Debug)]
pub struct LatencyFigures {
    /// Events a second.
    pub rate: f64,
    /// Of all phases that count, or of all where none does.
    pub times: Latencies,
    /// CPU time an event meanwhile, microseconds.
    pub cpu_micros: Option<Spread>,
    /// Bare syncs beside them.
    pub fsync: Latencies,
    /// The least idle share of the phases that count, or of all.
    pub idle_share: Option<f64>,
    /// Why none of them counts.
    pub void: Option<String>,
}

impl Report {
    /// Bare verification, an event, in microseconds: before the loads, after them, and their mean.
    pub fn bare(&self) -> [Option<Spread>; 3] {
        let over = |of: fn(&Load) -> Bare| Spread::of(self.loads().map(|load| of(load).verify_micros));
        [over(|load| load.bare_before), over(|load| load.bare_after), over(Load::bare)]
    }

    /// A part of bare verification, of the means of before and after.
    pub(super) fn bare_part(&self, part: impl Fn(Bare) -> f64) -> Option<Spread> {
        Spread::of(self.loads().map(|load| part(load.bare())))
    }

    /// CPU an event of a cluster, its roles together, as a multiple of that in one process, at the rate and as fast as
    /// events are read, where both were measured.
    pub fn cluster_ratios(&self) -> Option<(f64, f64)> {
        let of = |kind| self.subjects.iter().find(|measured| measured.subject.kind == kind);
        let (cluster, one) = (of(Kind::Cluster)?, of(Kind::Mainstem)?);
        let at_rate = |measured: &Measured| Some(measured.latencies()?.cpu_micros?.median);
        let loaded = |measured: &Measured| Some(measured.spread(|load| load.relay.micros())?.median);
        Some((at_rate(cluster)? / at_rate(one)?, loaded(cluster)? / loaded(one)?))
    }

    /// CPU an event of the whole relay with two workers, as a multiple of that with one, where both were measured.
    pub fn two_workers_ratio(&self) -> Option<f64> {
        let with = |workers| {
            let measured = self.subjects.iter().find(|measured| measured.subject.workers == Some(workers))?;
            measured.spread(|load| load.relay.micros())
        };
        Some(with(2)?.median / with(1)?.median)
    }

    pub(super) fn date(&self) -> String {
        date(self.at_micros)
    }

    fn loads(&self) -> impl Iterator<Item = &Load> {
        self.subjects.iter().flat_map(|measured| &measured.turns).map(|turn| &turn.load)
    }
}

impl Measured {
    /// A figure of the loads, over all rounds.
    pub fn spread(&self, of: impl Fn(&Load) -> f64) -> Option<Spread> {
        Spread::of(self.turns.iter().map(|turn| of(&turn.load)))
    }

    /// CPU time an event of each kind of thread, microseconds, the dearest first.
    pub fn threads(&self) -> Vec<(String, Spread)> {
        spreads_by_name(&self.turns.iter().map(|turn| &turn.load.relay).collect::<Vec<_>>())
    }

    /// CPU time of each kind of thread (of a cluster: of each role) an event at a rate, microseconds, the dearest first.
    pub fn threads_at_rate(&self) -> Vec<(String, Spread)> {
        let latencies: Vec<&Latency> = self.turns.iter().filter_map(|turn| turn.latency.as_ref()).collect();
        spreads_by_name(&latencies.iter().map(|latency| &latency.relay).collect::<Vec<_>>())
    }

    /// Its latency, where it was measured.
    pub fn latencies(&self) -> Option<LatencyFigures> {
        let all: Vec<&Latency> = self.turns.iter().filter_map(|turn| turn.latency.as_ref()).collect();
        let counting: Vec<&Latency> = all.iter().copied().filter(|latency| latency.void().is_none()).collect();
        let void = if counting.is_empty() { all.first()?.void() } else { None };
        let chosen = if counting.is_empty() { all } else { counting };
        let (mut times, mut fsync) = (Latencies::default(), Latencies::default());
        for latency in &chosen {
            times.add(&latency.times);
            fsync.add(&latency.fsync.times);
        }
        let idle = Spread::of(chosen.iter().filter_map(|latency| latency.idle_share));
        let cpu_micros = Spread::of(chosen.iter().map(|latency| latency.relay.micros()));
        let (rate, idle_share) = (chosen.first()?.rate, idle.map(|idle| idle.least));
        Some(LatencyFigures { rate, times, cpu_micros, fsync, idle_share, void })
    }
}

fn spreads_by_name(costs: &[&Cost]) -> Vec<(String, Spread)> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in costs.iter().flat_map(|cost| &cost.threads) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let of = |cost: &Cost, name| cost.threads.iter().find(|(found, _)| found == name).map_or(0.0, |(_, cpu)| *cpu);
    let spreads = names.into_iter().map(|name| (name, Spread::of(costs.iter().map(|cost| of(cost, name)))));
    let mut spreads: Vec<_> = spreads.filter_map(|(name, spread)| Some((name.to_owned(), spread?))).collect();
    spreads.sort_by(|a, b| b.1.median.total_cmp(&a.1.median));
    spreads
}

/// A moment in microseconds since 1970: `2026-11-22 17:05 UTC`.
pub(super) fn date(micros: u64) -> String {
    let at = i64::try_from(micros).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        path::{Path, PathBuf},
        time::Duration,
    };

    use super::*;
    use crate::{
        bench::Memory,
        traffic::{
            folder::{Counts, FileSum},
            profile::Profile,
        },
    };

    fn turn(cpu: f64, idle_share: f64, latency: u64) -> Turn {
        let bare = |verify_micros| Bare {
            verify_micros,
            k256_micros: 38.0,
            p256_micros: 50.0,
            p256_share: 0.3,
            sha256_micros: 3.0,
        };
        let cost = Cost {
            user_micros: cpu * 0.75,
            system_micros: cpu * 0.25,
            threads: vec![("judge".to_owned(), cpu)],
            written_bytes: 4_000.0,
        };
        let mut times = Latencies::default();
        times.record(latency);
        Turn {
            load: Load {
                events: 1_000,
                bytes: 3_500_000,
                wall: Duration::from_millis(100),
                times: times.clone(),
                relay: cost.clone(),
                generator: cost,
                rss_bytes: 1 << 20,
                rss_bytes_max: 2 << 20,
                bare_before: bare(39.0),
                bare_after: bare(41.0),
            },
            memory: Memory::default(),
            latency: Some(Latency {
                rate: 500.0,
                times: times.clone(),
                relay: Cost::default(),
                idle_share: Some(idle_share),
                behind_max: Duration::from_millis(1),
                fsync: Fsync { times },
            }),
        }
    }

    fn manifest() -> Manifest {
        let profile = Profile::find(Path::new("standard")).unwrap();
        let measured = Counts {
            events: 60_000,
            commits: 60_000,
            commits_p256: 18_000,
            frame_bytes_mean: 3_500.0,
            ..Counts::default()
        };
        let accounts = FileSum { file_bytes: 0, crc32c: 0 };
        Manifest { version: 1, accounts, warm_up: Counts::default(), measured, profile }
    }

    pub(in crate::bench) fn report() -> Report {
        let subject = |name: &str, workers| Subject {
            name: name.to_owned(),
            kind: Kind::Mainstem,
            program: PathBuf::from("mainstem"),
            args: Vec::new(),
            workers,
        };
        Report {
            at_micros: 1_790_000_000_000_000,
            machine: Machine { processor: "A".to_owned(), cores: 2, memory_bytes: 1 << 30, kernel: "6".to_owned() },
            traffic: manifest(),
            subjects: vec![
                Measured {
                    subject: subject("two", Some(2)),
                    turns: vec![turn(80.0, 0.6, 2_000), turn(88.0, 0.2, 90_000), turn(120.0, 0.5, 3_000)],
                },
                Measured { subject: subject("one", Some(1)), turns: vec![turn(80.0, 0.1, 70_000)] },
            ],
            fsync: Fsync { times: Latencies::default() },
            append: Append { events_per_second: 20_000.0, cpu_micros: 4.0 },
            loopback: Loopback { bytes_per_second: 2e9, cpu_nanos_per_kib: 300.0 },
        }
    }

    #[test]
    fn ratios_are_taken_against_the_mean_of_before_and_after() {
        let report = report();
        let ratio = report.subjects[0].spread(Load::ratio).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (2.0, 2.2, 3.0));
        let [before, after, mean] = report.bare().map(Option::unwrap);
        assert_eq!((before.median, after.median, mean.median), (39.0, 41.0, 40.0));
        assert!((report.two_workers_ratio().unwrap() - 1.1).abs() < 1e-9);
        assert_eq!(report.subjects[0].threads()[0].1.median, 88.0);
    }

    #[test]
    fn a_latency_of_a_busy_machine_does_not_count() {
        let report = report();
        let counts = report.subjects[0].latencies().unwrap();
        assert_eq!(
            (counts.times.count(), counts.times.max(), counts.idle_share),
            (2, Some(Duration::from_micros(3_000)), Some(0.5))
        );
        assert_eq!(counts.void, None);
        let void = report.subjects[1].latencies().unwrap();
        assert_eq!((void.times.count(), void.times.max()), (1, Some(Duration::from_micros(70_000))));
        assert!(void.void.unwrap().contains("10 % idle"));
    }
}
