//! The backend in memory against the suite.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use async_trait::async_trait;
use storage::{
    Stores,
    conformance::{Backend, Running, Setup},
    memory,
};

struct Memory;

struct Open(Stores);

#[async_trait]
impl Backend for Memory {
    async fn open(&self, setup: Setup) -> Box<dyn Running> {
        Box::new(Open(memory::open_with(memory::Config {
            lanes: setup.lanes,
            lane_bytes_max: setup.lane_bytes_max,
            window_bytes: setup.window_bytes,
            seq_start: setup.seq_start,
            ..memory::Config::default()
        })))
    }
}

#[async_trait]
impl Running for Open {
    fn stores(&self) -> Stores {
        self.0.clone()
    }

    async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>> {
        None
    }

    async fn crash(self: Box<Self>) -> Option<Box<dyn Running>> {
        None
    }
}

storage::conformance_suite!(crate::Memory);
