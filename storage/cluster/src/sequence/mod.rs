//! The sequencer: the one place where the order is made.
//!
//! Of all processes in this role one leads, whichever the consumer group gives the one partition of `sequencer-state`; the
//! others stand by. The leader reads all lanes of `verified`, takes the records that count, gives them the next seqs, and
//! writes them to `firehose` and what it has taken to `sequencer-state` in one transaction.
//!
//! ```text
//!   verified[0] ─┐                            ┌────────── one transaction ──────────┐
//!   verified[1] ─┼─▶ reading: core ─▶ queue ─▶│ events ─▶ firehose                   │ commit
//!   verified[2] ─┘   (own thread)             │ state  ─▶ sequencer-state            │
//!                                             └──────────────────────────────────────┘
//! ```
//!
//! What must hold:
//! - The group only spares work. What keeps two leaders apart is the transactional producer: taking it (`init_transactions`)
//!   ends what an earlier leader has open, and the earlier one can commit nothing any more. Only after that is the state
//!   read, so it is the last one.
//! - What an earlier leader has left open is ended before anything is published (`leftover`).
//! - Who is fenced stands by until it is given the partition again. Any other failure: everything is built anew from the
//!   committed state.
//! - The next transaction's records are read, judged and laid out while one is being committed.
//! - What is published and covered is deleted by the leader (`trim`), and nothing else.
//! - A missing state is never taken for the beginning: `mainstem cluster init` writes the first one.

#[cfg(test)]
mod bench;
pub(crate) mod core;
mod handoff;
pub(crate) mod leftover;
mod metrics;
mod run;
mod seat;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod trim;

pub(crate) use metrics::Metrics;
pub use metrics::Phase;
pub use run::Sequencer;
#[cfg(test)]
pub(crate) use run::{Config, Limits};

/// Why there can be no sequencer: an operator must act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where to go on, and nothing was ever published: the cluster was not made.
    #[error("{topic} holds no state and no record was ever written: run `mainstem cluster init` first")]
    NotMade {
        /// The topic of the state.
        topic: String,
    },
    /// Nothing says where to go on, though there were events.
    #[error(
        "{topic} holds no state, though {held} has held records: seqs would be used twice. Make the state anew from what \
         was published, with `mainstem cluster restore-sequencer`"
    )]
    StateLost {
        /// The topic of the state.
        topic: String,
        /// A topic that has held records.
        held: String,
    },
    /// The state is of another number of lanes.
    #[error("{topic} speaks of {stored} lanes, but there are {configured}: lanes can be added, not removed")]
    Lanes {
        /// The topic of the state.
        topic: String,
        /// Lanes in the state.
        stored: usize,
        /// Lanes as configured.
        configured: usize,
    },
    /// Records that were not published yet are gone.
    #[error(
        "{topic} no longer has the records of lane {lane} from {next_offset} on, which were not published yet. They are \
         lost; `mainstem cluster restore-sequencer --skip-lost` goes on without them"
    )]
    Lost {
        /// The topic of verified records.
        topic: String,
        /// The lane.
        lane: u32,
        /// The first that is missing.
        next_offset: i64,
    },
    /// A client of Kafka, or a thread, can't be made: the settings are wrong, or the machine has no room.
    #[error("failed to start the sequencer")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Stored data is not what was written.
    #[error("stored data is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
}
