//! `mainstem cluster status`: how a cluster stands.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use runtime::clock::Clock;
use serde::Serialize;
use storage_cluster::admin::{
    groups,
    status::{self, LaneStatus},
};

use crate::{cli::ClusterStatus, config::cluster::from_args};

/// How a cluster stands, for other programs.
#[derive(Debug, Serialize)]
struct Status {
    cluster: String,
    /// Records that are not judged yet, or whose judging is not committed.
    raw_lag: i64,
    /// Records that are judged and not in the firehose.
    verified_lag: i64,
    window: Window,
    crawlers: Vec<Member>,
    validators: Vec<Member>,
    sequencers: Vec<Member>,
    host_shares: usize,
    lanes: Vec<Lane>,
}

/// What of the firehose is kept.
#[derive(Debug, Serialize)]
struct Window {
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    /// The age of the first event.
    age_s: Option<u64>,
    offsets: Ends,
}

#[derive(Debug, Serialize)]
struct Lane {
    lane: usize,
    owner: Option<String>,
    raw: Ends,
    committed: Option<i64>,
    raw_lag: i64,
    verified: Ends,
    ordered: Option<i64>,
    verified_lag: i64,
    claim: Option<i64>,
}

/// Offsets: the first that is kept, and the one after the last.
#[derive(Debug, Serialize)]
struct Ends {
    first: i64,
    end: i64,
}

/// A process of a role.
#[derive(Debug, Serialize)]
struct Member {
    client: String,
    address: String,
    /// Lanes, shares of hosts, or 0 for the lead.
    partitions: Vec<i32>,
}

/// Looks, and prints what it saw.
pub(super) async fn run(args: &ClusterStatus) -> anyhow::Result<ExitCode> {
    let config = from_args(&args.cluster)?;
    let cluster = config.name.clone();
    let found = tokio::task::spawn_blocking(move || status::topics(&config)).await?;
    let now_micros = Clock::system().now_micros();
    let status = Status::of(cluster, found.context("failed to look at the cluster")?, now_micros);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", status.for_people());
    }
    Ok(ExitCode::SUCCESS)
}

impl Status {
    fn of(cluster: String, found: status::Status, now_micros: u64) -> Status {
        let owner = |lane| found.owner(lane).map(|member| member.client.clone());
        let lanes: Vec<Lane> =
            found.lanes.iter().enumerate().map(|(lane, status)| Lane::of(lane, owner(lane), status)).collect();
        Status {
            cluster,
            raw_lag: lanes.iter().map(|lane| lane.raw_lag).sum(),
            verified_lag: lanes.iter().map(|lane| lane.verified_lag).sum(),
            window: Window {
                first_seq: found.first_kept.map(|(seq, _)| seq.0),
                last_seq: found.next_seq.map(|next| next.0.saturating_sub(1)),
                age_s: found.first_kept.map(|(_, at_micros)| now_micros.saturating_sub(at_micros) / 1_000_000),
                offsets: found.firehose.into(),
            },
            crawlers: found.crawlers.into_iter().map(Member::from).collect(),
            validators: found.validators.into_iter().map(Member::from).collect(),
            sequencers: found.sequencers.into_iter().map(Member::from).collect(),
            host_shares: found.host_shares,
            lanes,
        }
    }

    fn for_people(&self) -> String {
        let mut text = format!("cluster {}\n\n", self.cluster);
        let mut line = |what: &str, said: String| text.push_str(&format!("  {what:<12} {said}\n"));
        line("to judge", format!("{} records", self.raw_lag));
        line("to order", format!("{} records", self.verified_lag));
        line("window", self.window.for_people());
        line("sequencer", self.sequencer());
        line("validators", format!("{} for {} lanes", self.validators.len(), self.lanes.len()));
        line("crawlers", format!("{} for {} shares of hosts", self.crawlers.len(), self.host_shares));
        for (group, members) in [
            (Group::Sequencers, &self.sequencers),
            (Group::Validators, &self.validators),
            (Group::Crawlers, &self.crawlers),
        ] {
            text.push_str(if members.is_empty() { "" } else { "\n" });
            for Member { client, address, partitions } in members {
                text.push_str(&format!("  {client} at {address}: {}\n", group.has(partitions)));
            }
        }
        let width = self.lanes.iter().filter_map(|lane| lane.owner.as_ref()).map(String::len).max().unwrap_or(0).max(5);
        text.push_str(&format!(
            "\n  {:>4}  {:<width$}  {:>12}  {:>12}  {:>8}  {:>12}  {:>12}  {:>8}\n",
            "lane", "owner", "raw", "judged", "lag", "verified", "ordered", "lag"
        ));
        for lane in &self.lanes {
            text.push_str(&lane.for_people(width));
        }
        text
    }

    fn sequencer(&self) -> String {
        let leads = self.sequencers.iter().find(|member| !member.partitions.is_empty());
        let others = self.sequencers.len().saturating_sub(1);
        match leads {
            Some(Member { client, .. }) => format!("{client} leads; standing by: {others}"),
            None => format!("none leads, of {}", self.sequencers.len()),
        }
    }
}

impl Window {
    fn for_people(&self) -> String {
        let age = |age| humantime::format_duration(Duration::from_secs(age));
        match (self.first_seq, self.last_seq, self.age_s) {
            (Some(first), Some(last), Some(seconds)) => format!("seqs {first} to {last}, {} long", age(seconds)),
            (_, Some(last), _) => format!("empty; the last seq is {last}"),
            (_, None, _) => {
                "not begun, or its state is lost: `mainstem cluster init`, or `restore-sequencer`".to_owned()
            }
        }
    }
}

impl Lane {
    fn of(lane: usize, owner: Option<String>, found: &LaneStatus) -> Lane {
        Lane {
            lane,
            owner,
            raw: found.raw.into(),
            committed: found.committed,
            raw_lag: found.raw_lag(),
            verified: found.verified.into(),
            ordered: found.ordered,
            verified_lag: found.verified_lag(),
            claim: found.claim,
        }
    }

    fn for_people(&self, width: usize) -> String {
        let or_none = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        format!(
            "  {:>4}  {:<width$}  {:>12}  {:>12}  {:>8}  {:>12}  {:>12}  {:>8}\n",
            self.lane,
            self.owner.as_deref().unwrap_or("-"),
            self.raw.end,
            or_none(self.committed),
            self.raw_lag,
            self.verified.end,
            or_none(self.ordered),
            self.verified_lag
        )
    }
}

/// What a member of a group shares with the others.
#[derive(Clone, Copy)]
enum Group {
    Sequencers,
    Validators,
    Crawlers,
}

impl Group {
    /// What its member has, for people.
    fn has(self, partitions: &[i32]) -> String {
        let list = || partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        match (self, partitions) {
            (Group::Sequencers, []) => "stands by".to_owned(),
            (Group::Sequencers, _) => "leads".to_owned(),
            (Group::Validators | Group::Crawlers, []) => "has nothing".to_owned(),
            (Group::Validators, _) => format!("lanes {}", list()),
            (Group::Crawlers, _) => format!("shares of hosts {}", list()),
        }
    }
}

impl From<groups::Member> for Member {
    fn from(groups::Member { client, address, partitions }: groups::Member) -> Member {
        Member { client, address, partitions }
    }
}

impl From<(i64, i64)> for Ends {
    fn from((first, end): (i64, i64)) -> Ends {
        Ends { first, end }
    }
}
