//! Our verdict.

use atproto::{
    cid::Cid,
    crypto::PublicKey,
    did_doc::DidDocument,
    event::{self, Event, EventError, Routed},
    syntax::HostName,
};
use loadtest::scenario::Author;
use runtime::clock::Clock;
use storage::repos::RepoState;
use validator::{
    rules::{Context, Room, judge},
    verdict::{Reason, Refusal, Verdict},
};

/// What we know of an account.
pub(crate) struct Account {
    identity: DidDocument,
    host: HostName,
    state: Option<RepoState>,
    seq: u64,
}

impl Account {
    /// Its identity, and nothing of its repo.
    pub(crate) fn of(author: &Author) -> Account {
        let host = HostName::parse("pds.example.com").unwrap();
        let key = Some(author.key.public_key());
        let identity = DidDocument { did: author.did.clone(), signing_key: key, pds: Some(host.clone()), handle: None };
        Account { identity, host, state: None, seq: 0 }
    }

    /// The seq of its next event.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    /// The rev of the last commit that was taken.
    pub(crate) fn rev(&self) -> Option<String> {
        self.head().map(|head| head.rev.to_string())
    }

    /// The root of the tree after the last commit that was taken.
    pub(crate) fn data(&self) -> Option<Cid> {
        self.head().map(|head| head.data)
    }

    fn head(&self) -> Option<&storage::repos::Head> {
        self.state.as_ref().and_then(|state| state.head.as_ref())
    }

    pub(crate) fn did(&self) -> &str {
        self.identity.did.as_str()
    }

    pub(crate) fn key(&self) -> &PublicKey {
        self.identity.signing_key.as_ref().unwrap()
    }

    /// The state after the frame's commit, or why it is refused.
    pub(crate) fn judge(&self, frame: &[u8]) -> Result<RepoState, Refusal> {
        let unreadable = |error: EventError| Refusal::unreadable(&error);
        let other = |came: &'static str| Refusal::new(Reason::BadHeader, came, "a commit of this account");
        let Routed::Event(route) = event::route(frame).map_err(unreadable)? else { return Err(other("no event")) };
        let event = event::parse(frame).map_err(unreadable)?;
        let now_micros = Clock::system().now_micros();
        if route.did != self.identity.did.as_str() {
            return Err(other("another account's"));
        }
        let Event::Commit(_) = &event else { return Err(other("no commit")) };
        let verdict = judge(
            &event,
            &Context {
                host: &self.host,
                host_epoch: 1,
                // Whatever seq a spoilt frame has.
                upstream_seq: self.next_seq(),
                now_micros,
                state: self.state.as_ref(),
                identity: &self.identity,
                identity_fetched_at_micros: now_micros,
                identity_is_fresh: true,
                status_is_fresh: true,
                room: Room::Free,
            },
        );
        match verdict {
            Verdict::Accept(accept) => Ok(accept.state),
            // Not passed on either.
            Verdict::Repeat => Err(Refusal::new(Reason::StaleRev, "a repeat", "a new commit")),
            Verdict::Refuse(refusal) | Verdict::RefreshIdentity(refusal) | Verdict::AskStatus(refusal) => Err(refusal),
        }
    }

    /// The commit counts.
    pub(crate) fn go_on(&mut self, state: RepoState) {
        self.seq = state.upstream_seq;
        self.state = Some(state);
    }
}

pub(crate) fn word(verdict: &Result<(), Refusal>) -> &'static str {
    match verdict {
        Ok(()) => "accepted",
        Err(refusal) => refusal.reason.as_str(),
    }
}
