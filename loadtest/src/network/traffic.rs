//! What happens next in the network: which account does what. Pure; the same seed gives the same story.

use std::ops::RangeInclusive;

use rand::{Rng, RngExt};

use super::record::Genre;

/// How often each thing happens, as weights: their sum need not be anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// A commit that creates one post.
    pub post: u32,
    /// A commit that creates one like.
    pub like: u32,
    /// A commit that creates one repost.
    pub repost: u32,
    /// A commit that creates one follow.
    pub follow: u32,
    /// A commit that updates the profile, or creates it where there is none.
    pub profile: u32,
    /// A commit that updates any record, or creates a post where there is none.
    pub update: u32,
    /// A commit that deletes one record.
    pub delete: u32,
    /// A commit of several creates, updates and deletes.
    pub multi: u32,
    /// How many they are; any number is as likely as another.
    pub multi_ops: RangeInclusive<u32>,
    /// `#sync` of the present state.
    pub sync: u32,
    /// An `#identity` after which nothing is different.
    pub identity: u32,
    /// A new handle, in the directory and by `#identity`.
    pub handle: u32,
    /// An account is deactivated by `#account`. When its turn comes again it is activated, as a real host does it:
    /// `#account`, `#identity`, `#sync`.
    pub deactivate: u32,
    /// A new signing key, in the directory, by `#identity` and `#sync`.
    pub rotate: u32,
    /// A move to another host: `#account`, `#identity` and `#sync` there, `#account` here.
    pub migrate: u32,
}

impl Mix {
    /// Something of everything, so that a short look shows all kinds.
    pub const SHOWCASE: Mix = Mix {
        post: 240,
        like: 380,
        repost: 70,
        follow: 110,
        profile: 20,
        update: 0,
        delete: 80,
        multi: 40,
        multi_ops: 2..=20,
        sync: 8,
        identity: 6,
        handle: 10,
        deactivate: 10,
        rotate: 5,
        migrate: 3,
    };

    /// As on the public network, without what makes a relay's verdict depend on how far it lags behind: a commit that
    /// was signed before a rotation or migration is rightly refused by who asks the directory only after it.
    pub const STRICT: Mix =
        Mix { sync: 2, identity: 2, handle: 3, deactivate: 3, rotate: 0, migrate: 0, ..Mix::SHOWCASE };

    /// Commits only.
    pub const COMMITS: Mix = Mix { sync: 0, identity: 0, handle: 0, deactivate: 0, ..Mix::STRICT };

    fn weights(&self) -> [(Action, u32); 14] {
        [
            (Action::Create(Kind::Post), self.post),
            (Action::Create(Kind::Like), self.like),
            (Action::Create(Kind::Repost), self.repost),
            (Action::Create(Kind::Follow), self.follow),
            (Action::UpdateProfile, self.profile),
            (Action::Update, self.update),
            (Action::Delete, self.delete),
            (Action::Multi, self.multi),
            (Action::Sync, self.sync),
            (Action::Identity, self.identity),
            (Action::ChangeHandle, self.handle),
            (Action::Deactivate, self.deactivate),
            (Action::RotateKey, self.rotate),
            (Action::Migrate, self.migrate),
        ]
    }
}

/// What an account can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A commit that creates one record.
    Create(Kind),
    /// A commit that updates the profile, or creates it.
    UpdateProfile,
    /// A commit that updates any record; creates a post where there is none.
    Update,
    /// A commit that deletes one record; a post where there is none to delete.
    Delete,
    /// A commit of several creates, updates and deletes.
    Multi,
    /// `#sync`.
    Sync,
    /// `#identity` with the handle it has.
    Identity,
    /// A new handle and `#identity`.
    ChangeHandle,
    /// `#account`, not active.
    Deactivate,
    /// `#account` active, `#identity`, `#sync`.
    Activate,
    /// A new key, `#identity`, `#sync`.
    RotateKey,
    /// To the next host.
    Migrate,
}

/// Kinds of records that accounts create all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A post.
    Post,
    /// A like.
    Like,
    /// A repost.
    Repost,
    /// A follow.
    Follow,
}

impl Kind {
    pub(super) fn genre(self) -> Genre {
        match self {
            Kind::Post => Genre::Post,
            Kind::Like => Genre::Like,
            Kind::Repost => Genre::Repost,
            Kind::Follow => Genre::Follow,
        }
    }
}

/// Draws accounts and actions.
pub(super) struct Traffic {
    actions: Weighted<Action>,
    accounts: Weighted<usize>,
}

impl Traffic {
    /// `skew` is the exponent of a Zipf law over the accounts: 0 is even, 1 as on social networks. An empty mix draws
    /// posts.
    pub(super) fn new(mix: &Mix, accounts: usize, skew: f64) -> Traffic {
        let actions = mix.weights().map(|(action, weight)| (action, f64::from(weight)));
        let accounts = (0..accounts).map(|account| (account, activity(account, skew)));
        Traffic { actions: Weighted::new(actions), accounts: Weighted::new(accounts) }
    }

    /// The next account and what it does; `None` where there are no accounts.
    pub(super) fn next(&self, rng: &mut impl Rng) -> Option<(usize, Action)> {
        let account = self.accounts.draw(rng)?;
        Some((account, self.actions.draw(rng).unwrap_or(Action::Create(Kind::Post))))
    }
}

/// How active an account is beside the first, which is the most active.
pub(super) fn activity(account: usize, skew: f64) -> f64 {
    ((account + 1) as f64).powf(-skew)
}

/// Things and the running sums of their weights.
struct Weighted<T> {
    sums: Vec<(f64, T)>,
    total: f64,
}

impl<T: Copy> Weighted<T> {
    fn new(weights: impl IntoIterator<Item = (T, f64)>) -> Weighted<T> {
        let mut total = 0.0;
        let sums = weights
            .into_iter()
            .filter(|(_, weight)| *weight > 0.0)
            .map(|(thing, weight)| {
                total += weight;
                (total, thing)
            })
            .collect();
        Weighted { sums, total }
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<T> {
        let point = rng.random::<f64>() * self.total;
        let at = self.sums.partition_point(|(sum, _)| *sum <= point);
        self.sums.get(at).or(self.sums.last()).map(|(_, thing)| *thing)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let traffic = Traffic::new(&Mix::SHOWCASE, 50, 1.0);
        let story = |seed| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            (0..500).map(|_| traffic.next(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn the_showcase_shows_everything_and_the_first_accounts_do_most() {
        let traffic = Traffic::new(&Mix::SHOWCASE, 50, 1.0);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let drawn: Vec<(usize, Action)> = (0..10_000).filter_map(|_| traffic.next(&mut rng)).collect();
        for (action, _) in Mix::SHOWCASE.weights().into_iter().filter(|(_, weight)| *weight > 0) {
            assert!(drawn.iter().any(|(_, drawn)| *drawn == action), "{action:?}");
        }
        let of = |account| drawn.iter().filter(|(drawn, _)| *drawn == account).count();
        assert!(of(0) > 5 * of(20), "{} and {}", of(0), of(20));
        assert!(of(49) > 0);
    }
}
