//! `mainstem cluster`: makes a cluster, looks at one, and mends one.

mod status;

use std::process::ExitCode;

use anyhow::Context;
use bytesize::ByteSize;
use runtime::{
    clock::Clock,
    telemetry::{self, Format},
};
use storage::seq::Seq;
use storage_cluster::admin::{init, moving::Carried, restore, schema};

use crate::{
    backend,
    cli::{ClusterCommand, ClusterExport, ClusterImport, ClusterInit, ClusterRestore},
    config::{
        cluster::{Making, from_args, next_seq},
        seq_start,
    },
};

/// Does one of the commands.
pub async fn run(command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    telemetry::init("warn,scylla=error", Format::Auto)?;
    match command {
        ClusterCommand::Init(args) => make(args).await,
        ClusterCommand::Status(args) => status::run(args).await,
        ClusterCommand::RestoreSequencer(args) => restore(args).await,
        ClusterCommand::Import(args) => import(args).await,
        ClusterCommand::Export(args) => export(args).await,
    }
}

/// The schema before the topics: whoever finds these finds their rows' tables too.
async fn make(args: &ClusterInit) -> anyhow::Result<ExitCode> {
    let Making { cluster, plan, seq_start } = Making::from_args(args)?;
    let settled = schema::init(&cluster, &plan).await.context("failed to make the tables")?;
    let mut made = init::topics(&cluster, &plan, seq_start).await.context("failed to make the topics")?;
    if settled.raw_bytes_max != plan.raw_bytes_max {
        let [is, asked] = [settled.raw_bytes_max, plan.raw_bytes_max].map(|bytes| ByteSize(bytes).display().si());
        made.differs.push(format!("--raw-bytes is {is}, as the cluster was made, and should be {asked}"));
    }
    match made.began_at {
        Some(seq) => println!("made the cluster {}: {} lanes, the first seq is {seq}", cluster.name, plan.lanes.0),
        None => println!("the cluster {} is there: {} lanes", cluster.name, plan.lanes.0),
    }
    for what in &made.differs {
        println!("differs: {what}");
    }
    Ok(if made.differs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn restore(args: &ClusterRestore) -> anyhow::Result<ExitCode> {
    let cluster = from_args(&args.cluster)?;
    let next_seq: Option<Seq> = next_seq(args.next_seq.as_deref())?;
    let options = restore::Options { skip_lost: args.skip_lost, next_seq };
    let restored = tokio::task::spawn_blocking(move || restore::sequencer(&cluster, options)).await??;
    let restore::Restored { next_seq, was_there, skipped } = restored;
    match was_there {
        true => println!("the order's state was there; the next seq is {next_seq}"),
        false => println!("made the order's state anew; the next seq is {next_seq}"),
    }
    for (lane, from, until) in skipped {
        println!("lost in lane {}: verified events from offset {from} to {until}", lane.0);
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(args: &ClusterImport) -> anyhow::Result<ExitCode> {
    let cluster = from_args(&args.cluster)?;
    let progress = |done, all| eprintln!("{done} of {all} repos");
    let carried = backend::import(&args.data_dir, &cluster, &Clock::system(), progress).await?;
    let Carried { hosts, repos, next_seq } = carried;
    println!("carried {hosts} hosts and {repos} repos into the cluster {}; the next seq is {next_seq}", cluster.name);
    println!("next: start its crawlers, validators, sequencers and nodes (docs/cluster.md, Moving data)");
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ClusterExport) -> anyhow::Result<ExitCode> {
    let cluster = from_args(&args.cluster)?;
    let seq_start = seq_start(args.seq_start.as_deref())?;
    let progress = |done| eprintln!("{done} repos");
    let carried = backend::export(&cluster, &args.data_dir, seq_start, &Clock::system(), progress).await?;
    let Carried { hosts, repos, next_seq } = carried;
    let dir = args.data_dir.display();
    println!("carried {hosts} hosts and {repos} repos into {dir}; the next seq is {next_seq}");
    println!("next: mainstem run --data-dir {dir}");
    Ok(ExitCode::SUCCESS)
}
