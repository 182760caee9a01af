//! What the disk takes to keep something: bare syncs, and appending as a log does.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cpu_time::CpuTime;
use crate::traffic::latency::Latencies;

/// Writes of 4 KiB at the end of a file, each with an fdatasync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fsync {
    /// From before each write until its sync has returned.
    pub times: Latencies,
}

/// The same some dozens of times a second, while something else is measured. Ends with its value.
pub struct FsyncWatch {
    times: Arc<Mutex<Latencies>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Appending events to a file with an fdatasync after each hundred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Append {
    /// Events that became durable in a second.
    pub events_per_second: f64,
    /// CPU time of an event, nearly all of it the kernel's, microseconds.
    pub cpu_micros: f64,
}

const SYNC_BYTES: usize = 4_096;
const SYNCS_MAX: usize = 300;
const EVENTS_A_SYNC: usize = 100;
const EVENTS_MAX: usize = 20_000;
const TIME_MAX: Duration = Duration::from_millis(1_500);
const WATCH_EVERY: Duration = Duration::from_millis(20);

impl Fsync {
    /// Measures in a file in `folder`, for a second and a half at most; the file is removed.
    pub fn measure(folder: &Path) -> io::Result<Fsync> {
        with_file(folder, |file| {
            let (page, started) = ([0x5a; SYNC_BYTES], Instant::now());
            let mut times = Latencies::default();
            for _ in 0..SYNCS_MAX {
                times.record(sync(file, &page)?);
                if started.elapsed() > TIME_MAX {
                    break;
                }
            }
            Ok(Fsync { times })
        })
    }

    /// With `p50_micros`, `p99_micros`, `max_micros` and `count`.
    pub fn to_json(&self) -> Value {
        let micros = |time: Option<Duration>| time.map(|time| time.as_micros() as u64);
        json!({
            "p50_micros": micros(self.times.quantile(0.5)),
            "p99_micros": micros(self.times.quantile(0.99)),
            "max_micros": micros(self.times.max()),
            "count": self.times.count(),
        })
    }
}

impl FsyncWatch {
    /// Starts, with a file in `folder`, which is removed in the end. It ends early where it fails.
    pub fn start(folder: &Path) -> io::Result<FsyncWatch> {
        let (times, stop) = (Arc::new(Mutex::new(Latencies::default())), Arc::new(AtomicBool::new(false)));
        let (folder, seen, stopped) = (folder.to_owned(), Arc::clone(&times), Arc::clone(&stop));
        let work = move |file: &mut File| {
            while !stopped.load(Ordering::Relaxed) {
                let micros = sync(file, &[0x5a; SYNC_BYTES])?;
                seen.lock().unwrap_or_else(PoisonError::into_inner).record(micros);
                std::thread::sleep(WATCH_EVERY);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("fsync".to_owned()).spawn(move || {
            if let Err(error) = with_file(&folder, work) {
                tracing::error!(%error, "failed to watch the disk");
            }
        })?;
        Ok(FsyncWatch { times, stop, thread: Some(thread) })
    }

    /// What it has seen since this was last asked.
    pub fn take(&self) -> Latencies {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FsyncWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has said so.
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

impl Append {
    /// Measures with events of `event_bytes` in a file in `folder`, for a second and a half at most; the file is removed.
    pub fn measure(folder: &Path, event_bytes: usize) -> io::Result<Append> {
        with_file(folder, |file| {
            let group = vec![0xa5; event_bytes * EVENTS_A_SYNC];
            let (started, cpu, mut events) = (Instant::now(), CpuTime::now(), 0);
            while events < EVENTS_MAX && started.elapsed() < TIME_MAX {
                file.write_all(&group)?;
                file.sync_data()?;
                events += EVENTS_A_SYNC;
            }
            Ok(Append {
                events_per_second: events as f64 / started.elapsed().as_secs_f64(),
                cpu_micros: cpu.elapsed().as_secs_f64() * 1e6 / events as f64,
            })
        })
    }

    /// With `events_per_second` and `cpu_micros_per_event`.
    pub fn to_json(&self) -> Value {
        json!({"events_per_second": self.events_per_second, "cpu_micros_per_event": self.cpu_micros})
    }
}

/// Writes and syncs once. Gives how long that took, microseconds.
fn sync(file: &mut File, page: &[u8]) -> io::Result<u64> {
    let before = Instant::now();
    file.write_all(page)?;
    file.sync_data()?;
    Ok(before.elapsed().as_micros() as u64)
}

fn with_file<T>(folder: &Path, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join("yardstick");
    let mut file = File::create(&path)?;
    let done = work(&mut file);
    std::fs::remove_file(&path)?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_measure_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let fsync = Fsync::measure(folder.path()).unwrap();
        assert!(fsync.times.max() > Some(Duration::ZERO));
        let append = Append::measure(folder.path(), 3_800).unwrap();
        assert!(append.events_per_second > 0.0);
        let watch = FsyncWatch::start(folder.path()).unwrap();
        let started = Instant::now();
        while watch.take().count() == 0 {
            assert!(started.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        drop(watch);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Fsync::measure(&folder.path().join("missing")).is_err());
    }
}
