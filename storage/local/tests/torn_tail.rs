//! What a crash leaves at the log's end is cut, to the byte, and nothing that was synced goes with it.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::fs;

use harness::{Data, append, config, read_all, window};
use storage::{conformance::sample, seq::Seq};
use storage_local::{OpenError, open};

/// A log of two groups and a third one, that ended as by a crash: the copy, the second group's end and the file's.
async fn crashed() -> (Data, usize, usize) {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 5).await;
    append(&opened, 6, 5).await;
    // The state store is behind, as after a power cut: it proves nothing of the third group.
    let left = data.copy();
    let durable = fs::metadata(&left.segments()[0]).unwrap().len() as usize;
    append(&opened, 11, 3).await;
    fs::copy(&data.segments()[0], &left.segments()[0]).unwrap();
    let end = fs::metadata(&left.segments()[0]).unwrap().len() as usize;
    drop(opened);
    (left, durable, end)
}

#[tokio::test]
async fn a_tail_is_cut_at_every_length() {
    let (left, durable, end) = crashed().await;
    let whole = fs::read(&left.segments()[0]).unwrap();
    for len in durable..=end {
        let torn = left.copy();
        fs::write(&torn.segments()[0], &whole[..len]).unwrap();
        let opened = open(config(&torn)).unwrap_or_else(|error| panic!("cut at {len}: {error}"));
        let last = if len == end { Seq(13) } else { Seq(10) };
        assert_eq!((window(&opened).first, window(&opened).last), (Seq(1), last), "cut at {len}");
        assert_eq!(opened.stores().repos.count().await.unwrap(), last.0);
        // Only some lengths go all the way: each takes a sync or two.
        if len % 97 == 0 || len + 3 > end || len < durable + 3 {
            append(&opened, 20, 2).await;
            assert_eq!(read_all(&opened, Seq(0)).await.len() as u64, last.0 + 2);
            assert_eq!(window(&opened).last, Seq(last.0 + 2));
            opened.close().await.unwrap();
            let opened = open(config(&torn)).unwrap();
            assert_eq!(read_all(&opened, Seq(0)).await.len() as u64, last.0 + 2);
        }
    }
}

#[tokio::test]
async fn a_tail_of_garbage_is_cut() {
    let (left, durable, end) = crashed().await;
    let whole = fs::read(&left.segments()[0]).unwrap();
    // Pages of one write may reach the disk in any order: zeros, or what was there, in their place.
    for (from, until) in [(durable, end), (durable, durable + 10), (durable + 60, end - 60), (end - 1, end)] {
        let torn = left.copy();
        let mut bytes = whole.clone();
        bytes[from..until].fill(0);
        fs::write(&torn.segments()[0], &bytes).unwrap();
        let opened = open(config(&torn)).unwrap();
        assert_eq!(window(&opened).last, Seq(10), "{from} to {until}");
        append(&opened, 20, 2).await;
        drop(opened);
        let opened = open(config(&torn)).unwrap();
        assert_eq!(window(&opened).last, Seq(12));
    }
}

#[tokio::test]
async fn a_byte_before_the_last_group_is_damage() {
    let (left, durable, _) = crashed().await;
    let whole = fs::read(&left.segments()[0]).unwrap();
    for at in (64..durable).step_by(13) {
        let flipped = left.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&flipped.segments()[0], &bytes).unwrap();
        let refused = open(config(&flipped)).err().unwrap_or_else(|| panic!("byte {at} is damaged"));
        assert!(matches!(refused, OpenError::Damaged { .. }), "byte {at}: {refused}");
        assert!(refused.to_string().contains("mainstem repair"), "{refused}");
    }
}

#[tokio::test]
async fn after_a_clean_close_every_byte_counts() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 3).await;
    opened.close().await.unwrap();
    let whole = fs::read(&data.segments()[0]).unwrap();
    let seal = whole.len() - 48;
    for at in (0..seal).step_by(7) {
        let flipped = data.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&flipped.segments()[0], &bytes).unwrap();
        assert!(open(config(&flipped)).is_err(), "byte {at} is damaged");
    }
}

#[tokio::test]
async fn what_repos_has_seen_is_no_torn_tail() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 3).await;
    let before_seal = fs::read(&data.segments()[0]).unwrap();
    opened.close().await.unwrap();
    fs::write(&data.segments()[0], &before_seal[..before_seal.len() - 1]).unwrap();
    let refused = open(config(&data)).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn an_unfinished_segment_is_no_segment() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 3).await;
    opened.close().await.unwrap();
    let unfinished = data.path().join("log/00000000000000000004.seg.new");
    fs::write(&unfinished, b"MNST").unwrap();
    let opened = open(config(&data)).unwrap();
    assert_eq!(window(&opened).last, Seq(3));
    assert!(!unfinished.exists());
    assert_eq!(opened.stores().repos.get(&sample::did(3)).await.unwrap().unwrap().upstream_seq, 3);
}
