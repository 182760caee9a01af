//! The checks of the protocol, in its order of precedence, as pure functions.
//!
//! `commit`, `sync`, `identity` and `account` each judge one kind of event; `ops` is the form of a commit's ops, `signed`
//! the signed commit that `#commit` and `#sync` carry; `absent` judges where the account certainly has no identity. What
//! comes before an event (frames, seqs of a connection) is judged elsewhere.
//!
//! What must hold: the reason given is that of the first failing row of the table, whichever order the checks run in;
//! cheap checks run before dear ones where that keeps the reason the same.

mod absent;
mod account;
mod commit;
mod identity;
mod ops;
mod signed;
mod sync;

use atproto::{crypto::PublicKey, did_doc::DidDocument, event::Event, syntax::HostName};
use storage::repos::{AccountStatus, Head, LocalStatus, RepoState};

use crate::{
    finding::{self, Fetched, Micros},
    verdict::{Accept, Refusal, Verdict},
};

pub use absent::judge_absent;

/// Where an event came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The host whose socket it came from.
    pub host: &'a HostName,
    /// That host's epoch.
    pub host_epoch: u32,
    /// The host's seq of it.
    pub upstream_seq: u64,
}

/// What an event is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The host whose socket it came from.
    pub host: &'a HostName,
    /// That host's epoch.
    pub host_epoch: u32,
    /// The host's seq of it.
    pub upstream_seq: u64,
    /// Now, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// The repo's state before it; `None` for an unknown repo.
    pub state: Option<&'a RepoState>,
    /// Who the account is.
    pub identity: &'a DidDocument,
    /// When the identity was fetched, microseconds since the Unix epoch; zero where it is from a file.
    pub identity_fetched_at_micros: u64,
    /// Whether the identity was fetched because of this very event.
    pub identity_is_fresh: bool,
    /// Whether the state's `upstream` was asked of the host because of this very event.
    pub status_is_fresh: bool,
    /// Whether the host has a place for the account.
    pub room: Room,
}

/// Whether a host has a place for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It has, or the account has one already.
    Free,
    /// It has not.
    Full {
        /// How many accounts are relayed of it.
        accounts_max: u64,
    },
}

/// Judges one event of an account whose identity is known; the others are for [`judge_absent`].
pub fn judge(event: &Event<'_>, context: &Context<'_>) -> Verdict {
    if context.origin().is_repeat(context.state) {
        return Verdict::Repeat;
    }
    let judged = match event {
        Event::Commit(event) => commit::judge(event, context),
        Event::Sync(event) => sync::judge(event, context),
        Event::Identity(_) => identity::judge(context),
        Event::Account(event) => account::judge(event, context),
    };
    match judged {
        Ok(accept) => Verdict::Accept(accept),
        Err(Stop::Repeat) => Verdict::Repeat,
        Err(Stop::Refuse(refusal)) => Verdict::Refuse(with_rev(refusal, rev_of(event))),
        // With what is known to be new, there is no second look.
        Err(Stop::UnlessIdentityIsStale(refusal)) => {
            let refusal = with_rev(refusal, rev_of(event));
            if context.identity_is_fresh { Verdict::Refuse(refusal) } else { Verdict::RefreshIdentity(refusal) }
        }
        Err(Stop::UnlessStatusIsStale(refusal)) => {
            let refusal = with_rev(refusal, rev_of(event));
            if context.status_is_fresh { Verdict::Refuse(refusal) } else { Verdict::AskStatus(refusal) }
        }
    }
}

/// Why an event is not accepted, before it is known how fresh the context is.
enum Stop {
    Repeat,
    Refuse(Refusal),
    UnlessIdentityIsStale(Refusal),
    UnlessStatusIsStale(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refuse(refusal)
    }
}

/// The rev that an event gives itself.
fn rev_of<'a>(event: &Event<'a>) -> Option<&'a str> {
    match event {
        Event::Commit(event) => Some(event.rev),
        Event::Sync(event) => Some(event.rev),
        Event::Identity(_) | Event::Account(_) => None,
    }
}

fn with_rev(refusal: Refusal, rev: Option<&str>) -> Refusal {
    match rev {
        Some(rev) => refusal.with_rev(rev),
        None => refusal,
    }
}

impl Origin<'_> {
    /// Whether the host has sent this event before: the repo's state is already beyond it.
    fn is_repeat(&self, state: Option<&RepoState>) -> bool {
        state.is_some_and(|state| state.is_past(self.host, self.host_epoch, self.upstream_seq))
    }
}

impl Context<'_> {
    fn origin(&self) -> Origin<'_> {
        Origin { host: self.host, host_epoch: self.host_epoch, upstream_seq: self.upstream_seq }
    }

    /// Whether the host has begun its stream anew since the repo's state was made, and may send all of it again.
    fn is_replay(&self) -> bool {
        self.state.is_some_and(|state| state.host == *self.host && state.host_epoch != self.host_epoch)
    }

    /// How long ago the identity was fetched.
    fn fetched(&self) -> Fetched {
        let age = Micros(self.now_micros.saturating_sub(self.identity_fetched_at_micros));
        Fetched((self.identity_fetched_at_micros > 0).then_some(age))
    }

    /// The repo's last commit.
    fn head(&self) -> Option<&Head> {
        self.state.and_then(|state| state.head.as_ref())
    }

    /// Row 5, for what is signed: the identity has a key and a host.
    fn signing_key(&self) -> Result<&PublicKey, Stop> {
        let key =
            self.identity.signing_key.as_ref().ok_or_else(|| {
                Stop::UnlessIdentityIsStale(finding::no_signing_key(&self.identity.did, self.fetched()))
            })?;
        self.pds()?;
        Ok(key)
    }

    fn pds(&self) -> Result<&HostName, Stop> {
        self.identity
            .pds
            .as_ref()
            .ok_or_else(|| Stop::UnlessIdentityIsStale(finding::no_pds(&self.identity.did, self.fetched())))
    }

    /// Row 6: the event came from the account's host.
    fn comes_from_the_accounts_host(&self) -> Result<(), Stop> {
        let named = self.pds()?;
        if named == self.host {
            return Ok(());
        }
        Err(Stop::UnlessIdentityIsStale(finding::wrong_host(self.host, named, self.fetched())))
    }

    /// Row 7: the account may change its repo. Our own takedown is not for the host to lift.
    fn account_is_active(&self) -> Result<(), Stop> {
        self.has_a_place()?;
        match self.state {
            Some(RepoState { local: LocalStatus::TakenDown, .. }) => Err(Stop::Refuse(finding::taken_down())),
            Some(state) if !state.upstream.is_active() => {
                Err(Stop::UnlessStatusIsStale(finding::inactive(state.upstream)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Row 7 too: the host has a place for the account. Asked of every kind of event: nothing of an account without a
    /// place is passed on.
    fn has_a_place(&self) -> Result<(), Stop> {
        match self.room {
            Room::Free => Ok(()),
            Room::Full { accounts_max } => Err(Stop::Refuse(finding::throttled(self.host, accounts_max))),
        }
    }

    /// The event is good; the repo's state after it has this head and this status at the host.
    fn accept(&self, head: Option<Head>, upstream: AccountStatus) -> Accept {
        let state = RepoState {
            host: self.host.clone(),
            host_epoch: self.host_epoch,
            upstream_seq: self.upstream_seq,
            head,
            upstream,
            local: match self.state.map(|state| state.local) {
                Some(LocalStatus::TakenDown) => LocalStatus::TakenDown,
                // There is a place for it by now.
                Some(LocalStatus::Throttled) | Some(LocalStatus::None) | None => LocalStatus::None,
            },
        };
        Accept { state, discontinuous: false }
    }

    /// The account's status at its host as far as we know; active until the host says otherwise.
    fn upstream(&self) -> AccountStatus {
        self.state.map_or(AccountStatus::Active, |state| state.upstream)
    }
}
