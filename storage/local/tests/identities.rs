//! The cache of identities stays within its bound, and what was put last is what stays.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use harness::{Data, config};
use storage::conformance::sample;
use storage_local::Config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_generations_are_kept_also_across_a_restart() {
    let data = Data::new();
    let with = || Config { identities_max: 100, ..config(&data) };
    let put = async |identities: &dyn storage::identities::Identities, numbers: std::ops::Range<u64>| {
        for number in numbers {
            identities.put(vec![(sample::did(number), number.to_be_bytes().to_vec())]).await.unwrap();
        }
    };
    let known = async |identities: &dyn storage::identities::Identities, number: u64| {
        let row = identities.get(&sample::did(number)).await.unwrap();
        assert!(row.as_ref().is_none_or(|row| *row == number.to_be_bytes()), "{number}: {row:?}");
        row.is_some()
    };

    let opened = storage_local::open(with()).unwrap();
    let identities = opened.stores().identities;
    put(&*identities, 0..250).await;
    for number in 0..250 {
        assert_eq!(known(&*identities, number).await, number >= 100, "{number}");
    }
    drop(identities);
    opened.close().await.unwrap();

    let opened = storage_local::open(with()).unwrap();
    let identities = opened.stores().identities;
    assert!(known(&*identities, 100).await && known(&*identities, 249).await);
    put(&*identities, 250..450).await;
    let mut count = 0;
    for number in 0..450 {
        let is_known = known(&*identities, number).await;
        assert!(is_known || number < 350, "{number} is new");
        count += usize::from(is_known);
    }
    assert!(count <= 200, "{count}");
}
