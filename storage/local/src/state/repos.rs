//! The view that others have of Repos.

use std::ops::Bound;

use async_trait::async_trait;
use atproto::syntax::{Did, HostName};
use storage::{
    error::Error,
    repos::{RepoState, Repos, Takedown, Takedowns},
    seq::Seq,
};

use super::{State, blocking, damaged, did_not, value};

#[async_trait]
impl Repos for State {
    /// Not on a thread of its own: the validator asks for every event, and nearly always the answer is in memory.
    async fn get(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        let keyspaces = self.keyspaces()?;
        match self.0.overlay.get(did) {
            Some(state) => Ok(Some(state)),
            None => self.before(&keyspaces, did),
        }
    }

    async fn list(&self, after: Option<&Did>, limit: usize) -> Result<Vec<(Did, RepoState)>, Error> {
        let keyspaces = self.settled().await?;
        let start = after.map_or(Bound::Unbounded, |did| Bound::Excluded(did.as_str().to_owned()));
        blocking(move || {
            let page = keyspaces.repos.range::<String, _>((start, Bound::Unbounded)).take(limit);
            page.map(|entry| {
                let (key, bytes) = entry.into_inner().map_err(did_not("list repos"))?;
                let did = std::str::from_utf8(&key).ok().and_then(|text| Did::parse(text).ok());
                let state = RepoState::decode(&bytes);
                did.zip(state).ok_or_else(|| damaged("repo state", &key))
            })
            .collect()
        })
        .await
    }

    async fn count_by_host(&self, host: &HostName) -> Result<u64, Error> {
        Ok(self.settled().await?.counts_of(host)?.repos)
    }

    async fn count_throttled_by_host(&self, host: &HostName) -> Result<u64, Error> {
        Ok(self.settled().await?.counts_of(host)?.throttled)
    }

    async fn takedowns(&self) -> Result<Takedowns, Error> {
        let keyspaces = self.settled().await?;
        // The watermark first: what is applied meanwhile is in the list too, and folding it in again does no harm.
        let as_of = self.watermark()?.unwrap_or_default();
        blocking(move || {
            let accounts = keyspaces.takedowns.iter().map(|entry| {
                let (key, bytes) = entry.into_inner().map_err(did_not("list takedowns"))?;
                let did = std::str::from_utf8(&key).ok();
                let takedown = did.zip(value::read_u64(&bytes));
                let (did, seq) = takedown.ok_or_else(|| damaged("takedown", &key))?;
                Ok(Takedown { account: Did::lane_hash(did), seq: Seq(seq) })
            });
            Ok(Takedowns { accounts: accounts.collect::<Result<_, Error>>()?, as_of })
        })
        .await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.settled().await?;
        Ok(self.repo_count())
    }
}
