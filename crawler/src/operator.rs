//! What an operator may do with hosts: ban, rewind, limit, and say who may ask to be crawled.
//!
//! Every call is durable when it is answered, and takes effect at once.

use atproto::syntax::HostName;
use storage::{
    hosts::{AddedBy, CrawlRequests, Domain, Host, HostCursor, HostStatus, Notes, Nudge, Order, Policy, Rewind},
    limits::{Change, Limits},
};
use tracing::info;

use crate::{
    crawler::{Error, Handle, Shared},
    live::{Live, lock},
};

/// Bans of domains at most: they are held against every new host.
const DOMAIN_BANS_MAX: usize = 10_000;

/// A host is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// How far it had been read.
    pub from: HostCursor,
    /// Where it is read on from.
    pub to: HostCursor,
}

/// Who may ask to be crawled, and how much of that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrawlRequestsView {
    /// The rules.
    pub rules: CrawlRequests,
    /// Hosts added by requests in the last 24 hours.
    pub new_hosts_last_day: usize,
}

impl Handle {
    /// Reads a host no more, until [`Handle::unban`]; it need not be known.
    pub async fn ban(&self, name: &HostName) -> Result<(), Error> {
        self.shared.add(name, self.shared.config.start, HostStatus::Banned, AddedBy::Operator).await?;
        self.set_banned(name, true).await
    }

    /// Reads a banned host again, unless its domain is banned.
    pub async fn unban(&self, name: &HostName) -> Result<(), Error> {
        self.set_banned(name, false).await
    }

    /// Reads no host of a domain any more, known or not. Gives whether it was not banned before.
    pub async fn ban_domain(&self, domain: &Domain) -> Result<bool, Error> {
        let now = self.shared.clock.now_micros();
        let banned = self
            .change_policy(|policy| match policy.domain_bans.len() >= DOMAIN_BANS_MAX {
                true => Err(Error::TooManyBans { limit: DOMAIN_BANS_MAX }),
                false => {
                    let known = policy.domain_bans.contains_key(domain);
                    policy.domain_bans.entry(domain.clone()).or_insert(now);
                    Ok(!known)
                }
            })
            .await?;
        info!(%domain, "domain banned");
        Ok(banned)
    }

    /// Takes a ban of a domain back; hosts that are banned themselves stay so. Gives whether it was banned.
    pub async fn unban_domain(&self, domain: &Domain) -> Result<bool, Error> {
        let was = self.change_policy(|policy| Ok(policy.domain_bans.remove(domain).is_some())).await?;
        info!(%domain, was, "domain unbanned");
        Ok(was)
    }

    /// Banned domains, each with when it was banned, microseconds since the Unix epoch; in the domains' byte order.
    pub fn domain_bans(&self) -> Vec<(Domain, u64)> {
        self.shared.policy.borrow().domain_bans.iter().map(|(domain, at)| (domain.clone(), *at)).collect()
    }

    /// Who may ask to be crawled.
    pub fn crawl_requests(&self) -> CrawlRequestsView {
        CrawlRequestsView {
            rules: self.shared.policy.borrow().crawl_requests,
            new_hosts_last_day: lock(&self.shared.quota).used(self.shared.clock.now_micros()),
        }
    }

    /// Says who may ask to be crawled.
    pub async fn set_crawl_requests(&self, rules: CrawlRequests) -> Result<(), Error> {
        self.change_policy(|policy| {
            policy.crawl_requests = rules;
            Ok(())
        })
        .await?;
        info!(?rules, "who may ask to be crawled has changed");
        Ok(())
    }

    /// Has a known host read again after `to`, or from its oldest event on (`None`); what was accepted before is known
    /// as a repeat, and what was refused is judged anew. `to` is a seq of the host's present epoch.
    pub async fn rewind(&self, name: &HostName, to: Option<u64>) -> Result<Rewound, Error> {
        let seq = to.unwrap_or(0);
        let Some(live) = self.shared.live(name) else { return self.rewind_elsewhere(name, seq).await };
        let _writing = self.shared.writing.lock().await;
        may_rewind(live.cursor(), seq)?;
        let reset = live.rewind(seq, self.shared.clock.now_micros());
        live.restarted.notify_one();
        let store = |what| move |source| Error::Store { what, source };
        self.shared.hosts.save_cursors(&[(name.clone(), reset.to)]).await.map_err(store("save a rewound cursor"))?;
        lock(&live.saved).cursor = reset.to;
        self.save_notes(&live).await?;
        self.shared.tell(Nudge::Host(name.clone())).await;
        self.shared.metrics.rewinds.inc();
        info!(host = %name, from = reset.from.seq, to = seq, "host rewound");
        Ok(Rewound { from: reset.from, to: reset.to })
    }

    /// Makes an exception from the rules of limits for a known host, in the place of the one before; an empty change
    /// takes it back. Gives the exception that there was.
    pub async fn set_limits(&self, name: &HostName, exception: Change) -> Result<Change, Error> {
        let Some(live) = self.shared.live(name) else {
            return Ok(self.order_elsewhere(name, Order::Limits(exception)).await?.notes.limits);
        };
        let _writing = self.shared.writing.lock().await;
        let was = live.notes().limits;
        self.order(name, &Order::Limits(exception)).await?;
        live.set_exception(exception);
        lock(&live.saved).notes.limits = exception;
        self.shared.limits.set_exception(name, exception);
        self.shared.tell(Nudge::Host(name.clone())).await;
        info!(host = %name, ?exception, "a host's limits have changed");
        Ok(was)
    }

    /// The rules of limits in force.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// [`Handle::rewind`] of a host that another process reads: that one is told, and goes back.
    async fn rewind_elsewhere(&self, name: &HostName, seq: u64) -> Result<Rewound, Error> {
        let shared = &self.shared;
        let from = self.row(name).await?.cursor;
        may_rewind(from, seq)?;
        let to = HostCursor { seq: Some(seq), ..from };
        let at_micros = shared.clock.now_micros();
        self.order_elsewhere(name, Order::Rewind(Rewind { at_micros, to })).await?;
        shared.metrics.rewinds.inc();
        Ok(Rewound { from, to })
    }

    async fn row(&self, name: &HostName) -> Result<Host, Error> {
        let row = self.shared.hosts.get(name).await;
        let row = row.map_err(|source| Error::Store { what: "read a host", source })?;
        row.ok_or_else(|| Error::UnknownHost(name.clone()))
    }

    /// Orders something of a host that is not read here, and tells whoever reads it. Gives its row before.
    async fn order_elsewhere(&self, name: &HostName, order: Order) -> Result<Host, Error> {
        let was = self.row(name).await?;
        self.order(name, &order).await?;
        let mut row = was.clone();
        order.apply(&mut row.status, &mut row.notes);
        self.shared.elsewhere.put(row, &self.shared.limits);
        self.shared.tell(Nudge::Host(name.clone())).await;
        info!(host = %name, ?order, "an order for a host that is read elsewhere");
        Ok(was)
    }

    async fn order(&self, name: &HostName, order: &Order) -> Result<(), Error> {
        let kept = self.shared.hosts.order(name, order).await;
        kept.map_err(|source| Error::Store { what: "keep an order for a host", source })
    }

    /// Writes a host's notes. To be called while holding `writing`.
    async fn save_notes(&self, live: &Live) -> Result<(), Error> {
        let notes: Notes = live.notes();
        let saved = self.shared.hosts.set_notes(&live.name, &notes).await;
        saved.map_err(|source| Error::Store { what: "save a host's notes", source })?;
        lock(&live.saved).notes = notes;
        Ok(())
    }

    async fn set_banned(&self, name: &HostName, banned: bool) -> Result<(), Error> {
        let status = if banned { HostStatus::Banned } else { HostStatus::Idle };
        let Some(live) = self.shared.live(name) else {
            return self.order_elsewhere(name, Order::Ban(banned)).await.map(drop);
        };
        let _writing = self.shared.writing.lock().await;
        if live.is_host_banned() != banned {
            self.order(name, &Order::Ban(banned)).await?;
            lock(&live.saved).status = status;
            live.ban_host(banned);
            self.shared.tell(Nudge::Host(name.clone())).await;
            info!(host = %name, banned, "a host's ban has changed");
        }
        Ok(())
    }

    /// Changes the policy, durably, and then holds it against all hosts.
    async fn change_policy<T>(&self, change: impl FnOnce(&mut Policy) -> Result<T, Error>) -> Result<T, Error> {
        let shared: &Shared = &self.shared;
        let store = |what| move |source| Error::Store { what, source };
        let result = {
            let _writing = shared.writing.lock().await;
            let mut policy = match shared.crawled.is_shared() {
                true => shared.hosts.policy().await.map_err(store("read the operator's policy"))?,
                false => shared.policy.borrow().clone(),
            };
            let result = change(&mut policy)?;
            shared.hosts.set_policy(&policy).await.map_err(store("save the operator's policy"))?;
            shared.adopt_policy(policy);
            result
        };
        shared.tell(Nudge::Policy).await;
        Ok(result)
    }
}

fn may_rewind(from: HostCursor, to: u64) -> Result<(), Error> {
    match from.seq {
        Some(cursor) if to <= cursor => Ok(()),
        None if to == 0 => Ok(()),
        cursor => Err(Error::RewindAhead { to, cursor }),
    }
}
