//! Tasks: every one has a name and a span, none outlives the process's drain unnoticed, and the death of one that the
//! process can't do without ends the process.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};
use tracing::{Instrument, Span, error, info_span};

use crate::chain::Chain;

/// The tasks of one process, and its shutdown. Cheap to clone. The only place that spawns.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    cause: OnceLock<Cause>,
    /// How many tasks of each name are alive: what a drain that misses its deadline reports.
    alive: Mutex<BTreeMap<&'static str, usize>>,
}

/// Why the process shuts down. The first cause stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked: a signal's name, an operator's command.
    Asked(&'static str),
    /// A critical task has died.
    Died {
        /// The task's name.
        task: &'static str,
        /// How.
        death: Death,
    },
}

/// How a critical task died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// It returned though nobody had asked it to.
    Returned,
    /// It returned an error; its chain of sources in one line.
    Failed(String),
    /// It panicked; with the message.
    Panicked(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Asked(what) => write!(f, "{what}"),
            Cause::Died { task, death: Death::Returned } => write!(f, "task {task} returned"),
            Cause::Died { task, death: Death::Failed(error) } => write!(f, "task {task} failed: {error}"),
            Cause::Died { task, death: Death::Panicked(message) } => write!(f, "task {task} panicked: {message}"),
        }
    }
}

/// What a critical task may return: nothing, or a result whose error tells why it died.
pub trait Ending {
    /// The error in one line, if it is one.
    fn into_failure(self) -> Option<String>;
}

impl Ending for () {
    fn into_failure(self) -> Option<String> {
        None
    }
}

impl<E: std::error::Error> Ending for Result<(), E> {
    fn into_failure(self) -> Option<String> {
        self.err().map(|error| Chain(&error).to_string())
    }
}

/// Tasks that were still running when a drain's deadline came, by name.
#[derive(Debug, thiserror::Error)]
#[error("tasks still running after {deadline:?}: {}", NamesAndCounts(tasks))]
pub struct Undrained {
    /// The deadline that passed.
    pub deadline: Duration,
    /// How many of each name.
    pub tasks: BTreeMap<&'static str, usize>,
}

struct NamesAndCounts<'a>(&'a BTreeMap<&'static str, usize>);

impl fmt::Display for NamesAndCounts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, count)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
            if *count > 1 {
                write!(f, " ({count})")?;
            }
        }
        Ok(())
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Spawns a task in a span of its name. A panic in it is logged and goes no further.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_in(info_span!("task", name), name, future)
    }

    /// Spawns a task in a span of the caller's: `info_span!("host", %host)`.
    pub fn spawn_in<F>(&self, span: Span, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let alive = self.alive(name);
        // Combined, not awaited in a block of ours, which would have room for the future twice: as what it captures and as
        // what it awaits. There are thousands of hosts.
        let watched = AssertUnwindSafe(future).catch_unwind().map(move |result| {
            let _alive = alive;
            if let Err(panic) = result {
                error!(task = name, message = panic_message(panic.as_ref()), "task panicked");
            }
        });
        self.inner.tracker.spawn(watched.instrument(span))
    }

    /// Spawns a task that the process can't do without. Its panic, its error, or its return before shutdown was asked
    /// for starts the shutdown, with this name as the cause.
    pub fn spawn_critical<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future + Send + 'static,
        F::Output: Ending,
    {
        let alive = self.alive(name);
        let tasks = self.clone();
        let watched = async move {
            let _alive = alive;
            let death = match AssertUnwindSafe(future).catch_unwind().await.map(Ending::into_failure) {
                Ok(Some(failure)) => Death::Failed(failure),
                Ok(None) if tasks.inner.shutdown.is_cancelled() => return,
                Ok(None) => Death::Returned,
                Err(panic) => Death::Panicked(panic_message(panic.as_ref()).to_owned()),
            };
            error!(task = name, ?death, "critical task died");
            tasks.end(Cause::Died { task: name, death });
        };
        self.inner.tracker.spawn(watched.instrument(info_span!("task", name)))
    }

    /// Runs blocking work on the pool of threads for it; the drain waits for it too.
    pub fn spawn_blocking<F, T>(&self, name: &'static str, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let alive = self.alive(name);
        self.inner.tracker.spawn_blocking(move || {
            let _alive = alive;
            work()
        })
    }

    /// Cancelled when the process shuts down.
    pub fn token(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Waits for the shutdown to start.
    pub fn stopped(&self) -> WaitForCancellationFuture<'_> {
        self.inner.shutdown.cancelled()
    }

    /// Starts the shutdown. The first cause stays.
    pub fn shutdown(&self, why: &'static str) {
        self.end(Cause::Asked(why));
    }

    /// Why the shutdown has started; `None` before.
    pub fn cause(&self) -> Option<&Cause> {
        self.inner.cause.get()
    }

    /// Waits until all tasks have ended, those included that are spawned meanwhile. Starts the shutdown where nobody
    /// has.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Undrained> {
        self.shutdown("drain");
        self.inner.tracker.close();
        match tokio::time::timeout(deadline, self.inner.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let tasks = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Err(Undrained { deadline, tasks })
            }
        }
    }

    fn end(&self, cause: Cause) {
        // The cause is there before anybody can see the token cancelled.
        let _ = self.inner.cause.set(cause);
        self.inner.shutdown.cancel();
    }

    fn alive(&self, name: &'static str) -> Alive {
        *self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Alive { inner: Arc::clone(&self.inner), name }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.inner.tracker.len()).field("cause", &self.cause()).finish()
    }
}

/// Counts a task as alive until dropped.
struct Alive {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut alive = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = alive.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                alive.remove(self.name);
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&'static str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "(not a text)"
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_dead_critical_task_is_the_cause_of_the_shutdown() {
        type Case = (&'static str, fn(&Tasks), Death);
        let cases: [Case; 3] = [
            ("returns", |tasks| drop(tasks.spawn_critical("returns", async {})), Death::Returned),
            (
                "fails",
                |tasks| drop(tasks.spawn_critical("fails", async { Err::<(), _>(io::Error::other("no disk")) })),
                Death::Failed("no disk".into()),
            ),
            (
                "panics",
                |tasks| {
                    drop(tasks.spawn_critical("panics", async {
                        if true {
                            panic!("at {}", 7);
                        }
                    }))
                },
                Death::Panicked("at 7".into()),
            ),
        ];
        for (task, spawn, death) in cases {
            let tasks = Tasks::new();
            spawn(&tasks);
            tokio::time::timeout(SOON, tasks.stopped()).await.unwrap();
            assert_eq!(tasks.cause(), Some(&Cause::Died { task, death }));
            tasks.drain(SOON).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_critical_task_may_return_once_shutdown_was_asked_for() {
        let tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn_critical("obedient", async move { token.cancelled().await });
        tasks.shutdown("SIGTERM");
        tasks.drain(SOON).await.unwrap();
        assert_eq!(tasks.cause(), Some(&Cause::Asked("SIGTERM")));
    }

    #[tokio::test]
    async fn a_plain_task_may_panic_and_return() {
        let tasks = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") }).await.unwrap();
        tasks.spawn("returns", async {}).await.unwrap();
        assert_eq!(tasks.cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_misses_its_deadline_names_who_is_left() {
        let tasks = Tasks::new();
        for _ in 0..2 {
            tasks.spawn("stubborn", std::future::pending());
        }
        tasks.spawn("done", async {});
        let error = tasks.drain(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "tasks still running after 1s: stubborn (2)");
    }
}
