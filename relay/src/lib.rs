//! The relay: from the event log to subscribers, and the program that runs all parts.

pub mod fanout;
