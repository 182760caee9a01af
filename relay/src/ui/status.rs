//! What the status page shows, gathered once a request.

use atproto::syntax::HostName;
use crawler::HostView;
use serde::Serialize;
use storage::{error::Error, log::LogHealth};
use validator::identity::Progress;

use crate::{
    admin::readiness::{self, Problem},
    app::App,
    doors::{Doors, ReasonCount},
    limits_file, version,
};

/// Hosts on one page.
pub(super) const HOSTS_PER_PAGE: usize = 50;

/// The relay at one moment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// The program's version and commit.
    pub version: &'static str,
    /// Whether the network is a simulated one.
    pub simulated: bool,
    /// Seconds since the process began.
    pub uptime_s: u64,
    /// Events a second over the last seconds.
    pub events_per_second: f64,
    /// Subscribers connected.
    pub subscribers: i64,
    /// How many there may be, tokens' seats among them.
    pub subscribers_max: usize,
    /// Who was turned away at the doors, by reason, since the process began; zeros left out.
    pub turned_away: Vec<ReasonCount>,
    /// How subscribers' connections ended, by reason.
    pub subscribers_ended: Vec<ReasonCount>,
    /// What can be read.
    pub window: WindowView,
    /// Bytes that wait to be judged.
    pub intake_bytes: u64,
    /// Accounts known.
    pub repos: u64,
    /// How the resolving of accounts' identities goes.
    pub identities: IdentitiesView,
    /// How it stands with the file of limits, where there is one.
    pub limits_file: Option<limits_file::Status>,
    /// Why it is not ready; empty where it is.
    pub problems: Vec<Problem>,
    /// What was refused, by reason, since the process began; zeros left out.
    pub refused: Vec<ReasonView>,
    /// Hosts known.
    pub hosts_count: usize,
    /// Hosts whose stream is open.
    pub hosts_connected: usize,
    /// A page of them.
    pub hosts: Vec<HostRow>,
    /// Where the next page begins.
    pub hosts_next: Option<String>,
}

/// The window.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WindowView {
    /// The oldest seq kept.
    pub first: u64,
    /// The newest.
    pub last: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The age of the oldest event, in seconds.
    pub age_s: Option<u64>,
    /// Whether the log takes events.
    pub full: bool,
}

/// How the resolving of identities goes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentitiesView {
    /// Identities in memory; more are kept on disk.
    pub known: u64,
    /// Accounts that wait for theirs.
    pub waiting: u64,
    /// Requests to the directory in a second, over the last seconds.
    pub per_second: f64,
    /// What `--plc-rate` allows.
    pub per_second_max: u32,
    /// Times an identity was needed and was known.
    pub hits: u64,
    /// Times it had to be fetched.
    pub misses: u64,
    /// Whether the directory gives no answers.
    pub directory_is_silent: bool,
}

/// A reason and its count.
#[derive(Debug, Serialize)]
pub(super) struct ReasonView {
    /// Its word.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// A host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostRow {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: &'static str,
    /// How far it is read.
    pub seq: Option<u64>,
    /// Events a second over the last seconds.
    pub events_per_second: f64,
    /// When it is tried again.
    pub next_try_in_s: Option<u64>,
    /// Why it is not connected.
    pub last_end: Option<String>,
    /// Accounts of which it is the host.
    pub accounts: u64,
    /// Inputs of it that were refused.
    pub refused: u64,
}

impl From<Progress> for IdentitiesView {
    fn from(progress: Progress) -> IdentitiesView {
        let Progress { known, waiting, in_flight: _, per_second, per_second_max, hits, misses, directory_is_silent } =
            progress;
        IdentitiesView { known, waiting, per_second, per_second_max, hits, misses, directory_is_silent }
    }
}

impl Status {
    /// Gathers it, with the page of hosts that begins after `hosts_after`. `all` are all hosts, by name.
    pub(super) async fn gather(app: &App, all: &[HostView], hosts_after: Option<&HostName>) -> Result<Status, Error> {
        let window = app.hub.window();
        let now_micros = app.clock.now_micros();
        let facts = app.vitals.facts();
        let hosts_connected = all.iter().filter(|host| host.connected_for.is_some()).count();
        let first = all.partition_point(|host| hosts_after.is_some_and(|after| host.name <= *after));
        let page = &all[first..];
        let hosts_next = (page.len() > HOSTS_PER_PAGE).then(|| page[HOSTS_PER_PAGE - 1].name.to_string());
        let mut hosts = Vec::with_capacity(HOSTS_PER_PAGE);
        for host in page.iter().take(HOSTS_PER_PAGE) {
            let last_end = host.last_end.as_ref().filter(|_| host.connected_for.is_none());
            hosts.push(HostRow {
                accounts: app.stores.repos.count_by_host(&host.name).await?,
                refused: app.refusals.count_of_host(&host.name),
                name: host.name.to_string(),
                status: host.status.as_str(),
                seq: host.cursor.seq,
                events_per_second: host.events_per_second,
                next_try_in_s: host.next_try_in.map(|time| time.as_secs()),
                last_end: last_end.map(|last| last.detail.clone()),
            });
        }
        let doors = Doors::look(app);
        let refused = app.refusals.totals().filter(|(_, count)| *count > 0);
        Ok(Status {
            version: version::LONG,
            simulated: app.simulate,
            uptime_s: app.vitals.started.elapsed().as_secs(),
            events_per_second: app.hub.events_per_second(),
            subscribers: app.fanout.subscribers.get(),
            subscribers_max: app.roster.seats_max(),
            turned_away: doors.refused,
            subscribers_ended: doors.ended,
            window: WindowView {
                first: window.first.0,
                last: window.last.0,
                bytes: window.bytes,
                age_s: window.first_at_micros.map(|at| now_micros.saturating_sub(at) / 1_000_000),
                full: facts.log != LogHealth::Ready,
            },
            intake_bytes: app.stores.intake.bytes_held(),
            repos: app.stores.repos.count().await?,
            identities: app.resolver.progress().into(),
            limits_file: app.limits_file.as_ref().map(|status| status.borrow().clone()),
            problems: readiness::problems(&facts),
            refused: refused.map(|(reason, count)| ReasonView { reason: reason.as_str(), count }).collect(),
            hosts_count: all.len(),
            hosts_connected,
            hosts,
            hosts_next,
        })
    }
}
