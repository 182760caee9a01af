//! What is measured: a relay's program and how it is started.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use atproto::syntax::HostName;

use super::{
    Error,
    peer::{Indigo, Peer, PeerKind},
};
use crate::{
    cluster::{self, Cluster, Counts, Role, Servers},
    relay_process::{self, RelayProcess, Usage, resident_bytes},
};

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
    /// Ours, in one process.
    Mainstem,
    /// Ours, a process of each role, on Kafka and Cassandra.
    Cluster,
    /// Another's.
    Peer(PeerKind),
}

/// A subject that was started and is ready. Killed with its value.
pub struct Running {
    process: Process,
}

enum Process {
    Mainstem(RelayProcess),
    Cluster(Box<Cluster>),
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

    /// A cluster of one process of each role, one broker and one Cassandra node, on this machine.
    pub fn cluster(program: &Path) -> Subject {
        let name = "a cluster".to_owned();
        Subject { name, kind: Kind::Cluster, program: program.to_owned(), args: Vec::new(), workers: None }
    }

    /// Another's relay, as it is by default.
    pub fn peer(peer: &Peer) -> Subject {
        let name = match peer.kind {
            PeerKind::Indigo => "indigo relay".to_owned(),
        };
        Subject { name, kind: Kind::Peer(peer.kind), program: peer.program.clone(), args: Vec::new(), workers: None }
    }

    /// Starts it on an empty data folder, for these hosts, and waits until it is ready.
    pub async fn start(&self, data_dir: &Path, plc_url: &str, hosts: &[HostName]) -> Result<Running, Error> {
        let process = match self.kind {
            Kind::Mainstem => {
                let mut config = relay_process::Config::new(&self.program, data_dir, plc_url, hosts)?;
                config.args = self.args.clone();
                Process::Mainstem(RelayProcess::start(config).await?)
            }
            Kind::Cluster => {
                let servers = Arc::new(Servers::start(1).await?);
                let fast_directory = ["--plc-rate", "10000", "--plc-concurrency", "256"].map(str::to_owned).to_vec();
                let config = cluster::Config {
                    program: self.program.clone(),
                    name: "bench".to_owned(),
                    folder: data_dir.to_owned(),
                    counts: Counts { crawl: 1, validate: 1, sequence: 1, serve: 1 },
                    address: Ipv4Addr::LOCALHOST,
                    plc_url: Some(plc_url.to_owned()),
                    hosts: hosts.to_vec(),
                    dev: true,
                    init_args: vec!["--lanes=16".to_owned()],
                    role_args: vec![(Role::Validate, fast_directory)],
                    sites: Vec::new(),
                    first_public: None,
                };
                Process::Cluster(Box::new(Cluster::start(config, servers).await?))
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
            Process::Cluster(cluster) => cluster.stream_urls().swap_remove(0),
            Process::Indigo(relay) => relay.stream_url(),
        }
    }

    /// The numbers of its processes. A cluster's servers are none of them.
    pub fn pids(&self) -> Vec<i32> {
        match &self.process {
            Process::Mainstem(relay) => vec![relay.pid()],
            Process::Cluster(cluster) => cluster.processes().iter().filter_map(cluster::RoleProcess::pid).collect(),
            Process::Indigo(relay) => vec![relay.pid()],
        }
    }

    /// Its resident memory now, all processes together.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        Ok(self.pids().into_iter().map(resident_bytes).sum::<Result<u64, _>>()?)
    }

    /// What it has used so far. For a cluster, what its threads are for one process are its roles, and beside them its
    /// servers, which are in no sum.
    pub fn usage(&self) -> Result<Usage, Error> {
        let of = |pid| -> Result<Usage, Error> {
            Ok(relay_process::usage(pid)
                .map_err(|source| relay_process::Error::Io { what: "read the relay's usage", source })?)
        };
        match &self.process {
            Process::Mainstem(relay) => of(relay.pid()),
            Process::Indigo(relay) => of(relay.pid()),
            Process::Cluster(cluster) => {
                let mut sum = Usage::default();
                for process in cluster.processes() {
                    let usage = process.usage()?;
                    sum.user_seconds += usage.user_seconds;
                    sum.system_seconds += usage.system_seconds;
                    sum.rss_bytes += usage.rss_bytes;
                    sum.rss_bytes_max += usage.rss_bytes_max;
                    sum.written_bytes += usage.written_bytes;
                    sum.threads.push((process.role().to_string(), usage.user_seconds + usage.system_seconds));
                }
                let servers = cluster.servers();
                for (name, pid) in [("(kafka)", servers.broker_at(0).1), ("(cassandra)", servers.cql_pid())] {
                    let usage = pid.map(|pid| of(pid.cast_signed())).transpose()?.unwrap_or_default();
                    sum.threads.push((name.to_owned(), usage.user_seconds + usage.system_seconds));
                }
                Ok(sum)
            }
        }
    }

    /// What one of its metrics says now; a cluster has many of each, and another's relay has others.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        match &self.process {
            Process::Mainstem(relay) => relay.metric(name).await,
            Process::Cluster(_) | Process::Indigo(_) => None,
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        match &self.process {
            Process::Mainstem(relay) => relay.config().log_tail(lines),
            Process::Cluster(cluster) => {
                let tails = cluster.processes().iter().map(|process| process.log_tail(lines));
                tails.collect::<Vec<_>>().join("\n")
            }
            Process::Indigo(relay) => relay.log_tail(lines),
        }
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(self) -> Result<(), Error> {
        match self.process {
            Process::Mainstem(relay) => Ok(relay.kill().await.map(drop)?),
            Process::Cluster(cluster) => Ok(cluster.stop().await?),
            Process::Indigo(relay) => Ok(relay.kill().await?),
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
