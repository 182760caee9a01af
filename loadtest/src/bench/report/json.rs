//! Figures for programs. A change that renames or removes something raises [`FORMAT`].

use serde_json::{Map, Value, json};

use super::{LatencyFigures, Measured, Report};
use crate::{
    bench::{Bare, Cost, Latency, Load, Spread, Turn},
    traffic::latency::Latencies,
};

/// The version of the form.
const FORMAT: u32 = 2;

impl Report {
    /// All figures. Those of several rounds are `{median, least, most}`.
    pub fn to_json(&self) -> Value {
        let [bare_before, bare_after, bare] = self.bare().map(spread);
        json!({
            "format": FORMAT,
            "at": date(self.at_micros),
            "machine": self.machine.to_json(),
            "traffic": self.traffic,
            "yardsticks": {
                "bare_verification_micros_per_event": bare,
                "bare_verification_before_micros_per_event": bare_before,
                "bare_verification_after_micros_per_event": bare_after,
                "k256_micros_per_signature": spread(self.bare_part(|bare| bare.k256_micros)),
                "p256_micros_per_signature": spread(self.bare_part(|bare| bare.p256_micros)),
                "sha256_micros_per_event": spread(self.bare_part(|bare| bare.sha256_micros)),
                "fsync": self.fsync.to_json(),
                "append": self.append.to_json(),
                "loopback": self.loopback.to_json(),
            },
            "subjects": self.subjects.iter().map(Measured::to_json).collect::<Vec<_>>(),
            "two_workers_ratio": self.two_workers_ratio(),
            "cluster_ratio": self.cluster_ratios().map(|(at_rate, loaded)| json!({"at_rate": at_rate, "as_fast_as_read": loaded})),
        })
    }
}

impl Measured {
    fn to_json(&self) -> Value {
        let over = |of: fn(&Load) -> f64| spread(self.spread(of));
        let threads: Map<String, Value> =
            self.threads().into_iter().map(|(name, micros)| (name, micros.to_json())).collect();
        json!({
            "name": self.subject.name,
            "program": self.subject.program,
            "args": self.subject.args,
            "workers": self.subject.workers,
            "cpu_micros_per_event": over(|load| load.relay.micros()),
            "user_micros_per_event": over(|load| load.relay.user_micros),
            "system_micros_per_event": over(|load| load.relay.system_micros),
            "threads_cpu_micros_per_event": threads,
            "ratio": over(Load::ratio),
            "generator_cpu_micros_per_event": over(|load| load.generator.micros()),
            "events_per_second": over(Load::events_per_second),
            "rss_bytes": over(|load| load.rss_bytes as f64),
            "rss_bytes_max": over(|load| load.rss_bytes_max as f64),
            "written_bytes_per_event": over(|load| load.relay.written_bytes),
            "latency": self.latencies().map(|latencies| latencies.to_json()),
            "rounds": self.turns.iter().map(Turn::to_json).collect::<Vec<_>>(),
        })
    }
}

impl LatencyFigures {
    fn to_json(&self) -> Value {
        let mut fields = times(&self.times);
        fields.extend([
            ("rate".to_owned(), self.rate.into()),
            ("cpu_micros_per_event".to_owned(), spread(self.cpu_micros)),
            ("idle_share".to_owned(), self.idle_share.into()),
            ("void".to_owned(), self.void.clone().into()),
            ("fsync".to_owned(), times(&self.fsync).into()),
        ]);
        fields.into()
    }
}

impl Turn {
    fn to_json(&self) -> Value {
        let Turn { load, memory, latency } = self;
        let memory: Vec<Value> = memory.samples.iter().map(|(at, bytes)| json!([at.as_secs_f64(), bytes])).collect();
        json!({
            "events": load.events,
            "bytes": load.bytes,
            "wall_seconds": load.wall.as_secs_f64(),
            "events_per_second": load.events_per_second(),
            "relay": cost(&load.relay),
            "generator": cost(&load.generator),
            "latency_as_fast_as_read": times(&load.times),
            "ratio": load.ratio(),
            "bare_before": bare(&load.bare_before),
            "bare_after": bare(&load.bare_after),
            "rss_bytes": load.rss_bytes,
            "rss_bytes_max": load.rss_bytes_max,
            "rss_bytes_by_seconds": memory,
            "latency": latency.as_ref().map(phase),
        })
    }
}

fn phase(latency: &Latency) -> Value {
    let mut fields = times(&latency.times);
    fields.extend([
        ("rate".to_owned(), latency.rate.into()),
        ("relay".to_owned(), cost(&latency.relay)),
        ("idle_share".to_owned(), latency.idle_share.into()),
        ("behind_max_micros".to_owned(), (latency.behind_max.as_micros() as u64).into()),
        ("void".to_owned(), latency.void().into()),
        ("fsync".to_owned(), latency.fsync.to_json()),
    ]);
    fields.into()
}

fn times(times: &Latencies) -> Map<String, Value> {
    let micros = |time: Option<std::time::Duration>| time.map(|time| time.as_micros() as u64);
    [
        ("p50_micros", micros(times.quantile(0.5))),
        ("p99_micros", micros(times.quantile(0.99))),
        ("max_micros", micros(times.max())),
        ("count", Some(times.count())),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into_iter()
    .collect()
}

fn cost(cost: &Cost) -> Value {
    json!({
        "user_micros_per_event": cost.user_micros,
        "system_micros_per_event": cost.system_micros,
        "threads_cpu_micros_per_event": cost.threads.iter().map(|(name, cpu)| (name.clone(), (*cpu).into())).collect::<Map<_, Value>>(),
        "written_bytes_per_event": cost.written_bytes,
    })
}

fn bare(bare: &Bare) -> Value {
    json!({
        "verification_micros_per_event": bare.verify_micros,
        "k256_micros_per_signature": bare.k256_micros,
        "p256_micros_per_signature": bare.p256_micros,
        "p256_share": bare.p256_share,
        "sha256_micros_per_event": bare.sha256_micros,
    })
}

fn spread(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |spread| spread.to_json())
}

/// `2026-11-22T17:05:00Z`.
fn date(micros: u64) -> String {
    let at = i64::try_from(micros / 1_000_000).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn what_others_read_has_its_place() {
        let json = report().to_json();
        assert_eq!(json["format"], 2);
        assert_eq!(json["at"], "2026-09-21T14:13:20Z");
        assert_eq!(json["subjects"][0]["ratio"]["median"], 2.2);
        assert_eq!(json["subjects"][0]["latency"]["void"], serde_json::Value::Null);
        assert!(json["subjects"][1]["latency"]["void"].is_string());
        assert_eq!(json["subjects"][0]["rounds"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["yardsticks"]["bare_verification_before_micros_per_event"]["median"], 39.0);
    }
}
