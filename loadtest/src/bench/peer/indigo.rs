//! The reference relay, `cmd/relay` of indigo, as a child process.
//!
//! Its checks are those of its defaults, strict ones. It refuses to be asked over HTTP for hosts on this machine, so its
//! hosts are put into its database (SQLite, by the `sqlite3` program) before it starts, as trusted ones: that raises
//! their limits of rate and accounts, and nothing else.

use std::{
    fs::File,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use atproto::syntax::HostName;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::relay_process::{Error, get};

/// A running process. Killed with its value.
pub(in crate::bench) struct Indigo {
    child: Child,
    pid: i32,
    port: u16,
    log: PathBuf,
}

const READY_WITHIN: Duration = Duration::from_secs(60);
const ENDED_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

impl Indigo {
    /// Starts it on an empty data folder, for these hosts, and waits until it answers.
    pub(in crate::bench) async fn start(
        program: &Path,
        data_dir: &Path,
        plc_url: &str,
        hosts: &[HostName],
        args: &[String],
    ) -> Result<Indigo, Error> {
        std::fs::create_dir_all(data_dir).map_err(|source| Error::Io { what: "make the peer's folder", source })?;
        // The first start makes the tables.
        let first = Indigo::spawn(program, data_dir, plc_url, args)?;
        first.ready().await?.terminate().await?;
        put_hosts(&data_dir.join("relay.sqlite"), hosts).await?;
        Indigo::spawn(program, data_dir, plc_url, args)?.ready().await
    }

    fn spawn(program: &Path, data_dir: &Path, plc_url: &str, args: &[String]) -> Result<Indigo, Error> {
        let io = |what| move |source| Error::Io { what, source };
        let free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            Ok((listener.local_addr()?.port(), listener))
        };
        let (api, metrics) = (free().map_err(io("find a free port"))?, free().map_err(io("find a free port"))?);
        let (api, metrics) = (api.0, metrics.0);
        let path = data_dir.with_extension("log");
        let log = File::options().create(true).append(true).open(&path).map_err(io("open the peer's log"))?;
        let copy = log.try_clone().map_err(io("open the peer's log"))?;
        let mut command = Command::new(program);
        command
            .args(["--plc-host", plc_url, "--log-level", "warn", "serve"])
            .arg(format!("--db-url=sqlite://{}", data_dir.join("relay.sqlite").display()))
            .arg(format!("--persist-dir={}", data_dir.join("persist").display()))
            .arg(format!("--bind=127.0.0.1:{api}"))
            .arg(format!("--metrics-listen=127.0.0.1:{metrics}"))
            .args(args)
            // It reads a file `.env` where it stands.
            .current_dir(data_dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .kill_on_drop(true);
        let start = |source| Error::Start { program: program.to_owned(), source };
        let child = command.spawn().map_err(start)?;
        let pid = child.id().ok_or_else(|| start(io::ErrorKind::NotFound.into()))?.cast_signed();
        Ok(Indigo { child, pid, port: api, log: path })
    }

    async fn ready(mut self) -> Result<Indigo, Error> {
        let url = format!("http://127.0.0.1:{}/xrpc/_health", self.port);
        let deadline = Instant::now() + READY_WITHIN;
        while !get(&url).await.is_ok_and(|(status, _)| status == 200) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Ended { status, log: self.log_tail(30) });
            }
            if Instant::now() > deadline {
                return Err(Error::Late { what: "become ready", limit: READY_WITHIN, log: self.log_tail(30) });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(self)
    }

    /// `ws://127.0.0.1:PORT`.
    pub(in crate::bench) fn stream_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// The process's number.
    pub(in crate::bench) fn pid(&self) -> i32 {
        self.pid
    }

    /// The last lines of its log.
    pub(in crate::bench) fn log_tail(&self, lines: usize) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// SIGKILL, and waits until it is gone.
    pub(in crate::bench) async fn kill(mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|source| Error::Io { what: "kill the peer", source })
    }

    /// SIGTERM, and waits until it is gone.
    async fn terminate(mut self) -> Result<(), Error> {
        let io = |source| Error::Io { what: "end the peer", source };
        let pid = Pid::from_raw(self.pid).ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        kill_process(pid, Signal::TERM).map_err(|error| io(error.into()))?;
        match timeout(ENDED_WITHIN, self.child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(io),
            Err(_) => Err(Error::Late { what: "end", limit: ENDED_WITHIN, log: self.log_tail(30) }),
        }
    }
}

async fn put_hosts(database: &Path, hosts: &[HostName]) -> Result<(), Error> {
    let io = |source| Error::Io { what: "put hosts into the peer's database with sqlite3", source };
    let mut child = std::process::Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(io)?;
    let rows = rows(hosts);
    let done = tokio::task::spawn_blocking(move || {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rows.as_bytes())?;
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
    });
    done.await.map_err(|_| io(io::Error::other("the writer panicked")))?.map_err(io)
}

fn rows(hosts: &[HostName]) -> String {
    // A host's name has no quotes: letters, digits, dots, hyphens and a port.
    let row = |host: &HostName| {
        format!(
            "INSERT INTO host (created_at, updated_at, hostname, no_ssl, account_limit, trusted, status) \
             VALUES (datetime('now'), datetime('now'), '{host}', 1, 10000000, 1, 'active');\n"
        )
    };
    let rows: String = hosts.iter().map(row).collect();
    format!("BEGIN;\n{rows}COMMIT;\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_a_row() {
        let hosts = ["localhost:1", "localhost:2"].map(|name| HostName::parse(name).unwrap());
        let rows = rows(&hosts);
        assert_eq!(rows.matches("INSERT INTO host").count(), 2);
        assert!(rows.contains("'localhost:2', 1,"));
    }
}
