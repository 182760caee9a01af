//! Makes traffic: plays a network of accounts that sign, without sockets, and writes down what its hosts say.
//!
//! What must hold: the same profile makes the same bytes, on every machine. In memory are the repos, by a path and a CID a
//! record, and what has not been written yet; never the frames.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use atproto::{
    crypto::Curve,
    event::{self, Action, Event, EventError},
    mst::MstError,
};

use super::{
    blocks::{self, Writer},
    folder::{ACCOUNTS, Counts, FileSum, Line, MANIFEST, MEASURED, Manifest, VERSION, WARM_UP},
    profile::{self, Profile},
};
use crate::network::{
    self, Form,
    story::{Person, Story},
};

/// Why there is no traffic.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The profile makes none.
    #[error(transparent)]
    Profile(#[from] profile::Error),
    /// There is something where it should go.
    #[error("{folder} is not empty: give a new folder")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// The file system.
    #[error("failed to write {file}")]
    Write {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The simulated network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// A repo can't be changed as it should.
    #[error("failed to change a repo")]
    Repo(#[from] MstError),
    /// Frames can't be written.
    #[error(transparent)]
    Frames(#[from] blocks::Error),
    /// What was made can't be read.
    #[error("a frame that can't be read")]
    Frame(#[from] EventError),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub doing: &'static str,
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub all: u64,
    /// How much more was done in each second since the last word.
    pub per_second: f64,
}

/// Makes the traffic of `profile` in `folder`, which must be empty or not be; tells `progress` about each second. Takes
/// the processor to itself.
pub fn generate(profile: &Profile, folder: &Path, progress: impl Fn(Progress)) -> Result<Manifest, Error> {
    profile.check()?;
    let write = |file: &Path| {
        let file = file.to_owned();
        move |source| Error::Write { file, source }
    };
    std::fs::create_dir_all(folder).map_err(write(folder))?;
    if std::fs::read_dir(folder).map_err(write(folder))?.next().is_some() {
        return Err(Error::NotEmpty { folder: folder.to_owned() });
    }

    let repos = profile.repos as u64;
    progress(Progress { doing: "making repos", done: 0, all: repos, per_second: 0.0 });
    let mut story = Story::new(&profile.network())?;
    let curves: HashMap<String, Curve> =
        story.people().map(|person| (person.did.to_string(), person.key.curve())).collect();

    let mut warm_up = Sink::create(&folder.join(WARM_UP), profile.hosts, &curves)?;
    let mut ticker = Ticker::new("announcing repos", repos, &progress);
    for account in 0..profile.repos {
        story.announce(account)?;
        if account % AT_ONCE == AT_ONCE - 1 || account + 1 == profile.repos {
            warm_up.take(&story)?;
            ticker.tell(account as u64 + 1);
        }
    }
    let warm_up = warm_up.finish()?;

    let mut measured = Sink::create(&folder.join(MEASURED), profile.hosts, &curves)?;
    let mut ticker = Ticker::new("signing", profile.commits, &progress);
    for event in 1..=profile.commits {
        story.step()?;
        if event % AT_ONCE as u64 == 0 || event == profile.commits {
            measured.take(&story)?;
            ticker.tell(event);
        }
    }
    let measured = measured.finish()?;

    let file = folder.join(ACCOUNTS);
    let lines = accounts(story.people());
    std::fs::write(&file, &lines).map_err(write(&file))?;
    let accounts = FileSum { file_bytes: lines.len() as u64, crc32c: crc32c::crc32c(&lines) };
    let manifest = Manifest { version: VERSION, accounts, warm_up, measured, profile: profile.clone() };
    let file = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest).expect("numbers under texts are JSON");
    std::fs::write(&file, text + "\n").map_err(write(&file))?;
    Ok(manifest)
}

/// Between two looks at the clock, and two visits to the hosts.
const AT_ONCE: usize = 64;

fn accounts<'a>(people: impl Iterator<Item = Person<'a>>) -> Vec<u8> {
    let mut lines = Vec::new();
    for Person { did, handle, host, key, form } in people {
        let legacy = match form {
            Form::Legacy => true,
            Form::Multikey => false,
        };
        let line = Line { did: did.to_string(), handle: handle.to_owned(), host, key: key.to_did_key(), legacy };
        let line = serde_json::to_vec(&line).expect("texts and numbers are JSON");
        lines.extend_from_slice(&line);
        lines.push(b'\n');
    }
    lines
}

/// Where frames go, and what they were.
struct Sink<'a> {
    writer: Writer,
    hosts: usize,
    counts: Counts,
    curves: &'a HashMap<String, Curve>,
}

impl<'a> Sink<'a> {
    fn create(path: &Path, hosts: usize, curves: &'a HashMap<String, Curve>) -> Result<Sink<'a>, Error> {
        Ok(Sink { writer: Writer::create(path, hosts)?, hosts, counts: Counts::default(), curves })
    }

    /// Takes what the hosts have said.
    fn take(&mut self, story: &Story) -> Result<(), Error> {
        for host in 0..self.hosts {
            for (seq, frame) in story.take(host) {
                self.writer.push(host, seq, &frame)?;
                self.count(&frame)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, frame: &[u8]) -> Result<(), EventError> {
        let counts = &mut self.counts;
        counts.events += 1;
        counts.bytes += frame.len() as u64;
        match event::parse(frame)? {
            Event::Commit(commit) => {
                counts.commits += 1;
                counts.signatures += 1;
                counts.commits_p256 += u64::from(self.curves.get(commit.repo) == Some(&Curve::P256));
                counts.ops += commit.ops.len() as u64;
                match &commit.ops[..] {
                    // An announcement's.
                    [] => {}
                    [op] => match op.action {
                        Action::Create => counts.creates += 1,
                        Action::Update => counts.updates += 1,
                        Action::Delete => counts.deletes += 1,
                    },
                    [_, _, ..] => counts.multi += 1,
                }
            }
            Event::Sync(_) => counts.signatures += 1,
            Event::Identity(_) | Event::Account(_) => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Counts, Error> {
        self.counts.file_bytes = self.writer.finish()?;
        self.counts.frame_bytes_mean = self.counts.bytes as f64 / self.counts.events.max(1) as f64;
        Ok(self.counts)
    }
}

/// Tells how far it is, each second.
struct Ticker<'a, P> {
    doing: &'static str,
    all: u64,
    progress: &'a P,
    last: Instant,
    last_done: u64,
}

impl<'a, P: Fn(Progress)> Ticker<'a, P> {
    fn new(doing: &'static str, all: u64, progress: &'a P) -> Ticker<'a, P> {
        Ticker { doing, all, progress, last: Instant::now(), last_done: 0 }
    }

    fn tell(&mut self, done: u64) {
        let since = self.last.elapsed();
        if since < Duration::from_secs(1) && done < self.all {
            return;
        }
        let per_second = (done - self.last_done) as f64 / since.as_secs_f64();
        (self.progress)(Progress { doing: self.doing, done, all: self.all, per_second });
        (self.last, self.last_done) = (Instant::now(), done);
    }
}
