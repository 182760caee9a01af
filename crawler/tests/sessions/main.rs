//! The crawler at its public door: real sockets to hosts that the tests play by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod cursors;
mod discovery;
mod endurance;
mod operator;
mod refusals;
mod sharing;
mod tls;
mod world;
