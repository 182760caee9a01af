//! From the event log to subscribers.
//!
//! ```text
//!   EventLog ──tail──▶ hub ──▶ ring of chunks ──▶ subscriber ──▶ socket
//!      └──────────────replay (shared reads)───────────┘
//! ```
//!
//! What must hold: a subscriber gets the events after its cursor in seq order, none left out and none twice, at the seam
//! between replay and live too, because both are found by seq alone; and only whole frames, so that a close or an error
//! is always readable. Of an account that was taken down nothing is served but the takedown itself (`withheld`), and once
//! the hub has seen the takedown that goes for what was encoded before, too.

pub mod chunk;
pub mod cursor;
pub mod deflating;
pub mod hub;
pub mod linger;
pub mod metrics;
pub mod outgoing;
pub mod pieces;
pub mod replay;
pub mod ring;
pub mod roster;
pub mod shard;
pub mod slow;
mod socket;
pub mod subscriber;
pub mod trail;
pub mod turned_away;
pub mod withheld;

pub use hub::Hub;
pub use metrics::Metrics;
pub use roster::Roster;
pub use trail::Trail;
pub use withheld::Withheld;
