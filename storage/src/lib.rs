//! The seam between Mainstem's work and where its state lives.
//!
//! Four nouns hold all state: [`intake::Intake`], [`log::EventLog`], [`repos::Repos`] and [`hosts::Hosts`]. Beside them
//! stand a cache that may be lost, [`identities::Identities`], and who judges which lane and crawls which hosts,
//! [`lane::Assignment`] and [`hosts::Assignment`]. This crate owns their contracts, a backend in memory, a fault injector
//! and the conformance suite that every backend must pass. It owns no file, server or socket.
//!
//! What must hold of every backend:
//! 1. the log is the truth; repos is a view of it, never ahead, repaired from it on opening;
//! 2. what `append` has answered is durable, and only what is durable can be read;
//! 3. a seq is never used twice.

pub mod buffers;
pub mod conformance;
pub mod error;
pub mod faults;
pub mod hosts;
pub mod identities;
pub mod intake;
pub mod lane;
pub mod lane_queues;
pub mod limits;
pub mod log;
pub mod memory;
pub mod refusal;
pub mod repos;
pub mod seq;

use std::sync::Arc;

/// The four nouns of one backend and its cache, cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// Raw frames until judged.
    pub intake: Arc<dyn intake::Intake>,
    /// The merged firehose.
    pub log: Arc<dyn log::EventLog>,
    /// DID → state.
    pub repos: Arc<dyn repos::Repos>,
    /// Host → state.
    pub hosts: Arc<dyn hosts::Hosts>,
    /// DID → who the account is, as far as it was kept.
    pub identities: Arc<dyn identities::Identities>,
    /// Which lanes this process judges.
    pub assignment: Arc<dyn lane::Assignment>,
    /// Which hosts this process crawls.
    pub crawled: Arc<dyn hosts::Assignment>,
}
