//! What a process spent between two moments.

use std::io;

use crate::relay_process::{Usage, usage};

/// What a process spent on a number of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// CPU time in user mode an event, microseconds.
    pub user_micros: f64,
    /// CPU time in the kernel an event, microseconds.
    pub system_micros: f64,
    /// CPU time of each kind of thread an event, microseconds; the dearest first.
    pub threads: Vec<(String, f64)>,
    /// Bytes handed to storage an event.
    pub written_bytes: f64,
}

/// Threads below this are left out.
const THREAD_MICROS_MIN: f64 = 0.05;

impl Cost {
    /// From the counts before and after.
    pub fn of(before: &Usage, after: &Usage, events: u64) -> Cost {
        let each = |total: f64| total / events.max(1) as f64;
        let earlier = |name: &str| before.threads.iter().find(|(other, _)| other == name).map_or(0.0, |(_, cpu)| *cpu);
        let mut threads: Vec<(String, f64)> = after
            .threads
            .iter()
            .map(|(name, seconds)| (name.clone(), each((seconds - earlier(name)) * 1e6)))
            .filter(|(_, micros)| *micros >= THREAD_MICROS_MIN)
            .collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        Cost {
            user_micros: each((after.user_seconds - before.user_seconds) * 1e6),
            system_micros: each((after.system_seconds - before.system_seconds) * 1e6),
            threads,
            written_bytes: each(after.written_bytes.saturating_sub(before.written_bytes) as f64),
        }
    }

    /// CPU time an event, microseconds.
    pub fn micros(&self) -> f64 {
        self.user_micros + self.system_micros
    }
}

/// What this process has used so far.
pub(super) fn own_usage() -> io::Result<Usage> {
    usage(std::process::id().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_a_difference_by_events() {
        let usage = |user, system, judge, written| Usage {
            user_seconds: user,
            system_seconds: system,
            written_bytes: written,
            threads: vec![("judge".to_owned(), judge), ("idle".to_owned(), 3.0)],
            ..Usage::default()
        };
        let cost = Cost::of(&usage(1.0, 0.5, 0.7, 1_000), &usage(2.0, 0.75, 1.2, 4_000_000), 10_000);
        assert_eq!((cost.user_micros, cost.system_micros, cost.micros()), (100.0, 25.0, 125.0));
        assert_eq!(cost.threads.len(), 1);
        assert_eq!(cost.threads[0].0, "judge");
        assert!((cost.threads[0].1 - 50.0).abs() < 1e-6);
        assert_eq!(cost.written_bytes, 399.9);
    }
}
