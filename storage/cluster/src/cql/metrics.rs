//! What is measured of CQL.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets};

/// Which table a statement is about, and what it does there: a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    RepoGet,
    RepoPut,
    RepoList,
    RepoCount,
    AccountPut,
    AccountCount,
    TakedownPut,
    TakedownList,
    HostGet,
    HostPut,
    HostList,
    HostCursorPut,
    IdentityGet,
    IdentityPut,
    CommandGet,
    CommandPut,
    Schema,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::RepoGet => "repo_get",
            Kind::RepoPut => "repo_put",
            Kind::RepoList => "repo_list",
            Kind::RepoCount => "repo_count",
            Kind::AccountPut => "account_put",
            Kind::AccountCount => "account_count",
            Kind::TakedownPut => "takedown_put",
            Kind::TakedownList => "takedown_list",
            Kind::HostGet => "host_get",
            Kind::HostPut => "host_put",
            Kind::HostList => "host_list",
            Kind::HostCursorPut => "host_cursor_put",
            Kind::IdentityGet => "identity_get",
            Kind::IdentityPut => "identity_put",
            Kind::CommandGet => "command_get",
            Kind::CommandPut => "command_put",
            Kind::Schema => "schema",
        }
    }
}

/// Why a statement failed: a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nobody can be reached, or the connection broke.
    Connection,
    /// No answer in time, from the server or from its replicas.
    Timeout,
    /// Too few replicas are there.
    Unavailable,
    /// The server has too much to do.
    Overloaded,
    /// Something that does not pass by itself.
    Refused,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Cause::Connection => "connection",
            Cause::Timeout => "timeout",
            Cause::Unavailable => "unavailable",
            Cause::Overloaded => "overloaded",
            Cause::Refused => "refused",
        }
    }

    /// Whether the same statement may do better later.
    pub(super) fn passes(self) -> bool {
        match self {
            Cause::Connection | Cause::Timeout | Cause::Unavailable | Cause::Overloaded => true,
            Cause::Refused => false,
        }
    }
}

/// Handles; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    seconds: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let seconds = HistogramVec::new(
            HistogramOpts::new("mainstem_cql_seconds", "How long a CQL statement took that was answered.")
                .buckets(exponential_buckets(0.000_25, 2.0, 16)?),
            &["statement"],
        )?;
        let errors = IntCounterVec::new(
            Opts::new("mainstem_cql_errors_total", "CQL statements that failed, each try by itself."),
            &["statement", "cause"],
        )?;
        let retries = IntCounterVec::new(
            Opts::new("mainstem_cql_retries_total", "CQL statements that were sent once more."),
            &["statement"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        Ok(Metrics { seconds, errors, retries })
    }

    pub(super) fn answered(&self, kind: Kind, seconds: f64) {
        self.seconds.with_label_values(&[kind.as_str()]).observe(seconds);
    }

    pub(super) fn failed(&self, kind: Kind, cause: Cause) {
        self.errors.with_label_values(&[kind.as_str(), cause.as_str()]).inc();
    }

    pub(super) fn tried_again(&self, kind: Kind) {
        self.retries.with_label_values(&[kind.as_str()]).inc();
    }
}
