//! What is done to a cluster, and how long the stream may stand still for it.

use std::{fmt, str::FromStr, time::Duration};

use crate::cluster::Role;

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL for a process, which starts again soon.
    Kill(Role),
    /// SIGSTOP for longer than its session lasts, then SIGCONT: it goes on as if it still had what others have by then.
    Freeze(Role),
    /// SIGTERM, and when it has ended it starts again.
    Restart(Role),
    /// No packet passes between a process and Kafka, for longer than its session lasts; all its other connections live.
    Cut(Role),
    /// SIGKILL for a broker, which starts again soon.
    KillBroker,
    /// SIGKILL for the CQL server, which starts again soon.
    KillCql,
    /// SIGKILL for all brokers, which start again after a minute.
    KafkaGone,
    /// SIGKILL for all crawlers at once. Before they start again, all that hosts' saved cursors promise must have come out.
    CrawlersGone,
    /// All validators leave until crawlers have filled `raw` to its limit and read no more.
    RawFull,
    /// The topic of the order's state is deleted, and made anew by the documented way.
    StateLost,
}

/// The bounds that a fault must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// How long the stream may stand still; of a validator or a crawler its own lanes or hosts.
    pub standstill_max: Duration,
    /// Lanes or hosts that are not the victim's must not notice.
    pub others_undisturbed: bool,
}

impl Fault {
    /// All of them.
    pub fn all() -> Vec<Fault> {
        let by_role = [Fault::Kill, Fault::Freeze, Fault::Restart, Fault::Cut].into_iter();
        let by_role = by_role.flat_map(|fault| Role::ALL.map(fault));
        let others = [
            Fault::KillBroker,
            Fault::KillCql,
            Fault::KafkaGone,
            Fault::CrawlersGone,
            Fault::RawFull,
            Fault::StateLost,
        ];
        by_role.chain(others).collect()
    }

    /// How often the whole run has it.
    pub fn often(self) -> usize {
        match self {
            Fault::Kill(_) | Fault::Freeze(_) => 10,
            Fault::Restart(_)
            | Fault::Cut(_)
            | Fault::KillBroker
            | Fault::KillCql
            | Fault::KafkaGone
            | Fault::CrawlersGone => 3,
            Fault::RawFull | Fault::StateLost => 1,
        }
    }

    /// What it must keep, where something is promised.
    pub fn target(self) -> Option<Target> {
        let target = |seconds, others_undisturbed| {
            Some(Target { standstill_max: Duration::from_secs(seconds), others_undisturbed })
        };
        match self {
            Fault::Restart(_) => target(1, false),
            Fault::Kill(Role::Validate) => target(10, true),
            Fault::Kill(Role::Sequence) => target(10, false),
            Fault::Kill(Role::Crawl | Role::Serve)
            | Fault::Freeze(_)
            | Fault::Cut(_)
            | Fault::KillBroker
            | Fault::KillCql
            | Fault::KafkaGone
            | Fault::CrawlersGone
            | Fault::RawFull
            | Fault::StateLost => None,
        }
    }

    /// Whether its victim may end by itself, for a supervisor to start it again: it was as good as dead for its cluster.
    pub fn may_end_by_itself(self) -> bool {
        matches!(self, Fault::Freeze(_) | Fault::Cut(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(role) => write!(f, "kill-{role}"),
            Fault::Freeze(role) => write!(f, "freeze-{role}"),
            Fault::Restart(role) => write!(f, "restart-{role}"),
            Fault::Cut(role) => write!(f, "cut-{role}"),
            Fault::KillBroker => f.write_str("kill-broker"),
            Fault::KillCql => f.write_str("kill-cql"),
            Fault::KafkaGone => f.write_str("kafka-gone"),
            Fault::CrawlersGone => f.write_str("crawlers-gone"),
            Fault::RawFull => f.write_str("raw-full"),
            Fault::StateLost => f.write_str("state-lost"),
        }
    }
}

/// No fault has this name.
#[derive(Debug, thiserror::Error)]
#[error("no fault is called {0:?}")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Fault, UnknownFault> {
        let found = Fault::all().into_iter().find(|fault| fault.to_string() == name);
        found.ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_by_its_name() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
        assert!("kill".parse::<Fault>().is_err());
    }
}
