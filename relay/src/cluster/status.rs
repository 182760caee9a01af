//! `mainstem cluster status`: how a cluster stands.

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use storage_cluster::admin::status::{self, LaneStatus};

use crate::{cli::ClusterStatus, config::cluster::from_args};

/// How a cluster stands, for other programs.
#[derive(Debug, Serialize)]
struct Status {
    cluster: String,
    lanes: Vec<Lane>,
    raw_lag: i64,
    verified_lag: i64,
    next_seq: Option<u64>,
    sequencer: Option<Member>,
    sequencers: usize,
    firehose: Ends,
}

#[derive(Debug, Serialize)]
struct Lane {
    lane: usize,
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

#[derive(Debug, Serialize)]
struct Member {
    client: String,
    address: String,
}

/// Looks, and prints what it saw.
pub(super) async fn run(args: &ClusterStatus) -> anyhow::Result<ExitCode> {
    let config = from_args(&args.cluster)?;
    let cluster = config.name.clone();
    let found = tokio::task::spawn_blocking(move || status::topics(&config)).await?;
    let status = Status::of(cluster, found.context("failed to look at the cluster")?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        status.print();
    }
    Ok(ExitCode::SUCCESS)
}

impl Status {
    fn of(cluster: String, found: status::Status) -> Status {
        let lanes: Vec<Lane> = found.lanes.iter().enumerate().map(Lane::of).collect();
        Status {
            cluster,
            raw_lag: lanes.iter().map(|lane| lane.raw_lag).sum(),
            verified_lag: lanes.iter().map(|lane| lane.verified_lag).sum(),
            lanes,
            next_seq: found.next_seq.map(|seq| seq.0),
            sequencer: found.sequencer.map(|status::Member { client, address }| Member { client, address }),
            sequencers: found.sequencers,
            firehose: found.firehose.into(),
        }
    }

    fn print(&self) {
        let Status { cluster, lanes, raw_lag, verified_lag, next_seq, sequencer, sequencers, firehose } = self;
        println!("cluster     {cluster}");
        println!("to judge    {raw_lag} records");
        println!("to order    {verified_lag} records");
        match next_seq {
            Some(seq) => println!("next seq    {seq}"),
            None => println!("next seq    unknown: run `mainstem cluster init`, or restore-sequencer if it was lost"),
        }
        match sequencer {
            Some(Member { client, address }) => println!("sequencer   {client} at {address}, of {sequencers}"),
            None => println!("sequencer   none leads, of {sequencers}"),
        }
        println!("firehose    offsets {} to {}", firehose.first, firehose.end);
        println!();
        println!(
            "{:>4}  {:>12}  {:>12}  {:>8}  {:>12}  {:>12}  {:>8}",
            "lane", "raw", "judged", "lag", "verified", "ordered", "lag"
        );
        let offset = |offset: &Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        for lane in lanes {
            println!(
                "{:>4}  {:>12}  {:>12}  {:>8}  {:>12}  {:>12}  {:>8}",
                lane.lane,
                lane.raw.end,
                offset(&lane.committed),
                lane.raw_lag,
                lane.verified.end,
                offset(&lane.ordered),
                lane.verified_lag
            );
        }
    }
}

impl Lane {
    fn of((lane, found): (usize, &LaneStatus)) -> Lane {
        Lane {
            lane,
            raw: found.raw.into(),
            committed: found.committed,
            raw_lag: found.raw_lag(),
            verified: found.verified.into(),
            ordered: found.ordered,
            verified_lag: found.verified_lag(),
            claim: found.claim,
        }
    }
}

impl From<(i64, i64)> for Ends {
    fn from((first, end): (i64, i64)) -> Ends {
        Ends { first, end }
    }
}
