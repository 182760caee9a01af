//! The least that a relay must do: verify each signature, once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use atproto::{
    car::Car,
    commit::Commit,
    crypto::{Curve, PublicKey, sha256},
    event::{self, Event},
    syntax::Did,
};
use bytes::Bytes;

/// What bare verification costs, on one thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yardstick {
    /// Signatures verified.
    pub signatures: u64,
    /// Those of P-256.
    pub signatures_p256: u64,
    /// CPU time of verifying those of secp256k1, of digests made beforehand.
    pub verify_k256: Duration,
    /// CPU time of verifying those of P-256.
    pub verify_p256: Duration,
    /// CPU time of SHA-256 over all frames.
    pub sha256: Duration,
}

/// A signature and what it is of.
struct Signed {
    key: PublicKey,
    digest: [u8; 32],
    signature: Vec<u8>,
}

/// Each figure is the least of so many rounds: what else the machine does can only add to it.
const ROUNDS: usize = 3;

impl Yardstick {
    /// Verifies the commits of `frames`. A signature that does not verify is counted all the same: its cost is the same.
    pub fn measure(frames: &[Bytes], keys: &HashMap<Did, PublicKey>) -> Yardstick {
        let signed: Vec<Signed> = frames.iter().filter_map(|frame| signed(frame, keys)).collect();
        let (p256, k256): (Vec<Signed>, Vec<Signed>) =
            signed.into_iter().partition(|signed| signed.key.curve() == Curve::P256);
        let verify = |signed: &[Signed]| {
            for Signed { key, digest, signature } in signed {
                let _ = std::hint::black_box(key.verify_digest(digest, signature));
            }
        };
        Yardstick {
            signatures: (k256.len() + p256.len()) as u64,
            signatures_p256: p256.len() as u64,
            verify_k256: least(|| verify(&k256)),
            verify_p256: least(|| verify(&p256)),
            sha256: least(|| {
                for frame in frames {
                    std::hint::black_box(sha256(frame));
                }
            }),
        }
    }

    /// CPU time of verifying all signatures.
    pub fn verify(&self) -> Duration {
        self.verify_k256 + self.verify_p256
    }
}

fn least(work: impl Fn()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let started = CpuTime::now();
        work();
        started.elapsed()
    });
    rounds.min().unwrap_or_default()
}

fn signed(frame: &[u8], keys: &HashMap<Did, PublicKey>) -> Option<Signed> {
    let (did, blocks) = match event::parse(frame).ok()? {
        Event::Commit(commit) => (commit.repo, commit.blocks),
        Event::Sync(sync) => (sync.did, sync.blocks),
        Event::Identity(_) | Event::Account(_) => return None,
    };
    let car = Car::parse(blocks).ok()?;
    let commit = Commit::parse(car.get(&car.root())?).ok()?;
    let key = keys.get(&Did::parse(did).ok()?)?.clone();
    Some(Signed { key, digest: sha256(&commit.unsigned_bytes()), signature: commit.sig.to_vec() })
}

/// CPU time of this thread where the kernel tells it, so that others on the machine don't count; else the clock. The
/// kernel counts by its tick, some milliseconds: enough for a second's work.
struct CpuTime {
    cpu_nanos: Option<u64>,
    wall: Instant,
}

impl CpuTime {
    fn now() -> CpuTime {
        CpuTime { cpu_nanos: thread_cpu_nanos(), wall: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        match (self.cpu_nanos, thread_cpu_nanos()) {
            (Some(before), Some(now)) => Duration::from_nanos(now.saturating_sub(before)),
            (Some(_) | None, _) => self.wall.elapsed(),
        }
    }
}

fn thread_cpu_nanos() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;

    use super::*;
    use crate::network::{Config, Mix, Network, Pace};

    #[tokio::test]
    async fn every_commit_is_counted() {
        let config = Config { hosts: 1, accounts: 4, pace: Pace::ByHand, mix: Mix::COMMITS, ..Config::default() };
        let network = Network::start(config, Clock::system()).await.unwrap();
        network.announce_all().await.unwrap();
        network.generate(50).await.unwrap();
        let yardstick = Yardstick::measure(&network.frames(0), &network.signing_keys());
        // A commit and a #sync for each account's creation.
        assert_eq!(yardstick.signatures, 50 + 8);
        network.stop().await;
    }
}
