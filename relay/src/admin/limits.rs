//! What one host may send: the limits in force, the rule they come from, and the exception made for it.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::limits::{Change, HostLimits, Limit, Source};

use super::{
    error::Error,
    input::{body, known_host},
};
use crate::app::App;

/// What is written in an exception.
const EXAMPLE: &str = "{\"accountsMax\": 100000, \"eventsPerDay\": \"unlimited\"}";

/// The limits of one host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitsView {
    hostname: String,
    /// What holds; null is without limit.
    in_force: InForce,
    /// The rule's pattern; null where none fits.
    rule: Option<String>,
    /// `rule`, `local` or `default`.
    source: &'static str,
    /// What was said for this host alone.
    exception: Exception,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InForce {
    events_per_second: Option<u64>,
    events_per_hour: Option<u64>,
    events_per_day: Option<u64>,
    bytes_per_second: Option<u64>,
    accounts_max: Option<u64>,
}

/// Some limits: a whole number or `unlimited`; what is absent is the rule's.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Exception {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events_per_second: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events_per_hour: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events_per_day: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accounts_max: Option<Value>,
}

/// `GET /admin/hosts/{hostname}/limits`
pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<LimitsView>, Error> {
    let host = known_host(&app, &name)?;
    Ok(Json(LimitsView::new(&app, &host.name)))
}

/// `PUT /admin/hosts/{hostname}/limits`: the host's exception, in the place of the one before.
pub(super) async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<LimitsView>, Error> {
    let host = known_host(&app, &name)?;
    let exception: Exception = body(&bytes, EXAMPLE)?;
    let change = exception.change()?;
    if change.is_empty() {
        return Err(Error::invalid(format!(
            "name at least one limit, like {EXAMPLE}; DELETE takes the exception back"
        )));
    }
    app.hosts.set_limits(&host.name, change).await?;
    Ok(Json(LimitsView::new(&app, &host.name)))
}

/// `DELETE /admin/hosts/{hostname}/limits`: the rules' limits hold again.
pub(super) async fn clear(State(app): State<App>, Path(name): Path<String>) -> Result<Json<LimitsView>, Error> {
    let host = known_host(&app, &name)?;
    app.hosts.set_limits(&host.name, Change::default()).await?;
    Ok(Json(LimitsView::new(&app, &host.name)))
}

impl LimitsView {
    fn new(app: &App, name: &atproto::syntax::HostName) -> LimitsView {
        let (limits, source, exception) = app.hosts.limits().explain(name);
        let (source, rule) = match source {
            Source::Rule(pattern) => ("rule", Some(pattern)),
            Source::Local => ("local", None),
            Source::Default => ("default", None),
        };
        LimitsView {
            hostname: name.to_string(),
            in_force: InForce::new(limits),
            rule,
            source,
            exception: Exception::new(exception.unwrap_or_default()),
        }
    }
}

impl InForce {
    fn new(limits: HostLimits) -> InForce {
        InForce {
            events_per_second: limits.events_per_second.map(u64::from),
            events_per_hour: limits.events_per_hour.map(u64::from),
            events_per_day: limits.events_per_day.map(u64::from),
            bytes_per_second: limits.bytes_per_second.map(u64::from),
            accounts_max: limits.accounts_max,
        }
    }
}

impl Exception {
    fn new(change: Change) -> Exception {
        let value = |limit: Option<Limit>| {
            limit.map(|limit| match limit {
                Limit::Unlimited => Value::from("unlimited"),
                Limit::AtMost(n) => Value::from(n),
            })
        };
        Exception {
            events_per_second: value(change.events_per_second),
            events_per_hour: value(change.events_per_hour),
            events_per_day: value(change.events_per_day),
            bytes_per_second: value(change.bytes_per_second),
            accounts_max: value(change.accounts_max),
        }
    }

    fn change(&self) -> Result<Change, Error> {
        Ok(Change {
            events_per_second: limit("eventsPerSecond", &self.events_per_second, 1)?,
            events_per_hour: limit("eventsPerHour", &self.events_per_hour, 1)?,
            events_per_day: limit("eventsPerDay", &self.events_per_day, 1)?,
            bytes_per_second: limit("bytesPerSecond", &self.bytes_per_second, 1)?,
            accounts_max: limit("accountsMax", &self.accounts_max, 0)?,
        })
    }
}

/// One limit as it is written.
fn limit(name: &str, value: &Option<Value>, min: u64) -> Result<Option<Limit>, Error> {
    let Some(value) = value else { return Ok(None) };
    match (value.as_u64().filter(|n| *n >= min), value.as_str()) {
        (Some(n), _) => Ok(Some(Limit::AtMost(n))),
        (None, Some("unlimited")) => Ok(Some(Limit::Unlimited)),
        (None, _) => Err(Error::invalid(format!(
            "{name} is a whole number from {min} up or \"unlimited\"; to stop a host, ban it"
        ))),
    }
}
