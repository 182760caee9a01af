//! What the fan-out counts.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, GenericCounter},
};

/// Why a subscriber's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It closed, or its connection broke.
    Left,
    /// It made no progress for too long, or fell out of the window.
    TooSlow,
    /// Its cursor was past the last event.
    FutureCursor,
    /// It answered no ping.
    NoPong,
    /// It broke the WebSocket protocol.
    Protocol,
    /// It sent more than one has to say who only listens.
    TooTalkative,
    /// The operator sent it away.
    Disconnected,
    /// We are shutting down.
    Shutdown,
    /// The log could not be read.
    Failed,
}

impl Ended {
    /// All of them.
    pub const ALL: [Ended; 9] = [
        Ended::Left,
        Ended::TooSlow,
        Ended::FutureCursor,
        Ended::NoPong,
        Ended::Protocol,
        Ended::TooTalkative,
        Ended::Disconnected,
        Ended::Shutdown,
        Ended::Failed,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Left => "left",
            Ended::TooSlow => "too_slow",
            Ended::FutureCursor => "future_cursor",
            Ended::NoPong => "no_pong",
            Ended::Protocol => "protocol",
            Ended::TooTalkative => "too_talkative",
            Ended::Disconnected => "disconnected",
            Ended::Shutdown => "shutdown",
            Ended::Failed => "failed",
        }
    }
}

/// Why somebody did not become a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It did not ask for a WebSocket as one does.
    NoUpgrade,
    /// A parameter is wrong: the cursor, or the shard.
    BadRequest,
    /// Its token is none that we gave out.
    WrongToken,
    /// All seats are taken.
    Full,
    /// Its address has as many as one may have.
    AddressFull,
    /// Its token's seats are taken.
    TokenFull,
    /// Its cursor is past what this node knows, and nobody can say whether it is past the log's end.
    EndUnknown,
}

impl Refused {
    /// All of them.
    pub const ALL: [Refused; 7] = [
        Refused::NoUpgrade,
        Refused::BadRequest,
        Refused::WrongToken,
        Refused::Full,
        Refused::AddressFull,
        Refused::TokenFull,
        Refused::EndUnknown,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::NoUpgrade => "no_upgrade",
            Refused::BadRequest => "bad_request",
            Refused::WrongToken => "wrong_token",
            Refused::Full => "full",
            Refused::AddressFull => "address_full",
            Refused::TokenFull => "token_full",
            Refused::EndUnknown => "end_unknown",
        }
    }
}

/// The fan-out's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Accounts of which nothing is served.
    pub withheld_accounts: IntGauge,
    /// Subscribers connected now.
    pub subscribers: IntGauge,
    /// Subscribers that have been at the end since they last read behind the ring.
    pub live: IntGauge,
    /// Subscribers that read behind the ring now.
    pub replaying: IntGauge,
    /// Events that have left in full.
    pub events_sent: IntCounter,
    /// Bytes of events that have left.
    pub bytes_sent: IntCounter,
    /// Events the hub has taken from the log.
    pub events: IntCounter,
    /// Bytes in the ring.
    pub ring_bytes: IntGauge,
    /// Reads behind the ring that went to the log.
    pub replay_reads: IntCounter,
    /// Bytes read for that.
    pub replay_read_bytes: IntCounter,
    /// Bytes of pieces that are kept to be shared.
    pub replay_bytes: IntGauge,
    /// Reads behind the ring that another's read served.
    pub replay_shared: IntCounter,
    /// Bytes of events that were deflated, before.
    pub deflate_read_bytes: IntCounter,
    /// What became of them.
    pub deflate_made_bytes: IntCounter,
    /// Bytes of deflated events in memory.
    pub deflated_bytes: IntGauge,
    ended: IntCounterVec,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let ended = add(
            registry,
            IntCounterVec::new(
                Opts::new("mainstem_fanout_disconnects_total", "Subscribers' connections that ended, by reason."),
                &["reason"],
            )?,
        )?;
        for reason in Ended::ALL {
            ended.with_label_values(&[reason.as_str()]);
        }
        let refused = add(
            registry,
            IntCounterVec::new(
                Opts::new("mainstem_fanout_refused_total", "Requests to subscribe that were refused, by reason."),
                &["reason"],
            )?,
        )?;
        for reason in Refused::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        Ok(Metrics {
            withheld_accounts: gauge(
                registry,
                "mainstem_fanout_withheld_accounts",
                "Accounts that are taken down, of which nothing is served.",
            )?,
            subscribers: gauge(registry, "mainstem_fanout_subscribers", "Subscribers that are connected.")?,
            live: gauge(
                registry,
                "mainstem_fanout_live_subscribers",
                "Subscribers that have been at the end since they last read behind the ring.",
            )?,
            replaying: gauge(
                registry,
                "mainstem_fanout_replaying_subscribers",
                "Subscribers that read behind the ring.",
            )?,
            events_sent: counter(
                registry,
                "mainstem_fanout_events_sent_total",
                "Events sent, summed over subscribers.",
            )?,
            bytes_sent: counter(
                registry,
                "mainstem_fanout_bytes_sent_total",
                "Bytes of events sent, summed over subscribers.",
            )?,
            events: counter(registry, "mainstem_fanout_events_total", "Events taken from the log to be served.")?,
            ring_bytes: gauge(registry, "mainstem_fanout_ring_bytes", "Bytes of encoded events held in memory.")?,
            deflate_read_bytes: counter(
                registry,
                "mainstem_fanout_deflate_read_bytes_total",
                "Bytes of events that were compressed, before that; each event once for all subscribers.",
            )?,
            deflate_made_bytes: counter(
                registry,
                "mainstem_fanout_deflate_made_bytes_total",
                "Bytes of events that were compressed, after that.",
            )?,
            deflated_bytes: gauge(
                registry,
                "mainstem_fanout_deflated_bytes",
                "Bytes of compressed events in memory, beside the same in plain.",
            )?,
            replay_reads: counter(
                registry,
                "mainstem_fanout_replay_reads_total",
                "Reads behind the ring from the log.",
            )?,
            replay_read_bytes: counter(
                registry,
                "mainstem_fanout_replay_read_bytes_total",
                "Bytes of the log read behind the ring.",
            )?,
            replay_bytes: gauge(
                registry,
                "mainstem_fanout_replay_bytes",
                "Bytes of the log held in memory to be shared by those who read behind the ring.",
            )?,
            replay_shared: counter(
                registry,
                "mainstem_fanout_replay_shared_total",
                "Reads behind the ring that were served by another subscriber's read.",
            )?,
            ended,
            refused,
        })
    }

    /// Counts the end of a connection.
    pub fn ended(&self, reason: Ended) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }

    /// Connections that ended for a reason.
    pub fn ended_by(&self, reason: Ended) -> u64 {
        self.ended.with_label_values(&[reason.as_str()]).get()
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: Refused) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    /// Requests that were refused for a reason.
    pub fn refused_by(&self, reason: Refused) -> u64 {
        self.refused.with_label_values(&[reason.as_str()]).get()
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    add(registry, GenericCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    add(registry, IntGauge::new(name, help)?)
}
