//! The signals that ask the process to end, and the one that asks it to read its files again.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: what a supervisor sends.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

impl Stop {
    /// The signal's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Stop::Terminate => "SIGTERM",
            Stop::Interrupt => "SIGINT",
        }
    }
}

/// Listens for [`Stop`] signals. From its making on, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Takes the signals over. Make it before work starts, so that none is missed.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Call it again while draining, so that a second signal can cut the drain short.
    /// Cancel-safe.
    pub async fn stop(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

/// Listens for SIGHUP, by which an operator has files read again. From its making on, it no longer ends the process.
#[derive(Debug)]
pub struct Hangups(unix::Signal);

impl Hangups {
    /// Takes the signal over.
    pub fn new() -> io::Result<Hangups> {
        Ok(Hangups(unix::signal(SignalKind::hangup())?))
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The process listens to no more signals: none will come.
            std::future::pending().await
        }
    }
}
