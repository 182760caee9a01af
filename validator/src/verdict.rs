//! What the rules say of an event.

pub use storage::refusal::{Reason, Refusal};
use storage::repos::RepoState;

/// A judgement. Every event gets exactly one that is final (`Accept`, `Repeat` or `Refuse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes into the log, and this is the repo's state after it.
    Accept(Accept),
    /// It has been judged before: nothing to do.
    Repeat,
    /// It does not count, for this reason.
    Refuse(Refusal),
    /// It would be refused for this reason, but the identity it was judged by may be old: fetch it anew and judge once
    /// more. Only where [`crate::rules::Context::identity_is_fresh`] is false.
    RefreshIdentity(Refusal),
    /// It would be refused because the account is not active as far as we know: ask its host once (`getRepoStatus`) and
    /// judge once more. Only where [`crate::rules::Context::status_is_fresh`] is false.
    AskStatus(Refusal),
}

impl Verdict {
    /// Why it is refused, finally or for now.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Verdict::Refuse(refusal) | Verdict::RefreshIdentity(refusal) | Verdict::AskStatus(refusal) => {
                Some(refusal.reason)
            }
            Verdict::Accept(_) | Verdict::Repeat => None,
        }
    }
}

/// An accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The repo's state after it.
    pub state: RepoState,
    /// `since` or `prevData` do not continue the last state: passed on, and counted against the host.
    pub discontinuous: bool,
}
