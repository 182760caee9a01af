//! [`Repos`]' promises.
//!
//! [`Repos`]: crate::repos::Repos

use std::collections::{BTreeMap, BTreeSet};

use atproto::syntax::{Did, Tid};

use super::{Backend, Running, Setup, sample, until_last};
use crate::{
    Stores,
    log::Accepted,
    repos::{AccountStatus, LocalStatus, RepoState},
    seq::Seq,
};

/// What is in Repos must be what the events say, in the order of their seqs. These are all of a log that begins at 1.
async fn check(stores: &Stores, events: &[Accepted]) {
    let Stores { log, repos, .. } = stores;
    let model: BTreeMap<Did, RepoState> = events.iter().map(|event| (event.did.clone(), event.state.clone())).collect();
    assert_eq!(repos.count().await.unwrap(), model.len() as u64);
    for (did, state) in &model {
        assert_eq!(repos.get(did).await.unwrap().as_ref(), Some(state), "{did}");
    }
    let listed: BTreeMap<_, _> = repos.list(None, usize::MAX).await.unwrap().into_iter().collect();
    assert_eq!(listed, model);
    let (mut by_host, mut throttled) = (BTreeMap::new(), BTreeMap::new());
    for state in model.values() {
        *by_host.entry(state.host.clone()).or_insert(0) += 1;
        *throttled.entry(state.host.clone()).or_insert(0) += u64::from(state.local == LocalStatus::Throttled);
    }
    for number in 0..4 {
        let host = sample::host(number);
        let count = by_host.get(&host).copied().unwrap_or(0);
        assert_eq!(repos.count_by_host(&host).await.unwrap(), count, "{host}");
        let count = throttled.get(&host).copied().unwrap_or(0);
        assert_eq!(repos.count_throttled_by_host(&host).await.unwrap(), count, "{host}");
    }
    let last = until_last(&**log, Seq(events.len() as u64)).await.last;
    let (mut takedowns, mut cursor) = (BTreeMap::new(), Seq(0));
    while cursor < last {
        for event in log.read(cursor, 1 << 20).await.unwrap() {
            cursor = event.seq;
            if event.taken_down {
                takedowns.entry(event.account).or_insert(event.seq);
            } else {
                takedowns.remove(&event.account);
            }
        }
    }
    let found = repos.takedowns().await.unwrap();
    assert_eq!(found.as_of, last);
    let found: BTreeMap<u64, Seq> = found.accounts.iter().map(|takedown| (takedown.account, takedown.seq)).collect();
    assert_eq!(found, takedowns);
    let is_down = |(_, state): &(&Did, &RepoState)| state.local == LocalStatus::TakenDown;
    let down: BTreeSet<u64> = model.iter().filter(is_down).map(|(did, _)| Did::lane_hash(did.as_str())).collect();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), down);
}

/// When `append` has answered, the states are there.
pub async fn shows_the_state_of_every_answered_append(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let Stores { log, repos, .. } = &stores;
    assert_eq!(repos.get(&sample::did(1)).await.unwrap(), None);
    let mut all = Vec::new();
    for number in 0..30 {
        let event = sample::accepted(number % 7, number, 200);
        log.append(vec![event.clone()]).await.unwrap();
        assert_eq!(repos.get(&event.did).await.unwrap(), Some(event.state.clone()));
        all.push(event);
    }
    check(&stores, &all).await;
}

/// States that use every field and every status.
fn odd_states() -> Vec<Accepted> {
    use AccountStatus::*;
    let statuses = [
        Active,
        Takendown,
        Suspended,
        Deleted,
        Deactivated,
        Desynchronized { active: true },
        Desynchronized { active: false },
        Throttled { active: true },
        Throttled { active: false },
        Inactive,
    ];
    (0..)
        .zip(statuses)
        .map(|(number, status)| {
            let mut event = sample::accepted(number, number, 200);
            event.state.upstream = status;
            event.state.local =
                [LocalStatus::TakenDown, LocalStatus::None, LocalStatus::Throttled][number as usize % 3];
            event.state.host_epoch = [0, 1, u32::MAX][number as usize % 3];
            event.state.upstream_seq = [0, 1 << 40, Seq::MAX.0, u64::MAX][number as usize % 4];
            match (&mut event.state.head, number % 3) {
                (head, 0) => *head = None,
                (Some(head), 1) => head.rev = Tid::from_u64(u64::MAX >> 1),
                _ => {}
            }
            event
        })
        .collect()
}

/// Every field of a state comes back as it was.
pub async fn keeps_every_field(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let events = odd_states();
    running.stores().log.append(events.clone()).await.unwrap();
    check(&running.stores(), &events).await;
    if let Some(running) = running.reopen().await {
        check(&running.stores(), &events).await;
    }
}

/// Takedowns, throttling and their ends are listed and counted, by single events and within a batch.
pub async fn lists_takedowns(backend: &dyn Backend) {
    use LocalStatus::{None, TakenDown, Throttled};
    let running = backend.open(Setup::default()).await;
    let locals = [None, TakenDown, TakenDown, None, Throttled, TakenDown, Throttled, Throttled, None, TakenDown];
    let mut events = Vec::new();
    for (number, batch) in (0..).zip([1_usize, 2, 3, 5, 8, 13, 21, 1, 1, 1]) {
        let batch: Vec<_> = (0..batch)
            .map(|at| {
                let at = events.len() + at;
                let mut event = sample::accepted(at as u64 % 4, at as u64, 200);
                event.state.local = locals[(at / 3 + number) % locals.len()];
                event
            })
            .collect();
        running.stores().log.append(batch.clone()).await.unwrap();
        events.extend(batch);
        check(&running.stores(), &events).await;
    }
    if let Some(running) = running.crash().await {
        check(&running.stores(), &events).await;
    }
}

/// Several events of one account in one batch: the last one's state stays, and the account counts once.
pub async fn last_event_of_a_batch_wins(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let mut events: Vec<_> = (0..30).map(|number| sample::accepted(number % 3, number, 200)).collect();
    events[29].state.host = sample::host(3);
    running.stores().log.append(events.clone()).await.unwrap();
    check(&running.stores(), &events).await;
}

/// Pages follow one order of all DIDs, begin after `after`, whether or not that is a known one, and end with the last.
pub async fn lists_in_pages(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let Stores { log, repos, .. } = running.stores();
    assert_eq!(repos.list(None, 10).await.unwrap(), []);
    log.append(sample::batch(0, 57, 200)).await.unwrap();
    let everything = repos.list(None, usize::MAX).await.unwrap();
    let order: Vec<Did> = everything.into_iter().map(|(did, _)| did).collect();
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(sorted, (0..57).map(sample::did).collect::<Vec<_>>());
    for limit in [1, 10, 57, 100] {
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = repos.list(after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            walked.extend(page.into_iter().map(|(did, _)| did));
        }
        assert_eq!(walked, order);
    }
    for unknown in 57..80 {
        let page = repos.list(Some(&sample::did(unknown)), usize::MAX).await.unwrap();
        let rest: Vec<Did> = page.into_iter().map(|(did, _)| did).collect();
        assert!(order.ends_with(&rest), "what follows an unknown DID is the end of the same order");
    }
}

/// Counts by host follow accounts that move.
pub async fn counts_by_host(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    let Stores { log, repos, .. } = &stores;
    let mut all = Vec::new();
    for round in 0..5 {
        let batch: Vec<_> = (0..20)
            .map(|account| {
                let mut event = sample::accepted(account, round * 20 + account, 200);
                event.state.host = sample::host((account * round + account) % 4);
                event
            })
            .collect();
        all.extend(batch.iter().cloned());
        log.append(batch).await.unwrap();
        check(&stores, &all).await;
    }
    assert_eq!(repos.count_by_host(&sample::host(99)).await.unwrap(), 0);
}

/// A clean close keeps every state.
pub async fn stays_after_reopening(backend: &dyn Backend) {
    let mut running = backend.open(Setup::default()).await;
    let mut all = Vec::new();
    for round in 0..3 {
        all.extend(append_round(&*running, round).await);
        let Some(reopened) = running.reopen().await else { return };
        running = reopened;
        check(&running.stores(), &all).await;
    }
}

/// After a crash, Repos is what the log says.
pub async fn stays_after_a_crash(backend: &dyn Backend) {
    let mut running = backend.open(Setup::default()).await;
    let mut all = Vec::new();
    for round in 0..3 {
        all.extend(append_round(&*running, round).await);
        let Some(reopened) = running.crash().await else { return };
        running = reopened;
        check(&running.stores(), &all).await;
    }
}

async fn append_round(running: &dyn Running, round: u64) -> Vec<Accepted> {
    let events: Vec<_> = (0..40)
        .map(|number| {
            let mut event = sample::accepted(number % 25 + round * 10, round * 100 + number, 200);
            event.state.host = sample::host((number + round) % 4);
            event
        })
        .collect();
    for batch in events.chunks(7) {
        running.stores().log.append(batch.to_vec()).await.unwrap();
    }
    events
}
