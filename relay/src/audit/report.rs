//! What an audit found, for programs. Pure. [`say`](super::say) makes text of it.

use std::{collections::BTreeMap, time::Duration};

use atproto::event::Kind;
use loadtest::traffic::latency::Latencies;
use serde::Serialize;

use super::{
    ledger::{Counts, Difference, Example, Findings, Lacks, NotJudged, Side, Stream},
    presence::Break,
};

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// Why reading ended.
    pub ended: End,
    /// The time that was judged: of what came in it on one stream it is known whether it came on the other.
    pub judged: Option<Judged>,
    /// Our stream.
    pub ours: StreamReport,
    /// The other one.
    pub theirs: StreamReport,
    /// Events that came on both.
    pub both: Counts,
    /// What ours lacks, by host.
    pub ours_lacks: LackReport,
    /// What theirs lacks, by host.
    pub theirs_lacks: LackReport,
    /// What came on both and differs.
    pub differing: DifferingReport,
    /// How much later than on theirs events came on ours.
    pub ours_later: DelayReport,
    /// How much later than on ours events came on theirs.
    pub theirs_later: DelayReport,
    /// What came on one stream alone and can't be judged.
    pub not_judged: NotJudged,
    /// What limits the findings.
    pub notes: Vec<String>,
}

/// What an audit comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Neither stream lacks anything, and nothing differs.
    Whole,
    /// Something lacks or differs.
    Lacking,
    /// There was too little time to judge anything, or a stream could not be read.
    Unknown,
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum End {
    /// All of the time has passed.
    Time,
    /// Somebody wanted it to.
    Interrupted,
    /// There was no memory for more events that came on one stream alone.
    MemoryFull,
    /// A stream turned us away, and will do so again.
    Refused {
        /// Which one.
        stream: &'static str,
        /// Its answer.
        why: String,
    },
}

/// A span of time, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Its beginning.
    pub from_micros: u64,
    /// Its end.
    pub to_micros: u64,
    /// What is left out at both ends, and at breaks.
    pub settle_ms: u64,
}

/// What one stream brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Where it is.
    pub url: String,
    /// Its events.
    pub events: Counts,
    /// Bytes of its messages.
    pub bytes: u64,
    /// The first seq.
    pub first_seq: Option<u64>,
    /// The last seq.
    pub last_seq: Option<u64>,
    /// Events that it sent more than once.
    pub repeats: u64,
    /// Of them, those that said something else the second time.
    pub contradictions: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// What was wrong with the first of them.
    pub unreadable_first: Option<String>,
    /// Times without a connection.
    pub gaps: Vec<Gap>,
}

/// A time without a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When it began, in microseconds since the Unix epoch.
    pub from_micros: u64,
    /// When it ended, if it did.
    pub until_micros: Option<u64>,
    /// Whether what came meanwhile was sent later.
    pub filled: bool,
    /// Why the connection ended.
    pub why: String,
}

/// What a stream lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LackReport {
    /// How much.
    pub events: Counts,
    /// Of how many accounts.
    pub accounts: u64,
    /// By the accounts' hosts, who lacks most first.
    pub hosts: Vec<HostReport>,
}

/// What a stream lacks of a host's accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// The host, or `unknown`.
    pub host: String,
    /// How much.
    pub events: Counts,
    /// Of how many accounts.
    pub accounts: u64,
    /// One of the events.
    pub example: EventReport,
}

/// An event, by what it can be found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventReport {
    /// `#commit`, …
    pub kind: &'static str,
    /// Whose it is.
    pub did: String,
    /// The rev of a commit or sync, the time of others.
    pub version: String,
    /// Its seq on the stream that has it, or on ours.
    pub seq: u64,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferingReport {
    /// How much.
    pub events: Counts,
    /// The first of it.
    pub first: Vec<DifferenceReport>,
}

/// An event that says one thing on one stream and another on the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferenceReport {
    /// The event, with our seq.
    #[serde(flatten)]
    pub event: EventReport,
    /// Their seq.
    pub their_seq: u64,
    /// What differs.
    pub parts: Vec<&'static str>,
}

/// How much later events came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DelayReport {
    /// How many came later.
    pub events: u64,
    /// Half of them by no more than this.
    pub p50_ms: Option<f64>,
    /// 99 of 100 by no more than this.
    pub p99_ms: Option<f64>,
    /// The most.
    pub max_ms: Option<f64>,
}

/// Accounts whose host is not known.
pub const UNKNOWN: &str = "unknown";

/// What a report is made of, beside the findings.
pub struct Facts<'a> {
    /// Where our stream is.
    pub ours: &'a str,
    /// Where the other one is.
    pub theirs: &'a str,
    /// Why reading ended.
    pub ended: End,
    /// When it began, in microseconds since the Unix epoch.
    pub began_micros: u64,
    /// The settling time.
    pub settle: Duration,
    /// Accounts that lack something and were not asked for.
    pub not_asked: u64,
}

impl Report {
    /// From what was found, with each account's host where `host_of` knows it.
    pub fn new(findings: &Findings, facts: Facts<'_>, host_of: impl Fn(&str) -> Option<String>) -> Report {
        let micros = |at: Duration| facts.began_micros + u64::try_from(at.as_micros()).unwrap_or(u64::MAX / 2);
        let judged = findings.judged().map(|(from, to)| Judged {
            from_micros: micros(from),
            to_micros: micros(to),
            settle_ms: u64::try_from(facts.settle.as_millis()).unwrap_or(u64::MAX),
        });
        let refused = matches!(facts.ended, End::Refused { .. });
        let verdict = match (findings.is_whole(), judged) {
            (false, _) => Verdict::Lacking,
            (true, Some(_)) if !refused => Verdict::Whole,
            (true, _) => Verdict::Unknown,
        };
        Report {
            verdict,
            judged,
            ours: StreamReport::new(facts.ours, &findings.ours, micros),
            theirs: StreamReport::new(facts.theirs, &findings.theirs, micros),
            both: findings.both,
            ours_lacks: LackReport::new(findings.lacks(Side::Ours), &host_of),
            theirs_lacks: LackReport::new(findings.lacks(Side::Theirs), &host_of),
            differing: DifferingReport {
                events: findings.differences.events,
                first: findings.differences.first.iter().map(DifferenceReport::new).collect(),
            },
            ours_later: DelayReport::new(&findings.delays.ours),
            theirs_later: DelayReport::new(&findings.delays.theirs),
            not_judged: findings.not_judged,
            notes: notes(findings, &facts),
            ended: facts.ended,
        }
    }
}

/// What limits the findings.
fn notes(findings: &Findings, facts: &Facts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if findings.judged().is_none() {
        notes.push("there was too little time to judge anything".to_owned());
    }
    if facts.ended == End::MemoryFull {
        notes.push("the memory was full (--memory), so that less was read than was asked for".to_owned());
    }
    if findings.forgotten > 0 {
        notes.push(format!(
            "{} events of both streams were forgotten to save memory (--memory); had one been repeated after that, it \
             would count as missing",
            findings.forgotten
        ));
    }
    let delays = [&findings.delays.ours, &findings.delays.theirs];
    if delays.iter().any(|delays| delays.max().is_some_and(|max| max > facts.settle)) {
        notes.push(
            "some events were later than the settling time: what seems to be missing may have come later still; give \
             it more time (--settle)"
                .to_owned(),
        );
    }
    if facts.not_asked > 0 {
        notes.push(format!("the hosts of {} accounts were not looked up (--lookups)", facts.not_asked));
    }
    notes
}

impl StreamReport {
    fn new(url: &str, stream: &Stream, micros: impl Fn(Duration) -> u64) -> StreamReport {
        let gap = |it: &Break| Gap {
            from_micros: micros(it.from),
            until_micros: it.until.map(&micros),
            filled: it.filled && it.until.is_some(),
            why: it.why.clone(),
        };
        StreamReport {
            url: url.to_owned(),
            events: stream.events,
            bytes: stream.bytes,
            first_seq: stream.seqs.map(|(first, _)| first),
            last_seq: stream.seqs.map(|(_, last)| last),
            repeats: stream.repeats,
            contradictions: stream.contradictions,
            unreadable: stream.unreadable,
            unreadable_first: stream.unreadable_first.clone(),
            gaps: stream.presence.breaks().iter().map(gap).collect(),
        }
    }
}

impl LackReport {
    fn new(lacks: &Lacks, host_of: impl Fn(&str) -> Option<String>) -> LackReport {
        let mut report = LackReport { accounts: lacks.len() as u64, ..LackReport::default() };
        let mut hosts: BTreeMap<String, HostReport> = BTreeMap::new();
        for (did, lack) in lacks {
            report.events.add_all(&lack.events);
            let name = host_of(did).unwrap_or_else(|| UNKNOWN.to_owned());
            let host = hosts.entry(name.clone()).or_insert_with(|| HostReport {
                host: name,
                events: Counts::default(),
                accounts: 0,
                example: EventReport::new(&lack.example),
            });
            host.events.add_all(&lack.events);
            host.accounts += 1;
        }
        report.hosts = hosts.into_values().collect();
        report.hosts.sort_by_key(|host| std::cmp::Reverse(host.events.total()));
        report
    }
}

impl EventReport {
    fn new(event: &Example) -> EventReport {
        EventReport {
            kind: Kind::as_str(event.kind),
            did: event.did.clone(),
            version: event.version.clone(),
            seq: event.seq,
        }
    }
}

impl DifferenceReport {
    fn new(difference: &Difference) -> DifferenceReport {
        DifferenceReport {
            event: EventReport::new(&difference.event),
            their_seq: difference.their_seq,
            parts: difference.parts.clone(),
        }
    }
}

impl DelayReport {
    fn new(latencies: &Latencies) -> DelayReport {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        DelayReport {
            events: latencies.count(),
            p50_ms: latencies.quantile(0.5).map(ms),
            p99_ms: latencies.quantile(0.99).map(ms),
            max_ms: latencies.max().map(ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use atproto::event::{Event, IdentityEvent};
    use serde_json::json;

    use super::super::ledger::Ledger;
    use super::*;

    const SETTLE: Duration = Duration::from_secs(5);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn report(end: Duration, ended: End, came: &[(Side, u64, &str)]) -> Report {
        let mut ledger = Ledger::new(SETTLE, 1 << 20);
        ledger.connected(Side::Ours, s(0));
        ledger.connected(Side::Theirs, s(0));
        for (seq, (side, at, did)) in (1..).zip(came) {
            let event = IdentityEvent { seq, did, time: "2026-01-02T03:04:05Z", handle: None };
            ledger.message(*side, s(*at), &Event::Identity(event).encode()).unwrap();
        }
        let facts = Facts {
            ours: "ws://a",
            theirs: "ws://b",
            ended,
            began_micros: 1_000_000_000,
            settle: SETTLE,
            not_asked: 0,
        };
        let host_of = |did: &str| did.strip_prefix("did:web:").map(|host| host.split(':').next().unwrap().to_owned());
        Report::new(&ledger.close(end), facts, host_of)
    }

    #[test]
    fn a_verdict_needs_time_and_both_streams() {
        let refused = End::Refused { stream: "theirs", why: "no".to_owned() };
        for (end, ended, came, verdict) in [
            (60, End::Time, &[][..], Verdict::Whole),
            (60, End::Time, &[(Side::Ours, 20, "did:web:a.test")], Verdict::Lacking),
            (10, End::Interrupted, &[], Verdict::Unknown),
            (60, End::MemoryFull, &[], Verdict::Whole),
            (60, refused.clone(), &[], Verdict::Unknown),
            (60, refused, &[(Side::Ours, 20, "did:web:a.test")], Verdict::Lacking),
        ] {
            assert_eq!(report(s(end), ended.clone(), came).verdict, verdict, "{end} {ended:?} {came:?}");
        }
    }

    #[test]
    fn hosts_are_told_by_how_much_lacks_of_them() {
        let came = [
            (Side::Ours, 20, "did:web:a.test"),
            (Side::Ours, 20, "did:web:b.test"),
            (Side::Ours, 20, "did:web:b.test:2"),
            (Side::Ours, 20, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
            (Side::Theirs, 20, "did:web:a.test:9"),
        ];
        let report = report(s(60), End::Time, &came);
        let hosts: Vec<_> = report.theirs_lacks.hosts.iter().map(|host| (&*host.host, host.accounts)).collect();
        assert_eq!(hosts, [("b.test", 2), ("a.test", 1), (UNKNOWN, 1)]);
        assert_eq!((report.theirs_lacks.events.identity, report.theirs_lacks.accounts), (4, 4));
        assert_eq!(report.ours_lacks.events.total(), 1);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"], "lacking");
        assert_eq!(json["ended"], json!({ "by": "time" }));
        assert_eq!(json["judged"], json!({ "fromMicros": 1_005_000_000, "toMicros": 1_055_000_000, "settleMs": 5000 }));
        assert_eq!(
            json["oursLacks"]["hosts"][0]["example"],
            json!({ "kind": "#identity", "did": "did:web:a.test:9", "version": "2026-01-02T03:04:05Z", "seq": 5 })
        );
    }

    #[test]
    fn what_limits_the_findings_is_said() {
        let did = "did:web:a.test";
        let late = report(s(60), End::Time, &[(Side::Ours, 20, did), (Side::Theirs, 26, did)]);
        assert!(late.notes[0].contains("--settle"), "{:?}", late.notes);
        assert_eq!(late.theirs_later.max_ms, Some(6_000.0));
        let full = report(s(60), End::MemoryFull, &[]);
        assert!(full.notes[0].contains("--memory"), "{:?}", full.notes);
        assert_eq!(report(s(60), End::Time, &[]).notes, [""; 0]);
        assert_eq!(report(s(5), End::Time, &[]).notes.len(), 1);
    }
}
