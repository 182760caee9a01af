//! Traffic on disk: a folder, made once and played as often as one likes.
//!
//! ```text
//! manifest.json    what is in the folder, and the profile it was made from; written last
//! accounts.jsonl   an account a line: DID, handle, host, did:key, form of its document
//! warm-up.frames   what makes a relay know each account and its state: #identity, #account, #commit, #sync
//! measured.frames  what follows, mostly commits
//! ```
//!
//! Frames have their seqs and are signed; when they are sent is written over their `time`. Hosts are numbers, and get
//! their names, as documents get their host, from whoever plays. [`blocks`] says what is in a file of frames.
//!
//! What must hold: what can be opened is whole. A folder without a manifest, of another version, or with a file that is
//! shorter than the manifest says is refused.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use atproto::{crypto::PublicKey, syntax::Did};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    blocks::{self, Blocks},
    profile::Profile,
};
use crate::network::Form;

/// The version of the folder's form.
pub const VERSION: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const ACCOUNTS: &str = "accounts.jsonl";
pub(super) const WARM_UP: &str = "warm-up.frames";
pub(super) const MEASURED: &str = "measured.frames";

/// What is in a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// What the accounts' file is.
    pub accounts: FileSum,
    /// What announces the accounts.
    pub warm_up: Counts,
    /// What follows.
    pub measured: Counts,
    /// What it was made from.
    pub profile: Profile,
}

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its length.
    pub file_bytes: u64,
    /// The CRC-32C of all of it.
    pub crc32c: u32,
}

/// What a file of frames holds, as counted by reading each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// The file's length.
    pub file_bytes: u64,
    /// Frames.
    pub events: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// The mean of their lengths.
    pub frame_bytes_mean: f64,
    /// Those that are commits.
    pub commits: u64,
    /// Of these, signed with P-256 keys.
    pub commits_p256: u64,
    /// Commits of one create.
    pub creates: u64,
    /// Commits of one update.
    pub updates: u64,
    /// Commits of one delete.
    pub deletes: u64,
    /// Commits of several ops.
    pub multi: u64,
    /// Ops of all commits.
    pub ops: u64,
    /// Signed frames: commits and syncs.
    pub signatures: u64,
}

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who.
    pub did: Did,
    /// Its handle.
    pub handle: String,
    /// Which host it is on, from 0.
    pub host: usize,
    /// The key that it signs with.
    pub key: PublicKey,
    /// The form of its document.
    pub form: Form,
}

/// A line of the accounts' file.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) did: String,
    pub(super) handle: String,
    pub(super) host: usize,
    pub(super) key: String,
    pub(super) legacy: bool,
}

/// Traffic that can be played.
pub struct Folder {
    path: PathBuf,
    manifest: Manifest,
    accounts: Vec<Account>,
    warm_up: Blocks,
    measured: Blocks,
}

/// Why a folder has no traffic.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no manifest, which is written last.
    #[error("no traffic in {folder}, or its making was cut short: make it with `loadtest gen --out`")]
    Absent {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is none.
    #[error("{file} can't be read")]
    Manifest {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version than [`VERSION`].
    #[error("{folder} has traffic of version {found}; version {VERSION} is played: make it anew")]
    Version {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file can't be read.
    #[error("failed to read {file}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The accounts are not what was written.
    #[error("{file} is damaged or cut short: make it anew")]
    Accounts {
        /// The file.
        file: PathBuf,
    },
    /// Frames.
    #[error(transparent)]
    Frames(#[from] blocks::Error),
}

impl Folder {
    /// Opens a folder. Always checks versions and lengths, and the accounts; frames are checked when they are read.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        let manifest = read_manifest(path)?;
        let Manifest { warm_up, measured, profile, .. } = &manifest;
        let blocks = |name: &str, counts: &Counts| Blocks::open(&path.join(name), counts.file_bytes, profile.hosts);
        let (warm_up, measured) = (blocks(WARM_UP, warm_up)?, blocks(MEASURED, measured)?);
        let accounts = read_accounts(&path.join(ACCOUNTS), &manifest)?;
        Ok(Folder { path: path.to_owned(), manifest, accounts, warm_up, measured })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many hosts it has.
    pub fn hosts(&self) -> usize {
        self.manifest.profile.hosts
    }

    /// Who takes part, the most active first.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The keys that accounts sign with.
    pub fn signing_keys(&self) -> HashMap<Did, PublicKey> {
        self.accounts.iter().map(|account| (account.did.clone(), account.key.clone())).collect()
    }

    /// What announces the accounts.
    pub fn warm_up(&self) -> &Blocks {
        &self.warm_up
    }

    /// What follows.
    pub fn measured(&self) -> &Blocks {
        &self.measured
    }

    /// A host's measured frames, with the `time` of their making. Blocks on the disk.
    pub fn frames(&self, host: usize) -> impl Iterator<Item = Result<Bytes, blocks::Error>> + '_ {
        self.measured.iter(host)
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let file = path.join(MANIFEST);
    let text = std::fs::read_to_string(&file).map_err(|source| Error::Absent { folder: path.to_owned(), source })?;
    let form = |source| Error::Manifest { file: file.clone(), source };
    // First of all, for the fields of another version may be others.
    let Versioned { version: found } = serde_json::from_str(&text).map_err(form)?;
    if found != VERSION {
        return Err(Error::Version { folder: path.to_owned(), found });
    }
    serde_json::from_str(&text).map_err(form)
}

fn read_accounts(file: &Path, manifest: &Manifest) -> Result<Vec<Account>, Error> {
    let bytes = std::fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    let damaged = || Error::Accounts { file: file.to_owned() };
    let found = FileSum { file_bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
    if found != manifest.accounts {
        return Err(damaged());
    }
    let account = |line: &[u8]| {
        let Line { did, handle, host, key, legacy } = serde_json::from_slice(line).ok()?;
        let form = if legacy { Form::Legacy } else { Form::Multikey };
        let (did, key) = (Did::parse(&did).ok()?, PublicKey::from_did_key(&key).ok()?);
        (host < manifest.profile.hosts).then_some(Account { did, handle, host, key, form })
    };
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(account).collect::<Option<_>>().ok_or_else(damaged)
}
