//! Identities: DID → what was last learnt of who an account is, so that a restart does not ask for all of it again.
//!
//! It is a cache and says so: it owns no truth, and any row may be missing or old at any time. What a row's bytes mean is
//! the resolver's business, which keeps the time of learning in them.

use async_trait::async_trait;
use atproto::syntax::Did;

use crate::error::Error;

/// A small cache that outlives the process. Losing any of it is harmless: it is fetched again.
///
/// What is promised: a row that is there is whole, as it was put at some time for that DID; rows are bounded in number,
/// and those that were put longest ago go first. What is not: that a row is there, or that it is the last one put.
#[async_trait]
pub trait Identities: Send + Sync {
    /// A row of the DID, as a rule the one that was put last.
    async fn get(&self, did: &Did) -> Result<Option<Vec<u8>>, Error>;

    /// Keeps rows, each in place of its DID's earlier one. Of several for one DID the last counts. Need not be durable
    /// when answered.
    async fn put(&self, rows: Vec<(Did, Vec<u8>)>) -> Result<(), Error>;
}
