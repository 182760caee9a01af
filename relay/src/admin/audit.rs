//! The record of changes: what was done, when, by whom, from where, and how it ended.
//!
//! `admin.jsonl` in the data folder, a JSON object a line, each synced. A change has two lines with one number: one
//! before it is tried, one when its end is known. What can't be recorded is not tried. A change without a second line was
//! cut short by the end of the process: its result is unknown. A full file becomes `admin.jsonl.1`, that one
//! `admin.jsonl.2`, and so on; the oldest goes.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use runtime::{clock::Clock, tasks::Tasks};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

/// The newest file's name.
pub const FILE: &str = "admin.jsonl";

/// The size at which a file is full. Two lines are a few hundred bytes, so this is some ten thousand changes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Full files that are kept.
const FULL_FILES: u32 = 4;

/// The record, open for more. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    writer: Mutex<Writer>,
    clock: Clock,
    tasks: Tasks,
}

/// The record can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the record of changes {}", path.display())]
pub struct OpenError {
    /// The file.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

/// What is about to be tried: the first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// `admin`, or a token's name.
    pub who: String,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// The operation's name in the OpenAPI document.
    pub operation: String,
    /// What it is about: a host, a domain, a DID, a subscriber's number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// The request's body, as far as there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<Value>,
}

/// How it ended: the second line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The answer's HTTP status.
    pub status: u16,
    /// The error's name, where it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The error in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

/// A change with its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Rises by one from change to change.
    pub id: u64,
    /// When it was begun: RFC 3339, UTC.
    pub at: String,
    /// What was tried.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// How it ended, in a word.
    pub result: Outcome,
    /// How it ended.
    #[serde(flatten)]
    pub end: Option<End>,
}

/// How a change ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was made.
    Done,
    /// It was turned down; nothing was changed.
    Refused,
    /// It went wrong; the log says how.
    Failed,
    /// It is under way, or its end was not waited for, or the process ended before it was known.
    Unknown,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    id: u64,
    at: String,
    #[serde(flatten)]
    what: T,
}

/// A line as it is read: what it lacks says which of the two it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyLine {
    Attempt(Line<Attempt>),
    End(Line<End>),
}

#[derive(Clone)]
struct Files {
    dir: PathBuf,
    bytes_max: u64,
}

struct Writer {
    file: File,
    bytes: u64,
    last_id: u64,
}

// === impl Audit ===

impl Audit {
    /// Opens the record in a folder, which is made if it is not there. Blocks.
    pub fn open(dir: &Path, clock: Clock, tasks: Tasks) -> Result<Audit, OpenError> {
        Audit::open_sized(dir, clock, tasks, FILE_BYTES_MAX)
    }

    fn open_sized(dir: &Path, clock: Clock, tasks: Tasks, bytes_max: u64) -> Result<Audit, OpenError> {
        let files = Files { dir: dir.to_owned(), bytes_max };
        let open = || {
            fs::create_dir_all(dir)?;
            let newest = files.read(None, 1)?.first().map_or(0, |entry| entry.id);
            Ok(Writer { last_id: newest, ..files.open()? })
        };
        let writer = open().map_err(|source| OpenError { path: files.path(0), source })?;
        Ok(Audit { inner: Arc::new(Inner { files, writer: Mutex::new(writer), clock, tasks }) })
    }

    /// Records what is about to be tried. Durable when answered. Gives its number.
    pub(super) async fn begin(&self, attempt: Attempt) -> io::Result<u64> {
        let at = self.now();
        self.blocking(move |inner| {
            let mut writer = inner.writer();
            if writer.bytes >= inner.files.bytes_max {
                let last_id = writer.last_id;
                inner.files.rotate()?;
                *writer = Writer { last_id, ..inner.files.open()? };
            }
            let id = writer.last_id + 1;
            writer.append(&Line { id, at, what: attempt })?;
            writer.last_id = id;
            Ok(id)
        })
        .await
    }

    /// Records how it ended.
    pub(super) async fn end(&self, id: u64, end: End) -> io::Result<()> {
        let at = self.now();
        self.blocking(move |inner| inner.writer().append(&Line { id, at, what: end })).await
    }

    /// Changes before the one with the number `before`, the newest first, at most `limit`.
    pub(super) async fn read(&self, before: Option<u64>, limit: usize) -> io::Result<Vec<Entry>> {
        self.blocking(move |inner| inner.files.read(before, limit)).await
    }

    fn now(&self) -> String {
        let micros = i64::try_from(self.inner.clock.now_micros()).unwrap_or(i64::MAX);
        Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = Arc::clone(&self.inner);
        let done = self.inner.tasks.spawn_blocking("record of changes", move || work(&inner)).await;
        done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }
}

impl Inner {
    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// All of them.
    pub(super) const ALL: [Outcome; 4] = [Outcome::Done, Outcome::Refused, Outcome::Failed, Outcome::Unknown];

    /// The word in the record, the metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }

    pub(super) fn of(end: Option<&End>) -> Outcome {
        match end.map(|end| end.status) {
            // A gateway's time-out: it goes on.
            None | Some(504) => Outcome::Unknown,
            Some(..400) => Outcome::Done,
            Some(400..500) => Outcome::Refused,
            Some(500..=503 | 505..) => Outcome::Failed,
        }
    }
}

// === impl Files ===

impl Files {
    /// The newest file is the 0th.
    fn path(&self, age: u32) -> PathBuf {
        match age {
            0 => self.dir.join(FILE),
            age => self.dir.join(format!("{FILE}.{age}")),
        }
    }

    /// Opens the newest file for appending, and ends a last line that was torn.
    fn open(&self) -> io::Result<Writer> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(self.path(0))?;
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        Ok(Writer { file, bytes, last_id: 0 })
    }

    fn rotate(&self) -> io::Result<()> {
        for age in (0..FULL_FILES).rev() {
            match fs::rename(self.path(age), self.path(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Reads from the newest file to the oldest, as far as it must. Lines that can't be read are left out.
    fn read(&self, before: Option<u64>, limit: usize) -> io::Result<Vec<Entry>> {
        let mut ends: HashMap<u64, End> = HashMap::new();
        let mut entries = Vec::new();
        for age in 0..=FULL_FILES {
            let text = match fs::read(self.path(age)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in text.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(AnyLine::End(line)) => {
                        ends.insert(line.id, line.what);
                    }
                    Ok(AnyLine::Attempt(Line { id, at, what: attempt })) => {
                        let end = ends.remove(&id);
                        if before.is_none_or(|before| id < before) {
                            let result = Outcome::of(end.as_ref());
                            entries.push(Entry { id, at, attempt, result, end });
                        }
                    }
                    Err(error) => warn!(%error, file = %self.path(age).display(), "a line can't be read"),
                }
                if entries.len() >= limit {
                    return Ok(entries);
                }
            }
        }
        Ok(entries)
    }
}

impl Writer {
    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let result = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if result.is_err() {
            // A part of the line may be there; the next one must not stand behind it.
            let _torn = self.file.set_len(self.bytes);
        } else {
            self.bytes += bytes.len() as u64;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(dir: &Path, bytes_max: u64) -> Audit {
        Audit::open_sized(dir, Clock::manual(1_767_323_045_678_000), Tasks::new(), bytes_max).unwrap()
    }

    fn attempt(operation: &str) -> Attempt {
        Attempt {
            who: "admin".into(),
            address: Some("127.0.0.1:9".into()),
            operation: operation.into(),
            target: Some("pds.example.com".into()),
            body: Some(json!({ "to": 7 })),
        }
    }

    fn end(status: u16) -> End {
        let error = (status >= 400).then(|| "HostNotFound".to_owned());
        End { status, message: error.clone(), error }
    }

    #[tokio::test]
    async fn what_was_begun_is_there_after_a_restart_with_its_end_or_without() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made");
        let audit = open(&folder, 1 << 20);
        for (operation, status) in [("banHost", Some(200)), ("unbanHost", Some(404)), ("rewindHost", None)] {
            let id = audit.begin(attempt(operation)).await.unwrap();
            if let Some(status) = status {
                audit.end(id, end(status)).await.unwrap();
            }
        }
        drop(audit);
        // Cut short in the middle of a line, and something that nobody knows.
        let mut file = OpenOptions::new().append(true).open(folder.join(FILE)).unwrap();
        file.write_all(b"{\"new\": true}\n{\"id\":4,\"at\":\"2026").unwrap();

        let audit = open(&folder, 1 << 20);
        let id = audit.begin(attempt("addHost")).await.unwrap();
        audit.end(id, end(500)).await.unwrap();
        let entries = audit.read(None, 10).await.unwrap();
        let seen: Vec<_> = entries.iter().map(|entry| (entry.id, &*entry.attempt.operation, entry.result)).collect();
        assert_eq!(
            seen,
            [
                (4, "addHost", Outcome::Failed),
                (3, "rewindHost", Outcome::Unknown),
                (2, "unbanHost", Outcome::Refused),
                (1, "banHost", Outcome::Done),
            ]
        );
        assert_eq!(
            serde_json::to_value(&entries[2]).unwrap(),
            json!({
                "id": 2, "at": "2026-01-02T03:04:05.678Z", "who": "admin", "address": "127.0.0.1:9",
                "operation": "unbanHost", "target": "pds.example.com", "body": { "to": 7 },
                "result": "refused", "status": 404, "error": "HostNotFound", "message": "HostNotFound",
            })
        );
        assert_eq!(audit.read(Some(3), 1).await.unwrap(), entries[2..3]);
    }

    #[tokio::test]
    async fn full_files_are_kept_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let audit = open(dir.path(), 1_000);
        for n in 0..100 {
            let id = audit.begin(attempt(&format!("operation{n}"))).await.unwrap();
            audit.end(id, end(200)).await.unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [FILE, "admin.jsonl.1", "admin.jsonl.2", "admin.jsonl.3", "admin.jsonl.4"]);
        let entries = audit.read(None, 1_000).await.unwrap();
        assert!(entries.len() > 12 && entries.len() < 30, "{}", entries.len());
        assert!(entries.iter().rev().is_sorted_by_key(|entry| entry.id));
        assert!(entries.iter().all(|entry| entry.result == Outcome::Done));
        drop(audit);
        assert_eq!(open(dir.path(), 1_000).begin(attempt("x")).await.unwrap(), 101);
    }

    #[tokio::test]
    async fn what_can_t_be_recorded_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        let error = Audit::open(dir.path(), Clock::system(), Tasks::new()).err().unwrap();
        assert!(error.to_string().contains("admin.jsonl"), "{error}");
    }
}
