//! One process of a role: started, watched from outside, hurt, ended, and started again with the same arguments.

use std::{
    fs::{self, File},
    net::SocketAddrV4,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::{Error, Role, guard::Guard};
use crate::{
    lan::Site,
    relay_process::{self, Usage, get},
};

/// How long a process may take to be ready on a machine that is busy with tests.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How often a process is started again that ends before it is ready, and how long after.
const STARTS_MAX: usize = 3;
const START_AGAIN_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 30;

/// How a process is started, the first time and again.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it does.
    pub role: Role,
    /// Which of its role, from 1.
    pub number: usize,
    /// The program.
    pub program: PathBuf,
    /// Its arguments after the role.
    pub args: Vec<String>,
    /// Its private listener.
    pub admin: SocketAddrV4,
    /// Its public listener, where it has one.
    pub public: Option<SocketAddrV4>,
    /// Where it runs, if not beside us.
    pub site: Option<Site>,
    /// Where its log is added to.
    pub log: PathBuf,
}

/// A process of a role, running or not. Killed with its value.
pub struct RoleProcess {
    launch: Launch,
    guard: Arc<Guard>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    pid: Pid,
    since: Instant,
}

impl RoleProcess {
    pub(super) fn new(launch: Launch, guard: Arc<Guard>) -> RoleProcess {
        RoleProcess { launch, guard, running: None }
    }

    /// What it does.
    pub fn role(&self) -> Role {
        self.launch.role
    }

    /// Which of its role, from 1.
    pub fn number(&self) -> usize {
        self.launch.number
    }

    /// `ROLE-NUMBER`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.launch.role, self.launch.number)
    }

    /// Where it runs, if not beside us.
    pub fn site(&self) -> Option<&Site> {
        self.launch.site.as_ref()
    }

    /// Its private listener.
    pub fn admin(&self) -> SocketAddrV4 {
        self.launch.admin
    }

    /// Its public listener, where it has one.
    pub fn public(&self) -> Option<SocketAddrV4> {
        self.launch.public
    }

    /// Whether it was started and has not been ended by us since.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.running.as_ref().map(|running| running.pid.as_raw_pid())
    }

    /// Since it was started, while it runs.
    pub fn uptime(&self) -> Option<Duration> {
        self.running.as_ref().map(|running| running.since.elapsed())
    }

    /// The last lines of its log, of all its runs.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(&self.launch.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Starts it.
    pub fn spawn(&mut self) -> Result<(), Error> {
        let Launch { role, program, args, log, site, .. } = &self.launch;
        let log = File::options().create(true).append(true).open(log).map_err(Error::io("open a process's log"))?;
        let copy = log.try_clone().map_err(Error::io("open a process's log"))?;
        let mut command = match site {
            // `ip` becomes the program, under the same process id.
            Some(site) => Command::from(site.command(program)),
            None => Command::new(program),
        };
        command.arg(role.as_str()).args(args).stdin(Stdio::null()).stdout(log).stderr(copy);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // Of its own group: Ctrl-C is for us, who end it in its turn.
        let child = command.process_group(0).kill_on_drop(true).spawn().map_err(Error::io("start mainstem"))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Error::NotRunning { name: self.name() })?;
        self.running = Some(Running { child, pid, since: Instant::now() });
        self.guard.add(pid.as_raw_pid().cast_unsigned()).map_err(Error::io("tell the guard"))
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.spawn()?;
        self.wait_ready().await
    }

    /// Starts it as a supervisor does: again, where it ends before it is ready, a few times. Gives how it ended each time.
    pub async fn start_supervised(&mut self) -> Result<Vec<String>, Error> {
        let mut ended = Vec::new();
        loop {
            match self.start().await {
                Ok(()) => return Ok(ended),
                Err(Error::Ended { name, status, log }) if ended.len() < STARTS_MAX => {
                    ended.push(format!("{name} ended with {status} before it was ready; its log ends:\n{log}"));
                    tokio::time::sleep(START_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until `/readyz` says yes.
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            self.check()?;
            if self.is_ready().await {
                return Ok(());
            }
            if started.elapsed() > READY_WITHIN {
                return Err(self.late("become ready", READY_WITHIN));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether `/readyz` says yes.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.launch.admin);
        let asked = timeout(Duration::from_secs(2), get(&url)).await;
        matches!(asked, Ok(Ok((200, _))))
    }

    /// Fails where it has ended, though nobody asked it to.
    pub fn check(&mut self) -> Result<(), Error> {
        let (name, log) = (self.name(), self.log_tail(LOG_LINES));
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.child.try_wait().map_err(Error::io("look at a process"))? {
            None => Ok(()),
            Some(status) => {
                self.gone()?;
                Err(Error::Ended { name, status, log })
            }
        }
    }

    /// Waits until it ends by itself.
    pub async fn wait_ended(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        let name = self.name();
        let running = self.running.as_mut().ok_or(Error::NotRunning { name })?;
        match timeout(within, running.child.wait()).await {
            Ok(status) => {
                let status = status.map_err(Error::io("wait for a process"))?;
                self.gone()?;
                Ok(status)
            }
            Err(_) => Err(self.late("end", within)),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let running = self.running.as_ref().ok_or_else(|| Error::NotRunning { name: self.name() })?;
        kill_process(running.pid, signal).map_err(|error| Error::Io { what: "signal a process", source: error.into() })
    }

    /// SIGKILL, and waits until it is gone. Gives how the kernel says that it ended.
    pub async fn kill(&mut self) -> Result<ExitStatus, Error> {
        self.signal(Signal::KILL)?;
        self.wait_ended(READY_WITHIN).await
    }

    /// SIGTERM, and waits until it is gone; gives how it ended and how long that took.
    pub async fn terminate(&mut self, within: Duration) -> Result<(ExitStatus, Duration), Error> {
        let asked = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.wait_ended(within).await?;
        Ok((status, asked.elapsed()))
    }

    /// Its state as the kernel sees it: `R`, `S`, `T` for stopped, …; `None` where there is no such process.
    pub fn kernel_state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The name stands in parentheses and may hold any character.
        stat.get(stat.rfind(')')? + 2..)?.chars().next()
    }

    /// What a metric says now, named with its labels if it has some; `None` where there is none of that name.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.launch.admin);
        let (_, text) = timeout(Duration::from_secs(2), get(&url)).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, Error> {
        let pid = self.pid().ok_or_else(|| Error::NotRunning { name: self.name() })?;
        relay_process::usage(pid).map_err(Error::io("read a process's usage"))
    }

    fn late(&self, what: &'static str, limit: Duration) -> Error {
        Error::Late { name: self.name(), what, limit, log: self.log_tail(LOG_LINES) }
    }

    /// It has ended, and was waited for.
    fn gone(&mut self) -> Result<(), Error> {
        match self.running.take() {
            Some(running) => {
                self.guard.remove(running.pid.as_raw_pid().cast_unsigned()).map_err(Error::io("tell the guard"))
            }
            None => Ok(()),
        }
    }
}
