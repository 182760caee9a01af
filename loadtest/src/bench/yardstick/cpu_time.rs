//! The time that a thread's work takes.

use std::time::{Duration, Instant};

/// CPU time of this thread where the kernel tells it, so that others on the machine don't count; else the clock. The
/// kernel counts by its tick, some milliseconds: enough for a second's work.
pub(super) struct CpuTime {
    cpu_nanos: Option<u64>,
    wall: Instant,
}

impl CpuTime {
    pub(super) fn now() -> CpuTime {
        CpuTime { cpu_nanos: thread_cpu_nanos(), wall: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        match (self.cpu_nanos, thread_cpu_nanos()) {
            (Some(before), Some(now)) => Duration::from_nanos(now.saturating_sub(before)),
            (Some(_) | None, _) => self.wall.elapsed(),
        }
    }
}

fn thread_cpu_nanos() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok()
}
