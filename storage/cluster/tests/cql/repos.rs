//! Who is late, who repeats, and what is counted.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atproto::syntax::Did;
use storage::{
    conformance::sample,
    intake::Declined,
    lane::Lane,
    log::EventLog,
    memory,
    repos::{LocalStatus, RepoState, Repos},
    seq::Seq,
};
use storage_cluster::cql::{CqlRepos, Rows, TakedownRows};

use crate::harness::{AppliedLog, Keyspace, LANES, RECENT_BYTES};

fn lane(did: &Did) -> Lane {
    LANES.lane_of(did)
}

/// The accounts by number whose lane is 0.
fn dids_of_a_lane() -> impl Iterator<Item = Did> {
    (0..).map(sample::did).filter(|did| lane(did) == Lane(0))
}

async fn counts(repos: &dyn Repos) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for number in 0..4 {
        let host = sample::host(number);
        counts.push((repos.count_by_host(&host).await.unwrap(), repos.count_throttled_by_host(&host).await.unwrap()));
    }
    counts
}

async fn view(keyspace: &Keyspace, rows: Arc<Rows>) -> CqlRepos {
    let (session, _) = keyspace.open().await;
    CqlRepos::new(rows, TakedownRows::prepare(session, memory::open().log).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_writer_loses_and_a_repeat_changes_nothing() {
    let keyspace = Keyspace::make().await;
    let rows = Arc::new(keyspace.rows().await);
    let repos = view(&keyspace, rows.clone()).await;
    let did = sample::did(1);
    let of = |host: u64, number| sample::state(sample::host(host), number);
    rows.apply(lane(&did), &[(did.clone(), of(1, 1), 10)]).await.unwrap();
    rows.apply(lane(&did), &[(did.clone(), of(2, 2), 20)]).await.unwrap();
    let after = [(0, 0), (0, 0), (1, 0), (0, 0)];
    assert_eq!(counts(&repos).await, after);
    // Somebody who was replaced, and has not seen the later event.
    let zombie = keyspace.rows().await;
    zombie.apply(lane(&did), &[(did.clone(), of(3, 3), 15)]).await.unwrap();
    zombie.apply(lane(&did), &[(did.clone(), of(1, 1), 10)]).await.unwrap();
    assert_eq!(rows.get(&did).await.unwrap(), Some(of(2, 2)));
    assert_eq!(rows.count().await.unwrap(), 1);
    rows.apply(lane(&did), &[(did.clone(), of(2, 2), 20)]).await.unwrap();
    assert_eq!(rows.get(&did).await.unwrap(), Some(of(2, 2)));
}

/// Events move and throttle accounts; the tables end the same however often, from wherever and in whatever batches they
/// are written again, with what is remembered and without.
#[tokio::test(flavor = "multi_thread")]
async fn writing_again_from_any_point_ends_the_same() {
    let keyspace = Keyspace::make().await;
    let accounts: Vec<Did> = dids_of_a_lane().take(5).collect();
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let events: Vec<(Did, RepoState, i64)> = (0..60)
        .map(|offset| {
            let mut state = sample::state(sample::host(next(4)), offset);
            state.local = [LocalStatus::None, LocalStatus::Throttled][next(2) as usize];
            (accounts[next(5) as usize].clone(), state, i64::try_from(offset).unwrap())
        })
        .collect();
    let model: BTreeMap<Did, RepoState> = events.iter().map(|(did, state, _)| (did.clone(), state.clone())).collect();
    let mut expected = vec![(0, 0); 4];
    for state in model.values() {
        let host = (0..4).find(|number| sample::host(*number) == state.host).unwrap();
        expected[host as usize].0 += 1;
        expected[host as usize].1 += u64::from(state.local == LocalStatus::Throttled);
    }
    for round in 0..6 {
        let rows = Arc::new(keyspace.rows().await);
        if round % 2 == 1 {
            rows.own(Lane(0));
        }
        let mut from = if round == 0 { 0 } else { next(60) as usize };
        while from < events.len() {
            let to = (from + 1 + next(9) as usize).min(events.len());
            // Cut off somewhere in the middle, as a crash would, and gone on with from before that.
            let time = Duration::from_millis(if next(3) == 0 { next(8) } else { 60_000 });
            match tokio::time::timeout(time, rows.apply(Lane(0), &events[from..to])).await {
                Ok(applied) => {
                    applied.unwrap();
                    from = to;
                }
                Err(_cut_off) => from -= (next(5) as usize).min(from),
            }
        }
        let repos = view(&keyspace, rows.clone()).await;
        assert_eq!(counts(&repos).await, expected, "round {round}");
        for (did, state) in &model {
            assert_eq!(rows.get(did).await.unwrap().as_ref(), Some(state), "round {round}");
        }
        assert_eq!(rows.list(None, usize::MAX).await.unwrap().len(), model.len());
    }
}

/// A fold that was left lying while the log went on and was trimmed is made good from the repos' rows.
#[tokio::test(flavor = "multi_thread")]
async fn takedowns_outlive_the_window() {
    let keyspace = Keyspace::make().await;
    let (session, settled) = keyspace.open().await;
    let memory = memory::open_with(memory::Config { lanes: LANES, window_bytes: 4_000, ..memory::Config::default() });
    let log = Arc::new(AppliedLog::new(LANES, memory.log));
    let rows = Arc::new(Rows::prepare(session.clone(), settled, RECENT_BYTES).await.unwrap());
    log.write_to(Some(rows.clone()));
    let repos = CqlRepos::new(rows.clone(), TakedownRows::prepare(session, log.clone()).await.unwrap());
    let event = |account, number, local| {
        let mut event = sample::accepted(account, number, 300);
        event.state.local = local;
        vec![event]
    };
    log.append(event(1, 1, LocalStatus::TakenDown)).await.unwrap();
    log.append(event(2, 2, LocalStatus::TakenDown)).await.unwrap();
    let found = repos.takedowns().await.unwrap();
    assert_eq!((found.accounts.len(), found.as_of), (2, Seq(2)));
    log.append(event(1, 3, LocalStatus::None)).await.unwrap();
    log.append(event(3, 4, LocalStatus::TakenDown)).await.unwrap();
    for number in 5..40 {
        log.append(event(4, number, LocalStatus::None)).await.unwrap();
    }
    assert!(log.window().borrow().first > Seq(4));
    let found = repos.takedowns().await.unwrap();
    let mut accounts: Vec<u64> = found.accounts.iter().map(|takedown| takedown.account).collect();
    let mut expected: Vec<u64> = [2, 3].map(|number| Did::lane_hash(sample::did(number).as_str())).to_vec();
    accounts.sort_unstable();
    expected.sort_unstable();
    assert_eq!((accounts, found.as_of), (expected, Seq(39)));
    assert_eq!(repos.takedowns().await.unwrap().as_of, Seq(39));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_answers_are_found_by_who_waits() {
    let keyspace = Keyspace::make().await;
    let commands = keyspace.commands().await;
    assert_eq!(commands.find(&[1; 16]).await.unwrap(), None);
    let done = Ok(sample::state(sample::host(1), 1));
    commands.answer(&[1; 16], &done).await.unwrap();
    commands.answer(&[2; 16], &Err(Declined::NoPds)).await.unwrap();
    commands.answer(&[1; 16], &done).await.unwrap();
    assert_eq!(commands.find(&[1; 16]).await.unwrap(), Some(done));
    assert_eq!(keyspace.commands().await.find(&[2; 16]).await.unwrap(), Some(Err(Declined::NoPds)));
}
