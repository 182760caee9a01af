//! The rules from their public face: one account, its next event, and every way to spoil it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod account;
mod catalogue;
mod commit;
mod frames;
mod sync;
mod world;
