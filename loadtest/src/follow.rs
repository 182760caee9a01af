//! `loadtest follow`.

use std::{io::Read, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use loadtest::follower::{Config, Manner, Shard, follow};
use tokio::{sync::oneshot, task::JoinSet};

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest follow 127.0.0.1:2470 --into ledgers --live 2 --from-start 1
      Three subscribers, until interrupted; each goes on where its ledger ends when the command is given again.";

/// Options of `loadtest follow`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The relay.
    #[arg(value_name = "ADDRESS:PORT")]
    relay: SocketAddr,
    /// The folder of their ledgers and journals, NAME.ledger and NAME.journal.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Subscribers that begin with what comes now.
    #[arg(long, value_name = "N", default_value_t = 0)]
    live: usize,
    /// Subscribers that begin with the oldest event.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_start: usize,
    /// Subscribers that begin with the oldest event and read in sips.
    #[arg(long, value_name = "N", default_value_t = 0)]
    sipping: usize,
    /// Subscribers that begin with the oldest event and leave in the middle of frames, again and again.
    #[arg(long, value_name = "N", default_value_t = 0)]
    restless: usize,
    /// Subscribers that begin with the oldest event and read a shard each, of as many shards as there are of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    sharded: usize,
    /// All of them offer permessage-deflate.
    #[arg(long)]
    compressed: bool,
    /// What is random follows from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End when standard input does, as it does when the parent process dies.
    #[arg(long)]
    until_eof: bool,
}

impl Args {
    fn followers(&self) -> impl Iterator<Item = Config> {
        Manner::ALL.into_iter().zip(1..).flat_map(move |(manner, kind)| {
            let count = match manner {
                Manner::Live => self.live,
                Manner::FromStart => self.from_start,
                Manner::Sipping => self.sipping,
                Manner::Restless => self.restless,
                Manner::Sharded => self.sharded,
            };
            let shard = move |number: usize| match manner {
                Manner::Sharded => Some(Shard { index: number as u64, count: count as u64 }),
                Manner::Live | Manner::FromStart | Manner::Sipping | Manner::Restless => None,
            };
            (0..count).map(move |number| Config {
                relay: self.relay,
                dir: self.into.clone(),
                name: format!("{}-{number}", manner.as_str()),
                manner,
                shard: shard(number),
                compressed: self.compressed,
                seed: self.seed ^ (kind << 32) ^ number as u64,
            })
        })
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.into).with_context(|| format!("failed to make {}", args.into.display()))?;
    let mut followers: JoinSet<_> = args.followers().map(follow).collect();
    anyhow::ensure!(!followers.is_empty(), "no subscribers: say how many with --live, --from-start, …");
    let input_ended = args.until_eof.then(input_ended);
    let input_ended = async {
        match input_ended {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = followers.join_next() => match ended {
            Some(ended) => ended.context("a subscriber died")?.context("failed to keep a ledger"),
            None => Ok(()),
        },
        () = input_ended => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Tells when standard input has ended. A thread of its own, which nobody waits for: nothing can be made to stop reading.
fn input_ended() -> oneshot::Receiver<()> {
    let (ended, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        let mut input = std::io::stdin().lock();
        while input.read(&mut sink).is_ok_and(|read| read > 0) {}
        // Nobody listens any more where the program is about to end anyway.
        let _ = ended.send(());
    });
    told
}
