//! What is judged: frames as the crawler hands them on, those that make the accounts known apart from those measured.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, bail};
use atproto::{
    crypto::PublicKey,
    event::{Routed, route},
    syntax::{Did, HostName},
};
use bytes::Bytes;
use loadtest::network::{Config, Mix, Network, Pace};
use runtime::clock::Clock;
use storage::intake::{RawFrame, Receipts};

use crate::Args;

/// Signed commits of many accounts, and who the accounts are.
pub(crate) struct Traffic {
    /// It goes on being the accounts' directory.
    network: Network,
    keys: HashMap<Did, PublicKey>,
    /// By host.
    introductions: Vec<(HostName, Vec<Bytes>)>,
    commits: Vec<(HostName, Vec<Bytes>)>,
}

impl Traffic {
    pub(crate) async fn make(args: &Args) -> anyhow::Result<Traffic> {
        let config = Config {
            seed: args.seed,
            hosts: args.hosts,
            accounts: args.accounts,
            p256_share: args.p256_share,
            records_per_repo: args.records,
            skew: args.skew,
            pace: Pace::ByHand,
            mix: Mix::COMMITS,
            window_bytes: usize::MAX,
            ..Config::default()
        };
        let network = Network::start_paused(config, Clock::system()).await?;
        network.announce_all().await?;
        let frames_after = |sent: &[usize]| {
            let hosts = network.hosts().iter().enumerate();
            hosts.map(|(n, host)| (host.clone(), network.frames(n).split_off(sent[n]))).collect::<Vec<_>>()
        };
        let introductions = frames_after(&vec![0; args.hosts]);
        network.generate(args.events).await?;
        let sent: Vec<usize> = introductions.iter().map(|(_, frames)| frames.len()).collect();
        let commits = frames_after(&sent);
        Ok(Traffic { keys: network.signing_keys(), introductions, commits, network })
    }

    /// How many commits are measured.
    pub(crate) fn events(&self) -> u64 {
        self.commits.iter().map(|(_, frames)| frames.len() as u64).sum()
    }

    /// Bytes of their frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.commits().iter().map(|frame| frame.len() as u64).sum()
    }

    /// The keys they are signed with.
    pub(crate) fn keys(&self) -> &HashMap<Did, PublicKey> {
        &self.keys
    }

    /// The measured frames alone.
    pub(crate) fn commits(&self) -> Vec<Bytes> {
        self.commits.iter().flat_map(|(_, frames)| frames.iter().cloned()).collect()
    }

    /// Where the accounts' documents are.
    pub(crate) fn plc_url(&self) -> &str {
        self.network.plc_url()
    }

    /// What makes the accounts known, by host, routed.
    pub(crate) fn routed_introductions(&self, receipts: &Arc<dyn Receipts>) -> anyhow::Result<Vec<Vec<RawFrame>>> {
        all_routed(&self.introductions, receipts)
    }

    /// What is measured, by host, routed.
    pub(crate) fn routed_commits(&self, receipts: &Arc<dyn Receipts>) -> anyhow::Result<Vec<Vec<RawFrame>>> {
        all_routed(&self.commits, receipts)
    }
}

fn all_routed(by_host: &[(HostName, Vec<Bytes>)], receipts: &Arc<dyn Receipts>) -> anyhow::Result<Vec<Vec<RawFrame>>> {
    let of_host = |(host, frames): &(HostName, Vec<Bytes>)| {
        frames.iter().map(|frame| routed(host, frame, receipts)).collect::<anyhow::Result<Vec<_>>>()
    };
    by_host.iter().map(of_host).collect()
}

fn routed(host: &HostName, frame: &Bytes, receipts: &Arc<dyn Receipts>) -> anyhow::Result<RawFrame> {
    let Routed::Event(route) = route(frame).context("failed to route a frame of our own")? else {
        bail!("a frame of our own is no event")
    };
    Ok(RawFrame {
        host: host.clone(),
        host_epoch: 0,
        upstream_seq: route.seq,
        received_at_micros: Clock::system().now_micros(),
        did: Did::parse(route.did)?,
        kind: route.kind,
        seq_slot: route.seq_slot,
        bytes: frame.clone(),
        receipts: Arc::clone(receipts),
    })
}
