//! What is measured: a relay's program and how it is started.

use std::path::{Path, PathBuf};

use atproto::syntax::HostName;

use crate::relay_process::{self, RelayProcess, Usage};

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it is called in tables.
    pub name: String,
    /// Its path.
    pub program: PathBuf,
    /// More arguments of `mainstem run`.
    pub args: Vec<String>,
    /// `--workers`, where it is not the program's own choice.
    pub workers: Option<usize>,
}

/// A subject that was started and is ready. Killed with its value.
pub struct Running {
    relay: RelayProcess,
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
        Subject { name, program: program.to_owned(), args, workers }
    }

    /// Starts it on an empty data folder, for these hosts, and waits until it is ready.
    pub async fn start(
        &self,
        data_dir: &Path,
        plc_url: &str,
        hosts: &[HostName],
    ) -> Result<Running, relay_process::Error> {
        let mut config = relay_process::Config::new(&self.program, data_dir, plc_url, hosts)?;
        config.args = self.args.clone();
        Ok(Running { relay: RelayProcess::start(config).await? })
    }
}

impl Running {
    /// `ws://127.0.0.1:PORT`.
    pub fn stream_url(&self) -> String {
        self.relay.stream_url()
    }

    /// The process's number.
    pub fn pid(&self) -> i32 {
        self.relay.pid()
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, relay_process::Error> {
        self.relay.usage()
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.relay.config().log_tail(lines)
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(self) -> Result<(), relay_process::Error> {
        self.relay.kill().await.map(drop)
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
