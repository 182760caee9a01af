//! Data directories for tests.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs::{self, File},
    io,
    num::NonZeroU32,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::{
    conformance::sample,
    lane::LaneCount,
    log::{Published, Window},
    seq::Seq,
};
use storage_local::{Config, Opened};

/// A directory; one that it made goes when it is dropped.
pub(crate) struct Data(PathBuf, Option<tempfile::TempDir>);

impl Data {
    pub(crate) fn new() -> Data {
        // In memory where there is such a file system: these tests sync by the thousand.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Data(dir.path().to_owned(), Some(dir))
    }

    /// Another's directory.
    pub(crate) fn at(path: PathBuf) -> Data {
        Data(path, None)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of everything in it, as it is now.
    pub(crate) fn copy(&self) -> Data {
        let copy = Data::new();
        copy_dir(self.path(), copy.path());
        copy
    }

    /// The log's segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        paths.sort();
        paths
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else if let Err(error) = copy_file(&entry.path(), &target) {
            // The store's own clean-up may run.
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}

/// Copies what is in a file and leaves its holes: the state store's journals are 64 MiB of little.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    let (from, to) = (File::open(from)?, File::create(to)?);
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut at = 0;
    // Past the last data it fails.
    while let Ok(start) = seek(&from, SeekFrom::Data(at)) {
        let end = seek(&from, SeekFrom::Hole(start))?;
        let mut bytes = vec![0; (end.min(len) - start) as usize];
        from.read_exact_at(&mut bytes, start)?;
        to.write_all_at(&bytes, start)?;
        at = end;
    }
    Ok(())
}

/// A small configuration whose clock rises by a millisecond a look, and whose fatal handler panics.
pub(crate) fn config(data: &Data) -> Config {
    let clock = AtomicU64::new(1_767_225_600_000_000);
    Config {
        fatal: Arc::new(|what| panic!("fatal: {what}")),
        reserve_bytes: 0,
        repo_cache_bytes: 20_000,
        block_cache_bytes: 1 << 20,
        ..Config::new(
            data.path(),
            LaneCount(NonZeroU32::new(4).unwrap()),
            Arc::new(move || clock.fetch_add(1000, Ordering::Relaxed)),
            prometheus::Registry::new(),
        )
    }
}

/// Appends events `first..first + count` of as many accounts, in one batch.
pub(crate) async fn append(opened: &Opened, first: u64, count: u64) {
    opened.stores().log.append(sample::batch(first, count, 300)).await.unwrap();
}

/// Everything after `after`.
pub(crate) async fn read_all(opened: &Opened, after: Seq) -> Vec<Published> {
    let log = opened.stores().log;
    let (mut all, mut cursor) = (Vec::new(), after);
    loop {
        let some = log.read(cursor, 10_000).await.unwrap();
        let Some(last) = some.last() else { return all };
        cursor = last.seq;
        all.extend(some);
    }
}

/// What can be read now.
pub(crate) fn window(opened: &Opened) -> Window {
    *opened.stores().log.window().borrow()
}
