//! A whole relay in the process, on stores in memory, looked at through its sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod admin;
mod compression;
mod doors;
mod end;
mod faults;
mod harness;
mod hostile;
mod limits;
mod network;
mod schema;
mod shards;
mod stream;
mod takedown;
mod xrpc;
