//! Kafka's clients: how they reach the brokers, the producer, the topics.

pub(crate) mod client;
pub(crate) mod group;
pub(crate) mod producer;
pub(crate) mod quiet;
pub(crate) mod reach;
pub(crate) mod reader;
pub(crate) mod stretch;
pub(crate) mod topics;

pub(crate) use client::failed;
pub use reach::Unreachable;
