//! What came of a run: for each kind of fault how often it was done and how long the stream stood still, and all that was
//! wrong. As text, and as JSON for other programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Fault, Options};

/// A fault that was done, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub fault: Fault,
    /// How it is known that it happened.
    pub evidence: Vec<String>,
    /// How long the stream stood still.
    pub standstill: Standstill,
    /// From the fault until all was there that had been sent by its end.
    pub back_after: Duration,
    /// What was wrong; nothing, if all is well.
    pub problems: Vec<String>,
}

/// How long a stream stood still: the longest stretches in which a subscriber got nothing. Of parts, in some of which
/// little happens anyway, only while an event waited ([`super::standstill::Parts::longest`]).
#[derive(Clone, Copy, Debug)]
pub struct Standstill {
    /// Of the whole stream, at any subscriber.
    pub stream: Duration,
    /// The same right before the fault, when all was well.
    pub calm: Duration,
    /// Of what the victim alone worked on: a validator's lanes, a crawler's hosts.
    pub own: Option<Duration>,
    /// Of all other lanes, or hosts.
    pub others: Option<Duration>,
}

/// What was found when all was done.
#[derive(Clone, Debug)]
pub struct End {
    /// Events that each subscriber has received.
    pub events: u64,
    /// Of each fan-out node, SHA-256 over all its seqs and frames.
    pub chains: Vec<(String, String)>,
    /// What was wrong.
    pub problems: Vec<String>,
}

/// All of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What all that is random follows from.
    pub seed: u64,
    /// Events a second.
    pub rate: f64,
    /// Kafka brokers.
    pub brokers: usize,
    /// Lanes.
    pub lanes: u32,
    /// How long it took.
    pub seconds: f64,
    /// What was done.
    pub outcomes: Vec<Outcome>,
    /// What was found in the end, if it came to that.
    pub end: Option<End>,
    /// What is wrong with the run as a whole.
    pub problems: Vec<String>,
}

/// What other parts may show of a fault that is not theirs: with one event in tens of milliseconds each, some stretch of
/// a busy machine's own.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// The figures of one kind of fault.
struct Row {
    fault: Fault,
    times: usize,
    stream: Spread,
    own: Option<Spread>,
    others: Option<Spread>,
    back: Spread,
    kept: Option<bool>,
}

/// The middle and the end of some durations.
#[derive(Clone, Copy)]
struct Spread {
    p50: Duration,
    max: Duration,
}

impl Report {
    pub(super) fn new(options: &Options) -> Report {
        Report {
            seed: options.seed,
            rate: options.rate,
            brokers: options.brokers,
            lanes: options.lanes,
            seconds: 0.0,
            outcomes: Vec::new(),
            end: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Whether everything that was accepted is there, once and in order, and every fault happened.
    pub fn is_clean(&self) -> bool {
        self.all_problems().next().is_none() && self.end.is_some()
    }

    /// Whether all standstills are within what is promised.
    pub fn keeps_targets(&self) -> bool {
        self.rows().iter().all(|row| row.kept != Some(false))
    }

    /// As a table in markdown, with what was wrong.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    /// For other programs; durations in milliseconds.
    pub fn json(&self) -> Value {
        let rows = self.rows();
        let spread = |spread: Spread| json!({"p50": millis(spread.p50), "max": millis(spread.max)});
        let faults = rows.iter().map(|row| {
            json!({
                "fault": row.fault.to_string(),
                "times": row.times,
                "standstill_ms": spread(row.stream),
                "own_parts_ms": row.own.map(spread),
                "other_parts_ms": row.others.map(spread),
                "back_after_ms": spread(row.back),
                "target_ms": row.fault.target().map(|target| millis(target.standstill_max)),
                "kept": row.kept,
            })
        });
        let outcomes = self.outcomes.iter().map(|outcome| {
            json!({
                "fault": outcome.fault.to_string(),
                "evidence": outcome.evidence,
                "standstill_ms": millis(outcome.standstill.stream),
                "calm_ms": millis(outcome.standstill.calm),
                "own_parts_ms": outcome.standstill.own.map(millis),
                "other_parts_ms": outcome.standstill.others.map(millis),
                "back_after_ms": millis(outcome.back_after),
                "problems": outcome.problems,
            })
        });
        json!({
            "seed": self.seed,
            "rate": self.rate,
            "brokers": self.brokers,
            "lanes": self.lanes,
            "seconds": self.seconds,
            "clean": self.is_clean(),
            "keeps_targets": self.keeps_targets(),
            "events": self.end.as_ref().map(|end| end.events),
            "chains": self.end.as_ref().map(|end| &end.chains),
            "faults": faults.collect::<Vec<_>>(),
            "rounds": outcomes.collect::<Vec<_>>(),
            "problems": self.all_problems().collect::<Vec<_>>(),
        })
    }

    fn all_problems(&self) -> impl Iterator<Item = &String> {
        let of_rounds = self.outcomes.iter().flat_map(|outcome| &outcome.problems);
        of_rounds.chain(self.end.iter().flat_map(|end| &end.problems)).chain(&self.problems)
    }

    fn rows(&self) -> Vec<Row> {
        let mut by_fault: BTreeMap<Fault, Vec<&Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            by_fault.entry(outcome.fault).or_default().push(outcome);
        }
        by_fault.into_iter().map(|(fault, outcomes)| Row::of(fault, &outcomes)).collect()
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        let Report { seed, rate, brokers, lanes, seconds, .. } = self;
        writeln!(
            text,
            "Seed {seed}, {rate} events/s, {brokers} broker(s), {lanes} lanes, two processes of each role, {seconds:.0} s.\n"
        )?;
        writeln!(
            text,
            "| fault | times | standstill p50 | max | its own parts p50 | max | others p50 | max | all there after p50 | max | target |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for row in self.rows() {
            let pair = |spread: Option<Spread>| match spread {
                Some(Spread { p50, max }) => format!("{} | {}", seconds_of(p50), seconds_of(max)),
                None => " | ".to_owned(),
            };
            let target = match (row.fault.target(), row.kept) {
                (Some(target), Some(kept)) => {
                    format!("≤ {:?}: {}", target.standstill_max, if kept { "kept" } else { "MISSED" })
                }
                (_, _) => String::new(),
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {target} |",
                row.fault,
                row.times,
                pair(Some(row.stream)),
                pair(row.own),
                pair(row.others),
                pair(Some(row.back)),
            )?;
        }
        let calm: Vec<_> = self.outcomes.iter().map(|outcome| outcome.standstill.calm).collect();
        if let Some(calm) = Spread::of(calm) {
            writeln!(
                text,
                "\nWhen all was well the longest stretch without an event was {} (p50), {} (max).",
                seconds_of(calm.p50),
                seconds_of(calm.max)
            )?;
        }
        match &self.end {
            Some(end) => {
                writeln!(text, "{} events. SHA-256 over all seqs and frames of each fan-out node:", end.events)?;
                for (name, chain) in &end.chains {
                    writeln!(text, "  {name} {chain}")?;
                }
            }
            None => writeln!(text, "It did not come to the end.")?,
        }
        if self.is_clean() {
            writeln!(text, "Nothing was lost, nothing came twice or out of order, every fault happened.")?;
        }
        for problem in self.all_problems() {
            writeln!(text, "WRONG: {problem}")?;
        }
        Ok(())
    }
}

impl Row {
    fn of(fault: Fault, outcomes: &[&Outcome]) -> Row {
        let spread = |of: &dyn Fn(&Outcome) -> Option<Duration>| {
            Spread::of(outcomes.iter().filter_map(|outcome| of(outcome)).collect())
        };
        let zero = Spread { p50: Duration::ZERO, max: Duration::ZERO };
        let stream = spread(&|outcome| Some(outcome.standstill.stream)).unwrap_or(zero);
        let own = spread(&|outcome| outcome.standstill.own);
        let others = spread(&|outcome| outcome.standstill.others);
        let kept = fault.target().map(|target| {
            // A stream that goes on says nothing of the part that does not.
            let measured = own.unwrap_or(stream);
            let undisturbed = !target.others_undisturbed || others.is_none_or(|others| others.max <= UNDISTURBED);
            measured.max <= target.standstill_max && undisturbed
        });
        let back = spread(&|outcome| Some(outcome.back_after)).unwrap_or(zero);
        Row { fault, times: outcomes.len(), stream, own, others, back, kept }
    }
}

impl Spread {
    fn of(mut durations: Vec<Duration>) -> Option<Spread> {
        durations.sort_unstable();
        Some(Spread { p50: durations[durations.len().checked_sub(1)? / 2], max: *durations.last()? })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standstill { stream, calm, own, others } = self.standstill;
        write!(f, "{}: {} still ({} before)", self.fault, seconds_of(stream), seconds_of(calm))?;
        if let Some(own) = own {
            write!(f, ", its own parts {}", seconds_of(own))?;
        }
        if let Some(others) = others {
            write!(f, ", others {}", seconds_of(others))?;
        }
        write!(f, ", all there after {}; {}", seconds_of(self.back_after), self.evidence.join("; "))?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n    WRONG: {problem}"))
    }
}

fn seconds_of(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    fn report(outcomes: Vec<Outcome>) -> Report {
        let end = Some(End { events: 1, chains: Vec::new(), problems: Vec::new() });
        Report { seed: 1, rate: 500.0, brokers: 1, lanes: 16, seconds: 1.0, outcomes, end, problems: Vec::new() }
    }

    fn outcome(fault: Fault, stream: f64, lanes: Option<(f64, f64)>) -> Outcome {
        let standstill = Standstill {
            stream: Duration::from_secs_f64(stream),
            calm: Duration::ZERO,
            own: lanes.map(|(own, _)| Duration::from_secs_f64(own)),
            others: lanes.map(|(_, others)| Duration::from_secs_f64(others)),
        };
        let (evidence, back_after, problems) = (Vec::new(), Duration::ZERO, Vec::new());
        Outcome { fault, evidence, standstill, back_after, problems }
    }

    #[test]
    fn targets_are_kept_by_the_worst_of_a_kind() {
        let kill = Fault::Kill(Role::Validate);
        for (outcomes, kept) in [
            (vec![outcome(Fault::Restart(Role::Crawl), 0.9, None)], true),
            (
                vec![outcome(Fault::Restart(Role::Crawl), 0.9, None), outcome(Fault::Restart(Role::Crawl), 1.1, None)],
                false,
            ),
            (vec![outcome(Fault::KafkaGone, 70.0, None)], true),
            (vec![outcome(kill, 0.1, Some((9.0, 0.3)))], true),
            (vec![outcome(kill, 0.1, Some((10.1, 0.3)))], false),
            (vec![outcome(kill, 0.1, Some((9.0, 5.0)))], false),
        ] {
            let report = report(outcomes);
            assert_eq!(report.keeps_targets(), kept, "{}", report.markdown());
            assert!(report.is_clean());
        }
    }

    #[test]
    fn whatever_is_wrong_is_told_and_a_run_without_an_end_is_not_clean() {
        let mut wrong = report(vec![outcome(Fault::KillBroker, 1.0, None)]);
        wrong.outcomes[0].problems.push("lost: 3".to_owned());
        assert!(!wrong.is_clean());
        assert!(wrong.markdown().contains("WRONG: lost: 3"));
        assert_eq!(wrong.json()["problems"], json!(["lost: 3"]));
        assert!(!Report { end: None, ..report(Vec::new()) }.is_clean());
    }
}
