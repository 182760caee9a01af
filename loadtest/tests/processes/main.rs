//! The whole program as a process, between a network and its consumers, judged from outside.
//!
//! The program is what `MAINSTEM_BIN` names, or what cargo builds from this tree. The tests run one
//! after another, whatever the number of threads. What is random is drawn from `LOADTEST_SEED` or the clock, and printed.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod accounts;
mod audit;
mod bench;
mod cluster;
mod cold_start;
mod collector;
mod conformance;
mod coverage;
mod cuts;
mod damage;
mod drain;
mod fan_out;
mod harness;
mod hosts;
mod kill;
mod log;
mod moving;
mod operator;
mod outage;
mod real_network;
mod roles;
mod scenarios;
mod sharing;
mod traces;
mod traffic;
