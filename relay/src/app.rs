//! What the handlers of both listeners share: the stores, the hub, and what is known of the process.

use std::sync::Arc;

use atproto::syntax::Did;
use runtime::{clock::Clock, http, networks::Networks};
use storage::{Stores, refusal::Refusals, repos::RepoState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use validator::{AccountError, Accounts, identity::Resolver};

use crate::{
    config::SubscriberToken,
    coverage,
    fanout::{self, Hub, Roster, subscriber},
    limits_file,
    vitals::Vitals,
};

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

/// The parts of an [`App`].
pub struct Inner {
    /// The four stores.
    pub stores: Stores,
    /// The process.
    pub vitals: Arc<Vitals>,
    /// The hub of the fan-out.
    pub hub: Hub,
    /// Who accounts are.
    pub resolver: Resolver,
    /// What an operator does to accounts; see [`Inner::takedown`].
    pub accounts: Accounts,
    /// The crawler's hosts.
    pub hosts: crawler::Handle,
    /// How we stand beside other relays.
    pub coverage: coverage::Handle,
    /// What the fan-out counts.
    pub fanout: fanout::Metrics,
    /// How subscribers are treated.
    pub subscriber: subscriber::Config,
    /// Whether messages are deflated for subscribers that offer it.
    pub compression: bool,
    /// The subscribers' seats.
    pub roster: Roster,
    /// Tokens of subscribers.
    pub subscriber_tokens: Vec<SubscriberToken>,
    /// Proxies that are believed in whom they serve.
    pub trusted_proxies: Networks,
    /// What the public listener counts.
    pub public_http: http::Metrics,
    /// Cancelled when subscribers must go.
    pub subscribers_stop: CancellationToken,
    /// What was refused, by host and reason.
    pub refusals: Arc<Refusals>,
    /// Whether local hosts are allowed.
    pub dev: bool,
    /// Whether the network is a simulated one.
    pub simulate: bool,
    /// The wall clock.
    pub clock: Clock,
    /// How it stands with the file of limits, where there is one.
    pub limits_file: Option<watch::Receiver<limits_file::Status>>,
}

impl App {
    /// From its parts.
    pub fn new(inner: Inner) -> App {
        App { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Where the reading of a host begins that is added while the relay runs.
    pub fn start_of_hosts(&self) -> crawler::Start {
        start_of_hosts(self.dev)
    }

    /// Takes an account down. When it answers, no subscriber is sent anything of it any more but the takedown itself.
    pub async fn takedown(&self, did: &Did) -> Result<RepoState, AccountError> {
        let state = self.accounts.takedown(did).await?;
        self.hub.caught_up().await;
        Ok(state)
    }

    /// Ends a takedown. When it answers, the account's events are served again.
    pub async fn restore(&self, did: &Did) -> Result<RepoState, AccountError> {
        let state = self.accounts.restore(did).await?;
        self.hub.caught_up().await;
        Ok(state)
    }
}

/// Of a development network all there is; of the whole network only what happens from now on can be had.
pub fn start_of_hosts(dev: bool) -> crawler::Start {
    if dev { crawler::Start::Oldest } else { crawler::Start::Live }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}
