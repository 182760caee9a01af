//! Whether the relay does its work, and if not, why. Pure.

use std::time::Duration;

use serde::Serialize;
use storage::log::LogHealth;
use storage_cluster::{FirehoseHealth, Health, LanesHealth, sequence::Phase};

/// A server that is silent for so long makes a process unready: a restart of one of several is not worth the word.
const SILENT: Duration = Duration::from_secs(6);

/// Who has not met the firehose's end for so long should not be sent subscribers.
const BEHIND: Duration = Duration::from_secs(10);

/// How long after its start a process may wait for lanes: after that, others have them all.
const LANES_COME_WITHIN: Duration = Duration::from_secs(30);

/// What readiness is judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// All parts have been started.
    pub running: bool,
    /// The shutdown has begun.
    pub draining: bool,
    /// The log's word.
    pub log: LogHealth,
    /// Lanes that hold events and judge none.
    pub lanes_stalled: usize,
    /// How long ago the process began.
    pub uptime: Duration,
    /// How the cluster's servers and this process's part of it stand; `None` without a cluster.
    pub cluster: Option<ClusterFacts>,
    /// What the sequencer does; `None` where there is none.
    pub sequencer: Option<Phase>,
}

/// What is known of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterFacts {
    /// For how long Kafka has been silent.
    pub kafka_silent: Option<Duration>,
    /// For how long the CQL servers have.
    pub cql_silent: Option<Duration>,
    /// Of a process that judges.
    pub lanes: Option<LanesHealth>,
    /// Of a process that serves.
    pub firehose: Option<FirehoseHealth>,
}

impl ClusterFacts {
    /// From what was seen last.
    pub fn of(health: &Health) -> ClusterFacts {
        let Health { kafka_silent_since, cql_silent_since, lanes, firehose } = *health;
        ClusterFacts {
            kafka_silent: kafka_silent_since.map(|since| since.elapsed()),
            cql_silent: cql_silent_since.map(|since| since.elapsed()),
            lanes,
            firehose,
        }
    }
}

/// The names of all reasons.
pub const NAMES: [&str; 9] = [
    "starting",
    "draining",
    "log_full",
    "lanes_stalled",
    "kafka_silent",
    "cql_silent",
    "no_lanes",
    "firehose_behind",
    "sequencer_waits",
];

/// One reason not to be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// One of [`NAMES`]; those from `kafka_silent` on are a cluster's.
    pub name: &'static str,
    /// For people.
    pub message: String,
}

/// All reasons; none where it is ready.
pub fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |name, message: String| {
        debug_assert!(NAMES.contains(&name), "{name} has no series");
        problems.push(Problem { name, message });
    };
    if !facts.running && !facts.draining {
        add("starting", "the relay is starting".into());
    }
    if facts.draining {
        add("draining", "the relay is shutting down".into());
    }
    match facts.log {
        LogHealth::Ready => {}
        LogHealth::Full { free_bytes, needed_bytes } => add(
            "log_full",
            format!("the disk is full: {free_bytes} bytes are free and {needed_bytes} are needed; intake waits"),
        ),
    }
    if facts.lanes_stalled > 0 {
        add("lanes_stalled", format!("{} lanes hold events and judge none", facts.lanes_stalled));
    }
    if let Some(cluster) = &facts.cluster {
        let is_silent = |silent: &Duration| *silent >= SILENT;
        if let Some(silent) = cluster.kafka_silent.filter(is_silent) {
            add("kafka_silent", format!("no broker of kafka has answered for {} s", silent.as_secs()));
        }
        if let Some(silent) = cluster.cql_silent.filter(is_silent) {
            add("cql_silent", format!("no cql server has answered for {} s", silent.as_secs()));
        }
        match cluster.lanes {
            Some(LanesHealth { held: 0, taking, .. }) if taking > 0 => {
                add("no_lanes", format!("{taking} lanes were given and are being taken over"));
            }
            Some(LanesHealth { held: 0, was_given: false, .. }) if facts.uptime < LANES_COME_WITHIN => {
                add("no_lanes", "no lanes were given yet".into());
            }
            Some(_) | None => {}
        }
        if let Some(FirehoseHealth { behind: Some(behind), lag }) = cluster.firehose
            && behind >= BEHIND
        {
            add("firehose_behind", format!("{lag} offsets behind the firehose's end for {} s", behind.as_secs()));
        }
    }
    match facts.sequencer {
        Some(Phase::Unreachable) => add("sequencer_waits", "kafka does not answer the sequencer".into()),
        Some(Phase::TakingOver) => add("sequencer_waits", "the sequencer takes the lead over".into()),
        Some(Phase::BackingOff) => add("sequencer_waits", "the sequencer has failed and tries again".into()),
        Some(Phase::StandingBy | Phase::Leading) | None => {}
    }
    problems
}

/// What a process that is ready should say nevertheless.
pub fn notes(facts: &Facts) -> Vec<&'static str> {
    let mut notes = Vec::new();
    match facts.sequencer {
        Some(Phase::StandingBy) => notes.push("stands by: another sequencer leads"),
        Some(Phase::Leading) => notes.push("leads the order"),
        Some(Phase::Unreachable | Phase::TakingOver | Phase::BackingOff) | None => {}
    }
    if let Some(ClusterFacts { lanes: Some(LanesHealth { held: 0, taking: 0, .. }), kafka_silent: None, .. }) =
        facts.cluster
    {
        notes.push("has no lanes: other validators have them all");
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_has_its_problem() {
        let ready = Facts {
            running: true,
            draining: false,
            log: LogHealth::Ready,
            lanes_stalled: 0,
            uptime: Duration::from_secs(5),
            cluster: None,
            sequencer: None,
        };
        let names = |facts: &Facts| problems(facts).iter().map(|problem| problem.name).collect::<Vec<_>>();
        assert!(names(&ready).is_empty());
        assert_eq!(names(&Facts { running: false, ..ready.clone() }), ["starting"]);
        assert_eq!(names(&Facts { draining: true, running: false, ..ready.clone() }), ["draining"]);
        assert_eq!(
            names(&Facts {
                log: LogHealth::Full { free_bytes: 1, needed_bytes: 2 },
                lanes_stalled: 3,
                ..ready.clone()
            }),
            ["log_full", "lanes_stalled"]
        );

        let of = |cluster: ClusterFacts| Facts { cluster: Some(cluster), ..ready.clone() };
        let lanes = |held, taking, was_given| {
            of(ClusterFacts { lanes: Some(LanesHealth { held, taking, was_given }), ..ClusterFacts::default() })
        };
        assert!(names(&of(ClusterFacts::default())).is_empty());
        let silent = |seconds| Some(Duration::from_secs(seconds));
        assert!(names(&of(ClusterFacts { kafka_silent: silent(5), ..ClusterFacts::default() })).is_empty());
        let both = ClusterFacts { kafka_silent: silent(6), cql_silent: silent(60), ..ClusterFacts::default() };
        assert_eq!(names(&of(both)), ["kafka_silent", "cql_silent"]);
        assert!(names(&lanes(1, 3, true)).is_empty());
        assert_eq!(names(&lanes(0, 3, true)), ["no_lanes"]);
        assert_eq!(names(&lanes(0, 0, false)), ["no_lanes"]);
        assert!(names(&lanes(0, 0, true)).is_empty(), "others have taken them");
        let spare = Facts { uptime: Duration::from_secs(30), ..lanes(0, 0, false) };
        assert!(names(&spare).is_empty() && notes(&spare)[0].contains("no lanes"));
        let behind = |seconds| {
            let firehose = Some(FirehoseHealth { behind: silent(seconds), lag: 9 });
            of(ClusterFacts { firehose, ..ClusterFacts::default() })
        };
        assert!(names(&behind(9)).is_empty());
        assert_eq!(names(&behind(10)), ["firehose_behind"]);

        let sequencer = |phase| Facts { sequencer: Some(phase), ..ready.clone() };
        for phase in [Phase::Unreachable, Phase::TakingOver, Phase::BackingOff] {
            assert_eq!(names(&sequencer(phase)), ["sequencer_waits"], "{phase:?}");
        }
        let stands_by = sequencer(Phase::StandingBy);
        assert!(names(&stands_by).is_empty() && notes(&stands_by)[0].contains("stands by"));
        assert!(names(&sequencer(Phase::Leading)).is_empty());
    }
}
