//! [`Identities`]' promises.
//!
//! [`Identities`]: crate::identities::Identities

use super::{Backend, Setup, sample};

fn row(number: u64) -> Vec<u8> {
    format!("row {number}").into_bytes()
}

/// The last row put for a DID is the one that is found; other DIDs' rows are theirs.
pub async fn finds_the_last_row_put(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let identities = running.stores().identities;
    assert_eq!(identities.get(&sample::did(1)).await.unwrap(), None);
    identities.put(Vec::new()).await.unwrap();
    identities.put(vec![(sample::did(1), row(1)), (sample::did(2), row(2)), (sample::did(1), row(3))]).await.unwrap();
    assert_eq!(identities.get(&sample::did(1)).await.unwrap(), Some(row(3)));
    assert_eq!(identities.get(&sample::did(2)).await.unwrap(), Some(row(2)));
    identities.put(vec![(sample::did(2), row(4))]).await.unwrap();
    assert_eq!(identities.get(&sample::did(2)).await.unwrap(), Some(row(4)));
    assert_eq!(identities.get(&sample::did(3)).await.unwrap(), None);
}

/// Rows and repos of the same DIDs have nothing to do with each other.
pub async fn are_apart_from_repos(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let stores = running.stores();
    stores.log.append(vec![sample::accepted(1, 1, 300)]).await.unwrap();
    assert_eq!(stores.identities.get(&sample::did(1)).await.unwrap(), None);
    stores.identities.put(vec![(sample::did(2), row(2))]).await.unwrap();
    assert_eq!(stores.repos.get(&sample::did(2)).await.unwrap(), None);
}

/// A clean close keeps them.
pub async fn stays_after_reopening(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let identities = running.stores().identities;
    let rows = (0..1_000).map(|number| (sample::did(number), row(number))).collect();
    identities.put(rows).await.unwrap();
    drop(identities);
    let Some(running) = running.reopen().await else { return };
    for number in 0..1_000 {
        let found = running.stores().identities.get(&sample::did(number)).await.unwrap();
        assert_eq!(found, Some(row(number)), "{number}");
    }
}

/// After a crash each row is whole or missing.
pub async fn are_whole_or_missing_after_a_crash(backend: &dyn Backend) {
    let running = backend.open(Setup::default()).await;
    let identities = running.stores().identities;
    for number in 0..100 {
        identities.put(vec![(sample::did(number), row(number))]).await.unwrap();
    }
    drop(identities);
    let Some(running) = running.crash().await else { return };
    let identities = running.stores().identities;
    for number in 0..100 {
        let found = identities.get(&sample::did(number)).await.unwrap();
        assert!(found.as_ref().is_none_or(|found| *found == row(number)), "{number}: {found:?}");
    }
    identities.put(vec![(sample::did(7), row(8))]).await.unwrap();
    assert_eq!(identities.get(&sample::did(7)).await.unwrap(), Some(row(8)));
}
