//! The cache of identities in CQL: rows that end by themselves.

use std::sync::Arc;

use async_trait::async_trait;
use atproto::syntax::Did;
use storage::{error::Error, identities::Identities};

use super::{
    metrics::Kind,
    session::{ConnectError, Effect, Session, Statement},
};

/// The rows of identities.
pub struct CqlIdentities {
    session: Arc<Session>,
    get: Statement,
    put: Statement,
}

impl CqlIdentities {
    /// Prepares the statements.
    pub async fn prepare(session: Arc<Session>) -> Result<CqlIdentities, ConnectError> {
        let (get, put) =
            ("SELECT learnt FROM identities WHERE did = ?", "UPDATE identities SET learnt = ? WHERE did = ?");
        Ok(CqlIdentities {
            get: session.prepare(Kind::IdentityGet, Effect::Read, "read an identity", get).await?,
            put: session.prepare(Kind::IdentityPut, Effect::Idempotent, "write identities", put).await?,
            session,
        })
    }
}

#[async_trait]
impl Identities for CqlIdentities {
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, Error> {
        let row: Option<(Option<Vec<u8>>,)> = self.session.one(&self.get, (did.as_str(),)).await?;
        Ok(row.and_then(|(learnt,)| learnt))
    }

    async fn put(&self, rows: Vec<(Did, Vec<u8>)>) -> Result<(), Error> {
        let last: std::collections::HashMap<Did, Vec<u8>> = rows.into_iter().collect();
        let values = last.into_iter().map(|(did, learnt)| (learnt, did.as_str().to_owned()));
        self.session.execute_each(&self.put, values).await
    }
}
