//! Following the assignment: hosts that are given are read, those that are gone let go, rows that others have written
//! are looked at.
//!
//! Where several processes share the hosts, the rows are the truth about what an operator wants. Who crawls a host looks
//! at its row when told to, and now and then all the same, and takes over what was ordered there ([`Shared::adopt`]). What
//! an operator orders and what a crawler writes are kept apart, so that neither overwrites the other.

use std::{collections::BTreeSet, sync::Arc};

use atproto::syntax::HostName;
use futures_util::FutureExt;
use runtime::chain::Chain;
use storage::{
    error::Error as StoreError,
    hosts::{AddedBy, Change, Host, HostStatus, Nudge, Policy, Rewind, Shard},
};
use tracing::{info, warn};

use crate::{
    assign::Steps,
    crawler::{Error, Shared},
    live::{Live, lock},
    schedule::in_order_of_need,
};

/// Rows of hosts read at once.
const PAGE_HOSTS: usize = 1_000;

/// Changes taken together at most.
const CHANGES_MAX: usize = 10_000;

impl Shared {
    /// The next change, with those that are there already.
    pub(crate) async fn changes(&self) -> Result<Vec<Change>, Error> {
        let failed = |source| Error::Store { what: "learn which hosts to crawl", source };
        let mut changes = vec![self.crawled.next().await.map_err(failed)?];
        changes.extend(self.changes_now()?);
        Ok(changes)
    }

    /// The changes that are there.
    pub(crate) fn changes_now(&self) -> Result<Vec<Change>, Error> {
        let failed = |source| Error::Store { what: "learn which hosts to crawl", source };
        let mut changes = Vec::new();
        while changes.len() < CHANGES_MAX
            && let Some(change) = self.crawled.next().now_or_never()
        {
            changes.push(change.map_err(failed)?);
        }
        Ok(changes)
    }

    /// Does what changes ask for.
    pub(crate) async fn follow(self: &Arc<Self>, changes: Vec<Change>) -> Result<(), Error> {
        let Steps { policy, gone, given, renewed, hosts } = {
            // Under the lock of the table, so that no host of a share that is gone is started after this.
            let _table = lock(&self.table);
            lock(&self.ours).take(changes)
        };
        if policy {
            self.look_at_policy().await;
        }
        for shard in gone {
            let shared = Arc::clone(self);
            self.tasks.spawn("let hosts go", async move { shared.release(shard).await });
        }
        if !given.is_empty() {
            self.load(&given).await?;
        }
        for shard in renewed {
            self.lives_of(shard).iter().for_each(|live| live.forget_saved_cursor());
        }
        for name in hosts {
            self.look_at(&name).await;
        }
        Ok(())
    }

    /// Reads the hosts of these shares.
    async fn load(self: &Arc<Self>, shards: &BTreeSet<Shard>) -> Result<(), Error> {
        let read = self.rows().await;
        let mut rows = read.map_err(|source| Error::Store { what: "read the hosts", source })?;
        let all = rows.len();
        in_order_of_need(&mut rows);
        let of = |row: &Host| lock(&self.ours).shard_of(&row.name);
        let ours = rows.iter().filter(|row| shards.contains(&of(row))).count();
        info!(hosts = all, given = ours, "hosts known");
        for row in rows {
            // Those of the shares that were ours already are being read, and what others wrote there is seen in time.
            self.meet(row);
        }
        Ok(())
    }

    /// Lets the hosts of a share go: they are read no more, what is taken is saved, and then others may have them.
    async fn release(&self, shard: Shard) {
        let lives = self.lives_of(shard);
        self.end(&lives).await;
        {
            let _writing = self.writing.lock().await;
            let mut table = lock(&self.table);
            for live in &lives {
                table.remove(&live.name);
                self.elsewhere.put(live.row(), &self.limits);
            }
        }
        self.crawled.released(shard).await;
        info!(shard = shard.0, hosts = lives.len(), "hosts let go");
    }

    /// The hosts of a share that are read here.
    fn lives_of(&self, shard: Shard) -> Vec<Arc<Live>> {
        let table = lock(&self.table);
        let ours = lock(&self.ours);
        table.values().filter(|live| ours.shard_of(&live.name) == shard).cloned().collect()
    }

    /// All rows.
    async fn rows(&self) -> Result<Vec<Host>, StoreError> {
        let mut rows: Vec<Host> = Vec::new();
        loop {
            let after = rows.last().map(|host| host.name.clone());
            let page = self.hosts.list(after.as_ref(), PAGE_HOSTS).await?;
            let last = page.len() < PAGE_HOSTS;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }

    /// Takes note of a row of a host that is not read here: reads it where it is ours.
    fn meet(self: &Arc<Self>, row: Host) {
        let known = self.live(&row.name).is_some() || self.elsewhere.contains(&row.name);
        if !known && row.notes.added_by == AddedBy::Request {
            lock(&self.quota).added(&row.name, row.added_at_micros);
        }
        let start = self.config.hosts.iter().find(|(name, _)| *name == row.name);
        self.place(row, start.map_or(self.config.start, |(_, start)| *start));
    }

    /// Looks at all rows and the policy: what nobody told us, or what we have not heard.
    pub(crate) async fn look_at_all(self: &Arc<Self>) {
        self.look_at_policy().await;
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(error = %Chain(&error), "failed to look at the hosts' rows");
                return;
            }
        };
        for row in rows {
            match self.live(&row.name) {
                // The row was read before this moment; it is read again where it matters.
                Some(live) if live.differs(&row) => self.look_at(&row.name).await,
                Some(_) => {}
                None => self.meet(row),
            }
        }
    }

    async fn look_at_policy(&self) {
        let _writing = self.writing.lock().await;
        match self.hosts.policy().await {
            Ok(policy) => self.adopt_policy(policy),
            Err(error) => warn!(error = %Chain(&error), "failed to look at the operator's policy"),
        }
    }

    /// Holds a policy against all hosts.
    pub(crate) fn adopt_policy(&self, policy: Policy) {
        // Under the lock of the table, so that a host added meanwhile sees one or the other.
        let table = lock(&self.table);
        for live in table.values() {
            live.ban_domain(policy.ban_over(&live.name).cloned());
        }
        self.policy.send_replace(policy);
    }

    /// Looks at one host's row, and has the host tried soon.
    async fn look_at(self: &Arc<Self>, name: &HostName) {
        let looked = match self.live(name) {
            Some(live) => {
                let _writing = self.writing.lock().await;
                let looked = self.look_again(&live).await;
                live.nudged.notify_waiters();
                looked
            }
            None => self.hosts.get(name).await.map(|row| row.into_iter().for_each(|row| self.meet(row))),
        };
        if let Err(error) = looked {
            warn!(error = %Chain(&error), host = %name, "failed to look at a host's row");
        }
    }

    /// Takes over what others have written into a host's row. To be called while holding `writing`.
    pub(crate) async fn look_again(&self, live: &Live) -> Result<(), StoreError> {
        if self.crawled.is_shared()
            && let Some(row) = self.hosts.get(&live.name).await?
        {
            self.adopt(live, row);
        }
        Ok(())
    }

    fn adopt(&self, live: &Live, row: Host) {
        let Host { name, status, notes, .. } = row;
        let was = live.notes();
        live.heed(&notes);
        if notes.limits != was.limits {
            self.limits.set_exception(&name, notes.limits);
        }
        if let Some(rewind) = live.notes().pending_rewind()
            && self.carry_out(live, rewind)
        {
            live.restarted.notify_one();
        }
        let banned = status == HostStatus::Banned;
        if live.is_host_banned() != banned {
            live.ban_host(banned);
            info!(host = %name, banned, "a host's ban has changed");
        }
        let mut saved = lock(&live.saved);
        (saved.status, saved.notes) = (status, notes);
    }

    /// Does what an operator has asked for. The cursor and what is noted of it are saved in the next round; who dies before
    /// that leaves the request to the next crawler.
    pub(crate) fn carry_out(&self, live: &Live, rewind: Rewind) -> bool {
        let reset = live.carry_out(rewind);
        match &reset {
            Some(reset) => info!(host = %live.name, from = reset.from.seq, to = reset.to.seq, "host rewound"),
            None => info!(host = %live.name, to = rewind.to.seq, "a host can't be rewound as it was asked for"),
        }
        reset.is_some()
    }

    /// Tells the others, where there are any. Who does not hear it sees it in time.
    pub(crate) async fn tell(&self, nudge: Nudge) {
        if self.crawled.is_shared()
            && let Err(error) = self.crawled.nudge(nudge).await
        {
            warn!(error = %Chain(&error), "failed to tell other crawlers of a change; they will see it in time");
        }
    }
}
