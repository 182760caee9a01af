//! Asks hosts how accounts are (`com.atproto.sync.getRepoStatus`), within a rate.

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::syntax::{Did, HostName};
use http::StatusCode;
use runtime::{bucket::TokenBucket, egress::Egress};
use serde::Deserialize;
use storage::repos::AccountStatus;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use url::Url;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How hosts are asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests under way.
    pub concurrent_max: NonZeroUsize,
    /// Requests under way to one host.
    pub host_concurrent_max: NonZeroUsize,
    /// Requests a second.
    pub per_second: NonZeroU32,
    /// Requests a second to one host.
    pub host_per_second: NonZeroU32,
    /// The time for an answer, waiting for one's turn included. Then the account stays as it was known.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            concurrent_max: NonZeroUsize::new(32).expect("32 is not 0"),
            host_concurrent_max: NonZeroUsize::new(2).expect("2 is not 0"),
            per_second: NonZeroU32::new(50).expect("50 is not 0"),
            host_per_second: NonZeroU32::new(5).expect("5 is not 0"),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Asks hosts for the status of accounts.
pub(crate) struct StatusAsker {
    config: Config,
    egress: Egress,
    free: Semaphore,
    bucket: Mutex<TokenBucket>,
    /// Hosts that are being asked, or were a moment ago. A host's own entry keeps one slow host from taking all turns, and
    /// one with many accounts that are not active from taking all requests.
    hosts: Mutex<HashMap<HostName, Arc<Turn>>>,
}

/// How often one host may be asked.
struct Turn {
    free: Semaphore,
    bucket: Mutex<TokenBucket>,
}

/// Past so many hosts, those that may be asked as often as ever are forgotten.
const HOSTS_MAX: usize = 1_024;

/// The answer's part that matters.
#[derive(Deserialize)]
struct Answer {
    did: String,
    active: bool,
    status: Option<String>,
}

// === impl StatusAsker ===

impl StatusAsker {
    pub(crate) fn new(config: Config, egress: Egress) -> StatusAsker {
        StatusAsker {
            free: Semaphore::new(config.concurrent_max.get()),
            bucket: Mutex::new(TokenBucket::new(config.per_second, config.per_second)),
            hosts: Mutex::new(HashMap::new()),
            config,
            egress,
        }
    }

    /// How the account is at the host; `None` where the host does not say, or not in time.
    pub(crate) async fn ask(&self, host: &HostName, did: &Did) -> Option<AccountStatus> {
        let turn = self.host(host);
        let answer = timeout(self.config.timeout, async {
            let _of_host = turn.free.acquire().await.ok()?;
            paid(&turn.bucket).await;
            let _of_all = self.free.acquire().await.ok()?;
            paid(&self.bucket).await;
            self.request(host, did).await
        });
        answer.await.ok().flatten()
    }

    async fn request(&self, host: &HostName, did: &Did) -> Option<AccountStatus> {
        let scheme = host.scheme(self.egress.policy().allow_local);
        let mut url = Url::parse(&format!("{scheme}://{host}/xrpc/com.atproto.sync.getRepoStatus")).ok()?;
        url.query_pairs_mut().append_pair("did", did.as_str());
        match self.egress.get(&url, ANSWER_BYTES_MAX, self.config.timeout).await {
            Ok(response) if response.status == StatusCode::OK => read(&response.body, did),
            Ok(response) => {
                debug!(%host, %did, status = %response.status, "host gave no status");
                None
            }
            Err(error) => {
                debug!(%host, %did, %error, "host could not be asked for a status");
                None
            }
        }
    }

    fn host(&self, host: &HostName) -> Arc<Turn> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            let now = Instant::now();
            hosts.retain(|_, turn| Arc::strong_count(turn) > 1 || !lock(&turn.bucket).full_in(now).is_zero());
        }
        let Config { host_concurrent_max, host_per_second, .. } = self.config;
        let turn = hosts.entry(host.clone()).or_insert_with(|| {
            Arc::new(Turn {
                free: Semaphore::new(host_concurrent_max.get()),
                bucket: Mutex::new(TokenBucket::new(host_per_second, host_per_second)),
            })
        });
        Arc::clone(turn)
    }
}

/// Waits until one more request is paid for.
async fn paid(bucket: &Mutex<TokenBucket>) {
    let wait = lock(bucket).take(Instant::now(), 1);
    sleep(wait.duration()).await;
}

fn lock(bucket: &Mutex<TokenBucket>) -> MutexGuard<'_, TokenBucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(body: &[u8], did: &Did) -> Option<AccountStatus> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    (answer.did == did.as_str()).then(|| AccountStatus::from_event(answer.active, answer.status.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_for_its_account() {
        let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        let table = [
            (r#"{"did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","active":true,"rev":"3"}"#, Some(AccountStatus::Active)),
            (
                r#"{"did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","active":false,"status":"deactivated"}"#,
                Some(AccountStatus::Deactivated),
            ),
            (r#"{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":true}"#, None),
            (r#"{"did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}"#, None),
            ("<html>", None),
        ];
        for (body, expected) in table {
            assert_eq!(read(body.as_bytes(), &did), expected, "{body}");
        }
    }
}
