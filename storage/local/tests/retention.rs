//! Old segments go, whole, and never the last.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{Data, append, config, read_all, window};
use storage::seq::Seq;
use storage_local::{Config, Opened, open};

const HOUR: u64 = 3_600_000_000;

async fn until(opened: &Opened, holds: impl FnMut(&storage::log::Window) -> bool) {
    let mut watcher = opened.stores().log.window();
    tokio::time::timeout(Duration::from_secs(30), watcher.wait_for(holds)).await.expect("the window moves").unwrap();
}

#[tokio::test]
async fn events_go_by_age_and_the_last_segment_stays() {
    let data = Data::new();
    let now = Arc::new(AtomicU64::new(1_767_225_600_000_000));
    let clock = Arc::clone(&now);
    let aging = || Config {
        window: Some(Duration::from_secs(3600 * 24)),
        now_micros: {
            let clock = Arc::clone(&clock);
            Arc::new(move || clock.load(Ordering::SeqCst))
        },
        ..config(&data)
    };
    let opened = open(aging()).unwrap();
    for hour in 0..48 {
        append(&opened, hour * 10, 10).await;
        now.fetch_add(HOUR, Ordering::SeqCst);
    }
    // The last event is an hour old: what is older than 24 goes, give or take a segment.
    until(&opened, |window| window.first > Seq(220)).await;
    let kept = window(&opened);
    assert!(kept.first <= Seq(251), "{kept:?}");
    assert_eq!(kept.last, Seq(480));
    let first_at = kept.first_at_micros.unwrap();
    assert!(now.load(Ordering::SeqCst) - first_at <= 27 * HOUR);
    assert_eq!(read_all(&opened, Seq(kept.first.0 - 1)).await[0].seq, kept.first);
    // All is old, but the last segment holds the next seq.
    now.fetch_add(1000 * HOUR, Ordering::SeqCst);
    until(&opened, |window| window.first > Seq(470)).await;
    // The file goes after it is out of the window.
    tokio::time::timeout(Duration::from_secs(30), async {
        while data.segments().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the last segment alone is left");
    opened.close().await.unwrap();
    let opened = open(aging()).unwrap();
    assert_eq!(window(&opened).last, Seq(480));
    append(&opened, 0, 1).await;
    assert_eq!(window(&opened).last, Seq(481));
    until(&opened, |window| window.first == Seq(481)).await;
}

#[tokio::test]
async fn events_go_by_bytes() {
    let data = Data::new();
    let opened = open(Config { window_bytes: Some(1 << 20), ..config(&data) }).unwrap();
    for number in 0..300 {
        append(&opened, number * 20, 20).await;
        let bytes = window(&opened).bytes;
        assert!(bytes < (1 << 20) + (200 << 10), "{bytes}");
    }
    let kept = window(&opened);
    assert!(kept.bytes > 700 << 10, "{kept:?}");
    opened.close().await.unwrap();
    let on_disk: u64 = data.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    // And a seal.
    assert!((kept.bytes..kept.bytes + 100).contains(&on_disk), "{} are {on_disk}", kept.bytes);
    let opened = open(config(&data)).unwrap();
    assert_eq!((window(&opened).first, window(&opened).last), (kept.first, kept.last));
}
