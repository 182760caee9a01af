//! Damage in synced data: never served, named with what is lost, and mended.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use harness::{Data, append, config, read_all, window};
use storage::{
    error::Error,
    hosts::{Host, HostStatus},
    log::{Published, ReadError},
    seq::Seq,
};
use storage_local::{
    Config, OpenError, open,
    repair::{Finding, SeqRange, inspect, mend},
};

/// A log of several segments, closed, and everything in it.
async fn several_segments() -> (Data, Vec<Published>) {
    let data = Data::new();
    let opened = open(small(&data)).unwrap();
    for number in 0..30 {
        append(&opened, number * 20, 20).await;
    }
    let all = read_all(&opened, Seq(0)).await;
    opened.close().await.unwrap();
    assert!(data.segments().len() > 3);
    (data, all)
}

fn small(data: &Data) -> Config {
    Config { segment_bytes: 50_000, tail_bytes_max: 0, ..config(data) }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x20;
    file.write_all_at(&byte, at).unwrap();
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

/// Opens what was mended: everything but what was lost is there, in order, as it was; and it takes more.
async fn check_mended(data: &Data, all: &[Published], lost: &[SeqRange]) {
    let report = inspect(data.path()).unwrap();
    assert!(report.findings.is_empty(), "{report}");
    let opened = open(small(data)).unwrap();
    let kept: Vec<_> =
        all.iter().filter(|event| !lost.iter().any(|lost| (lost.first..=lost.last).contains(&event.seq))).collect();
    let read = read_all(&opened, Seq(window(&opened).first.0 - 1)).await;
    assert_eq!(read.len(), kept.len());
    assert!(read.iter().eq(kept));
    let last = window(&opened).last;
    let highest = all.last().unwrap().seq.max(lost.last().map_or(Seq(0), |lost| lost.last));
    assert!(last >= highest, "{last} would be used again");
    append(&opened, 5000, 5).await;
    assert_eq!(
        read_all(&opened, last).await.iter().map(|event| event.seq.0 - last.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    opened.close().await.unwrap();
    open(small(data)).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_is_refused_named_and_mended() {
    let (data, all) = several_segments().await;
    assert!(inspect(data.path()).unwrap().findings.is_empty());
    for number in [0, 1, data.segments().len() - 1] {
        let flipped = data.copy();
        let segment = &flipped.segments()[number];
        flip(segment, 20_000.min(fs::metadata(segment).unwrap().len() / 2));
        let refused = open(small(&flipped)).err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");

        let report = inspect(flipped.path()).unwrap();
        let [Finding::Bytes { file, offset, bytes, lost: Some(lost) }] = &report.findings[..] else {
            panic!("one stretch of bytes is damaged: {report}")
        };
        assert_eq!(file, segment);
        assert_eq!(lost.first, lost.last);
        assert!(*offset < 20_000 && *offset + bytes > 0 && *bytes < 1000);
        assert!(!report.is_sound() && !report.mended);
        assert!(report.to_string().contains(&format!("lost event {}", lost.first)), "{report}");

        assert!(mend(flipped.path()).unwrap().mended);
        check_mended(&flipped, &all, &[*lost]).await;
    }
}

#[tokio::test]
async fn every_kind_of_damage_is_mended() {
    let (data, all) = several_segments().await;
    let segments = data.segments();
    let first_of = |number: usize| segments[number].file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let len = |path: &Path| fs::metadata(path).unwrap().len();
    let newest = segments.len() - 1;
    type Harm = Box<dyn Fn(&[std::path::PathBuf])>;
    let harms: Vec<(&str, Harm, Option<Vec<SeqRange>>)> = vec![
        ("a header", Box::new(|files| flip(&files[1], 20)), Some(vec![])),
        ("the first header", Box::new(|files| flip(&files[0], 0)), Some(vec![])),
        ("the last header", Box::new(move |files| flip(&files[newest], 30)), Some(vec![])),
        ("a group's header", Box::new(|files| flip(&files[0], 70)), Some(vec![])),
        ("a seal", Box::new(move |files| flip(&files[0], len(&files[0]) - 9)), Some(vec![])),
        (
            "a segment in the middle gone",
            Box::new(|files| fs::remove_file(&files[1]).unwrap()),
            Some(vec![range(first_of(1), first_of(2) - 1)]),
        ),
        (
            "the newest segment gone",
            Box::new(move |files| fs::remove_file(&files[newest]).unwrap()),
            Some(vec![range(first_of(newest), 600)]),
        ),
        (
            "a segment cut short",
            Box::new(move |files| File::options().write(true).open(&files[1]).unwrap().set_len(64).unwrap()),
            Some(vec![range(first_of(1), first_of(2) - 1)]),
        ),
        (
            "a segment cut somewhere",
            Box::new(|files| File::options().write(true).open(&files[1]).unwrap().set_len(30_000).unwrap()),
            None,
        ),
        (
            "a stretch of zeros",
            Box::new(|files| {
                File::options().write(true).open(&files[1]).unwrap().write_all_at(&[0; 9000], 9000).unwrap()
            }),
            None,
        ),
        (
            "zeros over the newest segment's end",
            Box::new(move |files| {
                let file = File::options().write(true).open(&files[newest]).unwrap();
                file.write_all_at(&[0; 3000], len(&files[newest]) - 3000).unwrap();
            }),
            None,
        ),
        (
            "the newest segment all zeros",
            Box::new(move |files| {
                let zeros = vec![0; len(&files[newest]) as usize];
                fs::write(&files[newest], zeros).unwrap();
            }),
            None,
        ),
        (
            "several at once",
            Box::new(move |files| {
                flip(&files[0], 300);
                flip(&files[1], 2000);
                flip(&files[1], 40_000);
                fs::remove_file(&files[2]).unwrap();
                flip(&files[newest], 3000);
            }),
            None,
        ),
    ];
    for (what, harm, lost) in harms {
        let harmed = data.copy();
        harm(&harmed.segments());
        let refused = open(small(&harmed)).err().unwrap_or_else(|| panic!("{what}: opened"));
        assert!(matches!(refused, OpenError::Damaged { .. }), "{what}: {refused}");
        let report = inspect(harmed.path()).unwrap();
        assert!(!report.is_sound(), "{what}: {report}");
        if let Some(lost) = lost {
            assert_eq!(report.lost(), lost, "{what}: {report}");
        } else {
            assert!(!report.lost().is_empty(), "{what}: {report}");
        }
        let mended = mend(harmed.path()).unwrap();
        assert!(mended.mended);
        assert_eq!(mended.findings, report.findings);
        println!("{what}: {mended}");
        check_mended(&harmed, &all, &report.lost()).await;
    }
}

#[tokio::test]
async fn a_mending_that_was_cut_short_is_done_again() {
    let (data, all) = several_segments().await;
    flip(&data.segments()[1], 20_000);
    let lost = inspect(data.path()).unwrap().lost();
    let mended = data.copy();
    mend(mended.path()).unwrap();
    // All is written but the segment that takes the damaged one's name.
    for entry in fs::read_dir(mended.path().join("log")).unwrap() {
        let path = entry.unwrap().path();
        let here = data.path().join("log").join(path.file_name().unwrap());
        if !here.exists() {
            fs::copy(path, here).unwrap();
        }
    }
    assert_eq!(data.segments().len(), mended.segments().len());
    assert!(open(small(&data)).is_err());
    assert!(mend(data.path()).unwrap().mended);
    check_mended(&data, &all, &lost).await;
}

#[tokio::test]
async fn damage_that_opening_did_not_look_at_is_not_served() {
    let (data, all) = several_segments().await;
    flip(&data.segments()[1], 20_000);
    let opened = open(Config { verify_bytes_max: 0, ..small(&data) }).unwrap();
    let log = opened.stores().log;
    let (mut cursor, mut read) = (Seq(0), Vec::new());
    let error = loop {
        match log.read(cursor, 10_000).await {
            Ok(some) => {
                cursor = some.last().unwrap().seq;
                read.extend(some);
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ReadError::Store(Error::Damaged { what }) if what.contains("mainstem repair")), "{error}");
    assert!(read == all[..read.len()] && read.len() < all.len());
    // Behind it, reads go on.
    assert!(!log.read(Seq(590), 1000).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_torn_tail_needs_no_mending() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    append(&opened, 1, 5).await;
    let left = data.copy();
    let durable = fs::metadata(&left.segments()[0]).unwrap().len();
    append(&opened, 6, 5).await;
    let torn = fs::read(&data.segments()[0]).unwrap();
    fs::write(&left.segments()[0], &torn[..torn.len() - 1]).unwrap();
    drop(opened);
    let report = inspect(left.path()).unwrap();
    let bytes = torn.len() as u64 - 1 - durable;
    assert_eq!(report.findings, [Finding::TornTail { file: left.segments()[0].clone(), offset: durable, bytes }]);
    assert!(report.is_sound() && report.lost().is_empty());
    assert!(!mend(left.path()).unwrap().mended);
    assert_eq!(window(&open(config(&left)).unwrap()).last, Seq(5));
}

#[tokio::test]
async fn lost_state_is_rebuilt_from_the_log() {
    let (data, all) = several_segments().await;
    let unreadable = data.copy();
    for entry in fs::read_dir(unreadable.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, b"not what was written").unwrap();
        }
    }
    assert!(open(small(&unreadable)).is_err());
    let report = mend(unreadable.path()).unwrap();
    assert!(report.findings.iter().any(|finding| matches!(finding, Finding::ReposUnreadable { .. })), "{report}");
    let opened = open(small(&unreadable)).unwrap();
    assert_eq!(opened.stores().repos.count().await.unwrap(), 600);
    assert!(read_all(&opened, Seq(0)).await == all);
    opened.close().await.unwrap();

    fs::remove_dir_all(data.path().join("state")).unwrap();
    let report = mend(data.path()).unwrap();
    assert_eq!(report.findings, [Finding::ReposBehind { seen: None, needed_after: Seq(0) }]);
    check_mended(&data, &all, &[]).await;
}

#[tokio::test]
async fn a_log_without_its_format_is_mended() {
    let (data, all) = several_segments().await;
    for harm in ["", "{\"format\":1,\"la"] {
        let harmed = data.copy();
        fs::write(harmed.path().join("FORMAT"), harm).unwrap();
        assert!(matches!(open(small(&harmed)).err().unwrap(), OpenError::Damaged { .. }));
        let report = mend(harmed.path()).unwrap();
        assert!(matches!(&report.findings[..], [Finding::Format { .. }]), "{report}");
        check_mended(&harmed, &all, &[]).await;
    }
}

#[tokio::test]
async fn state_ahead_of_the_log_is_mended_without_using_a_seq_twice() {
    let (data, all) = several_segments().await;
    let older = data.copy();
    let opened = open(small(&data)).unwrap();
    let host = Host::new(storage::conformance::sample::host(7), HostStatus::Banned, 1);
    opened.stores().hosts.add(&host).await.unwrap();
    append(&opened, 1000, 10).await;
    opened.close().await.unwrap();
    fs::remove_dir_all(data.path().join("log")).unwrap();
    fs::rename(older.path().join("log"), data.path().join("log")).unwrap();
    let report = mend(data.path()).unwrap();
    assert_eq!(report.findings, [Finding::Missing { lost: range(601, 610) }], "{report}");
    check_mended(&data, &all, &report.lost()).await;
    let opened = open(small(&data)).unwrap();
    assert_eq!(opened.stores().hosts.get(&host.name).await.unwrap(), Some(host));
}

#[tokio::test]
async fn repair_leaves_a_running_directory_alone() {
    let data = Data::new();
    let opened = open(config(&data)).unwrap();
    assert!(matches!(inspect(data.path()), Err(OpenError::InUse { .. })));
    assert!(matches!(mend(data.path()), Err(OpenError::InUse { .. })));
    opened.close().await.unwrap();
    assert!(inspect(data.path()).unwrap().findings.is_empty());
    assert!(matches!(inspect(&data.path().join("nowhere")), Err(OpenError::Io { .. })));
}
