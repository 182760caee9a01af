//! All that is known of one host: for the operator, and for those who run it and want to know why they are refused.

use serde::Serialize;

use crate::app::App;

/// One host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Its name.
    pub hostname: String,
    /// `active`, `idle`, `offline`, `throttled`, `banned`.
    pub status: &'static str,
    /// How often its seq has begun anew.
    pub epoch: u32,
    /// How far it is read, durably.
    pub seq: Option<u64>,
    /// Accounts of which it is the host.
    pub account_count: u64,
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
    /// What was refused of it since the process began, by reason.
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
    /// How often.
    pub count: u64,
    /// The last one.
    pub example: String,
}

impl HostView {
    /// Completes what the crawler knows.
    pub async fn gather(app: &App, host: crawler::HostView) -> Result<HostView, storage::error::Error> {
        let refused = app.refusals.of_host(&host.name, app.clock.now_micros()).into_iter();
        Ok(HostView {
            account_count: app.stores.repos.count_by_host(&host.name).await?,
            hostname: host.name.to_string(),
            status: host.status.as_str(),
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
            refused: refused
                .map(|refused| RefusedView {
                    reason: refused.reason.as_str(),
                    count: refused.total,
                    example: format!("{}; expected {}", refused.example.came, refused.example.expected),
                })
                .collect(),
        })
    }
}
