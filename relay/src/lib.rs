//! The relay: from the event log to subscribers, the public and the private HTTP, and the program that runs all parts.
//!
//! Only [`backend`] names a backend of the stores, only [`config`] and [`cli`] read arguments and the environment, and
//! only [`node`] knows all parts.

pub mod admin;
pub mod advice;
pub mod app;
pub mod audit;
pub mod backend;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod console;
pub mod coverage;
pub mod descriptors;
pub mod doors;
pub mod fanout;
pub mod host_view;
pub mod huge_pages;
pub mod lanes;
pub mod limits_file;
pub mod node;
pub mod simulated;
pub mod subscription;
pub mod tail;
pub mod ui;
pub mod verify;
pub mod version;
pub mod vitals;
pub mod xrpc;
