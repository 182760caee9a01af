//! Where hosts come from: another relay's list, and hosts that ask to be crawled.

use std::time::Duration;

use atproto::syntax::HostName;
use runtime::{
    backoff::Backoff,
    chain::Chain,
    egress::{self, Egress},
};
use serde::Deserialize;
use storage::hosts::{AddedBy, HostStatus};
use tokio::time::sleep;
use tracing::{debug, info, warn};
use url::Url;

use crate::{
    crawler::{Added, Error, Handle, Start},
    live::lock,
    origin::xrpc_url,
    quota::{Scope, Spent},
};

const PROBE_BYTES_MAX: usize = 64 * 1024;
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// Hosts asked of another relay in one page; the lexicon's limit.
const PAGE_HOSTS: usize = 1_000;
const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_WITHIN: Duration = Duration::from_secs(30);
/// A list longer than this many pages has no end.
const PAGES_MAX: usize = 200;

/// Why a request to be crawled was turned down.
#[derive(Debug, thiserror::Error)]
pub enum CrawlRequestError {
    /// An operator has banned the host.
    #[error("the host is banned")]
    Banned,
    /// A private or loopback address.
    #[error("the host's address is not public")]
    NotPublic,
    /// It can't be reached.
    #[error("the host can't be reached")]
    Unreachable(#[source] egress::Error),
    /// It answers, but not as a PDS does.
    #[error("the host is not a PDS: describeServer {0}")]
    NotPds(&'static str),
    /// This relay takes no such requests.
    #[error("this relay takes no requests to be crawled; write to its operator")]
    NotAccepted,
    /// As many hosts were added by requests as may be.
    #[error(transparent)]
    Quota(Spent),
    /// Too many such requests at once.
    #[error("too many requests to be crawled at once")]
    Busy,
    /// It can't be added.
    #[error(transparent)]
    Add(#[from] Error),
}

/// What came of a request to be crawled. A closed set: the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Added,
    Known,
    Banned,
    NotAccepted,
    NotPublic,
    QuotaOfAll,
    QuotaOfDomain,
    Unreachable,
    NotPds,
    Busy,
    Failed,
}

impl Answer {
    pub(crate) const ALL: [Answer; 11] = [
        Answer::Added,
        Answer::Known,
        Answer::Banned,
        Answer::NotAccepted,
        Answer::NotPublic,
        Answer::QuotaOfAll,
        Answer::QuotaOfDomain,
        Answer::Unreachable,
        Answer::NotPds,
        Answer::Busy,
        Answer::Failed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Answer::Added => "added",
            Answer::Known => "known",
            Answer::Banned => "banned",
            Answer::NotAccepted => "not_accepted",
            Answer::NotPublic => "not_public",
            Answer::QuotaOfAll => "quota",
            Answer::QuotaOfDomain => "quota_of_domain",
            Answer::Unreachable => "unreachable",
            Answer::NotPds => "not_pds",
            Answer::Busy => "busy",
            Answer::Failed => "failed",
        }
    }

    fn of(result: &Result<Added, CrawlRequestError>) -> Answer {
        match result {
            Ok(Added::New) => Answer::Added,
            Ok(Added::Known) => Answer::Known,
            Err(CrawlRequestError::Banned) => Answer::Banned,
            Err(CrawlRequestError::NotAccepted) => Answer::NotAccepted,
            Err(CrawlRequestError::NotPublic) => Answer::NotPublic,
            Err(CrawlRequestError::Quota(Spent { scope: Scope::All, .. })) => Answer::QuotaOfAll,
            Err(CrawlRequestError::Quota(Spent { scope: Scope::Domain(_) | Scope::Looks(_), .. })) => {
                Answer::QuotaOfDomain
            }
            Err(CrawlRequestError::Unreachable(_)) => Answer::Unreachable,
            Err(CrawlRequestError::NotPds(_)) => Answer::NotPds,
            Err(CrawlRequestError::Busy) => Answer::Busy,
            Err(CrawlRequestError::Add(_)) => Answer::Failed,
        }
    }
}

impl Handle {
    /// What `requestCrawl` does: a known host is tried soon, an unknown one is looked at first, within the quotas.
    pub async fn request_crawl(&self, name: &HostName) -> Result<Added, CrawlRequestError> {
        let result = self.try_request_crawl(name).await;
        self.shared.metrics.crawl_request(Answer::of(&result));
        result
    }

    async fn try_request_crawl(&self, name: &HostName) -> Result<Added, CrawlRequestError> {
        let shared = &self.shared;
        let rules = {
            let policy = shared.policy.borrow();
            if policy.ban_over(name).is_some() {
                return Err(CrawlRequestError::Banned);
            }
            policy.crawl_requests
        };
        if let Some(live) = shared.live(name) {
            if *live.banned.borrow() {
                return Err(CrawlRequestError::Banned);
            }
        } else if shared.elsewhere.get(name).is_some_and(|row| row.status == HostStatus::Banned) {
            return Err(CrawlRequestError::Banned);
        }
        if shared.wish(name).await {
            return Ok(Added::Known);
        }
        if !rules.accepted {
            return Err(CrawlRequestError::NotAccepted);
        }
        if name.is_local() && !shared.egress.policy().allow_local {
            return Err(CrawlRequestError::NotPublic);
        }
        let limit = shared.config.hosts_max;
        if shared.hosts_known() >= limit {
            return Err(Error::Full { limit }.into());
        }
        {
            let _permit = shared.probes.try_acquire().map_err(|_| CrawlRequestError::Busy)?;
            lock(&shared.quota).look(name, &rules, shared.clock.now_micros()).map_err(CrawlRequestError::Quota)?;
            probe(&shared.egress, name).await?;
        }
        // Others may have come meanwhile.
        let now = shared.clock.now_micros();
        lock(&shared.quota).take(name, &rules, now).map_err(CrawlRequestError::Quota)?;
        Ok(shared.add(name, shared.config.start, HostStatus::Idle, AddedBy::Request).await?)
    }
}

/// Why a list of hosts can't be read further.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The URL can't carry a path.
    #[error("not the address of a relay: {url}")]
    BadUrl {
        /// The URL.
        url: Url,
    },
    /// No answer.
    #[error("failed to ask for hosts")]
    Fetch(#[from] egress::Error),
    /// Another status than 200.
    #[error("asked for hosts, was answered {0}")]
    Status(u16),
    /// Not a list of hosts.
    #[error("not a list of hosts")]
    Json(#[from] serde_json::Error),
}

/// Checks that a host that wants to be crawled is there and is a PDS.
pub(crate) async fn probe(egress: &Egress, name: &HostName) -> Result<(), CrawlRequestError> {
    #[derive(Deserialize)]
    struct Described {
        did: String,
    }

    let allow_local = egress.policy().allow_local;
    let url = xrpc_url(name, allow_local, "com.atproto.server.describeServer")
        .map_err(|_| CrawlRequestError::NotPds("has no URL"))?;
    let response = egress.get(&url, PROBE_BYTES_MAX, PROBE_WITHIN).await.map_err(|error| match error {
        egress::Error::AddressRefused { .. } | egress::Error::PlainRefused { .. } => CrawlRequestError::NotPublic,
        egress::Error::Resolve { .. }
        | egress::Error::NoAddress { .. }
        | egress::Error::Connect { .. }
        | egress::Error::Tls { .. }
        | egress::Error::Timeout { .. }
        | egress::Error::BadUrl { .. }
        | egress::Error::TooLarge { .. }
        | egress::Error::Http(_) => CrawlRequestError::Unreachable(error),
    })?;
    if response.status != http::StatusCode::OK {
        debug!(host = %name, status = response.status.as_u16(), "probe refused");
        return Err(CrawlRequestError::NotPds("is not answered with 200"));
    }
    match serde_json::from_slice::<Described>(&response.body) {
        Ok(described) if described.did.starts_with("did:") => Ok(()),
        Ok(_) | Err(_) => Err(CrawlRequestError::NotPds("names no DID")),
    }
}

/// Adds all hosts that another relay lists, trying for as long as it takes.
pub(crate) async fn bootstrap(handle: Handle, relay: Url, start: Start) {
    let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(300));
    let mut cursor = None;
    let mut hosts = 0;
    let mut pages = 0;
    while pages < PAGES_MAX {
        let page = match fetch(handle.egress(), &relay, cursor.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                let wait = backoff.next(&mut rand::rng());
                warn!(%relay, error = %Chain(&error), ?wait, "failed to read a list of hosts");
                sleep(wait).await;
                continue;
            }
        };
        backoff.reset();
        pages += 1;
        for listed in page.hosts {
            if listed.status.as_deref() == Some("banned") {
                continue;
            }
            let Ok(name) = HostName::parse(&listed.hostname) else {
                debug!(hostname = listed.hostname, "not a host's name");
                continue;
            };
            if name.is_local() && !handle.egress().policy().allow_local {
                continue;
            }
            match handle.add_host(&name, start).await {
                Ok(_) => hosts += 1,
                Err(error) => {
                    warn!(%relay, hosts, error = %Chain(&error), "failed to add a listed host; the rest is left out");
                    return;
                }
            }
        }
        match page.cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            Some(_) | None => break,
        }
    }
    info!(%relay, hosts, "took another relay's hosts");
}

#[derive(Deserialize)]
struct Page {
    cursor: Option<String>,
    hosts: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    hostname: String,
    status: Option<String>,
}

async fn fetch(egress: &Egress, relay: &Url, cursor: Option<&str>) -> Result<Page, BootstrapError> {
    let mut url =
        relay.join("/xrpc/com.atproto.sync.listHosts").map_err(|_| BootstrapError::BadUrl { url: relay.clone() })?;
    url.query_pairs_mut().append_pair("limit", &PAGE_HOSTS.to_string());
    if let Some(cursor) = cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    let response = egress.get(&url, PAGE_BYTES_MAX, PAGE_WITHIN).await?;
    if response.status != http::StatusCode::OK {
        return Err(BootstrapError::Status(response.status.as_u16()));
    }
    Ok(serde_json::from_slice(&response.body)?)
}
