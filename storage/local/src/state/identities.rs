//! Identities: two generations of rows. New rows go into the younger one; when that is full, the older one is emptied
//! and becomes the younger. So what was put longest ago goes first, whole tables at once, and nothing has to be
//! compacted away row by row.

use std::sync::{PoisonError, atomic::Ordering};

use async_trait::async_trait;
use atproto::syntax::Did;
use storage::{error::Error, identities::Identities};

use super::{Keyspaces, State, blocking, did_not, keys, may_have};

#[async_trait]
impl Identities for State {
    /// Not on a thread of its own: a lane asks once for each account that is not in its memory, and the tables' filters
    /// answer for accounts that are not there.
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, Error> {
        let keyspaces = self.keyspaces()?;
        let young = self.0.identities_young.load(Ordering::Acquire);
        for generation in [young, 1 - young] {
            let row = keyspaces.identities[generation].get(did.as_str()).map_err(did_not("read an identity"))?;
            if let Some(row) = row {
                return Ok(Some(row.to_vec()));
            }
        }
        Ok(None)
    }

    async fn put(&self, rows: Vec<(Did, Vec<u8>)>) -> Result<(), Error> {
        let state = self.clone();
        blocking(move || {
            let keyspaces = state.keyspaces()?;
            let mut in_young = state.0.identities_in_young.lock().unwrap_or_else(PoisonError::into_inner);
            if *in_young >= state.0.identities_max {
                state.begin_generation(&keyspaces)?;
                *in_young = 0;
            }
            // A row that is put again counts again: a generation may end early, never late.
            *in_young += rows.len() as u64;
            let young = state.0.identities_young.load(Ordering::Acquire);
            let mut batch = keyspaces.db.batch();
            for (did, row) in rows {
                batch.insert(&keyspaces.identities[young], did.as_str(), row);
            }
            batch.commit().map_err(may_have("keep identities"))
        })
        .await
    }
}

impl State {
    /// Empties the older generation and makes it the younger.
    fn begin_generation(&self, keyspaces: &Keyspaces) -> Result<(), Error> {
        let old = 1 - self.0.identities_young.load(Ordering::Acquire);
        keyspaces.identities[old].clear().map_err(may_have("forget old identities"))?;
        keyspaces
            .meta
            .insert(keys::IDENTITIES_YOUNG, (old as u64).to_le_bytes())
            .map_err(may_have("begin a generation of identities"))?;
        self.0.identities_young.store(old, Ordering::Release);
        Ok(())
    }
}
