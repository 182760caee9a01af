//! The least that a relay must compute: verify each signature once, on one thread, with the fastest libraries known
//! (libsecp256k1 and aws-lc-rs).

use std::collections::HashMap;

use atproto::{
    car::Car,
    commit::Commit,
    crypto::{Curve, PublicKey, sha256},
    event::{self, Event},
    syntax::Did,
};
use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
};
use bytes::Bytes;

use super::cpu_time::CpuTime;

/// Signatures of a run's traffic, ready to be verified: keys parsed, digests made.
pub struct Signatures {
    k256: Vec<Signed<secp256k1::PublicKey>>,
    p256: Vec<Signed<ParsedPublicKey>>,
    frames: Vec<Bytes>,
}

/// A signature and what it is of.
struct Signed<K> {
    key: K,
    digest: [u8; 32],
    signature: Vec<u8>,
}

/// What they cost, in microseconds of CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bare {
    /// Verifying, an event.
    pub verify_micros: f64,
    /// One signature of secp256k1.
    pub k256_micros: f64,
    /// One signature of P-256.
    pub p256_micros: f64,
    /// The share of signatures of P-256, 0 to 1.
    pub p256_share: f64,
    /// SHA-256 of a frame.
    pub sha256_micros: f64,
}

impl Signatures {
    /// Of at most `count_max` of the frames, evenly. A frame without a signature counts as one that costs nothing.
    pub fn of(frames: &[Bytes], keys: &HashMap<Did, PublicKey>, count_max: usize) -> Signatures {
        let step = frames.len().div_ceil(count_max.max(1)).max(1);
        let frames: Vec<Bytes> = frames.iter().step_by(step).cloned().collect();
        let mut signatures = Signatures { k256: Vec::new(), p256: Vec::new(), frames: Vec::new() };
        for frame in &frames {
            // What doesn't parse costs nothing; a signature that doesn't verify is counted: its cost is the same.
            signatures.push(frame, keys);
        }
        signatures.frames = frames;
        signatures
    }

    fn push(&mut self, frame: &[u8], keys: &HashMap<Did, PublicKey>) -> Option<()> {
        let (did, blocks) = match event::parse(frame).ok()? {
            Event::Commit(commit) => (commit.repo, commit.blocks),
            Event::Sync(sync) => (sync.did, sync.blocks),
            Event::Identity(_) | Event::Account(_) => return None,
        };
        let car = Car::parse(blocks).ok()?;
        let commit = Commit::parse(car.get(&car.root())?).ok()?;
        let key = keys.get(&Did::parse(did).ok()?)?;
        let (digest, signature) = (sha256(&commit.unsigned_bytes()), commit.sig.to_vec());
        let point = key.to_bytes();
        match key.curve() {
            Curve::K256 => {
                let key = secp256k1::PublicKey::from_slice(&point).ok()?;
                self.k256.push(Signed { key, digest, signature });
            }
            Curve::P256 => {
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
                self.p256.push(Signed { key, digest, signature });
            }
        }
        Some(())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.k256.len() + self.p256.len()
    }

    /// Verifies all of them, and hashes their frames.
    pub fn measure(&self) -> Bare {
        let started = CpuTime::now();
        for Signed { key, digest, signature } in &self.k256 {
            let message = secp256k1::Message::from_digest(*digest);
            let verified = secp256k1::ecdsa::Signature::from_compact(signature)
                .and_then(|signature| secp256k1::ecdsa::verify(&signature, message, key));
            let _ = std::hint::black_box(verified);
        }
        let k256 = started.elapsed();
        let started = CpuTime::now();
        for Signed { key, digest, signature } in &self.p256 {
            let verified = digest::Digest::import_less_safe(digest, &digest::SHA256)
                .and_then(|digest| key.verify_digest_sig(&digest, signature));
            let _ = std::hint::black_box(verified);
        }
        let p256 = started.elapsed();
        let started = CpuTime::now();
        for frame in &self.frames {
            std::hint::black_box(sha256(frame));
        }
        let hash = started.elapsed();
        let each = |time: std::time::Duration, count: usize| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        Bare {
            verify_micros: each(k256 + p256, self.frames.len()),
            k256_micros: each(k256, self.k256.len()),
            p256_micros: each(p256, self.p256.len()),
            p256_share: self.p256.len() as f64 / self.count().max(1) as f64,
            sha256_micros: each(hash, self.frames.len()),
        }
    }
}

impl Bare {
    /// The mean of what was measured before a load and after it: a machine drifts meanwhile.
    pub fn mean(before: Bare, after: Bare) -> Bare {
        let mean = |of: fn(&Bare) -> f64| f64::midpoint(of(&before), of(&after));
        Bare {
            verify_micros: mean(|bare| bare.verify_micros),
            k256_micros: mean(|bare| bare.k256_micros),
            p256_micros: mean(|bare| bare.p256_micros),
            p256_share: mean(|bare| bare.p256_share),
            sha256_micros: mean(|bare| bare.sha256_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;

    use super::*;
    use crate::network::{Config, Mix, Network, Pace};

    #[tokio::test]
    async fn every_commit_is_counted_and_each_verifies() {
        let (pace, mix) = (Pace::ByHand, Mix::COMMITS);
        let config = Config { hosts: 1, accounts: 20, p256_share: 0.5, pace, mix, ..Config::default() };
        let network = Network::start(config, Clock::system()).await.unwrap();
        network.announce_all().await.unwrap();
        network.generate(50).await.unwrap();
        let (frames, keys) = (network.frames(0), network.signing_keys());
        network.stop().await;
        // A commit and a #sync for each account's creation.
        let signatures = Signatures::of(&frames, &keys, usize::MAX);
        assert_eq!(signatures.count(), 50 + 40);
        assert!(signatures.k256.iter().all(|Signed { key, digest, signature }| {
            let signature = secp256k1::ecdsa::Signature::from_compact(signature).unwrap();
            secp256k1::ecdsa::verify(&signature, secp256k1::Message::from_digest(*digest), key).is_ok()
        }));
        let bare = signatures.measure();
        assert!(bare.p256_share > 0.0 && bare.p256_share < 1.0, "{bare:?}");
        assert!(Signatures::of(&frames, &keys, 10).frames.len() <= 10);
        assert_eq!(Signatures::of(&[], &keys, 10).count(), 0);
    }
}
