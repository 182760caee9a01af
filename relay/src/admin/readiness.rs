//! Whether the relay does its work, and if not, why. Pure.

use serde::Serialize;
use storage::log::LogHealth;

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
}

/// One reason not to be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `starting`, `draining`, `log_full`, `lanes_stalled`.
    pub name: &'static str,
    /// For people.
    pub message: String,
}

/// All reasons; none where it is ready.
pub fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |name, message: String| problems.push(Problem { name, message });
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
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_has_its_problem() {
        let ready = Facts { running: true, draining: false, log: LogHealth::Ready, lanes_stalled: 0 };
        let names = |facts: &Facts| problems(facts).iter().map(|problem| problem.name).collect::<Vec<_>>();
        assert!(names(&ready).is_empty());
        assert_eq!(names(&Facts { running: false, ..ready.clone() }), ["starting"]);
        assert_eq!(names(&Facts { draining: true, running: false, ..ready.clone() }), ["draining"]);
        assert_eq!(
            names(&Facts { log: LogHealth::Full { free_bytes: 1, needed_bytes: 2 }, lanes_stalled: 3, ..ready }),
            ["log_full", "lanes_stalled"]
        );
    }
}
