//! A full disk stops appends and nothing else, and they go on when there is room.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{Data, append, config, read_all, window};
use storage::{conformance::sample, error::Error, log::LogHealth, seq::Seq};
use storage_local::{Config, Opened, open};

/// Held by each test: a process that another one starts has the lock of the data folder for a moment, from fork to exec.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

fn is_full(opened: &Opened) -> bool {
    matches!(opened.stores().log.health(), LogHealth::Full { .. })
}

/// Starts an append and lets it go as far as it can: polled once, it is in the queue.
fn start(opened: &Opened, first: u64) -> tokio::task::JoinHandle<Result<(), Error>> {
    let log = opened.stores().log;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { log.append(sample::batch(first, 2, 300)).await });
    #[expect(clippy::disallowed_methods, reason = "a test waits for it")]
    tokio::spawn(async move { tasks.join_next().await.unwrap().unwrap() })
}

#[tokio::test]
async fn appends_wait_below_the_reserve_and_reads_go_on() {
    let _alone = ALONE.lock().await;
    let data = Data::new();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let looked_at = Arc::clone(&free);
    let limited = Config {
        reserve_bytes: 1000,
        full_retry: Duration::from_millis(20),
        free_bytes: Arc::new(move || Ok(looked_at.load(Ordering::SeqCst))),
        ..config(&data)
    };
    let opened = open(limited).unwrap();
    append(&opened, 1, 5).await;
    free.store(1500, Ordering::SeqCst);
    let waiting = start(&opened, 10);
    eventually("the log says that it is full", || is_full(&opened)).await;
    let LogHealth::Full { free_bytes, needed_bytes } = opened.stores().log.health() else { panic!("it is full") };
    assert_eq!(free_bytes, 1500);
    assert!(needed_bytes > 1500, "{needed_bytes}");
    assert_eq!(window(&opened).last, Seq(5));
    assert_eq!(read_all(&opened, Seq(0)).await.len(), 5);
    assert_eq!(opened.stores().repos.count().await.unwrap(), 5);
    assert!(!waiting.is_finished());

    free.store(u64::MAX, Ordering::SeqCst);
    waiting.await.unwrap().unwrap();
    assert_eq!(opened.stores().log.health(), LogHealth::Ready);
    assert_eq!(window(&opened).last, Seq(7));

    // It can be closed while it is full; what waited did not happen.
    free.store(0, Ordering::SeqCst);
    let waiting = start(&opened, 20);
    eventually("the log says that it is full", || is_full(&opened)).await;
    opened.close().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
    let opened = open(config(&data)).unwrap();
    assert_eq!(read_all(&opened, Seq(0)).await.len(), 7);
}

/// A file system of its own, unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn fill(path: &Path) {
    let chunk = vec![7; 64 << 10];
    let mut file = fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
}

/// The log on a disk that is really full. Repos stay elsewhere: it is the log's own handling that is looked at, with no
/// reserve to keep it from the edge.
#[tokio::test]
async fn a_write_that_finds_no_room_is_undone_and_tried_again() {
    let _alone = ALONE.lock().await;
    let Some(disk) = SmallDisk::mount(20 << 20) else {
        println!("skipped: mounting a tmpfs is not allowed here; the test beside this one covers the waiting");
        return;
    };
    let data = Data::new();
    let log_dir = disk.0.path().join("log");
    fs::create_dir(&log_dir).unwrap();
    std::os::unix::fs::symlink(&log_dir, data.path().join("log")).unwrap();
    let small = || Config { full_retry: Duration::from_millis(20), segment_bytes: 1 << 20, ..config(&data) };
    fs::write(data.path().join("log/.keep"), b"").unwrap();
    fs::remove_file(data.path().join("log/.keep")).unwrap();
    let opened = open(small()).unwrap();
    append(&opened, 1, 5).await;
    let ballast = disk.0.path().join("ballast");
    fill(&ballast);
    let mut waiting = Vec::new();
    for number in 0..20 {
        waiting.push(start(&opened, 100 + number * 2));
        if is_full(&opened) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("the log says that it is full", || is_full(&opened)).await;
    let last = window(&opened).last;
    assert_eq!(read_all(&opened, Seq(0)).await.len() as u64, last.0);
    // What a crash would leave now opens: the part that was written is gone, or is cut.
    let left = data.copy();
    assert_eq!(window(&open(config(&left)).unwrap()).last, last);

    fs::remove_file(&ballast).unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(opened.stores().log.health(), LogHealth::Ready);
    let all = read_all(&opened, Seq(0)).await;
    assert!((1..).zip(&all).all(|(seq, event)| event.seq == Seq(seq)));
    opened.close().await.unwrap();
    let opened = open(small()).unwrap();
    assert!(read_all(&opened, Seq(0)).await == all);
}
