use atproto::event::Event;
use storage::repos::{AccountStatus, RepoState};

use super::Origin;
use crate::{
    finding,
    identity::Absence,
    verdict::{Accept, Verdict},
};

/// Judges an event whose account certainly has no identity (rows 4 to 6). What needs a key, or a host by the document, is
/// refused; the host that had the account until now may still say that it is gone. A tombstoned account counts as
/// deleted.
pub fn judge_absent(event: &Event<'_>, absence: Absence, origin: &Origin<'_>, state: Option<&RepoState>) -> Verdict {
    if origin.is_repeat(state) {
        return Verdict::Repeat;
    }
    let refused = || {
        let (did, rev) = (did_of(event), super::rev_of(event));
        Verdict::Refuse(super::with_rev(finding::no_identity(did, absence), rev))
    };
    let Some(state) = state.filter(|state| state.host == *origin.host) else { return refused() };
    let upstream = match event {
        Event::Commit(_) | Event::Sync(_) => return refused(),
        Event::Account(event) => {
            let status = AccountStatus::from_event(event.active, event.status);
            if status.is_active() {
                return refused();
            }
            status
        }
        Event::Identity(_) if absence == Absence::Tombstoned => AccountStatus::Deleted,
        Event::Identity(_) => state.upstream,
    };
    let state =
        RepoState { host_epoch: origin.host_epoch, upstream_seq: origin.upstream_seq, upstream, ..state.clone() };
    Verdict::Accept(Accept { state, discontinuous: false })
}

fn did_of<'a>(event: &Event<'a>) -> &'a str {
    match event {
        Event::Commit(event) => event.repo,
        Event::Sync(event) => event.did,
        Event::Identity(event) => event.did,
        Event::Account(event) => event.did,
    }
}

#[cfg(test)]
mod tests {
    use atproto::{
        event::{AccountEvent, IdentityEvent, SyncEvent},
        syntax::HostName,
    };
    use storage::repos::LocalStatus;

    use super::*;
    use crate::verdict::Reason;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn account(active: bool, status: Option<&'static str>) -> Event<'static> {
        Event::Account(AccountEvent { seq: 9, did: DID, time: "", active, status })
    }

    #[test]
    fn only_the_former_host_is_heard_and_only_about_the_end() {
        let (ours, other) = (HostName::parse("a.example.com").unwrap(), HostName::parse("b.example.com").unwrap());
        let state = RepoState {
            host: ours.clone(),
            host_epoch: 1,
            upstream_seq: 8,
            head: None,
            upstream: AccountStatus::Deactivated,
            local: LocalStatus::TakenDown,
        };
        let identity = || Event::Identity(IdentityEvent { seq: 9, did: DID, time: "", handle: None });
        let sync = || Event::Sync(SyncEvent { seq: 9, did: DID, time: "", rev: "", blocks: &[] });
        let (gone, unknown) = (Absence::Tombstoned, Absence::NotFound);
        let table = [
            (account(false, Some("deleted")), unknown, &ours, Some(&state), Some(AccountStatus::Deleted)),
            (account(false, None), gone, &ours, Some(&state), Some(AccountStatus::Inactive)),
            (account(true, None), gone, &ours, Some(&state), None),
            (account(false, Some("deleted")), gone, &other, Some(&state), None),
            (account(false, Some("deleted")), gone, &ours, None, None),
            (identity(), gone, &ours, Some(&state), Some(AccountStatus::Deleted)),
            (identity(), unknown, &ours, Some(&state), Some(AccountStatus::Deactivated)),
            (identity(), gone, &other, Some(&state), None),
            (sync(), gone, &ours, Some(&state), None),
        ];
        for (event, absence, host, before, expected) in table {
            let origin = Origin { host, host_epoch: 1, upstream_seq: 9 };
            let verdict = judge_absent(&event, absence, &origin, before);
            let expected = match expected {
                None => {
                    assert_eq!(verdict.reason(), Some(Reason::IdentityNotFound), "{event:?} {absence:?} {host}");
                    continue;
                }
                Some(upstream) => {
                    let state = RepoState { upstream_seq: 9, upstream, ..state.clone() };
                    Verdict::Accept(Accept { state, discontinuous: false })
                }
            };
            assert_eq!(verdict, expected, "{event:?} {absence:?} {host}");
            if let Verdict::Accept(Accept { state, .. }) = expected {
                assert_eq!(judge_absent(&event, absence, &origin, Some(&state)), Verdict::Repeat);
            }
        }
    }
}
