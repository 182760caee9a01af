//! All that is known of one host: for the operator, and for those who run it and want to know why they are refused.

use serde::Serialize;
use storage::{
    hosts::HostStatus,
    refusal::{Example, Refused},
};

use crate::{
    advice::{Advice, advice},
    app::App,
    span::Span,
};

/// One host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Its name.
    pub hostname: String,
    /// `active`, `idle`, `offline`, `throttled`, `banned`.
    pub status: &'static str,
    /// The same in words: why, and what happens next.
    pub state: String,
    /// How often its seq has begun anew.
    pub epoch: u32,
    /// How far it is read, durably.
    pub seq: Option<u64>,
    /// Accounts of which it is the host.
    pub account_count: u64,
    /// Those of them that are over its cap.
    pub accounts_throttled: u64,
    /// Events taken from it since the process began.
    pub events: u64,
    /// Bytes of its messages since the process began.
    pub bytes: u64,
    /// Events a second, over the last seconds.
    pub events_per_second: f64,
    /// Events that are being judged.
    pub in_flight: usize,
    /// How long its stream has been open; `None` where it is not.
    pub connected_for_s: Option<u64>,
    /// When it is tried again.
    pub next_try_in_s: Option<u64>,
    /// When its last event came, microseconds since the Unix epoch.
    pub last_event_at_micros: Option<u64>,
    /// How the last connection, or try to make one, ended.
    pub last_end: Option<EndView>,
    /// Now, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// How long this relay has been running, and counting refusals.
    pub uptime_s: u64,
    /// What was refused of it, by reason, in the order of the protocol's checks.
    pub refused: Vec<RefusedView>,
}

/// How a connection ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndView {
    /// A word.
    pub cause: &'static str,
    /// For people.
    pub detail: String,
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
}

/// What was refused for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedView {
    /// Its word.
    pub reason: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the host's author can do about it.
    pub remedy: &'static str,
    /// How often in the last hour, to within five minutes.
    pub last_hour: u64,
    /// How often in the last 24 hours, to within one.
    pub last_day: u64,
    /// How often since the relay was started.
    pub total: u64,
    /// The last one.
    pub example: ExampleView,
}

/// One refused input.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExampleView {
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
    /// `#commit`, …; `None` where it could not be read.
    pub kind: Option<&'static str>,
    /// The host's seq of it.
    pub seq: Option<u64>,
    /// Whose it was.
    pub did: Option<String>,
    /// The rev that it gave itself.
    pub rev: Option<String>,
    /// The record path in question.
    pub path: Option<String>,
    /// What was found.
    pub came: String,
    /// What would have passed.
    pub expected: String,
}

impl HostView {
    /// Completes what the crawler knows.
    pub async fn gather(app: &App, host: crawler::HostView) -> Result<HostView, storage::error::Error> {
        let now_micros = app.clock.now_micros();
        let refused = app.refusals.of_host(&host.name, now_micros);
        Ok(HostView {
            account_count: app.stores.repos.count_by_host(&host.name).await?,
            accounts_throttled: app.stores.repos.count_throttled_by_host(&host.name).await?,
            hostname: host.name.to_string(),
            status: host.status.as_str(),
            state: state(&host, now_micros),
            epoch: host.cursor.epoch,
            seq: host.cursor.seq,
            events: host.events,
            bytes: host.bytes,
            events_per_second: host.events_per_second,
            in_flight: host.in_flight,
            connected_for_s: host.connected_for.map(|time| time.as_secs()),
            next_try_in_s: host.next_try_in.map(|time| time.as_secs()),
            last_event_at_micros: host.last_event_at_micros,
            last_end: host.last_end.map(|last| EndView {
                cause: last.end.as_str(),
                detail: last.detail,
                at_micros: last.at_micros,
            }),
            now_micros,
            uptime_s: app.started.elapsed().as_secs(),
            refused: refused.into_iter().map(RefusedView::from).collect(),
        })
    }
}

impl From<Refused> for RefusedView {
    fn from(refused: Refused) -> RefusedView {
        let Advice { meaning, remedy } = advice(refused.reason);
        RefusedView {
            reason: refused.reason.as_str(),
            meaning,
            remedy,
            last_hour: refused.last_hour,
            last_day: refused.last_day,
            total: refused.total,
            example: ExampleView::from(refused.example),
        }
    }
}

impl From<Example> for ExampleView {
    fn from(example: Example) -> ExampleView {
        ExampleView {
            at_micros: example.at_micros,
            kind: example.kind.map(|kind| kind.as_str()),
            seq: example.seq,
            did: example.did.map(String::from),
            rev: example.rev.map(String::from),
            path: example.path.map(String::from),
            came: example.came.into(),
            expected: example.expected.into(),
        }
    }
}

/// How a host is, why, and what happens next.
fn state(host: &crawler::HostView, now_micros: u64) -> String {
    let next = || match host.next_try_in {
        Some(time) if time.as_secs() == 0 => "It is being tried now.".to_owned(),
        Some(time) => format!("It is tried again in {}, and on for ever.", Span(time.as_secs())),
        None => "It is being tried now.".to_owned(),
    };
    match (host.status, host.connected_for) {
        (HostStatus::Banned, _) => "Banned by this relay's operator: it is not read.".to_owned(),
        (HostStatus::Throttled, Some(time)) => format!(
            "Connected for {}, and throttled: it sends more than its limits allow, so it is read more slowly. Nothing is \
             lost; what waits is read later.",
            Span(time.as_secs())
        ),
        (_, Some(time)) => {
            let quiet = match host.last_event_at_micros {
                None => "no event has come yet, which is fine".to_owned(),
                Some(at) => format!("the last event came {} ago", Span(now_micros.saturating_sub(at) / 1_000_000)),
            };
            format!("Connected for {}; {quiet}.", Span(time.as_secs()))
        }
        (HostStatus::Offline, None) => format!("Offline: it can't be read. {}", next()),
        (HostStatus::Active | HostStatus::Idle | HostStatus::Throttled, None) => format!("Not connected. {}", next()),
    }
}
