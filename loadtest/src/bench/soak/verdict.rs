//! What a soak shows: pure, of its samples.

use std::time::Duration;

use super::{Phase, Sample};
use crate::bench::{Bound, Check};

/// Memory may be so many times what it was.
const MEMORY_MOST: f64 = 1.1;
/// Latency may be so many times what it was: machines drift by a fifth by themselves.
const LATENCY_MOST: f64 = 1.5;
/// The log may be so many times `--window-bytes`: whole segments go, and an eighth of the window is one.
const DISK_MOST: f64 = 1.25;
/// The share of the full phase in which caches and the log fill up.
const WARM_UP: f64 = 0.2;

/// What must hold of the samples of a soak. What was never seen does not hold.
pub fn verdict(samples: &[Sample], window_bytes: u64) -> Vec<Check> {
    let full: Vec<&Sample> = samples.iter().filter(|sample| sample.phase == Phase::Full).collect();
    let full = &full[(full.len() as f64 * WARM_UP) as usize..];
    let third = full.len() / 3;
    let (first, last) = (&full[..third], &full[full.len() - third..]);
    let again: Vec<&Sample> = samples.iter().filter(|sample| sample.phase == Phase::Again).collect();
    // The second half: what went cold has to warm up first.
    let again = &again[again.len() / 2..];

    let memory = |samples: &[&Sample]| median(samples.iter().map(|sample| sample.rss_bytes as f64));
    let latency = |samples: &[&Sample]| {
        median(samples.iter().filter_map(|sample| sample.p50.as_ref().map(Duration::as_secs_f64)))
    };
    let log_bytes_max = samples.iter().map(|sample| sample.log_bytes).max().unwrap_or(0);
    [
        ("memory, last third : first third", memory(last) / memory(first), MEMORY_MOST),
        ("memory, full again : first third", memory(again) / memory(first), MEMORY_MOST),
        ("latency, last third : first third", latency(last) / latency(first), LATENCY_MOST),
        ("latency, full again : first third", latency(again) / latency(first), LATENCY_MOST),
        ("disk of the log, most : --window-bytes", log_bytes_max as f64 / window_bytes as f64, DISK_MOST),
    ]
    .map(|(name, value, most)| Check::new(name, value, Bound::AtMost(most)))
    .into()
}

/// The middle value; not a number where there is none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    crate::bench::Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(change: impl Fn(usize, &mut Sample)) -> Vec<bool> {
        let samples: Vec<Sample> = (0..130)
            .map(|second| {
                let phase = match second {
                    0..100 => Phase::Full,
                    100..110 => Phase::Idle,
                    _ => Phase::Again,
                };
                let mut sample = Sample {
                    at: Duration::from_secs(second as u64),
                    phase,
                    rss_bytes: 100 << 20,
                    log_bytes: 200 << 20,
                    data_bytes: 300 << 20,
                    events_per_second: 5_000.0,
                    p50: (phase != Phase::Idle).then_some(Duration::from_millis(10)),
                    p99: None,
                };
                change(second, &mut sample);
                sample
            })
            .collect();
        verdict(&samples, 200 << 20).iter().map(Check::holds).collect()
    }

    #[test]
    fn what_stays_as_it_is_holds() {
        assert_eq!(soak(|_, _| {}), [true; 5]);
    }

    #[test]
    fn what_grows_is_found() {
        let grows = soak(|second, sample| sample.rss_bytes += (second as u64) << 20);
        assert_eq!(grows, [false, false, true, true, true]);
        let after_idle = soak(|second, sample| sample.rss_bytes += if second > 110 { 20 << 20 } else { 0 });
        assert_eq!(after_idle, [true, false, true, true, true]);
        let slows = soak(|second, sample| {
            sample.p50 = sample.p50.map(|p50| p50 + Duration::from_micros(200) * u32::try_from(second).unwrap());
        });
        assert_eq!(slows, [true, true, false, false, true]);
        let fills = soak(|second, sample| sample.log_bytes += if second == 70 { 60 << 20 } else { 0 });
        assert_eq!(fills, [true, true, true, true, false]);
    }

    #[test]
    fn the_warm_up_does_not_count_and_nothing_seen_is_nothing_shown() {
        assert_eq!(soak(|second, sample| sample.rss_bytes >>= if second < 20 { 1 } else { 0 }), [true; 5]);
        assert!(!verdict(&[], 1)[0].holds());
    }
}
