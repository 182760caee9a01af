//! How cost and memory grow: by repos, by hosts, by workers.

use std::{fmt, path::PathBuf, time::Duration};

use runtime::clock::Clock;
use serde_json::{Value, json};

use super::{
    Config, Error, Load, Machine, Subject, cache,
    plot::{Axis, Lines, Series, Title},
    report::{date, thousands},
    turn,
};
use crate::traffic::profile::Profile;

/// The size of a growth run.
#[derive(Clone, Debug)]
pub struct GrowthConfig {
    /// The `mainstem` program.
    pub relay: PathBuf,
    /// More arguments of `mainstem run`.
    pub relay_args: Vec<String>,
    /// What is varied.
    pub profile: Profile,
    /// Numbers of repos, each with the profile's commits.
    pub repos: Vec<usize>,
    /// Numbers of hosts that are connected and silent.
    pub hosts: Vec<usize>,
    /// Numbers of workers.
    pub workers: Vec<usize>,
    /// The relays' data goes into new folders here.
    pub folder: PathBuf,
    /// Where traffic is kept.
    pub traffic: PathBuf,
    /// What each phase may take.
    pub limit: Duration,
}

/// How it grew.
#[derive(Clone, Debug)]
pub struct GrowthReport {
    /// When it began, microseconds since 1970.
    pub at_micros: u64,
    /// Where.
    pub machine: Machine,
    /// Records in each repo.
    pub records: usize,
    /// By repos.
    pub repos: Vec<Grown>,
    /// By workers.
    pub workers: Vec<Grown>,
    /// By hosts: how many, and the relay's memory.
    pub hosts: Vec<(usize, u64)>,
}

/// A load at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grown {
    /// The size.
    pub size: usize,
    /// CPU time of the relay an event, microseconds.
    pub micros: f64,
    /// As a multiple of bare verification.
    pub ratio: f64,
    /// Events a second.
    pub events_per_second: f64,
    /// Most resident memory.
    pub rss_bytes_max: u64,
}

/// A host's repos in the runs by hosts: one, so that there is something to connect for.
const REPOS_A_HOST: usize = 1;

/// Measures; tells `progress` what it does.
pub async fn growth(config: GrowthConfig, progress: impl Fn(&str)) -> Result<GrowthReport, Error> {
    let at_micros = Clock::system().now_micros();
    let mut report = GrowthReport {
        at_micros,
        machine: Machine::this(),
        records: config.profile.records,
        repos: Vec::new(),
        workers: Vec::new(),
        hosts: Vec::new(),
    };
    for repos in config.repos.iter().copied() {
        let profile = Profile { repos, ..config.profile.clone() };
        report
            .repos
            .push(load(&config, profile, None, repos, &|said| progress(&format!("{repos} repos: {said}"))).await?);
    }
    for workers in config.workers.iter().copied() {
        let say = |said: &str| progress(&format!("{workers} workers: {said}"));
        report.workers.push(load(&config, config.profile.clone(), Some(workers), workers, &say).await?);
    }
    for hosts in config.hosts.iter().copied() {
        let profile = Profile { hosts, repos: hosts * REPOS_A_HOST, records: 1, commits: 1, ..config.profile.clone() };
        let say = |said: &str| progress(&format!("{hosts} hosts: {said}"));
        let run = plan(&config, profile, None, &say).await?;
        let folder = config.folder.join(format!("hosts-{hosts}"));
        std::fs::create_dir_all(&folder)?;
        report.hosts.push((hosts, turn::warm_bytes(&run, &run.subjects[0], &folder, &say).await?));
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(report)
}

async fn plan(
    config: &GrowthConfig,
    profile: Profile,
    workers: Option<usize>,
    progress: &impl Fn(&str),
) -> Result<Config, Error> {
    // Signing takes a processor to itself for a while, and tells how far it is; nothing else is measured meanwhile.
    let traffic = tokio::task::block_in_place(|| cache::traffic(&profile, &config.traffic, progress))?;
    Ok(Config {
        subjects: vec![Subject::mainstem(&config.relay, &config.relay_args, workers)],
        rounds: 1,
        folder: config.folder.clone(),
        traffic,
        rate: 1.0,
        latency_time: Duration::ZERO,
        lead_in: Duration::ZERO,
        limit: config.limit,
    })
}

async fn load(
    config: &GrowthConfig,
    profile: Profile,
    workers: Option<usize>,
    size: usize,
    progress: &impl Fn(&str),
) -> Result<Grown, Error> {
    let run = plan(config, profile, workers, progress).await?;
    let report = super::run(run, progress).await?;
    let of = |of: fn(&Load) -> f64| {
        report.subjects.first().and_then(|measured| measured.spread(of)).map_or(f64::NAN, |spread| spread.median)
    };
    Ok(Grown {
        size,
        micros: of(|load| load.relay.micros()),
        ratio: of(Load::ratio),
        events_per_second: of(Load::events_per_second),
        rss_bytes_max: of(|load| load.rss_bytes_max as f64) as u64,
    })
}

const MIB: f64 = 1_048_576.0;

impl GrowthReport {
    /// Memory that one more host takes, bytes: from the fewest hosts to the most. None where they are one.
    pub fn bytes_a_host(&self) -> Option<f64> {
        let (least, most) = (self.hosts.iter().min()?, self.hosts.iter().max()?);
        let more = most.0.checked_sub(least.0).filter(|more| *more > 0)?;
        Some((most.1 as f64 - least.1 as f64) / more as f64)
    }

    /// All figures.
    pub fn to_json(&self) -> Value {
        let grown = |sizes: &[Grown]| -> Vec<Value> {
            let each = sizes.iter().map(|grown| {
                json!({
                    "size": grown.size,
                    "cpu_micros_per_event": grown.micros,
                    "ratio": grown.ratio,
                    "events_per_second": grown.events_per_second,
                    "rss_bytes_max": grown.rss_bytes_max,
                })
            });
            each.collect()
        };
        let hosts: Vec<Value> =
            self.hosts.iter().map(|(hosts, bytes)| json!({"size": hosts, "rss_bytes": bytes})).collect();
        json!({
            "at": date(self.at_micros),
            "machine": self.machine.to_json(),
            "records_per_repo": self.records,
            "by_repos": grown(&self.repos),
            "by_workers": grown(&self.workers),
            "by_hosts": hosts,
            "bytes_per_host": self.bytes_a_host(),
        })
    }

    /// File names and SVG documents.
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        let draw = |text: &str, x: &str, y: Axis, name: &str, points: Vec<(f64, f64)>| {
            Lines {
                title: Title { text: text.to_owned(), under: format!("{}, {}", date(self.at_micros), self.machine) },
                x: Axis::log(x),
                y,
                series: vec![Series { name: name.to_owned(), points }],
                dots: true,
                limit: None,
            }
            .draw()
        };
        let by_repos = |of: fn(&Grown) -> f64| self.repos.iter().map(|grown| (grown.size as f64, of(grown))).collect();
        let hosts = self.hosts.iter().map(|(hosts, bytes)| (*hosts as f64, *bytes as f64 / MIB)).collect();
        vec![
            (
                "growth-cpu.svg",
                draw(
                    "CPU time of an event by repos",
                    "repos",
                    Axis::linear("CPU time of an event, µs"),
                    "relay",
                    by_repos(|grown| grown.micros),
                ),
            ),
            (
                "growth-memory.svg",
                draw(
                    "Most memory by busy repos",
                    "repos",
                    Axis::linear("resident, MiB"),
                    "relay",
                    by_repos(|grown| grown.rss_bytes_max as f64 / MIB),
                ),
            ),
            (
                "growth-hosts.svg",
                draw("Memory by connected hosts", "hosts", Axis::linear("resident, MiB"), "relay", hosts),
            ),
        ]
    }
}

impl fmt::Display for GrowthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}; {} records in each repo", date(self.at_micros), self.machine, self.records)?;
        for (what, sizes) in [("repos", &self.repos), ("workers", &self.workers)] {
            if sizes.is_empty() {
                continue;
            }
            writeln!(
                f,
                "\n  {what:>10}{:>14}{:>22}{:>12}{:>20}",
                "µs an event", "× bare verification", "events/s", "MiB resident, most"
            )?;
            for grown in sizes {
                writeln!(
                    f,
                    "  {:>10}{:>14.1}{:>22.2}{:>12.0}{:>20.0}",
                    thousands(grown.size as f64),
                    grown.micros,
                    grown.ratio,
                    grown.events_per_second,
                    grown.rss_bytes_max as f64 / MIB,
                )?;
            }
        }
        if !self.hosts.is_empty() {
            writeln!(f, "\n  {:>10}{:>14}", "hosts", "MiB resident")?;
            for (hosts, bytes) in &self.hosts {
                writeln!(f, "  {:>10}{:>14.0}", thousands(*hosts as f64), *bytes as f64 / MIB)?;
            }
        }
        match self.bytes_a_host() {
            Some(bytes) => writeln!(f, "\n  one more host takes {:.1} KiB", bytes / 1024.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_takes_what_is_between_the_fewest_and_the_most() {
        let report = |hosts| GrowthReport {
            at_micros: 0,
            machine: Machine::this(),
            records: 1,
            repos: vec![Grown {
                size: 2_000,
                micros: 80.0,
                ratio: 2.0,
                events_per_second: 1e4,
                rss_bytes_max: 1 << 27,
            }],
            workers: Vec::new(),
            hosts,
        };
        let grown = report(vec![(20, 50 << 20), (1, 49 << 20), (5_001, 149 << 20)]);
        assert_eq!(grown.bytes_a_host(), Some(f64::from(100 << 20) / 5_000.0));
        assert!(grown.to_string().contains("one more host takes 20.5 KiB"), "{grown}");
        assert_eq!(grown.plots().len(), 3);
        assert_eq!(report(vec![(20, 1)]).bytes_a_host(), None);
        assert_eq!(report(Vec::new()).bytes_a_host(), None);
    }
}
