//! The connection to the CQL servers, and how a statement is sent: prepared, to a replica of its partition, with a
//! quorum, again where that changes nothing.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use scylla::{
    client::{
        execution_profile::{ExecutionProfile, ExecutionProfileHandle},
        session_builder::SessionBuilder,
    },
    deserialize::row::DeserializeRow,
    errors::{BadKeyspaceName, DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError},
    frame::types::{Consistency, SerialConsistency},
    policies::{
        load_balancing::DefaultPolicy, retry::DefaultRetryPolicy,
        speculative_execution::SimpleSpeculativeExecutionPolicy, timestamp_generator::MonotonicTimestampGenerator,
    },
    response::{PagingState, query_result::QueryResult},
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
};
use storage::error::Error;
use tracing::warn;

use super::metrics::{Cause, Kind, Metrics};
use crate::config::Cql;

/// One try of a statement, its retries by the driver among other nodes with it.
const TRY_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A read that is not answered by then is asked of another replica too.
const SPECULATE_AFTER: Duration = Duration::from_millis(100);
/// The pause before the second try; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A statement that has failed for so long is told of in the log.
const WARN_AFTER: Duration = Duration::from_secs(2);
/// Rows that are asked for at once.
const PAGE_ROWS: i32 = 1000;
/// How many statements of one call are under way at once. On a small server 64 to 256 gave the most rows a second.
const IN_FLIGHT: usize = 128;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server let us in.
    #[error("failed to connect to the CQL servers {contact_points:?}")]
    Refused {
        /// Who was asked.
        contact_points: Vec<String>,
        /// The cause.
        #[source]
        source: Box<NewSessionError>,
    },
    /// The certificates to check servers with can't be used.
    #[error("failed to read certificates from {path}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("failed to set up tls")]
    Tls(#[from] rustls::Error),
    /// A statement was not taken: the schema is another one.
    #[error("the CQL server does not take {statement:?}")]
    Prepare {
        /// The statement.
        statement: String,
        /// The cause.
        #[source]
        source: Box<PrepareError>,
    },
    /// No keyspace has such a name.
    #[error("no keyspace can have this name")]
    Keyspace(#[from] BadKeyspaceName),
}

/// A session with the servers.
pub struct Session {
    driver: scylla::client::session::Session,
    reads: ExecutionProfileHandle,
    patience: Duration,
    metrics: Metrics,
}

/// A statement that the servers know.
pub(super) struct Statement {
    prepared: PreparedStatement,
    kind: Kind,
    /// As in [`Error::Determinate`].
    what: &'static str,
    effect: Effect,
}

/// What sending a statement twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changes nothing at all.
    Read,
    /// It writes the same cells with the same timestamps, or may as well win the second time.
    Idempotent,
    /// It looks at what is there: its second time has another answer.
    Conditional,
}

impl Session {
    /// Connects, with this keyspace in use. One without is for who makes the keyspace.
    pub async fn connect(config: &Cql, keyspace: Option<&str>, metrics: Metrics) -> Result<Session, ConnectError> {
        let mut balance = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
        if let Some(datacenter) = &config.datacenter {
            balance = balance.prefer_datacenter(datacenter.clone());
        }
        let writes = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(TRY_TIME_MAX))
            .load_balancing_policy(balance.build())
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .build();
        let twice = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: SPECULATE_AFTER };
        let reads = writes.to_builder().speculative_execution_policy(Some(Arc::new(twice))).build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.contact_points)
            .connection_timeout(CONNECT_TIME_MAX)
            .tcp_nodelay(true)
            // Cells without a position have the time of whoever writes them: of two calls of one process the later wins.
            .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
            .default_execution_profile_handle(writes.into_handle())
            // A statement goes to a replica of its partition: which that is, the keyspace says.
            .fetch_full_schema_metadata(false);
        if let Some(login) = &config.login {
            builder = builder.user(&login.user, &login.password);
        }
        if let Some(tls) = &config.tls {
            builder = builder.tls_context(Some(tls_settings(tls.ca.as_deref())?));
        }
        if let Some(keyspace) = keyspace {
            builder = builder.use_keyspace(keyspace, false).keyspaces_to_fetch([keyspace]);
        }
        let driver = builder.build().await.map_err(|source| ConnectError::Refused {
            contact_points: config.contact_points.clone(),
            source: Box::new(source),
        })?;
        Ok(Session { driver, reads: reads.into_handle(), patience: config.patience, metrics })
    }

    /// How many nodes there are, in a datacenter or in all.
    pub(super) fn nodes(&self, datacenter: Option<&str>) -> usize {
        let state = self.driver.get_cluster_state();
        let counts = |of: Option<&str>| datacenter.is_none() || of == datacenter;
        state.get_nodes_info().iter().filter(|node| counts(node.datacenter.as_deref())).count()
    }

    /// Whether a server answers.
    pub(crate) async fn ask(&self) -> bool {
        self.driver.query_unpaged("SELECT key FROM system.local", ()).await.is_ok()
    }

    /// Has the servers parse a statement, for all its later uses.
    pub(super) async fn prepare(
        &self,
        kind: Kind,
        effect: Effect,
        what: &'static str,
        text: &str,
    ) -> Result<Statement, ConnectError> {
        let mut prepared = self
            .driver
            .prepare(text)
            .await
            .map_err(|source| ConnectError::Prepare { statement: text.to_owned(), source: Box::new(source) })?;
        prepared.set_is_idempotent(effect != Effect::Conditional);
        prepared.set_page_size(PAGE_ROWS);
        if effect == Effect::Read {
            prepared.set_execution_profile_handle(Some(self.reads.clone()));
        }
        Ok(Statement { prepared, kind, what, effect })
    }

    /// Sends a statement whose answer is short or none.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        values: impl SerializeRow + Sync,
    ) -> Result<QueryResult, Error> {
        let send = || self.driver.execute_unpaged(&statement.prepared, &values);
        self.until_answered(statement, send).await
    }

    /// The same statement with many values, several at once, in no order. Ends with the first failure.
    pub(super) async fn execute_each<V: SerializeRow + Sync>(
        &self,
        statement: &Statement,
        values: impl IntoIterator<Item = V>,
    ) -> Result<(), Error> {
        let all = stream::iter(values).map(|values| async move { self.execute(statement, values).await });
        all.buffer_unordered(IN_FLIGHT).try_for_each(|_| async { Ok(()) }).await
    }

    /// The row that a statement finds, if there is one.
    pub(super) async fn one<R>(
        &self,
        statement: &Statement,
        values: impl SerializeRow + Sync,
    ) -> Result<Option<R>, Error>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let answer = self.execute(statement, values).await?;
        let rows = answer.into_rows_result().map_err(|source| statement.answered_oddly(source))?;
        rows.maybe_first_row().map_err(|source| statement.answered_oddly(source))
    }

    /// The rows that a statement finds, `limit` at most.
    pub(super) async fn all<R>(
        &self,
        statement: &Statement,
        values: impl SerializeRow + Sync,
        limit: usize,
    ) -> Result<Vec<R>, Error>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let (mut found, mut state) = (Vec::new(), PagingState::start());
        while found.len() < limit {
            let send = || self.driver.execute_single_page(&statement.prepared, &values, state.clone());
            let (page, next) = self.until_answered(statement, send).await?;
            let rows = page.into_rows_result().map_err(|source| statement.answered_oddly(source))?;
            for row in rows.rows().map_err(|source| statement.answered_oddly(source))? {
                found.push(row.map_err(|source| statement.answered_oddly(source))?);
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Continue(next) => state = next,
                std::ops::ControlFlow::Break(()) => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Sends it until it is answered, it fails in a way that does not pass, or patience ends.
    async fn until_answered<T, F>(&self, statement: &Statement, send: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, ExecutionError>>,
    {
        let began = Instant::now();
        let (mut pause, mut told) = (PAUSE_MIN, false);
        loop {
            let sent = Instant::now();
            let error = match send().await {
                Ok(answer) => {
                    self.metrics.answered(statement.kind, sent.elapsed().as_secs_f64());
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let cause = cause_of(&error);
            self.metrics.failed(statement.kind, cause);
            let conditional = statement.effect == Effect::Conditional;
            if conditional || !cause.passes() || began.elapsed() + pause > self.patience {
                return Err(statement.failed(error));
            }
            if began.elapsed() > WARN_AFTER && !told {
                warn!(statement = statement.kind.as_str(), %error, "cql does not answer, trying on");
                told = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.metrics.tried_again(statement.kind);
        }
    }

    /// For statements that are sent once in the life of a cluster.
    pub(super) fn driver(&self) -> &scylla::client::session::Session {
        &self.driver
    }
}

impl Statement {
    fn failed(&self, error: ExecutionError) -> Error {
        let never_sent = matches!(
            error,
            ExecutionError::BadQuery(_) | ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_)
        );
        let (what, source) = (self.what, error.into());
        match self.effect {
            Effect::Read => Error::Determinate { what, source },
            Effect::Idempotent | Effect::Conditional if never_sent => Error::Determinate { what, source },
            Effect::Idempotent | Effect::Conditional => Error::Indeterminate { what, source },
        }
    }

    /// The token of the partition that these values are of; `None` where they don't say.
    pub(super) fn token_of(&self, values: &impl SerializeRow) -> Option<i64> {
        Some(self.prepared.calculate_token(values).ok()??.value())
    }

    /// Of an answer that has another form than the statement asks for.
    pub(super) fn answered_oddly(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Indeterminate { what: self.what, source: source.into() }
    }
}

/// What a failure means. The driver may learn of new ones: they don't pass.
fn cause_of(error: &ExecutionError) -> Cause {
    match error {
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) | ExecutionError::PrepareError(_) => {
            Cause::Connection
        }
        ExecutionError::RequestTimeout(_) => Cause::Timeout,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::BrokenConnectionError(_) => Cause::Connection,
            RequestAttemptError::UnableToAllocStreamId => Cause::Overloaded,
            RequestAttemptError::DbError(error, _) => match error {
                DbError::ReadTimeout { .. } | DbError::WriteTimeout { .. } => Cause::Timeout,
                DbError::Unavailable { .. }
                | DbError::IsBootstrapping
                | DbError::ReadFailure { .. }
                | DbError::WriteFailure { .. }
                | DbError::TruncateError => Cause::Unavailable,
                DbError::Overloaded | DbError::RateLimitReached { .. } | DbError::ServerError => Cause::Overloaded,
                _ => Cause::Refused,
            },
            _ => Cause::Refused,
        },
        _ => Cause::Refused,
    }
}

/// Servers must prove to be who they are: by a certificate that names the address they are reached at, signed by one in
/// the file, or by a public authority where there is none.
fn tls_settings(ca: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unusable = |source| ConnectError::Certificates { path: path.to_owned(), source };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| unusable(io::Error::other(error)))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(io::Error::other(error)))?;
                roots.add(certificate).map_err(|error| unusable(io::Error::other(error)))?;
            }
            if roots.is_empty() {
                return Err(unusable(io::Error::other("no certificate is in it")));
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
