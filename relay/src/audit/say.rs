//! A report for people. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use runtime::span::Span;

use super::{
    ledger::Counts,
    report::{DelayReport, End, EventReport, LackReport, Report, StreamReport, Verdict},
};
use crate::console::table::{
    Side::{Left, Right},
    Table, clean, facts, grouped,
};

/// Hosts that are listed; all are in the JSON.
const HOSTS_MAX: usize = 20;

/// Gaps and differences that are listed.
const LINES_MAX: usize = 10;

/// All of it.
pub fn text(report: &Report) -> String {
    let mut text = facts(&[
        ("audit of", report.ours.url.clone()),
        ("beside", report.theirs.url.clone()),
        ("judged", judged(report)),
        ("reading ended", ended(&report.ended)),
    ]);
    text.push('\n');
    text.push_str(&totals(report));
    for (name, stream) in [("ours", &report.ours), ("theirs", &report.theirs)] {
        text.push_str(&troubles(name, stream));
    }
    for (name, lacks) in [("OURS LACKS", &report.ours_lacks), ("THEIRS LACKS", &report.theirs_lacks)] {
        text.push_str(&lacking(name, lacks));
    }
    text.push_str(&differing(report));
    text.push_str(&delays(report));
    for note in &report.notes {
        let _ = writeln!(text, "\nnote: {}", clean(note));
    }
    let _ = writeln!(text, "\n{}", verdict(report));
    text
}

fn judged(report: &Report) -> String {
    match report.judged {
        None => "nothing".to_owned(),
        Some(judged) => format!(
            "what came on one stream from {} to {} ({}), with {} s of settling before and after",
            time(judged.from_micros),
            time(judged.to_micros),
            Span((judged.to_micros - judged.from_micros) / 1_000_000),
            judged.settle_ms as f64 / 1e3
        ),
    }
}

fn ended(end: &End) -> String {
    match end {
        End::Time => "after the time that was given".to_owned(),
        End::Interrupted => "by a signal".to_owned(),
        End::MemoryFull => "because the memory was full".to_owned(),
        End::Refused { stream, why } => format!("because {stream} turned us away: {why}"),
    }
}

fn totals(report: &Report) -> String {
    let mut table = Table::new(&[
        ("", Left),
        ("EVENTS", Right),
        ("#COMMIT", Right),
        ("#SYNC", Right),
        ("#IDENTITY", Right),
        ("#ACCOUNT", Right),
    ]);
    for (name, counts) in [
        ("came on ours", &report.ours.events),
        ("came on theirs", &report.theirs.events),
        ("came on both", &report.both),
        ("ours lacks", &report.ours_lacks.events),
        ("theirs lacks", &report.theirs_lacks.events),
        ("differ", &report.differing.events),
    ] {
        let mut row = vec![name.to_owned()];
        row.extend(cells(counts));
        table.row(row);
    }
    let mut text = table.text();
    let not_judged = report.not_judged;
    let left = [
        (not_judged.begin, "came too early"),
        (not_judged.end, "too late"),
        (not_judged.gap, "while the other stream was away"),
    ];
    let left: Vec<_> = left
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{} {why}", grouped(count)))
        .collect();
    if !left.is_empty() {
        let _ = writeln!(text, "\nalone on one stream and not judged: {}", left.join(", "));
    }
    text
}

fn cells(counts: &Counts) -> [String; 5] {
    [counts.total(), counts.commit, counts.sync, counts.identity, counts.account].map(grouped)
}

/// What went wrong in reading a stream.
fn troubles(name: &str, stream: &StreamReport) -> String {
    let mut text = String::new();
    if stream.repeats > 0 {
        let _ = write!(text, "\n{name}: {} came again", counted(stream.repeats, "event"));
        if stream.contradictions > 0 {
            let _ = write!(text, ", {} of them saying something else", grouped(stream.contradictions));
        }
        text.push('\n');
    }
    if stream.unreadable > 0 {
        let first = clean(stream.unreadable_first.as_deref().unwrap_or_default());
        let _ =
            writeln!(text, "\n{name}: {} could not be read; the first: {first}", counted(stream.unreadable, "message"));
    }
    for gap in stream.gaps.iter().take(LINES_MAX) {
        let until = gap.until_micros.map_or_else(|| "the end".to_owned(), time);
        let filled = match (gap.until_micros, gap.filled) {
            (Some(_), true) => "what came meanwhile was sent later",
            (Some(_), false) => "what came meanwhile was not sent",
            (None, _) => "what came meanwhile is not known",
        };
        let _ =
            writeln!(text, "\n{name}: away from {} to {until}; {filled} ({})", time(gap.from_micros), clean(&gap.why));
    }
    if stream.gaps.len() > LINES_MAX {
        let _ = writeln!(text, "{name}: and away {} more times", stream.gaps.len() - LINES_MAX);
    }
    text
}

fn lacking(name: &'static str, lacks: &LackReport) -> String {
    if lacks.hosts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        (name, Left),
        ("EVENTS", Right),
        ("#COMMIT", Right),
        ("#SYNC", Right),
        ("#IDENTITY", Right),
        ("#ACCOUNT", Right),
        ("ACCOUNTS", Right),
        ("FOR EXAMPLE", Left),
    ]);
    for host in lacks.hosts.iter().take(HOSTS_MAX) {
        let mut row = vec![host.host.clone()];
        row.extend(cells(&host.events));
        row.extend([grouped(host.accounts), event(&host.example)]);
        table.row(row);
    }
    let mut text = format!("\n{}", table.text());
    if lacks.hosts.len() > HOSTS_MAX {
        let _ = writeln!(text, "and {} more hosts (--json has all)", lacks.hosts.len() - HOSTS_MAX);
    }
    text
}

fn event(event: &EventReport) -> String {
    format!("{} {} {} seq {}", event.kind, event.did, event.version, event.seq)
}

fn differing(report: &Report) -> String {
    let mut text = String::new();
    for difference in report.differing.first.iter().take(LINES_MAX) {
        let parts = difference.parts.join(", ");
        let _ = writeln!(
            text,
            "\ndiffers: {}, {} on theirs: {parts}",
            clean(&event(&difference.event)),
            difference.their_seq
        );
    }
    text
}

fn delays(report: &Report) -> String {
    let mut table =
        Table::new(&[("", Left), ("EVENTS", Right), ("P50, MS", Right), ("P99, MS", Right), ("MOST", Right)]);
    for (name, delay) in [("later on ours", report.ours_later), ("later on theirs", report.theirs_later)] {
        let DelayReport { events, p50_ms, p99_ms, max_ms } = delay;
        let ms = |ms: Option<f64>| ms.map_or_else(String::new, |ms| format!("{ms:.1}"));
        table.row(vec![name.to_owned(), grouped(events), ms(p50_ms), ms(p99_ms), ms(max_ms)]);
    }
    format!("\n{}", table.text())
}

fn verdict(report: &Report) -> String {
    match report.verdict {
        Verdict::Whole => "nothing lacks".to_owned(),
        Verdict::Unknown => "nothing can be said".to_owned(),
        Verdict::Lacking => {
            let lacks = |name: &str, lacks: &LackReport| match lacks.events.total() {
                0 => format!("{name} lacks nothing"),
                events => {
                    format!("{name} lacks {} of {}", counted(events, "event"), counted(lacks.accounts, "account"))
                }
            };
            let mut said = format!("{}; {}", lacks("ours", &report.ours_lacks), lacks("theirs", &report.theirs_lacks));
            match report.differing.events.total() {
                0 => {}
                events => {
                    let _ = write!(said, "; {} came on both and differ", grouped(events));
                }
            }
            said
        }
    }
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

fn time(micros: u64) -> String {
    let at = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::report::*, *};

    fn stream(url: &str) -> StreamReport {
        StreamReport {
            url: url.to_owned(),
            events: Counts { commit: 1_234, ..Counts::default() },
            bytes: 0,
            first_seq: Some(1),
            last_seq: Some(2),
            repeats: 0,
            contradictions: 0,
            unreadable: 0,
            unreadable_first: None,
            gaps: Vec::new(),
        }
    }

    fn report() -> Report {
        let delay = DelayReport { events: 7, p50_ms: Some(1.25), p99_ms: Some(3.0), max_ms: Some(9.0) };
        Report {
            verdict: Verdict::Whole,
            ended: End::Time,
            judged: Some(Judged { from_micros: 1_000_000, to_micros: 61_000_000, settle_ms: 2_500 }),
            ours: stream("ws://a"),
            theirs: stream("ws://b"),
            both: Counts { commit: 1_234, ..Counts::default() },
            ours_lacks: LackReport::default(),
            theirs_lacks: LackReport::default(),
            differing: DifferingReport { events: Counts::default(), first: Vec::new() },
            ours_later: delay,
            theirs_later: DelayReport { events: 0, p50_ms: None, p99_ms: None, max_ms: None },
            not_judged: Default::default(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_whole_stream_is_said_in_a_few_lines() {
        assert_eq!(
            text(&report()),
            "\
audit of       ws://a
beside         ws://b
judged         what came on one stream from 1970-01-01 00:00:01Z to 1970-01-01 00:01:01Z (1 min 0 s), with 2.5 s of settling before and after
reading ended  after the time that was given

                EVENTS  #COMMIT  #SYNC  #IDENTITY  #ACCOUNT
came on ours     1,234    1,234      0          0         0
came on theirs   1,234    1,234      0          0         0
came on both     1,234    1,234      0          0         0
ours lacks           0        0      0          0         0
theirs lacks         0        0      0          0         0
differ               0        0      0          0         0

                 EVENTS  P50, MS  P99, MS  MOST
later on ours         7      1.2      3.0   9.0
later on theirs       0

nothing lacks
"
        );
    }

    #[test]
    fn what_is_wrong_is_said_and_tame() {
        let event = EventReport { kind: "#commit", did: "did:plc:x".into(), version: "\u{1b}[2J".into(), seq: 5 };
        let counts = Counts { commit: 2, account: 1, ..Counts::default() };
        let host = HostReport { host: "pds.test".into(), events: counts, accounts: 2, example: event.clone() };
        let gap = Gap { from_micros: 5_000_000, until_micros: None, filled: false, why: "gone\u{7}".into() };
        let report = Report {
            verdict: Verdict::Lacking,
            ended: End::Interrupted,
            theirs: StreamReport { repeats: 3, contradictions: 1, unreadable: 1, gaps: vec![gap], ..stream("ws://b") },
            ours_lacks: LackReport { events: counts, accounts: 2, hosts: vec![host] },
            differing: DifferingReport {
                events: Counts { sync: 1, ..Counts::default() },
                first: vec![DifferenceReport { event, their_seq: 77, parts: vec!["blocks"] }],
            },
            not_judged: super::super::ledger::NotJudged { begin: 4, end: 0, gap: 2 },
            notes: vec!["take care".into()],
            ..report()
        };
        let said = text(&report);
        for expected in [
            "theirs: 3 events came again, 1 of them saying something else\n",
            "theirs: 1 message could not be read",
            "theirs: away from 1970-01-01 00:00:05Z to the end; what came meanwhile is not known (gone\u{fffd})\n",
            "OURS LACKS  EVENTS  #COMMIT  #SYNC  #IDENTITY  #ACCOUNT  ACCOUNTS  FOR EXAMPLE\n",
            "pds.test         3        2      0          0         1         2  #commit did:plc:x \u{fffd}[2J seq 5\n",
            "differs: #commit did:plc:x \u{fffd}[2J seq 5, 77 on theirs: blocks\n",
            "not judged: 4 came too early, 2 while the other stream was away\n",
            "note: take care\n",
            "\nours lacks 3 events of 2 accounts; theirs lacks nothing; 1 came on both and differ\n",
        ] {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'));
    }
}
