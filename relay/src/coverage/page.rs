//! What a peer answers: pages of its hosts and of its repos.

use std::time::Duration;

use runtime::egress::{self, Egress};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

/// Rows asked for in one page; the lexicons' limit.
pub(super) const PAGE_ROWS: usize = 1_000;

const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// A page of hosts.
#[derive(Debug, Deserialize)]
pub(super) struct HostsPage {
    pub(super) cursor: Option<String>,
    pub(super) hosts: Vec<ListedHost>,
}

/// A host, as a peer lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedHost {
    pub(super) hostname: String,
    pub(super) account_count: Option<u64>,
    pub(super) status: Option<String>,
}

/// A page of repos.
#[derive(Debug, Deserialize)]
pub(super) struct ReposPage {
    pub(super) cursor: Option<String>,
    pub(super) repos: Vec<ListedRepo>,
}

/// A repo, as a peer lists it.
#[derive(Debug, Deserialize)]
pub(super) struct ListedRepo {
    pub(super) did: String,
    pub(super) active: Option<bool>,
}

/// Why a round came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer.
    #[error("failed to ask for {method}")]
    Fetch {
        /// What was asked for.
        method: &'static str,
        /// Why.
        #[source]
        source: egress::Error,
    },
    /// Another status than 200.
    #[error("asked for {method}, was answered {status}")]
    Status {
        /// What was asked for.
        method: &'static str,
        /// The answer's status.
        status: u16,
    },
    /// Not what was asked for.
    #[error("the answer is no page of {method}")]
    Json {
        /// What was asked for.
        method: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Pages without end.
    #[error("{method} has no end: after {pages} pages")]
    NoEnd {
        /// What was asked for.
        method: &'static str,
        /// How many there were.
        pages: usize,
    },
    /// It took too long altogether.
    #[error("not done within {} s", limit.as_secs())]
    Late {
        /// The time there was.
        limit: Duration,
    },
    /// Our own stores did not answer.
    #[error("failed to look into our own stores")]
    Store(#[from] storage::error::Error),
}

impl Failure {
    /// Whether it may be the cursor's fault, so that asking again with it may end the same way.
    pub(super) fn may_be_of_cursor(&self) -> bool {
        match self {
            Failure::Status { status, .. } => (400..500).contains(status) && *status != 429,
            Failure::Json { .. } | Failure::Fetch { source: egress::Error::TooLarge { .. }, .. } => true,
            Failure::Fetch { .. } | Failure::NoEnd { .. } | Failure::Late { .. } | Failure::Store(_) => false,
        }
    }
}

/// The peer's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Hosts,
    Repos,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Method::Hosts => "listHosts",
            Method::Repos => "listRepos",
        }
    }
}

/// Asks a peer for a page.
pub(super) async fn fetch<T: DeserializeOwned>(
    egress: &Egress,
    peer: &Url,
    method: Method,
    cursor: Option<&str>,
) -> Result<T, Failure> {
    let name = method.as_str();
    let mut url = peer.clone();
    url.set_path(&format!("/xrpc/com.atproto.sync.{name}"));
    url.query_pairs_mut().clear().append_pair("limit", &PAGE_ROWS.to_string());
    if let Some(cursor) = cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    let answer = egress.get(&url, PAGE_BYTES_MAX, PAGE_WITHIN).await;
    let answer = answer.map_err(|source| Failure::Fetch { method: name, source })?;
    if answer.status != http::StatusCode::OK {
        return Err(Failure::Status { method: name, status: answer.status.as_u16() });
    }
    serde_json::from_slice(&answer.body).map_err(|source| Failure::Json { method: name, source })
}
