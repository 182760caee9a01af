//! `mainstem tail`: watches a firehose, ours or another's, and prints what comes.
//!
//! It reads like any subscriber: reconnects with jittered back-off and the cursor of what it has printed, so that it
//! can be left running. It verifies nothing.

mod line;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use atproto::event::{self, Routed};
use runtime::{
    backoff::Backoff,
    chain::Chain,
    egress::{Egress, Policy},
};

use crate::{
    cli::TailArgs,
    subscription::{Address, Heard, Lost, NotAnAddress, Refused, Subscription, Wish},
};

/// Why `tail` ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the address of a stream.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// The server refuses us, and will do so again.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Standard output is gone.
    #[error("failed to print")]
    Print(#[from] io::Error),
}

/// Why a connection's messages are no longer printed.
enum End {
    Lost(Lost),
    Print(io::Error),
}

/// Prints until interrupted, or until nobody reads what is printed.
pub async fn run(args: &TailArgs) -> Result<ExitCode, Error> {
    let address = Address::parse(&args.url)?;
    let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
    let mut tail = Tail {
        wish: Wish { cursor: args.cursor, shard: args.shard, compressed: args.compressed },
        json: args.json,
        color: io::stdout().is_terminal(),
        heard: false,
    };
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        tail.heard = false;
        let end = match tail.read(&egress, &address).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let lost = match end {
            End::Print(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            End::Print(error) => return Err(Error::Print(error)),
            End::Lost(lost) => lost,
        };
        if let Some(refused) = lost.refused() {
            return Err(Error::Refused(refused));
        }
        if tail.heard {
            backoff.reset();
        }
        let wait = backoff.next(&mut rand::rng());
        let why = line::clean(&Chain(&lost).to_string());
        eprintln!("{}: {why}; trying again in {:.1} s", address.authority, wait.as_secs_f64());
        tokio::time::sleep(wait).await;
    }
}

/// What is said and done between connections.
struct Tail {
    wish: Wish,
    json: bool,
    color: bool,
    /// Whether this connection has brought anything.
    heard: bool,
}

enum Never {}

impl Tail {
    async fn read(&mut self, egress: &Egress, address: &Address) -> Result<Never, End> {
        let mut subscription = Subscription::open(egress, address, self.wish).await.map_err(End::Lost)?;
        loop {
            match subscription.next().await.map_err(End::Lost)? {
                Heard::Message(frame) => self.take(&frame).map_err(End::Print)?,
                Heard::TooLarge { bytes } => eprintln!("a message of {bytes} bytes was left out"),
                Heard::Drained => io::stdout().flush().map_err(End::Print)?,
            }
        }
    }

    fn take(&mut self, frame: &[u8]) -> io::Result<()> {
        self.heard = true;
        let cursor = &mut self.wish.cursor;
        match event::route(frame) {
            Ok(Routed::Event(route)) => {
                *cursor = Some(route.seq);
                self.print(frame)
            }
            // Going on from there would end the same way.
            Ok(Routed::Error { error: "FutureCursor", .. }) => {
                *cursor = None;
                self.print(frame)
            }
            Ok(Routed::Info { .. } | Routed::Error { .. }) => self.print(frame),
            Ok(Routed::Unknown { seq }) => {
                *cursor = seq.or(*cursor);
                Ok(())
            }
            Err(error) => {
                eprintln!("a message that can't be read: {error}");
                Ok(())
            }
        }
    }

    fn print(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = if self.json { line::json(frame) } else { line::text(frame, self.color) };
        match text {
            Ok(text) => writeln!(out, "{text}"),
            Err(error) => {
                eprintln!("a message that can't be shown: {error}");
                Ok(())
            }
        }
    }
}
