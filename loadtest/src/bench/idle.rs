//! How idle the machine was: a latency that was measured on a busy one tells of the machine and not of the relay.

use std::io;

/// Below this share of idle time a latency doesn't count.
pub const IDLE_SHARE_MIN: f64 = 0.3;

/// What the kernel has counted of all processors since the machine's start, in its ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// Idle, and waiting for disks.
    pub idle: u64,
    /// Everything: also what the hypervisor gave to others.
    pub all: u64,
}

impl Ticks {
    /// Now.
    pub fn now() -> io::Result<Ticks> {
        Ticks::parse(&std::fs::read_to_string("/proc/stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// From the text of `/proc/stat`.
    fn parse(stat: &str) -> Option<Ticks> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; guest time, which follows, is within user.
        let fields: Vec<u64> = fields.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Ticks { idle: fields.get(3)? + fields.get(4)?, all: fields.iter().sum() })
    }

    /// The idle share from then to `later`, 0 to 1; none where no time has passed.
    pub fn idle_share(self, later: Ticks) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|all| *all > 0)?;
        Some(later.idle.saturating_sub(self.idle) as f64 / all as f64)
    }
}

/// Why a latency that was measured at this idle share doesn't count, if it doesn't.
pub(super) fn void(idle_share: Option<f64>) -> Option<String> {
    match idle_share {
        Some(share) if share >= IDLE_SHARE_MIN => None,
        Some(share) => Some(format!(
            "the machine was {:.0} % idle, and at least {:.0} % is needed",
            share * 100.0,
            IDLE_SHARE_MIN * 100.0
        )),
        None => Some("it is not known how idle the machine was".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_file_is_read() {
        let stat = "cpu  100 1 50 800 40 2 3 4 90 0\ncpu0 1 1 1 1\n";
        assert_eq!(Ticks::parse(stat), Some(Ticks { idle: 840, all: 1_000 }));
        for bad in ["", "cpu", "cpu  1 2 3", "cpu  1 2 x 4 5 6 7 8", "intr 5"] {
            assert_eq!(Ticks::parse(bad), None, "{bad:?}");
        }
        assert!(Ticks::now().unwrap().all > 0);
    }

    #[test]
    fn what_counts() {
        let then = Ticks { idle: 100, all: 1_000 };
        for (idle, all, share, counts) in [
            (130, 1_100, Some(0.3), true),
            (200, 1_100, Some(1.0), true),
            (129, 1_100, Some(0.29), false),
            (100, 1_000, None, false),
            (90, 900, None, false),
        ] {
            let found = then.idle_share(Ticks { idle, all });
            assert_eq!(found, share);
            assert_eq!(void(found).is_none(), counts, "{idle} of {all}");
        }
    }
}
