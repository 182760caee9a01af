//! Which traffic: the options that `loadtest gen` and the measurements share.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::traffic::profile::Profile;

/// A profile and what differs from it.
#[derive(ClapArgs)]
pub(crate) struct ProfileArgs {
    /// A profile that is built in (standard, small), or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "standard")]
    pub(crate) profile: PathBuf,
    /// Another number of hosts than the profile's.
    #[arg(long)]
    hosts: Option<usize>,
    /// Another number of repos than the profile's.
    #[arg(long)]
    repos: Option<usize>,
    /// Another number of records in each repo than the profile's.
    #[arg(long)]
    records: Option<usize>,
    /// Another number of commits than the profile's.
    #[arg(long)]
    commits: Option<u64>,
    /// Another seed than the profile's.
    #[arg(long)]
    seed: Option<u64>,
}

impl ProfileArgs {
    /// The profile, with what was said otherwise.
    pub(crate) fn profile(&self) -> anyhow::Result<Profile> {
        let mut profile = Profile::find(&self.profile).context("failed to read the profile")?;
        profile.hosts = self.hosts.unwrap_or(profile.hosts);
        profile.repos = self.repos.unwrap_or(profile.repos);
        profile.records = self.records.unwrap_or(profile.records);
        profile.commits = self.commits.unwrap_or(profile.commits);
        profile.seed = self.seed.unwrap_or(profile.seed);
        Ok(profile)
    }
}
