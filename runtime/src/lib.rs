//! What every process of Mainstem needs to be a process: tasks and their end, signals, logs, time, and the sockets in
//! and out.
//!
//! This crate owns no protocol of AT and no state of the relay. What must hold: nothing here runs without a bound in
//! time or bytes, a task's death is never silent, and no connection leaves for an address that the policy forbids.

pub mod backoff;
pub mod bucket;
pub mod chain;
pub mod clock;
pub mod egress;
pub mod http;
pub mod networks;
pub mod rate;
pub mod signals;
pub mod span;
pub mod tasks;
pub mod telemetry;
pub mod trace;
pub mod ws;
