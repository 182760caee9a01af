//! Figures, for people and as JSON.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::Yardstick;
use crate::relay_process::Usage;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Commits that went through the relay.
    pub events: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// From the first to the last at the subscriber.
    pub wall: Duration,
    /// The relay's usage when the first was let go.
    pub before: Usage,
    /// And after the last.
    pub after: Usage,
    /// The least it could cost.
    pub yardstick: Yardstick,
    /// The network's size.
    pub hosts: usize,
    /// The network's size.
    pub accounts: usize,
    /// The network's size.
    pub records_per_repo: usize,
}

impl Report {
    /// CPU time of the relay, all threads, an event.
    pub fn relay_micros(&self) -> f64 {
        self.user_micros() + self.system_micros()
    }

    fn user_micros(&self) -> f64 {
        self.per_event((self.after.user_seconds - self.before.user_seconds) * 1e6)
    }

    fn system_micros(&self) -> f64 {
        self.per_event((self.after.system_seconds - self.before.system_seconds) * 1e6)
    }

    /// CPU time of bare verification, an event.
    pub fn bare_micros(&self) -> f64 {
        self.per_event(self.yardstick.verify().as_secs_f64() * 1e6)
    }

    /// How many times bare verification the relay takes.
    pub fn ratio(&self) -> f64 {
        self.relay_micros() / self.bare_micros()
    }

    /// CPU time of one signature of secp256k1 and of one of P-256.
    fn signature_micros(&self) -> (f64, f64) {
        let Yardstick { signatures, signatures_p256, verify_k256, verify_p256, .. } = self.yardstick;
        let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        (each(verify_k256, signatures - signatures_p256), each(verify_p256, signatures_p256))
    }

    fn sha256_micros(&self) -> f64 {
        self.per_event(self.yardstick.sha256.as_secs_f64() * 1e6)
    }

    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    fn written_per_event(&self) -> f64 {
        self.per_event((self.after.written_bytes - self.before.written_bytes) as f64)
    }

    fn threads(&self) -> Vec<(&str, f64)> {
        let before =
            |name: &str| self.before.threads.iter().find(|(other, _)| other == name).map_or(0.0, |(_, cpu)| *cpu);
        let mut threads: Vec<(&str, f64)> = self
            .after
            .threads
            .iter()
            .map(|(name, cpu)| (name.as_str(), self.per_event((cpu - before(name)) * 1e6)))
            .filter(|(_, micros)| *micros >= 0.1)
            .collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        threads
    }

    fn per_event(&self, total: f64) -> f64 {
        total / self.events.max(1) as f64
    }

    /// All figures.
    pub fn to_json(&self) -> Value {
        json!({
            "hosts": self.hosts,
            "accounts": self.accounts,
            "records_per_repo": self.records_per_repo,
            "events": self.events,
            "frame_bytes_mean": self.per_event(self.bytes as f64),
            "wall_seconds": self.wall.as_secs_f64(),
            "events_per_second": self.events_per_second(),
            "relay_cpu_micros_per_event": self.relay_micros(),
            "relay_user_micros_per_event": self.user_micros(),
            "relay_system_micros_per_event": self.system_micros(),
            "relay_threads_cpu_micros_per_event": self.threads().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "relay_rss_bytes": self.after.rss_bytes,
            "relay_rss_bytes_max": self.after.rss_bytes_max,
            "relay_written_bytes_per_event": self.written_per_event(),
            "bare_verification_micros_per_event": self.bare_micros(),
            "bare_k256_micros_per_signature": self.signature_micros().0,
            "bare_p256_micros_per_signature": self.signature_micros().1,
            "bare_signatures": self.yardstick.signatures,
            "bare_signatures_p256": self.yardstick.signatures_p256,
            "sha256_micros_per_event": self.sha256_micros(),
            "ratio": self.ratio(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{} commits, mean frame {:.0} B, of {} accounts with {} records each on {} hosts",
            self.events,
            self.per_event(self.bytes as f64),
            self.accounts,
            self.records_per_repo,
            self.hosts
        )?;
        writeln!(f)?;
        writeln!(f, "  {:<36}{:>12}{:>10}", "CPU an event", "µs", "times")?;
        let mut row =
            |name: &str, micros: f64| writeln!(f, "  {name:<36}{micros:>12.1}{:>10.2}", micros / self.bare_micros());
        row("the relay, all threads", self.relay_micros())?;
        row("  in user mode", self.user_micros())?;
        row("  in the kernel", self.system_micros())?;
        for (name, micros) in self.threads() {
            row(&format!("  thread {name}"), micros)?;
        }
        row("bare verification, one thread", self.bare_micros())?;
        row("  one signature of secp256k1", self.signature_micros().0)?;
        row("  one signature of P-256", self.signature_micros().1)?;
        row("SHA-256 of the frames", self.sha256_micros())?;
        writeln!(f)?;
        writeln!(f, "  {:<36}{:>12.0}", "events/s", self.events_per_second())?;
        writeln!(f, "  {:<36}{:>12.0}", "MiB resident", mib(self.after.rss_bytes))?;
        writeln!(f, "  {:<36}{:>12.0}", "MiB resident, most", mib(self.after.rss_bytes_max))?;
        writeln!(f, "  {:<36}{:>12.0}", "bytes written an event", self.written_per_event())?;
        writeln!(f)?;
        write!(f, "  CPU per event : bare verification = {:.2}", self.ratio())
    }
}
