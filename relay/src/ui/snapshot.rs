//! All hosts as they were a moment ago, so that many who look at the page cost no more than one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crawler::{Handle, HostView};
use tokio::time::Instant;

/// How old it may be.
const AGE_MAX: Duration = Duration::from_secs(1);

type Hosts = Arc<Vec<HostView>>;

/// Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    last: Arc<Mutex<Option<(Instant, Hosts)>>>,
}

impl Snapshot {
    /// The hosts by name.
    pub(super) fn get(&self, hosts: &Handle) -> Hosts {
        // Held while the hosts are looked at: who comes meanwhile gets what the first one finds.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, hosts)) if at.elapsed() < AGE_MAX => hosts.clone(),
            Some(_) | None => {
                let fresh = Arc::new(hosts.hosts());
                *last = Some((Instant::now(), fresh.clone()));
                fresh
            }
        }
    }
}
