//! What is measured: a relay's program and how it is started.

use std::path::{Path, PathBuf};

use atproto::syntax::HostName;

use super::peer::{Indigo, Peer, PeerKind};
use crate::relay_process::{self, RelayProcess, Usage};

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it is called in tables.
    pub name: String,
    /// Whose it is.
    pub kind: Kind,
    /// Its path.
    pub program: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
    /// `--workers`, where it is not the program's own choice.
    pub workers: Option<usize>,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Mainstem,
    /// Another's.
    Peer(PeerKind),
}

/// A subject that was started and is ready. Killed with its value.
pub struct Running {
    process: Process,
}

enum Process {
    Mainstem(RelayProcess),
    Indigo(Indigo),
}

impl Subject {
    /// `mainstem`, with `args` and beside them what keeps a warm-up short: a directory on the same machine may be asked
    /// as often as it can answer.
    pub fn mainstem(program: &Path, args: &[String], workers: Option<usize>) -> Subject {
        let mut args = args.to_vec();
        for (flag, value) in [("--plc-rate", "10000"), ("--plc-concurrency", "256")] {
            if !args.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}="))) {
                args.push(format!("{flag}={value}"));
            }
        }
        args.extend(workers.map(|workers| format!("--workers={workers}")));
        let name = match workers {
            None => "mainstem".to_owned(),
            Some(1) => "mainstem, 1 worker".to_owned(),
            Some(workers) => format!("mainstem, {workers} workers"),
        };
        Subject { name, kind: Kind::Mainstem, program: program.to_owned(), args, workers }
    }

    /// Another's relay, as it is by default.
    pub fn peer(peer: &Peer) -> Subject {
        let name = match peer.kind {
            PeerKind::Indigo => "indigo relay".to_owned(),
        };
        Subject { name, kind: Kind::Peer(peer.kind), program: peer.program.clone(), args: Vec::new(), workers: None }
    }

    /// Starts it on an empty data folder, for these hosts, and waits until it is ready.
    pub async fn start(
        &self,
        data_dir: &Path,
        plc_url: &str,
        hosts: &[HostName],
    ) -> Result<Running, relay_process::Error> {
        let process = match self.kind {
            Kind::Mainstem => {
                let mut config = relay_process::Config::new(&self.program, data_dir, plc_url, hosts)?;
                config.args = self.args.clone();
                Process::Mainstem(RelayProcess::start(config).await?)
            }
            Kind::Peer(PeerKind::Indigo) => {
                Process::Indigo(Indigo::start(&self.program, data_dir, plc_url, hosts, &self.args).await?)
            }
        };
        Ok(Running { process })
    }
}

impl Running {
    /// `ws://127.0.0.1:PORT`.
    pub fn stream_url(&self) -> String {
        match &self.process {
            Process::Mainstem(relay) => relay.stream_url(),
            Process::Indigo(relay) => relay.stream_url(),
        }
    }

    /// The process's number.
    pub fn pid(&self) -> i32 {
        match &self.process {
            Process::Mainstem(relay) => relay.pid(),
            Process::Indigo(relay) => relay.pid(),
        }
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, relay_process::Error> {
        relay_process::usage(self.pid())
            .map_err(|source| relay_process::Error::Io { what: "read the relay's usage", source })
    }

    /// What one of its metrics says now; another's relay has others.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        match &self.process {
            Process::Mainstem(relay) => relay.metric(name).await,
            Process::Indigo(_) => None,
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        match &self.process {
            Process::Mainstem(relay) => relay.config().log_tail(lines),
            Process::Indigo(relay) => relay.log_tail(lines),
        }
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(self) -> Result<(), relay_process::Error> {
        match self.process {
            Process::Mainstem(relay) => relay.kill().await.map(drop),
            Process::Indigo(relay) => relay.kill().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_a_rate_keeps_it() {
        let args = |said: &[&str]| {
            let said: Vec<String> = said.iter().map(|arg| (*arg).to_owned()).collect();
            Subject::mainstem(Path::new("mainstem"), &said, None).args
        };
        assert_eq!(args(&[]), ["--plc-rate=10000", "--plc-concurrency=256"]);
        assert_eq!(args(&["--plc-rate", "5"]), ["--plc-rate", "5", "--plc-concurrency=256"]);
        assert_eq!(args(&["--plc-rate=5", "--plc-concurrency=6"]), ["--plc-rate=5", "--plc-concurrency=6"]);
    }
}
