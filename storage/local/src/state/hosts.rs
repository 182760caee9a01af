//! Hosts: rows that are synced before they are answered, cursors that are not.

use std::{
    ops::Bound,
    sync::{PoisonError, atomic::Ordering},
};

use async_trait::async_trait;
use atproto::syntax::HostName;
use fjall::PersistMode;
use storage::{
    error::Error,
    hosts::{Host, HostCursor, HostStatus, Hosts, Notes, Order, Policy},
};

use super::{
    Keyspaces, State, blocking, damaged, did_not, keys, may_have,
    value::{self, HostRow},
};

#[async_trait]
impl Hosts for State {
    async fn get(&self, name: &HostName) -> Result<Option<Host>, Error> {
        let keyspaces = self.keyspaces()?;
        let Some(row) = keyspaces.hosts.get(name.as_str()).map_err(did_not("read a host"))? else { return Ok(None) };
        keyspaces.host(name.as_str().as_bytes(), &row).map(Some)
    }

    async fn list(&self, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error> {
        let keyspaces = self.keyspaces()?;
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.as_str().to_owned()));
        blocking(move || {
            let page = keyspaces.hosts.range::<String, _>((start, Bound::Unbounded)).take(limit);
            page.map(|entry| {
                let (name, row) = entry.into_inner().map_err(did_not("list hosts"))?;
                keyspaces.host(&name, &row)
            })
            .collect()
        })
        .await
    }

    async fn add(&self, host: &Host) -> Result<bool, Error> {
        let (state, host) = (self.clone(), host.clone());
        blocking(move || {
            let keyspaces = state.keyspaces()?;
            let _one_at_a_time = state.0.host_rows.lock().unwrap_or_else(PoisonError::into_inner);
            if keyspaces.hosts.contains_key(host.name.as_str()).map_err(did_not("read a host"))? {
                return Ok(false);
            }
            let mut batch = keyspaces.db.batch().durability(Some(PersistMode::SyncAll));
            let row = HostRow { status: host.status, added_at_micros: host.added_at_micros, notes: host.notes };
            let row = value::write_host(&row);
            batch.insert(&keyspaces.hosts, host.name.as_str(), row);
            batch.insert(&keyspaces.cursors, host.name.as_str(), host.cursor.to_bytes());
            batch.commit().map_err(may_have("add a host"))?;
            state.0.host_count.fetch_add(1, Ordering::Relaxed);
            Ok(true)
        })
        .await
    }

    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error> {
        let change = move |row: &mut HostRow| {
            if row.status != HostStatus::Banned {
                row.status = status;
            }
        };
        self.change_row(name, "set a host's status", change).await
    }

    async fn set_notes(&self, name: &HostName, notes: &Notes) -> Result<(), Error> {
        let notes = notes.clone();
        let change = move |row: &mut HostRow| row.notes = notes.with_orders_of(&row.notes);
        self.change_row(name, "set a host's notes", change).await
    }

    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error> {
        let order = order.clone();
        let change = move |row: &mut HostRow| order.apply(&mut row.status, &mut row.notes);
        self.change_row(name, "keep an operator's order", change).await
    }

    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error> {
        let keyspaces = self.keyspaces()?;
        let cursors = cursors.to_vec();
        blocking(move || {
            // Handed to the system at once: a killed process then reads little again, a power cut costs a little more.
            let mut batch = keyspaces.db.batch().durability(Some(PersistMode::Buffer));
            for (name, cursor) in cursors {
                if keyspaces.hosts.contains_key(name.as_str()).map_err(did_not("read a host"))? {
                    batch.insert(&keyspaces.cursors, name.as_str(), cursor.to_bytes());
                }
            }
            batch.commit().map_err(may_have("save cursors"))
        })
        .await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.keyspaces()?;
        Ok(self.0.host_count.load(Ordering::Relaxed))
    }

    async fn policy(&self) -> Result<Policy, Error> {
        let bytes = self.keyspaces()?.meta.get(keys::POLICY).map_err(did_not("read the policy"))?;
        let Some(bytes) = bytes else { return Ok(Policy::default()) };
        value::read_json(&bytes).ok_or_else(|| damaged("policy", keys::POLICY.as_bytes()))
    }

    async fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        let (keyspaces, bytes) = (self.keyspaces()?, value::write_json(policy));
        blocking(move || {
            let mut batch = keyspaces.db.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&keyspaces.meta, keys::POLICY, bytes);
            batch.commit().map_err(may_have("set the policy"))
        })
        .await
    }
}

impl State {
    /// Changes a known host's row, and syncs it.
    async fn change_row(
        &self,
        name: &HostName,
        what: &'static str,
        change: impl FnOnce(&mut HostRow) + Send + 'static,
    ) -> Result<(), Error> {
        let (state, name) = (self.clone(), name.clone());
        blocking(move || {
            let keyspaces = state.keyspaces()?;
            let _one_at_a_time = state.0.host_rows.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(row) = keyspaces.hosts.get(name.as_str()).map_err(did_not("read a host"))? else { return Ok(()) };
            let mut row = value::read_host(&row).ok_or_else(|| damaged("row", name.as_str().as_bytes()))?;
            change(&mut row);
            let mut batch = keyspaces.db.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&keyspaces.hosts, name.as_str(), value::write_host(&row));
            batch.commit().map_err(may_have(what))
        })
        .await
    }
}

impl Keyspaces {
    fn host(&self, name: &[u8], row: &[u8]) -> Result<Host, Error> {
        let cursor = match self.cursors.get(name).map_err(did_not("read a cursor"))? {
            Some(bytes) => HostCursor::from_bytes(&bytes).ok_or_else(|| damaged("cursor", name))?,
            None => HostCursor::default(),
        };
        let row = value::read_host(row).ok_or_else(|| damaged("row", name))?;
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|text| HostName::parse(text).ok())
            .ok_or_else(|| damaged("row", name))?;
        Ok(Host { name, status: row.status, cursor, added_at_micros: row.added_at_micros, notes: row.notes })
    }
}
