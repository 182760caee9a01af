//! A server's process: started, hurt, ended, and never left behind.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start on a machine that is busy with tests.
const START_TIME_MAX: Duration = Duration::from_secs(180);
/// How long it may take to end when asked to.
const END_TIME_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What an error shows of a log.
const LOG_TAIL_BYTES: usize = 4096;

/// Reads process ids, line by line, until its input ends, which is when whoever started it has ended. Then it ends the
/// last process it was told of and removes its folder (and the folder around it, once it is empty).
const GUARD: &str = r#"
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then kill -9 "$pid"; sleep 0.2; fi
rm -rf "$1"; rmdir "$(dirname "$1")"
"#;

/// A server that is started and ended, several times if need be, in one folder.
pub(crate) struct Process {
    name: String,
    dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    guard: Child,
}

impl Process {
    /// A server that is not started yet, whose data lies in `dir` and which writes its log to `log`. The folder goes with
    /// this value, or with this process.
    pub(crate) fn new(name: String, dir: PathBuf, log: PathBuf) -> Result<Process> {
        fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("failed to start the guard")?;
        Ok(Process { name, dir, log, child: None, guard })
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it. Its output goes to `output.log` in its folder, which begins anew.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<()> {
        ensure!(self.child.is_none(), "{} is running", self.name);
        // A log of an earlier start would say that it is ready.
        if self.log.exists() {
            fs::remove_file(&self.log).context("failed to remove the old log")?;
        }
        let output = File::create(self.dir.join("output.log")).context("failed to create a server's log")?;
        let errors = output.try_clone().context("failed to create a server's log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        let pid = child.id();
        self.child = Some(child);
        self.tell_guard(&pid.to_string())
    }

    /// Waits until its log has this line.
    pub(crate) fn wait_for(&mut self, line: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let log = fs::read(&self.log).unwrap_or_default();
            if String::from_utf8_lossy(&log).contains(line) {
                return Ok(());
            }
            if let Some(status) = self.running()?.try_wait()? {
                let log = self.log_tail();
                self.child = None;
                self.tell_guard("")?;
                bail!("{} ended with {status}; its log ends:\n{log}", self.name);
            }
            let log = || self.log_tail();
            ensure!(
                started.elapsed() < START_TIME_MAX,
                "{} did not start in {START_TIME_MAX:?}; its log ends:\n{}",
                self.name,
                log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = self.running()?.id();
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("failed to send {signal:?} to {}", self.name))
    }

    /// Ends it by SIGKILL, stopped or not. Nothing happens where it does not run.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("failed to kill {}", self.name))?;
            child.wait().with_context(|| format!("failed to wait for {}", self.name))?;
            self.tell_guard("")?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while self.running()?.try_wait()?.is_none() {
            let log = self.log_tail();
            ensure!(asked.elapsed() < END_TIME_MAX, "{} did not end; its log ends:\n{log}", self.name);
            std::thread::sleep(LOOK_EVERY);
        }
        self.child = None;
        self.tell_guard("")
    }

    fn running(&mut self) -> Result<&mut Child> {
        self.child.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    fn log_tail(&self) -> String {
        let mut shown = String::new();
        for path in [&self.dir.join("output.log"), &self.log] {
            let log = fs::read(path).unwrap_or_default();
            shown.push_str(&String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]));
            if *path == self.log {
                break;
            }
        }
        shown
    }

    fn tell_guard(&mut self, pid: &str) -> Result<()> {
        let pipe = self.guard.stdin.as_mut().context("the guard has gone")?;
        writeln!(pipe, "{pid}").context("failed to tell the guard")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What fails here, the guard does; it has the pipe's end as its word.
        let _guard_kills = self.kill();
        drop(self.guard.stdin.take());
        let _reaped = self.guard.wait();
    }
}
