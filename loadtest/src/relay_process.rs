//! The relay as a child process: started, watched from outside, killed.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use atproto::syntax::HostName;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

/// How to run the relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `mainstem` program.
    pub program: PathBuf,
    /// Its data folder, and beside it its log: `DIR.log`.
    pub data_dir: PathBuf,
    /// The directory of identities.
    pub plc_url: String,
    /// The hosts to relay.
    pub hosts: Vec<HostName>,
    /// More arguments of `mainstem run`.
    pub args: Vec<String>,
    /// The address of the public listener; the private one is on loopback.
    pub address: Ipv4Addr,
    /// The port of the public listener, and that of the private one.
    pub ports: (u16, u16),
}

/// A relay that was started. Killed with its value.
pub struct RelayProcess {
    child: Child,
    pid: Pid,
    config: Config,
    started: Instant,
}

/// Why a relay can't be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program can't be started.
    #[error("failed to start {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended, though nobody had asked it to.
    #[error("the relay ended with {status}; its log ends:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// It did not do something in time.
    #[error("the relay did not {what} within {limit:?}; its log ends:\n{log}")]
    Late {
        /// What.
        what: &'static str,
        /// The time it had.
        limit: Duration,
        /// Its last lines.
        log: String,
    },
    /// The machine refused something.
    #[error("failed to {what}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the kernel counts of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode, seconds.
    pub user_seconds: f64,
    /// CPU time in the kernel, seconds.
    pub system_seconds: f64,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// Most resident memory so far.
    pub rss_bytes_max: u64,
    /// Bytes handed to storage so far.
    pub written_bytes: u64,
    /// CPU seconds of each thread, by name, names of the same kind added up.
    pub threads: Vec<(String, f64)>,
}

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// The unit of CPU times in /proc: USER_HZ, which is 100 on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;

impl Config {
    /// `mainstem run --dev` on free ports.
    pub fn new(program: &Path, data_dir: &Path, plc_url: &str, hosts: &[HostName]) -> Result<Config, Error> {
        let free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            Ok((listener.local_addr()?.port(), listener))
        };
        let io = |source| Error::Io { what: "find a free port", source };
        // Both at once, so that they differ.
        let (first, second) = (free().map_err(io)?, free().map_err(io)?);
        Ok(Config {
            program: program.to_owned(),
            data_dir: data_dir.to_owned(),
            plc_url: plc_url.to_owned(),
            hosts: hosts.to_vec(),
            args: Vec::new(),
            address: Ipv4Addr::LOCALHOST,
            ports: (first.0, second.0),
        })
    }

    fn log_path(&self) -> PathBuf {
        let mut name = self.data_dir.clone().into_os_string();
        name.push(".log");
        name.into()
    }

    /// The last lines of the log, of all runs on this data folder.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl RelayProcess {
    /// Starts the program; its log is added to that of earlier runs.
    pub fn spawn(config: Config) -> Result<RelayProcess, Error> {
        let log = File::options().create(true).append(true).open(config.log_path());
        let log = log.map_err(|source| Error::Io { what: "open the relay's log", source })?;
        let copy = log.try_clone().map_err(|source| Error::Io { what: "open the relay's log", source })?;
        let mut command = Command::new(&config.program);
        command
            .args(["run", "--dev", "--plc-url", &config.plc_url])
            .args(["--bind", &format!("{}:{}", config.address, config.ports.0)])
            .args(["--admin-bind", &format!("127.0.0.1:{}", config.ports.1)])
            .arg("--data-dir")
            .arg(&config.data_dir)
            .args(config.hosts.iter().flat_map(|host| ["--host", host.as_str()]))
            .args(&config.args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .kill_on_drop(true);
        let started = Instant::now();
        let start = |source| Error::Start { program: config.program.clone(), source };
        let child = command.spawn().map_err(start)?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| start(io::ErrorKind::NotFound.into()))?;
        Ok(RelayProcess { child, pid, config, started })
    }

    /// Starts the program and waits until it says that it is ready.
    pub async fn start(config: Config) -> Result<RelayProcess, Error> {
        let mut relay = RelayProcess::spawn(config)?;
        relay.wait_ready().await?;
        Ok(relay)
    }

    /// Waits until `/readyz` says yes.
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        let url = format!("{}/readyz", self.admin_url());
        let ready = async {
            loop {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(Error::Ended { status, log: self.config.log_tail(30) });
                }
                if get(&url).await.is_ok_and(|(status, _)| status == 200) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(READY_WITHIN, ready).await.unwrap_or_else(|_| {
            Err(Error::Late { what: "become ready", limit: READY_WITHIN, log: self.config.log_tail(30) })
        })
    }

    /// How it was started.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Since it was started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where the public listener is.
    pub fn public_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.config.address, self.config.ports.0)
    }

    /// `ws://ADDRESS:PORT`.
    pub fn stream_url(&self) -> String {
        format!("ws://{}", self.public_address())
    }

    /// `http://ADDRESS:PORT` of the public listener.
    pub fn public_url(&self) -> String {
        format!("http://{}", self.public_address())
    }

    /// `http://127.0.0.1:PORT` of the private listener.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.config.ports.1)
    }

    /// The process's number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> Result<Config, Error> {
        self.child.kill().await.map_err(|source| Error::Io { what: "kill the relay", source })?;
        Ok(self.config)
    }

    /// SIGTERM, and waits until it is gone; gives how it ended and how long that took.
    pub async fn terminate(mut self, within: Duration) -> Result<(ExitStatus, Duration), Error> {
        let asked = Instant::now();
        kill_process(self.pid, Signal::TERM)
            .map_err(|error| Error::Io { what: "signal the relay", source: error.into() })?;
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) => Ok((status, asked.elapsed())),
            Ok(Err(source)) => Err(Error::Io { what: "wait for the relay", source }),
            Err(_) => Err(Error::Late { what: "end", limit: within, log: self.config.log_tail(30) }),
        }
    }

    /// What a metric says now, named with its labels if it has some; `None` where there is none of that name.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = get(&format!("{}/metrics", self.admin_url())).await.ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage(self.pid()).map_err(|source| Error::Io { what: "read the relay's usage", source })
    }
}

/// Fetches a URL: status and body.
pub async fn get(url: &str) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse()?).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// A process's resident memory now.
pub fn resident_bytes(pid: i32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = number_after(&status, "VmRSS:").ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib * 1024)
}

/// What a process has used so far.
pub fn usage(pid: i32) -> io::Result<Usage> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let (_, user_seconds, system_seconds) = cpu(&std::fs::read_to_string(proc.join("stat"))?)?;
    let status = std::fs::read_to_string(proc.join("status"))?;
    let kib = |field: &str| number_after(&status, field).unwrap_or(0) * 1024;
    let io = std::fs::read_to_string(proc.join("io")).unwrap_or_default();
    let mut threads = std::collections::BTreeMap::<String, f64>::new();
    for task in std::fs::read_dir(proc.join("task"))? {
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        let (name, user, system) = cpu(&stat)?;
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || "-_#:".contains(c));
        *threads.entry(kind.to_owned()).or_default() += user + system;
    }
    let mut threads: Vec<(String, f64)> = threads.into_iter().collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Usage {
        user_seconds,
        system_seconds,
        rss_bytes: kib("VmRSS:"),
        rss_bytes_max: kib("VmHWM:"),
        written_bytes: number_after(&io, "write_bytes:").unwrap_or(0),
        threads,
    })
}

/// Name, user and system CPU seconds of a `stat` file.
fn cpu(stat: &str) -> io::Result<(String, f64, f64)> {
    let parts = || {
        // The name stands in parentheses and may hold any character.
        let (start, end) = (stat.find('(')?, stat.rfind(')')?);
        let mut fields = stat.get(end + 2..)?.split(' ');
        let user: f64 = fields.nth(11)?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some((stat.get(start + 1..end)?.to_owned(), user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
    };
    parts().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn number_after(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu(stat).unwrap(), ("a) b (c".to_owned(), 1.5, 0.25));
        assert!(cpu("42 (a S 1").is_err());
    }

    #[test]
    fn our_own_usage_can_be_read() {
        let usage = usage(std::process::id().cast_signed()).unwrap();
        assert!(usage.rss_bytes > 1_000_000 && usage.rss_bytes_max >= usage.rss_bytes);
        assert!(!usage.threads.is_empty());
        assert!(resident_bytes(std::process::id().cast_signed()).unwrap() > 1_000_000);
    }
}
