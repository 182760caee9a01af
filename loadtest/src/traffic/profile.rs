//! What traffic is like: a TOML file, every field of which `profiles/standard.toml` explains.
//!
//! What must hold: a [`Profile`] can be made into traffic; whatever can't be is refused when it is read, with the field's
//! name.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::network::{self, Mix, Pace};

/// The form of profiles that is read.
pub const VERSION: u32 = 1;

/// What traffic is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`VERSION`].
    pub version: u32,
    /// All follows from it.
    pub seed: u64,
    /// How many hosts.
    pub hosts: usize,
    /// How many repos, dealt to the hosts in turn.
    pub repos: usize,
    /// Records in each repo before the first commit.
    pub records: usize,
    /// A repo that has so many deletes a record instead of creating one.
    pub records_max: usize,
    /// Events after the announcements; all are commits, unless the mix has others.
    pub commits: u64,
    /// Exponent of the Zipf law of activity over repos.
    pub zipf: f64,
    /// The share of activity with P-256 keys, 0 to 1.
    pub p256: f64,
    /// The share of DID documents in the form of before 2023, 0 to 1.
    pub legacy_documents: f64,
    /// What happens.
    pub mix: Weights,
}

/// What happens, as weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// A post is created.
    pub post: u32,
    /// A like is created.
    pub like: u32,
    /// A repost is created.
    pub repost: u32,
    /// A follow is created.
    pub follow: u32,
    /// Any record is updated.
    pub update: u32,
    /// Any record is deleted.
    pub delete: u32,
    /// Several are created, updated and deleted in one commit.
    pub multi: u32,
    /// How many at least and at most.
    pub multi_ops: (u32, u32),
    /// `#sync` of the present state.
    pub sync: u32,
    /// `#identity` after which nothing is different.
    pub identity: u32,
}

/// Why a profile is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file can't be read.
    #[error("failed to read {file}; profiles that are built in: {}", BUILT_IN.map(|(name, _)| name).join(", "))]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or lacks a field, or has one too many.
    #[error("not a profile")]
    Form(#[source] toml::de::Error),
    /// It is of another form than [`VERSION`].
    #[error("a profile of version {found}; version {VERSION} is read")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A field's value makes no traffic.
    #[error("{field} must be {must}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// Profiles that every build knows by name.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("standard", include_str!("../../profiles/standard.toml")),
    ("small", include_str!("../../profiles/small.toml")),
    ("fan-out", include_str!("../../profiles/fan-out.toml")),
];

impl Profile {
    /// The one that is built in under this name, or else the one in the file of this name.
    pub fn find(name: &Path) -> Result<Profile, Error> {
        let built_in = BUILT_IN.iter().find(|(built_in, _)| Path::new(built_in) == name);
        match built_in {
            Some((_, text)) => Profile::parse(text),
            None => {
                let text = std::fs::read_to_string(name);
                Profile::parse(&text.map_err(|source| Error::Read { file: name.to_owned(), source })?)
            }
        }
    }

    /// Reads the text of a file. Always checks all that [`Profile::check`] does.
    pub fn parse(text: &str) -> Result<Profile, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // First of all, for the fields of another version may be others.
        let Versioned { version: found } = toml::from_str(text).map_err(Error::Form)?;
        if found != VERSION {
            return Err(Error::Version { found });
        }
        let profile: Profile = toml::from_str(text).map_err(Error::Form)?;
        profile.check()?;
        Ok(profile)
    }

    /// Whether it can be made into traffic.
    pub fn check(&self) -> Result<(), Error> {
        let Weights { post, like, repost, follow, update, delete, multi, multi_ops, sync, identity } = self.mix;
        let weights = [post, like, repost, follow, update, delete, multi, sync, identity];
        let share = |share: f64| (0.0..=1.0).contains(&share);
        for (field, must, fits) in [
            ("hosts", "1 to 100,000", (1..=100_000).contains(&self.hosts)),
            ("repos", "1 to 10,000,000", (1..=10_000_000).contains(&self.repos)),
            ("records", "1,000,000 at most", self.records <= 1_000_000),
            ("records_max", "1 at least, and no less than records", self.records_max >= self.records.max(1)),
            ("commits", "1 at least", self.commits > 0),
            ("zipf", "0 to 4", (0.0..=4.0).contains(&self.zipf)),
            ("p256", "0 to 1", share(self.p256)),
            ("legacy_documents", "0 to 1", share(self.legacy_documents)),
            ("mix", "weights of which one at least is not 0", weights.iter().any(|weight| *weight > 0)),
            (
                "mix.multi_ops",
                "[least, most], 1 to 200",
                1 <= multi_ops.0 && multi_ops.0 <= multi_ops.1 && multi_ops.1 <= 200,
            ),
        ] {
            if !fits {
                return Err(Error::Value { field, must });
            }
        }
        Ok(())
    }

    /// The network that it is of.
    pub(super) fn network(&self) -> network::Config {
        let Weights { post, like, repost, follow, update, delete, multi, multi_ops, sync, identity } = self.mix;
        network::Config {
            seed: self.seed,
            address: Ipv4Addr::LOCALHOST,
            hosts: self.hosts,
            accounts: self.repos,
            p256_share: self.p256,
            legacy_share: self.legacy_documents,
            records_per_repo: self.records,
            records_per_repo_max: self.records_max,
            pace: Pace::ByHand,
            mix: Mix {
                post,
                like,
                repost,
                follow,
                profile: 0,
                update,
                delete,
                multi,
                multi_ops: multi_ops.0..=multi_ops.1,
                sync,
                identity,
                handle: 0,
                deactivate: 0,
                rotate: 0,
                migrate: 0,
            },
            skew: self.zipf,
            window_bytes: usize::MAX,
            remember: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_can_be_read_and_written_again() {
        for (name, _) in BUILT_IN {
            let profile = Profile::find(Path::new(name)).unwrap();
            let json = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile, "{name}");
        }
    }

    #[test]
    fn the_standard_is_what_our_figures_say() {
        let Profile { hosts, repos, records, zipf, p256, mix, .. } = Profile::find(Path::new("standard")).unwrap();
        assert_eq!((hosts, repos, records, mix.multi_ops), (20, 2_000, 500, (2, 5)));
        assert_eq!((zipf, p256), (1.2, 0.3));
        let Weights { post, like, repost, follow, update, delete, multi, .. } = mix;
        assert_eq!((multi, post + like + repost + follow + update + delete), (100, 900));
    }

    #[test]
    fn what_makes_no_traffic_is_refused_by_its_field() {
        let standard = BUILT_IN[0].1;
        for (line, instead, error) in [
            ("version = 1", "version = 2", "a profile of version 2; version 1 is read"),
            ("hosts = 20", "hosts = 0", "hosts must be 1 to 100,000"),
            ("repos = 2_000", "repos = 0", "repos must be 1 to 10,000,000"),
            ("records = 500", "records = 9_000_000", "records must be 1,000,000 at most"),
            ("records_max = 1_000", "records_max = 499", "records_max must be 1 at least, and no less than records"),
            ("commits = 60_000", "commits = 0", "commits must be 1 at least"),
            ("zipf = 1.2", "zipf = nan", "zipf must be 0 to 4"),
            ("p256 = 0.3", "p256 = 1.1", "p256 must be 0 to 1"),
            ("multi_ops = [2, 5]", "multi_ops = [5, 2]", "mix.multi_ops must be [least, most], 1 to 200"),
            ("hosts = 20", "hosts = -1", "not a profile"),
            ("hosts = 20", "", "not a profile"),
            ("hosts = 20", "hosts = 20\nhost = 20", "not a profile"),
            ("version = 1", "", "not a profile"),
            ("[mix]", "[mix", "not a profile"),
        ] {
            assert!(standard.contains(line), "{line}");
            let told = Profile::parse(&standard.replacen(line, instead, 1)).unwrap_err().to_string();
            assert_eq!(told, error, "{instead}");
        }
        let told = Profile::find(Path::new("/nowhere/profile.toml")).unwrap_err().to_string();
        assert_eq!(told, "failed to read /nowhere/profile.toml; profiles that are built in: standard, small, fan-out");
    }
}
