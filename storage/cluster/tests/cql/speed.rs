//! How many rows a second: a measurement, not a test.
//!
//! `cargo test -p storage-cluster --test cql speed -- --ignored --nocapture`

use std::time::Instant;

use storage::conformance::sample;

use crate::harness::{Keyspace, LANES};

const ACCOUNTS: u64 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rows_a_second() {
    let keyspace = Keyspace::make().await;
    let rows = keyspace.rows().await;
    LANES.all().for_each(|lane| rows.own(lane));
    for (round, what) in [(0, "accounts that are new"), (1, "accounts in memory"), (2, "accounts in memory, again")] {
        let mut by_lane = vec![Vec::new(); LANES.0.get() as usize];
        for number in 0..ACCOUNTS {
            let did = sample::did(number);
            let lane = LANES.lane_of(&did);
            let events = &mut by_lane[lane.0 as usize];
            let offset = i64::try_from(round * ACCOUNTS + number).unwrap();
            events.push((did, sample::state(sample::host(number % 50), offset.unsigned_abs()), offset));
        }
        let began = Instant::now();
        let lanes = LANES.all().map(async |lane| {
            for batch in by_lane[lane.0 as usize].chunks(500) {
                rows.apply(lane, batch).await.unwrap();
            }
        });
        futures_util::future::join_all(lanes).await;
        let seconds = began.elapsed().as_secs_f64();
        println!("{what}: {:.0} rows/s", ACCOUNTS as f64 / seconds);
    }
    let began = Instant::now();
    let count = rows.count().await.unwrap();
    println!("counted {count} in {:?}", began.elapsed());
    let began = Instant::now();
    let listed = rows.list(None, usize::MAX).await.unwrap().len();
    println!("listed {listed} in {:?}", began.elapsed());
}
