//! An account: who it is, its key, its repo.

use atproto::{
    crypto::{Curve, KeyError, SigningKey},
    syntax::{Did, Tid},
};
use rand::{Rng, RngExt};

use super::{directory::Form, repo::Repo};

pub(super) struct Account {
    pub(super) did: Did,
    pub(super) handle: String,
    /// Which host it lives on.
    pub(super) host: usize,
    pub(super) key: SigningKey,
    pub(super) form: Form,
    pub(super) repo: Repo,
    pub(super) active: bool,
    /// Whether the events of its creation have been sent.
    pub(super) announced: bool,
    pub(super) clock: TidClock,
}

impl Account {
    pub(super) fn new(number: usize, host: usize, curve: Curve, form: Form, rng: &mut impl Rng) -> Account {
        let did = Did::parse(&did(rng)).expect("24 characters of base32 make a did:plc");
        Account {
            handle: format!("user{number}.sim.test"),
            host,
            key: new_key(curve, rng),
            form,
            repo: Repo::new(did.clone()),
            did,
            active: true,
            announced: false,
            clock: TidClock { last_micros: 0, id: rng.random_range(0..1_024) },
        }
    }
}

/// A fresh key of `curve`.
pub(super) fn new_key(curve: Curve, rng: &mut impl Rng) -> SigningKey {
    loop {
        // Fewer than one in 2^32 draws is not a key of its curve.
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        let key: Result<SigningKey, KeyError> = SigningKey::from_bytes(curve, &secret);
        if let Ok(key) = key {
            return key;
        }
    }
}

fn did(rng: &mut impl Rng) -> String {
    const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let id = (0..24).map(|_| char::from(BASE32[rng.random_range(0..BASE32.len())]));
    "did:plc:".chars().chain(id).collect()
}

/// Gives TIDs that rise.
pub(super) struct TidClock {
    last_micros: u64,
    id: u16,
}

impl TidClock {
    /// A TID above all it has given.
    pub(super) fn next(&mut self, now_micros: u64) -> Tid {
        self.last_micros = now_micros.max(self.last_micros + 1);
        Tid::from_micros(self.last_micros, self.id)
    }
}
