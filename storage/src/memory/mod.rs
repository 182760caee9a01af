//! The backend in memory: for tests, and the model the others are held against.
//!
//! Everything is lost with the process; "durable" here means "in the map".

mod hosts;
mod identities;
mod log;

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    Stores,
    hosts::AllHosts,
    lane::{AllLanes, LaneCount},
    lane_queues::LaneQueues,
    seq::Seq,
};

pub use hosts::MemoryHosts;
pub use identities::MemoryIdentities;
pub use log::{MemoryLog, MemoryRepos};

/// How the memory backend is made.
#[derive(Clone)]
pub struct Config {
    /// How many lanes.
    pub lanes: LaneCount,
    /// What one lane holds at most, in bytes.
    pub lane_bytes_max: usize,
    /// What it holds at most of one host.
    pub host_bytes_max: usize,
    /// What the log keeps at most, in bytes of frames; the newest event is always kept.
    pub window_bytes: u64,
    /// The seq of the first event.
    pub seq_start: Seq,
    /// What time it is, microseconds since the Unix epoch. By default the clock stands still.
    pub now_micros: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lanes: LaneCount(NonZeroU32::new(4).expect("4 is not 0")),
            lane_bytes_max: 4 << 20,
            host_bytes_max: 4 << 20,
            window_bytes: 64 << 20,
            seq_start: Seq(1),
            now_micros: Arc::new(|| 1_767_225_600_000_000),
        }
    }
}

/// An empty backend with the defaults.
pub fn open() -> Stores {
    open_with(Config::default())
}

/// An empty backend.
pub fn open_with(config: Config) -> Stores {
    let intake = LaneQueues::new(config.lanes, config.lane_bytes_max, config.host_bytes_max);
    let assignment = AllLanes::new(config.lanes);
    let repos = MemoryRepos::default();
    let log = MemoryLog::new(config, repos.clone());
    Stores {
        intake: Arc::new(intake),
        log: Arc::new(log),
        repos: Arc::new(repos),
        hosts: Arc::new(MemoryHosts::default()),
        identities: Arc::new(MemoryIdentities::default()),
        assignment: Arc::new(assignment),
        crawled: Arc::new(AllHosts::default()),
    }
}
