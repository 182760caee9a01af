//! The cluster backend: the four nouns on Kafka's topics and CQL's tables, for many processes of each role.
//!
//! ```text
//!   crawlers ──▶ raw (lanes) ──▶ validators ──▶ verified (lanes) ──▶ sequencer ──▶ firehose ──▶ fan-out
//!                                    └──▶ rows in CQL                (one leads)
//! ```
//!
//! Owns the topics' records (`wire`), the clients, who judges which lane, the order, and the rows. What must hold stands
//! in `docs/cluster.md`, each step by the name that it has here.

pub mod admin;
mod cluster;
pub mod config;
pub mod cql;
mod firehose;
mod hosts_topic;
mod intake;
mod kafka;
mod lanes;
mod metrics;
mod pulse;
mod recovery;
mod room;
mod rows;
pub mod sequence;
mod tail;
#[cfg(test)]
mod testing;
mod verified;
mod wire;

pub use cluster::{Cluster, OpenError, Roles};
pub use kafka::Unreachable;
pub use pulse::{FirehoseHealth, Health, LanesHealth, Pulse};
pub use room::{NoThread, RawRoom};
