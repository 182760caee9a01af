//! Which traffic: the options that `loadtest gen` and the measurements share.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::{bench, traffic::profile::Profile};

/// A profile and what differs from it.
#[derive(ClapArgs)]
pub(crate) struct ProfileArgs {
    /// A profile that is built in (standard, small, fan-out), or a file. Each command has its own, if not said.
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<PathBuf>,
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
    /// The profile, with what was said otherwise; the one of the name `usual` where none was named.
    pub(crate) fn profile(&self, usual: &str) -> anyhow::Result<Profile> {
        let named = self.profile.as_deref().unwrap_or(Path::new(usual));
        let mut profile = Profile::find(named).context("failed to read the profile")?;
        profile.hosts = self.hosts.unwrap_or(profile.hosts);
        profile.repos = self.repos.unwrap_or(profile.repos);
        profile.records = self.records.unwrap_or(profile.records);
        profile.commits = self.commits.unwrap_or(profile.commits);
        profile.seed = self.seed.unwrap_or(profile.seed);
        Ok(profile)
    }
}

/// A profile, and where the traffic that is made of it stays.
#[derive(ClapArgs)]
pub(crate) struct TrafficArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    /// Where traffic is kept once it is generated; a folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    traffic: Option<PathBuf>,
}

impl TrafficArgs {
    /// Where traffic is kept.
    pub(crate) fn folder(&self) -> PathBuf {
        self.traffic.clone().unwrap_or_else(|| std::env::temp_dir().join("mainstem-traffic"))
    }

    /// The folder with the profile's traffic, generated if it isn't there.
    pub(crate) async fn generated(&self, usual: &str) -> anyhow::Result<PathBuf> {
        let (profile, parent) = (self.profile.profile(usual)?, self.folder());
        let make = move || bench::traffic(&profile, &parent, |doing| eprintln!("  {doing}"));
        Ok(tokio::task::spawn_blocking(make).await??)
    }
}
