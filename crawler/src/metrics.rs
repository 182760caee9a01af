//! The crawler's metrics. What is per host is not here but in [`crate::HostView`].

use prometheus::{Counter, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use storage::{hosts::HostStatus, refusal::Reason};

use crate::{discover::Answer, host::End};

/// Kinds of messages, the closed set of the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Commit,
    Sync,
    Identity,
    Account,
    Info,
    Error,
    Unknown,
    Unreadable,
}

impl Message {
    const ALL: [Message; 8] = [
        Message::Commit,
        Message::Sync,
        Message::Identity,
        Message::Account,
        Message::Info,
        Message::Error,
        Message::Unknown,
        Message::Unreadable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Message::Commit => "commit",
            Message::Sync => "sync",
            Message::Identity => "identity",
            Message::Account => "account",
            Message::Info => "info",
            Message::Error => "error",
            Message::Unknown => "unknown",
            Message::Unreadable => "unreadable",
        }
    }
}

/// The handles.
#[derive(Clone, Debug)]
pub struct Metrics {
    hosts: IntGaugeVec,
    messages: Vec<IntCounter>,
    pub(crate) bytes: IntCounter,
    refusals: IntCounterVec,
    ends: IntCounterVec,
    pub(crate) opened: IntCounter,
    pub(crate) resets: IntCounter,
    pub(crate) outdated_cursors: IntCounter,
    pub(crate) throttled_seconds: Counter,
    pub(crate) full_seconds: Counter,
    pub(crate) cursor_saves: IntCounter,
    pub(crate) save_failures: IntCounter,
    pub(crate) half_bytes: IntGauge,
    pub(crate) half_waiting_seconds: Counter,
    crawl_requests: IntCounterVec,
    pub(crate) rewinds: IntCounter,
}

const STATUSES: [HostStatus; 5] =
    [HostStatus::Active, HostStatus::Idle, HostStatus::Offline, HostStatus::Throttled, HostStatus::Banned];

impl Metrics {
    /// Makes the metrics and registers them. Fails where they are registered already.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = |name: &str, help: &str| {
            let counter = Counter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let hosts = IntGaugeVec::new(Opts::new("mainstem_crawler_hosts", "Known hosts by their status."), &["status"])?;
        registry.register(Box::new(hosts.clone()))?;
        let messages =
            counters("mainstem_crawler_messages_total", "Messages that hosts sent, by what they are.", "kind")?;
        let refusals = counters(
            "mainstem_crawler_refusals_total",
            "Messages that were refused before they were judged, by reason.",
            "reason",
        )?;
        let ends = counters(
            "mainstem_crawler_connection_ends_total",
            "Connections to hosts, and tries to make one, that ended and are tried again, by cause.",
            "cause",
        )?;
        let crawl_requests = counters(
            "mainstem_crawler_crawl_requests_total",
            "Calls of requestCrawl, by what came of them.",
            "answer",
        )?;
        let half_bytes = IntGauge::new(
            "mainstem_crawler_half_message_bytes",
            "Bytes set aside for large messages of hosts that are not whole yet, or not handed on.",
        )?;
        registry.register(Box::new(half_bytes.clone()))?;
        let metrics = Metrics {
            hosts,
            messages: Message::ALL.iter().map(|kind| messages.with_label_values(&[kind.as_str()])).collect(),
            bytes: counter("mainstem_crawler_bytes_total", "Bytes of messages that hosts sent.")?,
            refusals,
            ends,
            opened: counter("mainstem_crawler_connections_opened_total", "Connections made to hosts.")?,
            resets: counter("mainstem_crawler_seq_resets_total", "Hosts that began to count their events anew.")?,
            outdated_cursors: counter(
                "mainstem_crawler_outdated_cursors_total",
                "Connections on which the host no longer had all events since our cursor.",
            )?,
            throttled_seconds: seconds(
                "mainstem_crawler_throttled_seconds_total",
                "Time in which hosts over their rate were not read, summed over hosts.",
            )?,
            full_seconds: seconds(
                "mainstem_crawler_intake_full_seconds_total",
                "Time in which hosts were not read because the intake was full, summed over hosts.",
            )?,
            cursor_saves: counter("mainstem_crawler_cursor_saves_total", "Cursors of hosts that were saved.")?,
            save_failures: counter(
                "mainstem_crawler_save_failures_total",
                "Failures to save cursors or statuses of hosts; tried again.",
            )?,
            half_bytes,
            half_waiting_seconds: seconds(
                "mainstem_crawler_half_message_waiting_seconds_total",
                "Time in which hosts were not read because too many bytes of large messages were held, summed over hosts.",
            )?,
            crawl_requests,
            rewinds: counter("mainstem_crawler_rewinds_total", "Hosts that an operator had read again.")?,
        };
        // A series that is there from the start at zero shows its first event as a rise.
        for end in End::ALL {
            metrics.ends.with_label_values(&[end.as_str()]);
        }
        for answer in Answer::ALL {
            metrics.crawl_requests.with_label_values(&[answer.as_str()]);
        }
        for reason in [Reason::FrameTooLarge, Reason::BadHeader, Reason::BadPayload, Reason::SeqNotRising] {
            metrics.refusals.with_label_values(&[reason.as_str()]);
        }
        metrics.count_hosts(std::iter::empty());
        Ok(metrics)
    }

    pub(crate) fn message(&self, kind: Message) {
        self.messages[kind as usize].inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn crawl_request(&self, answer: Answer) {
        self.crawl_requests.with_label_values(&[answer.as_str()]).inc();
    }

    pub(crate) fn ended(&self, end: End) {
        self.ends.with_label_values(&[end.as_str()]).inc();
    }

    pub(crate) fn count_hosts(&self, statuses: impl Iterator<Item = HostStatus>) {
        let mut counts = [0i64; STATUSES.len()];
        for status in statuses {
            if let Some(at) = STATUSES.iter().position(|&known| known == status) {
                counts[at] += 1;
            }
        }
        for (status, count) in STATUSES.iter().zip(counts) {
            self.hosts.with_label_values(&[status.as_str()]).set(count);
        }
    }
}
