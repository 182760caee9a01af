//! The checks of the protocol, in its order of precedence, as pure functions.
//!
//! What must hold: the reason given is that of the first failing row of the table, whichever order the checks run in;
//! cheap checks run before dear ones where that keeps the reason the same.

mod account;
mod commit;
mod identity;
mod sync;

use atproto::{did_doc::DidDocument, event::Event, syntax::HostName};
use storage::repos::RepoState;

use crate::verdict::Verdict;

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
    /// Whether the identity was fetched because of this very event.
    pub identity_is_fresh: bool,
    /// Whether the state's `upstream` was asked of the host because of this very event.
    pub status_is_fresh: bool,
}

/// Judges one event. The identity has been resolved: a definite absence of one is refused before.
pub fn judge(event: &Event<'_>, context: &Context<'_>) -> Verdict {
    match event {
        Event::Commit(event) => commit::judge(event, context),
        Event::Sync(event) => sync::judge(event, context),
        Event::Identity(event) => identity::judge(event, context),
        Event::Account(event) => account::judge(event, context),
    }
}
