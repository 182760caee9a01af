use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use atproto::syntax::HostName;

use crate::{
    error::Error,
    hosts::{Host, HostCursor, HostStatus, Hosts, Notes, Order, Policy},
};

/// Hosts in a map.
#[derive(Debug, Default)]
pub struct MemoryHosts {
    rows: Mutex<BTreeMap<HostName, Host>>,
    policy: Mutex<Policy>,
}

impl MemoryHosts {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<HostName, Host>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hosts for MemoryHosts {
    async fn get(&self, name: &HostName) -> Result<Option<Host>, Error> {
        Ok(self.rows().get(name).cloned())
    }

    async fn list(&self, after: Option<&HostName>, limit: usize) -> Result<Vec<Host>, Error> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.rows().range((start, Bound::Unbounded)).take(limit).map(|(_, host)| host.clone()).collect())
    }

    async fn add(&self, host: &Host) -> Result<bool, Error> {
        let mut rows = self.rows();
        if rows.contains_key(&host.name) {
            return Ok(false);
        }
        rows.insert(host.name.clone(), host.clone());
        Ok(true)
    }

    async fn set_status(&self, name: &HostName, status: HostStatus) -> Result<(), Error> {
        if let Some(host) = self.rows().get_mut(name)
            && host.status != HostStatus::Banned
        {
            host.status = status;
        }
        Ok(())
    }

    async fn set_notes(&self, name: &HostName, notes: &Notes) -> Result<(), Error> {
        if let Some(host) = self.rows().get_mut(name) {
            host.notes = notes.clone().with_orders_of(&host.notes);
        }
        Ok(())
    }

    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error> {
        if let Some(host) = self.rows().get_mut(name) {
            order.apply(&mut host.status, &mut host.notes);
        }
        Ok(())
    }

    async fn save_cursors(&self, cursors: &[(HostName, HostCursor)]) -> Result<(), Error> {
        let mut rows = self.rows();
        for (name, cursor) in cursors {
            if let Some(host) = rows.get_mut(name) {
                host.cursor = *cursor;
            }
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64, Error> {
        Ok(self.rows().len() as u64)
    }

    async fn policy(&self) -> Result<Policy, Error> {
        Ok(self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy.clone();
        Ok(())
    }
}
