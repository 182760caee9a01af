//! All that is known of one host: for the operator, and for those who run it and want to know why they are refused.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use crawler::{BannedBy, Rate, Throttled};
use runtime::span::Span;
use serde::{Deserialize, Serialize};
use storage::{
    hosts::{AddedBy, HostStatus, Reset, ResetCause},
    limits::{Change, Limit, Source},
    refusal::{Example, Refused},
};

use crate::{
    advice::{Advice, advice},
    app::App,
};

/// One host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Its name.
    pub hostname: String,
    /// `active`, `idle`, `offline`, `throttled`, `banned`.
    pub status: &'static str,
    /// `connecting`, `active`, `idle`, `throttled`, `offline`, `banned`.
    pub phase: &'static str,
    /// The same in words: why, and what happens next.
    pub state: String,
    /// Whether this process reads it. Where another does, what only the connection knows (times, counts, rates, ends) is
    /// not known here, and left at nothing.
    pub read_here: bool,
    /// The domain that it is banned with, where that is why it is banned.
    pub banned_with_domain: Option<String>,
    /// When it was first known, microseconds since the Unix epoch.
    pub added_at_micros: u64,
    /// `operator` or `request`.
    pub added_by: AddedBy,
    /// What it may do.
    pub limits: LimitsView,
    /// That it is over one of these now.
    pub throttled: Option<ThrottledView>,
    /// The last time that it was not read on from its cursor.
    pub last_reset: Option<ResetView>,
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
    /// Tries to connect since the process began.
    pub tries: u64,
    /// Connections made since the process began.
    pub connections: u64,
    /// How they ended since the process began, by cause.
    pub ends: BTreeMap<&'static str, u64>,
    /// Failures in a row, since it last worked.
    pub failures: u32,
    /// Now, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// How long this relay has been running, and counting refusals.
    pub uptime_s: u64,
    /// What was refused of it, by reason, in the order of the protocol's checks.
    pub refused: Vec<RefusedView>,
}

/// What a host may do; `null` is without limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsView {
    /// Messages a second, over ten seconds.
    pub events_per_second: Option<u64>,
    /// Messages an hour.
    pub events_per_hour: Option<u64>,
    /// Messages a day.
    pub events_per_day: Option<u64>,
    /// Bytes of messages a second, over ten seconds.
    pub bytes_per_second: Option<u64>,
    /// Accounts that are relayed at once.
    pub accounts_max: Option<u64>,
    /// The pattern of the rule that says so; `None` for the default.
    pub rule: Option<String>,
    /// The operator's exception for this host, over the rule.
    pub exception: Option<ExceptionView>,
}

/// Limits of one host that win over the rule's: each a whole number or `unlimited`; what is absent is the rule's.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptionView {
    /// Messages a second, over ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<Limit>,
    /// Messages an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_hour: Option<Limit>,
    /// Messages a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_day: Option<Limit>,
    /// Bytes of messages a second, over ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Limit>,
    /// Accounts that are relayed at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts_max: Option<Limit>,
}

impl From<Change> for ExceptionView {
    fn from(change: Change) -> ExceptionView {
        let Change { events_per_second, events_per_hour, events_per_day, bytes_per_second, accounts_max } = change;
        ExceptionView { events_per_second, events_per_hour, events_per_day, bytes_per_second, accounts_max }
    }
}

impl From<ExceptionView> for Change {
    fn from(view: ExceptionView) -> Change {
        let ExceptionView { events_per_second, events_per_hour, events_per_day, bytes_per_second, accounts_max } = view;
        Change { events_per_second, events_per_hour, events_per_day, bytes_per_second, accounts_max }
    }
}

/// A host is read more slowly than it sends.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThrottledView {
    /// The limit it is over.
    pub by: &'static str,
    /// What that limit is.
    pub limit: u64,
    /// When its next message is taken, microseconds since the Unix epoch.
    pub until_micros: u64,
    /// When its whole allowance is there again, if it sends nothing meanwhile, microseconds since the Unix epoch.
    pub restored_at_micros: u64,
}

/// A host was not read on from its cursor.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetView {
    /// `future_cursor`, `seq_went_back` or `rewound`.
    pub cause: &'static str,
    /// The same for people.
    pub meaning: &'static str,
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
    /// Its epoch before.
    pub from_epoch: u32,
    /// How far it had been read.
    pub from_seq: Option<u64>,
    /// Its epoch since.
    pub to_epoch: u32,
    /// Where reading went on; `None` for live from then on, or with what the host sent.
    pub to_seq: Option<u64>,
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
            phase: host.phase.as_str(),
            state: state(&host, now_micros),
            read_here: host.read_here,
            banned_with_domain: match &host.banned_by {
                Some(BannedBy::Domain(domain)) => Some(domain.to_string()),
                Some(BannedBy::Host) | None => None,
            },
            added_at_micros: host.added_at_micros,
            added_by: host.added_by,
            limits: LimitsView::of(&host),
            throttled: host.throttled.map(|throttled| ThrottledView {
                by: throttled.by.as_str(),
                limit: throttled.limit,
                until_micros: now_micros.saturating_add(micros(throttled.next_in)),
                restored_at_micros: now_micros.saturating_add(micros(throttled.restored_in)),
            }),
            last_reset: host.last_reset.map(ResetView::from),
            tries: host.tries,
            connections: host.connections,
            ends: host.ends.iter().map(|(end, count)| (end.as_str(), *count)).collect(),
            failures: host.failures,
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
            uptime_s: app.vitals.started.elapsed().as_secs(),
            refused: refused.into_iter().map(RefusedView::from).collect(),
        })
    }
}

impl LimitsView {
    fn of(host: &crawler::HostView) -> LimitsView {
        let limits = &host.limits;
        LimitsView {
            events_per_second: limits.events_per_second.map(NonZeroU64::get),
            events_per_hour: limits.events_per_hour.map(NonZeroU64::get),
            events_per_day: limits.events_per_day.map(NonZeroU64::get),
            bytes_per_second: limits.bytes_per_second.map(NonZeroU64::get),
            accounts_max: limits.accounts_max,
            rule: match &host.limits_from {
                Source::Rule(pattern) => Some(pattern.clone()),
                Source::Local | Source::Default => None,
            },
            exception: host.limits_exception.map(ExceptionView::from),
        }
    }
}

impl From<Reset> for ResetView {
    fn from(reset: Reset) -> ResetView {
        ResetView {
            cause: reset.cause.as_str(),
            meaning: match reset.cause {
                ResetCause::FutureCursor => "the host counts anew: it answered that our cursor is in the future",
                ResetCause::SeqWentBack => "the host counts anew: its first event was below our cursor",
                ResetCause::Rewound => "this relay's operator had it read again",
            },
            at_micros: reset.at_micros,
            from_epoch: reset.from.epoch,
            from_seq: reset.from.seq,
            to_epoch: reset.to.epoch,
            to_seq: reset.to.seq,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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
        (HostStatus::Banned, _) => match &host.banned_by {
            Some(BannedBy::Domain(domain)) => {
                format!("Banned by this relay's operator with all of {domain}: it is not read.")
            }
            Some(BannedBy::Host) | None => "Banned by this relay's operator: it is not read.".to_owned(),
        },
        (status, _) if !host.read_here => {
            format!("Read by another process of this relay, or given to none yet; last known as {}.", status.as_str())
        }
        (HostStatus::Throttled, Some(time)) => {
            let over = match host.throttled {
                Some(Throttled { by, limit, next_in, restored_in }) => format!(
                    "it sends more than {limit} {}. Its next message is taken in {}; its whole allowance is there again \
                     in {} if it sends nothing meanwhile",
                    in_words(by),
                    Span(next_in.as_secs()),
                    Span(restored_in.as_secs())
                ),
                None => "it has just sent more than its limits allow".to_owned(),
            };
            format!(
                "Connected for {}, and throttled: {over}. It is read more slowly; nothing is lost, what waits is read \
                 later.",
                Span(time.as_secs())
            )
        }
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

fn in_words(rate: Rate) -> &'static str {
    match rate {
        Rate::EventsPerSecond => "events a second",
        Rate::EventsPerHour => "events an hour",
        Rate::EventsPerDay => "events a day",
        Rate::BytesPerSecond => "bytes a second",
    }
}
