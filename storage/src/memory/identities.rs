use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use atproto::syntax::Did;

use crate::{error::Error, identities::Identities};

/// Rows at most.
const ROWS_MAX: usize = 100_000;

/// Identities in a map.
#[derive(Debug, Default)]
pub struct MemoryIdentities {
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    by_did: HashMap<Did, Vec<u8>>,
    /// In the order in which they came; a row that is put again keeps its place.
    order: VecDeque<Did>,
}

impl MemoryIdentities {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Identities for MemoryIdentities {
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows().by_did.get(did).cloned())
    }

    async fn put(&self, rows: Vec<(Did, Vec<u8>)>) -> Result<(), Error> {
        let mut kept = self.rows();
        for (did, row) in rows {
            if kept.by_did.insert(did.clone(), row).is_none() {
                kept.order.push_back(did);
            }
        }
        while kept.order.len() > ROWS_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_did.remove(&oldest);
            }
        }
        Ok(())
    }
}
