//! Traffic as an instrument: what it costs to send little and to the microsecond.
//!
//! [`stamp`] is how a subscriber, in whatever process and behind whatever relay, knows when a host sent what it reads.

pub mod latency;
pub mod stamp;
