//! Data directories for tests.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::lane::LaneCount;
use storage_local::Config;

/// A directory that goes when it is dropped.
pub(crate) struct Data(tempfile::TempDir);

impl Data {
    pub(crate) fn new() -> Data {
        Data(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
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
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), target) {
            // The store's own clean-up may run.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// A small configuration whose clock rises by a millisecond a look, and whose fatal handler panics.
pub(crate) fn config(data: &Data) -> Config {
    let clock = AtomicU64::new(1_767_225_600_000_000);
    Config {
        fatal: Arc::new(|what| panic!("fatal: {what}")),
        reserve_bytes: 0,
        cache_bytes: 1 << 20,
        ..Config::new(
            data.path(),
            LaneCount(NonZeroU32::new(4).unwrap()),
            Arc::new(move || clock.fetch_add(1000, Ordering::Relaxed)),
            prometheus::Registry::new(),
        )
    }
}
