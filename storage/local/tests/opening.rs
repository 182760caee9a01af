//! Who may open a directory, and with what.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{fs, num::NonZeroU32};

use harness::{Data, append, config, read_all, window};
use storage::{conformance::sample, lane::LaneCount, seq::Seq};
use storage_local::{Config, OpenError, open};

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    let refused = open(config(&data)).err().unwrap();
    assert!(matches!(&refused, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()), "{refused}");
    opened.close().await.unwrap();
    open(config(&data)).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn stores_that_outlive_the_backend_say_closed() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    let stores = opened.stores();
    append(&opened, 1, 3).await;
    opened.close().await.unwrap();
    use storage::error::Error::Closed;
    assert!(matches!(stores.log.append(sample::batch(1, 1, 200)).await, Err(Closed)));
    assert!(matches!(stores.log.read(Seq(0), 100).await, Err(storage::log::ReadError::Store(Closed))));
    assert!(matches!(stores.repos.get(&sample::did(1)).await, Err(Closed)));
    assert!(matches!(stores.hosts.count().await, Err(Closed)));
    // And they keep nobody else out.
    open(config(&data)).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn the_lane_count_is_fixed() {
    let data = Data::new();
    open(config(&data)).unwrap().close().await.unwrap();
    let refused = open(Config { lanes: LaneCount(NonZeroU32::new(5).unwrap()), ..config(&data) }).err().unwrap();
    assert!(matches!(refused, OpenError::Lanes { found: 4, asked: 5, .. }), "{refused}");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 3).await;
    opened.close().await.unwrap();
    let newer = data.copy();
    let text = fs::read_to_string(newer.path().join("FORMAT")).unwrap();
    fs::write(newer.path().join("FORMAT"), text.replace("\"format\":1", "\"format\":2,\"news\":true")).unwrap();
    let refused = open(config(&newer)).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 2, known: 1, .. }), "{refused}");

    let segment = &data.segments()[0];
    let mut bytes = fs::read(segment).unwrap();
    bytes[8] = 2;
    fs::write(segment, bytes).unwrap();
    let refused = open(config(&data)).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 2, known: 1, .. }), "{refused}");
}

#[tokio::test]
async fn a_start_makes_an_existing_log_jump_and_never_step_back() {
    let data = Data::new();
    let starting = |seq: u64| Config { seq_start: Some(Seq(seq)), ..config(&data) };
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 10).await;
    opened.close().await.unwrap();

    let refused = open(starting(10)).err().unwrap();
    assert!(matches!(refused, OpenError::SeqStartUsed { asked: Seq(10), next: Seq(11) }), "{refused}");
    assert!(matches!(open(starting(0)).err().unwrap(), OpenError::SeqStartInvalid { .. }));
    assert!(matches!(open(starting(1 << 53)).err().unwrap(), OpenError::SeqStartInvalid { .. }));

    let opened = open(starting(1000)).unwrap();
    let log = opened.stores().log;
    // A reader that saw up to 500 before the loss is not in the future.
    assert_eq!((window(&opened).first, window(&opened).last), (Seq(1), Seq(999)));
    assert_eq!(log.read(Seq(500), 100).await.unwrap(), []);
    append(&opened, 100, 5).await;
    let seqs: Vec<u64> = read_all(&opened, Seq(0)).await.iter().map(|event| event.seq.0).collect();
    assert_eq!(seqs, (1..=10).chain(1000..1005).collect::<Vec<_>>());
    assert_eq!(log.read(Seq(500), 0).await.unwrap()[0].seq, Seq(1000));
    opened.close().await.unwrap();

    // The same start again is kept to already; the next larger one jumps again.
    let opened = open(starting(1000)).unwrap();
    assert_eq!(window(&opened).last, Seq(1004));
    opened.close().await.unwrap();
    assert!(matches!(open(starting(1004)).err().unwrap(), OpenError::SeqStartUsed { .. }));
    let opened = open(starting(1005)).unwrap();
    assert_eq!(window(&opened).last, Seq(1004));
    opened.close().await.unwrap();
    let opened = open(starting(2000)).unwrap();
    opened.close().await.unwrap();
    let opened = open(starting(3000)).unwrap();
    append(&opened, 200, 1).await;
    let seqs: Vec<u64> = read_all(&opened, Seq(0)).await.iter().map(|event| event.seq.0).collect();
    assert_eq!(seqs, (1..=10).chain(1000..1005).chain([3000]).collect::<Vec<_>>());
    opened.close().await.unwrap();
    open(config(&data)).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn repos_ahead_of_the_log_refuse() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 10).await;
    opened.close().await.unwrap();
    let older = data.copy();
    let opened = open(config(&data)).unwrap();
    append(&opened, 20, 10).await;
    opened.close().await.unwrap();
    // The log of before beside the state of now.
    fs::copy(&older.segments()[0], &data.segments()[0]).unwrap();
    let refused = open(config(&data)).err().unwrap();
    assert!(matches!(&refused, OpenError::Damaged { what } if what.contains("seen events up to 20")), "{refused}");
}

#[tokio::test]
async fn a_state_without_its_log_and_a_log_without_its_state_refuse() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 10).await;
    opened.close().await.unwrap();
    let without_state = data.copy();
    fs::remove_dir_all(without_state.path().join("state")).unwrap();
    assert!(matches!(open(config(&without_state)).err().unwrap(), OpenError::Damaged { .. }));
    let without_log = data.copy();
    fs::remove_dir_all(without_log.path().join("log")).unwrap();
    assert!(matches!(open(config(&without_log)).err().unwrap(), OpenError::Damaged { .. }));
    let without_format = data.copy();
    fs::remove_file(without_format.path().join("FORMAT")).unwrap();
    assert!(matches!(open(config(&without_format)).err().unwrap(), OpenError::Damaged { .. }));
}

#[tokio::test]
async fn older_state_is_brought_up_from_the_log() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 10).await;
    opened.close().await.unwrap();
    let older = data.copy();
    let opened = open(config(&data)).unwrap();
    append(&opened, 5, 300).await;
    opened.close().await.unwrap();
    fs::remove_dir_all(data.path().join("state")).unwrap();
    fs::rename(older.path().join("state"), data.path().join("state")).unwrap();
    let opened = open(config(&data)).unwrap();
    let repos = opened.stores().repos;
    assert_eq!(repos.count().await.unwrap(), 304);
    assert_eq!(repos.get(&sample::did(304)).await.unwrap(), Some(sample::state(sample::host(304 % 3), 304)));
}

#[tokio::test]
async fn a_missing_sidecar_is_made_anew() {
    let data = Data::new();
    let small = || Config { segment_bytes: 50_000, tail_bytes_max: 0, ..config(&data) };
    let opened = open(small()).unwrap();
    for number in 0..30 {
        append(&opened, number * 20, 20).await;
    }
    let all = read_all(&opened, Seq(0)).await;
    opened.close().await.unwrap();
    let sidecars = data.segments().len() - 1;
    assert!(sidecars > 3);
    for segment in &data.segments()[..sidecars] {
        fs::remove_file(segment.with_extension("idx")).unwrap();
    }
    let opened = open(small()).unwrap();
    assert!(read_all(&opened, Seq(0)).await == all);
    opened.close().await.unwrap();
    // With no budget to verify, the sidecars are believed.
    let opened = open(Config { verify_bytes_max: 0, ..small() }).unwrap();
    assert!(read_all(&opened, Seq(0)).await == all);
    opened.close().await.unwrap();
}

#[tokio::test]
async fn full_segments_are_not_kept_open() {
    let data = Data::new();
    let small = || Config { segment_bytes: 5000, tail_bytes_max: 0, ..config(&data) };
    let open_files = || {
        let files =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        files.filter(|file| file.starts_with(data.path().join("log"))).count()
    };
    let opened = open(small()).unwrap();
    for number in 0..100 {
        append(&opened, number * 10, 10).await;
    }
    assert!(data.segments().len() > 50);
    assert!(open_files() <= 2, "{} files are open", open_files());
    assert_eq!(read_all(&opened, Seq(0)).await.len(), 1000);
    assert!(open_files() <= 20, "{} files are open", open_files());
    opened.close().await.unwrap();
    for segment in data.segments() {
        let _last_has_none = fs::remove_file(segment.with_extension("idx"));
    }
    let opened = open(small()).unwrap();
    assert!(open_files() <= 2, "{} files are open", open_files());
    assert_eq!(read_all(&opened, Seq(0)).await.len(), 1000);
    assert!(open_files() <= 20, "{} files are open", open_files());
}
