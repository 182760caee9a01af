//! The cluster's rows, in CQL: what is known of repos and hosts, the cache of identities, the answers to commands.
//!
//! Owns the keyspace: its schema, every statement, and how they are sent. Knows nothing of Kafka: positions come in as
//! numbers and go out as the timestamps of cells. What must hold:
//! 1. rows are a view of what the lanes have put into `verified`: who writes one twice, or late, changes nothing,
//!    because a cell's timestamp is the position that it came of;
//! 2. every read and every write is of a quorum in one datacenter, so that what was answered is seen by the next reader;
//! 3. what was answered is in the table, and what failed may be in it; whatever may be repeated is, for as long as the
//!    session's patience lasts;
//! 4. only statements that both ScyllaDB and Apache Cassandra take.

pub mod commands;
pub mod hosts;
pub mod identities;
mod metrics;
mod recent;
pub mod repos;
pub mod schema;
pub mod session;
pub mod takedowns;

pub use self::{
    commands::Commands,
    hosts::CqlHosts,
    identities::CqlIdentities,
    metrics::Metrics,
    repos::{CqlRepos, Rows},
    schema::Settled,
    session::{ConnectError, Session},
    takedowns::TakedownRows,
};

use storage::error::Error;

/// A cell whose timestamp says where it comes of: a later position wins, an equal one is the same cell.
///
/// `generation` counts how often the positions began anew, because the lane's topic was lost. Far below the microseconds that cells without a position have.
fn timestamp(generation: u32, position: i64) -> i64 {
    (i64::from(generation) << POSITION_BITS) | (position & ((1 << POSITION_BITS) - 1))
}

const POSITION_BITS: u32 = 40;

/// A cell whose bytes are not what was written.
fn damaged(what: &str, key: &str) -> Error {
    Error::Damaged { what: format!("the {what} of {key} in CQL") }
}

/// Which of so many partitions a key is in.
fn bucket_of(key: &str, buckets: i16) -> i16 {
    i16::try_from(atproto::syntax::Did::lane_hash(key) % u64::from(buckets.unsigned_abs())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_position_has_a_higher_timestamp() {
        let order = [(0, 0), (0, 1), (0, (1 << 40) - 1), (1, 0), (1, 7), (1 << 22, 0)];
        let stamps = order.map(|(generation, position)| timestamp(generation, position));
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    }
}
