//! The data directory: which format it has, and that one process has it.
//!
//! ```text
//!   DATA/FORMAT   JSON: what the directory was made with
//!   DATA/LOCK     locked while a process has it; holds that process's id
//!   DATA/log/     segments of the event log
//!   DATA/state/   Repos and Hosts
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use storage::{lane::LaneCount, seq::Seq};

use crate::{error::OpenError, log::Salt};

/// The newest layout this program knows.
const FORMAT: u32 = 1;

/// A directory that this process has.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Unlocked when it is closed.
    _lock: File,
}

/// What `FORMAT` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    format: u32,
    /// `None` after a repair that could not know it.
    lanes: Option<u32>,
    salt: u32,
    /// The start that was asked for last.
    seq_start: u64,
}

impl Format {
    /// For a new directory, with a salt that nobody can guess.
    pub(crate) fn new(lanes: Option<LaneCount>, seq_start: Seq) -> Format {
        use std::hash::{BuildHasher, RandomState};
        // The hasher's keys come from the system's random numbers.
        let salt = RandomState::new().hash_one(seq_start.0) as u32;
        Format { format: FORMAT, lanes: lanes.map(|lanes| lanes.0.get()), salt, seq_start: seq_start.0 }
    }

    pub(crate) fn salt(&self) -> Salt {
        Salt(self.salt)
    }

    pub(crate) fn with_salt(self, salt: Salt) -> Format {
        Format { salt: salt.0, ..self }
    }

    pub(crate) fn seq_start(&self) -> Seq {
        Seq(self.seq_start)
    }

    pub(crate) fn with_seq_start(self, seq_start: Seq) -> Format {
        Format { seq_start: seq_start.0, ..self }
    }

    /// Checks the lane count, or takes it where none was recorded.
    pub(crate) fn with_lanes(self, lanes: LaneCount, dir: &Path) -> Result<Format, OpenError> {
        let asked = lanes.0.get();
        match self.lanes {
            Some(found) if found != asked => Err(OpenError::Lanes { dir: dir.to_owned(), found, asked }),
            Some(_) | None => Ok(Format { lanes: Some(asked), ..self }),
        }
    }
}

impl Directory {
    /// Makes the directory where it is missing, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Directory, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io("make", path))?;
        Directory::take_existing(path)
    }

    /// Takes a directory that is there.
    pub(crate) fn take_existing(path: &Path) -> Result<Directory, OpenError> {
        let lock_path = path.join("LOCK");
        let io = |what| OpenError::io(what, &lock_path);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("open"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message.
                let _unread = lock.read_to_string(&mut pid);
                return Err(OpenError::InUse { dir: path.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(error) => return Err(io("lock")(error.into())),
        }
        let note = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        // A full disk must not keep the reader of a full log out.
        if let Err(error) = note(&mut lock)
            && error.kind() != io::ErrorKind::StorageFull
        {
            return Err(io("write")(error));
        }
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log's segments are.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where Repos and Hosts are.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// What the directory was made with; `None` where it is new.
    pub(crate) fn format(&self) -> Result<Option<Format>, OpenError> {
        let path = self.path.join("FORMAT");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let has_log = self.log().read_dir().is_ok_and(|mut entries| entries.next().is_some());
                return if has_log {
                    Err(OpenError::damaged(format!("{} is missing, but there is a log", path.display())))
                } else {
                    Ok(None)
                };
            }
            Err(error) => return Err(OpenError::io("read", path)(error)),
        };
        /// Every format has its number; the rest may change.
        #[derive(Deserialize)]
        struct Number {
            format: u32,
        }
        let damaged = |_| OpenError::damaged(format!("{} is not readable", path.display()));
        let Number { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format > FORMAT {
            return Err(OpenError::NewerFormat { file: path, found: format, known: FORMAT });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Writes `FORMAT`, durably and all at once.
    pub(crate) fn set_format(&self, format: &Format) -> Result<(), OpenError> {
        let path = self.path.join("FORMAT");
        let mut text = serde_json::to_vec(format).expect("four numbers");
        text.push(b'\n');
        replace(&path, &text).map_err(OpenError::io("write", &path))
    }
}

/// Replaces a file durably: after a crash it is the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = with_suffix(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names that were added to or removed from a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
