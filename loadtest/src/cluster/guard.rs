//! What ends processes when this one is killed: nothing of ours can run then, so it is a shell that waits for the end of
//! a pipe.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// Reads lists of process ids, a line each, until its input ends. Then it kills those of the last list.
const SCRIPT: &str = r#"while read -r line; do pids=$line; done; for pid in $pids; do kill -9 "$pid"; done"#;

/// A shell that knows which processes are ours.
pub struct Guard {
    state: Mutex<State>,
}

struct State {
    shell: Child,
    pids: BTreeSet<u32>,
}

impl Guard {
    /// Starts it; there is nothing to watch over yet.
    pub fn start() -> io::Result<Guard> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Of its own group, so that Ctrl-C is not for it.
        let shell = shell.process_group(0).spawn()?;
        Ok(Guard { state: Mutex::new(State { shell, pids: BTreeSet::new() }) })
    }

    /// A process has started.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.tell(|pids| _ = pids.insert(pid))
    }

    /// A process is gone, and its id may be another's soon.
    pub fn remove(&self, pid: u32) -> io::Result<()> {
        self.tell(|pids| _ = pids.remove(&pid))
    }

    fn tell(&self, change: impl FnOnce(&mut BTreeSet<u32>)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { shell, pids } = &mut *state;
        change(pids);
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        let pipe = shell.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(pipe, "{}", list.join(" "))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(state.shell.stdin.take());
        let _reaped = state.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn who_is_left_when_its_input_ends_is_killed_and_nobody_else() {
        let sleeper = || Command::new("sleep").arg("600").spawn().unwrap();
        let (mut left, mut gone) = (sleeper(), sleeper());
        let guard = Guard::start().unwrap();
        for process in [&left, &gone] {
            guard.add(process.id()).unwrap();
        }
        guard.remove(gone.id()).unwrap();
        drop(guard);
        let started = Instant::now();
        while left.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "it still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(gone.try_wait().unwrap(), None);
        gone.kill().unwrap();
        gone.wait().unwrap();
    }
}
