//! Hosts that another process reads, or nobody yet: what their rows say.
//!
//! The rows are read anew now and then, and when somebody says that one has changed; so they are a little old.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use atproto::syntax::HostName;
use storage::{
    hosts::{Host, HostStatus, Policy},
    limits::Limits,
};
use tokio::time::Instant;

use crate::{
    host::Phase,
    live::{BannedBy, HostView, lock},
};

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    rows: Mutex<HashMap<HostName, Known>>,
}

#[derive(Debug)]
struct Known {
    row: Host,
    /// When its crawler was last told that somebody wishes it to be read.
    nudged: Option<Instant>,
}

impl Elsewhere {
    pub(crate) fn len(&self) -> usize {
        self.rows().len()
    }

    pub(crate) fn get(&self, name: &HostName) -> Option<Host> {
        self.rows().get(name).map(|known| known.row.clone())
    }

    pub(crate) fn contains(&self, name: &HostName) -> bool {
        self.rows().contains_key(name)
    }

    /// What was known of it before is forgotten. Its limits are in force from now on.
    pub(crate) fn put(&self, row: Host, limits: &Limits) {
        let mut rows = self.rows();
        let was = rows.get(&row.name).map(|known| (known.row.notes.limits, known.nudged));
        let (exception, nudged) = was.unwrap_or_default();
        if row.notes.limits != exception {
            limits.set_exception(&row.name, row.notes.limits);
        }
        rows.insert(row.name.clone(), Known { row, nudged });
    }

    pub(crate) fn remove(&self, name: &HostName) {
        self.rows().remove(name);
    }

    /// Whether its crawler is to be told now that somebody wishes it to be read: not twice within `gap`.
    pub(crate) fn may_nudge(&self, name: &HostName, gap: Duration, now: Instant) -> bool {
        let mut rows = self.rows();
        let Some(known) = rows.get_mut(name) else { return false };
        let may = known.nudged.is_none_or(|at| now.duration_since(at) >= gap);
        if may {
            known.nudged = Some(now);
        }
        may
    }

    pub(crate) fn view(&self, name: &HostName, policy: &Policy, limits: &Limits) -> Option<HostView> {
        self.rows().get(name).map(|known| view(&known.row, policy, limits))
    }

    pub(crate) fn views(&self, policy: &Policy, limits: &Limits) -> Vec<HostView> {
        self.rows().values().map(|known| view(&known.row, policy, limits)).collect()
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<HostName, Known>> {
        lock(&self.rows)
    }
}

/// What the row tells. What only the connection knows is left at nothing, and `read_here` says that it is not known.
fn view(row: &Host, policy: &Policy, limits: &Limits) -> HostView {
    let banned_by = match row.status {
        HostStatus::Banned => Some(BannedBy::Host),
        HostStatus::Active | HostStatus::Idle | HostStatus::Offline | HostStatus::Throttled => {
            policy.ban_over(&row.name).cloned().map(BannedBy::Domain)
        }
    };
    let status = if banned_by.is_some() { HostStatus::Banned } else { row.status };
    let (host_limits, limits_from, limits_exception) = limits.explain(&row.name);
    HostView {
        name: row.name.clone(),
        read_here: false,
        status,
        phase: match status {
            HostStatus::Active => Phase::Active,
            HostStatus::Idle => Phase::Idle,
            HostStatus::Offline => Phase::Offline,
            HostStatus::Throttled => Phase::Throttled,
            HostStatus::Banned => Phase::Banned,
        },
        banned_by,
        cursor: row.cursor,
        added_at_micros: row.added_at_micros,
        added_by: row.notes.added_by,
        connected_for: None,
        next_try_in: None,
        events: 0,
        bytes: 0,
        events_per_second: 0.0,
        in_flight: 0,
        last_event_at_micros: None,
        last_end: None,
        tries: 0,
        connections: 0,
        ends: Vec::new(),
        failures: 0,
        throttled: None,
        limits: host_limits,
        limits_from,
        limits_exception,
        last_reset: row.notes.last_reset,
    }
}
