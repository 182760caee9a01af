//! What one host may send: the limits in force, the rule they come from, and the exception made for it.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use serde::Serialize;
use storage::limits::{Change, HostLimits, Limit, Source};

use super::{
    error::Error,
    input::{body, known_host},
};
use crate::{app::App, host_view::ExceptionView};

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
    exception: ExceptionView,
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
    let exception: ExceptionView = body(&bytes, EXAMPLE)?;
    check(&exception)?;
    let change = Change::from(exception);
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
            exception: exception.unwrap_or_default().into(),
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

/// A rate of nothing is a ban.
fn check(exception: &ExceptionView) -> Result<(), Error> {
    for (name, limit) in [
        ("eventsPerSecond", exception.events_per_second),
        ("eventsPerHour", exception.events_per_hour),
        ("eventsPerDay", exception.events_per_day),
        ("bytesPerSecond", exception.bytes_per_second),
    ] {
        if limit == Some(Limit::AtMost(0)) {
            return Err(Error::invalid(format!(
                "{name} is a whole number from 1 up or \"unlimited\"; to stop a host, ban it"
            )));
        }
    }
    Ok(())
}
