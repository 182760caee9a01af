//! The embedded backend against the suite, with small segments so that every log has several.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use async_trait::async_trait;
use harness::{Data, config};
use storage::{
    Stores,
    conformance::{Backend, Running, Setup},
};
use storage_local::{Config, Opened};

struct Local;

struct Open {
    opened: Opened,
    setup: Setup,
    data: Data,
}

fn with(setup: Setup, data: &Data) -> Config {
    Config {
        lanes: setup.lanes,
        lane_bytes_max: setup.lane_bytes_max,
        host_bytes_max: setup.lane_bytes_max,
        window_bytes: Some(setup.window_bytes),
        seq_start: Some(setup.seq_start),
        segment_bytes: 100_000,
        tail_bytes_max: 50_000,
        ..config(data)
    }
}

#[async_trait]
impl Backend for Local {
    async fn open(&self, setup: Setup) -> Box<dyn Running> {
        let data = Data::new();
        let opened = storage_local::open(with(setup, &data)).unwrap();
        Box::new(Open { opened, setup, data })
    }
}

#[async_trait]
impl Running for Open {
    fn stores(&self) -> Stores {
        self.opened.stores()
    }

    async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>> {
        let Open { opened, setup, data } = *self;
        opened.close().await.unwrap();
        let opened = storage_local::open(with(setup, &data)).unwrap();
        Some(Box::new(Open { opened, setup, data }))
    }

    /// What a killed process leaves is what is in its files while it runs.
    async fn crash(self: Box<Self>) -> Option<Box<dyn Running>> {
        let Open { opened, setup, data } = *self;
        let left = data.copy();
        drop(opened);
        let opened = storage_local::open(with(setup, &left)).unwrap();
        Some(Box::new(Open { opened, setup, data: left }))
    }
}

storage::conformance_suite!(crate::Local);
