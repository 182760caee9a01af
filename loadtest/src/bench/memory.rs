//! A relay's memory over time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::relay_process::resident_bytes;

/// The resident memory of a relay's processes over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When, since the start of watching, and how many bytes.
    pub samples: Vec<(Duration, u64)>,
}

/// Looks at processes' memory again and again. Ends with its value.
pub struct MemoryWatch {
    memory: Arc<Mutex<Memory>>,
    _task: JoinSet<()>,
}

const LOOK_EVERY: Duration = Duration::from_millis(100);

impl MemoryWatch {
    /// Starts with the processes of these numbers, taken together.
    pub fn start(pids: Vec<i32>) -> MemoryWatch {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let mut task = JoinSet::new();
        let samples = Arc::clone(&memory);
        task.spawn(async move {
            let (started, mut ticks) = (Instant::now(), tokio::time::interval(LOOK_EVERY));
            // It ends with the first of them.
            while let Ok(bytes) = pids.iter().map(|pid| resident_bytes(*pid)).sum::<Result<u64, _>>() {
                let sample = (started.elapsed(), bytes);
                samples.lock().unwrap_or_else(PoisonError::into_inner).samples.push(sample);
                ticks.tick().await;
            }
        });
        MemoryWatch { memory, _task: task }
    }

    /// What has been seen so far.
    pub fn memory(&self) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
