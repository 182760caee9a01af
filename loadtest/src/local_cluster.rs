//! `loadtest local-cluster`.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use atproto::syntax::HostName;
use clap::Args as ClapArgs;
use loadtest::{
    cluster::{Cluster, Config, Counts, Role, Servers},
    network::{self, Network},
};
use runtime::clock::Clock;

pub(crate) const EXAMPLES: &str = "\
Examples:
  loadtest local-cluster
      One Kafka broker, one Cassandra node and two processes of each role, which read a simulated network.
  loadtest local-cluster --brokers 3 --host pds.example.com
      Three brokers, and a host of the real network.";

/// Options of `loadtest local-cluster`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The `mainstem` program; beside this one if not given.
    #[arg(long, value_name = "FILE")]
    relay: Option<PathBuf>,
    /// Kafka brokers: 1 or 3.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    brokers: u8,
    /// A host (PDS) to relay; may be given many times. A simulated network runs beside the cluster if none is given.
    #[arg(long = "host", value_name = "HOST[:PORT]")]
    hosts: Vec<String>,
    /// The directory of did:plc identities, where hosts are given.
    #[arg(long, value_name = "URL")]
    plc_url: Option<String>,
    /// Hosts on this machine and private networks are allowed. Implied without --host.
    #[arg(long)]
    dev: bool,
    /// Where the processes' logs are kept; a folder that goes at the end if not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Processes that read hosts.
    #[arg(long, value_name = "N", default_value_t = 2)]
    crawlers: usize,
    /// Processes that verify.
    #[arg(long, value_name = "N", default_value_t = 2)]
    validators: usize,
    /// Processes that put events into one order; all but one stand by.
    #[arg(long, value_name = "N", default_value_t = 2)]
    sequencers: usize,
    /// Processes that serve subscribers.
    #[arg(long, value_name = "N", default_value_t = 2)]
    serves: usize,
    /// Lanes of the cluster.
    #[arg(long, value_name = "N", default_value_t = 16)]
    lanes: u32,
    /// Events a second of the simulated network.
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    rate: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    // Whatever has been started ends with its value, wherever Ctrl-C comes.
    let temporary =
        tempfile::Builder::new().prefix("mainstem-cluster-").tempdir().context("failed to make a folder")?;
    let folder = args.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let (cluster, network) = tokio::select! {
        started = start(args, folder.clone()) => started?,
        interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
    };
    print_addresses(&cluster, folder.display());
    let ended = run_until_interrupted(cluster).await;
    if let Some(network) = network {
        network.stop().await;
    }
    ended
}

/// The `mainstem` program beside this one.
pub(crate) fn beside_us() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find this program")?;
    Ok(own.with_file_name("mainstem"))
}

async fn start(args: Args, folder: PathBuf) -> anyhow::Result<(Cluster, Option<Network>)> {
    let program = args.relay.map_or_else(beside_us, Ok)?;
    println!("Starting Kafka and Cassandra …");
    let servers = Arc::new(Servers::start(usize::from(args.brokers)).await?);
    let network = match args.hosts.is_empty() {
        true => {
            let pace = network::Pace::PerSecond(args.rate);
            Some(Network::start(network::Config { pace, ..network::Config::default() }, Clock::system()).await?)
        }
        false => None,
    };
    let (plc_url, hosts) = match &network {
        Some(network) => (Some(network.plc_url().to_owned()), network.hosts().to_vec()),
        None => {
            let hosts: Result<_, _> = args.hosts.iter().map(|host| HostName::parse(host)).collect();
            (args.plc_url, hosts.context("a --host is no host's name")?)
        }
    };
    println!("Starting the roles …");
    let config = Config {
        program,
        name: "mainstem".to_owned(),
        folder,
        counts: Counts {
            crawl: args.crawlers,
            validate: args.validators,
            sequence: args.sequencers,
            serve: args.serves,
        },
        address: Ipv4Addr::LOCALHOST,
        first_public: None,
        plc_url,
        hosts,
        dev: args.dev || network.is_some(),
        init_args: vec![format!("--lanes={}", args.lanes)],
        role_args: Vec::new(),
        sites: Vec::new(),
    };
    Ok((Cluster::start(config, servers).await?, network))
}

async fn run_until_interrupted(mut cluster: Cluster) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => cluster.check()?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                println!("Stopping …");
                return Ok(cluster.stop().await?);
            }
        }
    }
}

fn print_addresses(cluster: &Cluster, folder: impl std::fmt::Display) {
    println!("Kafka          {}", cluster.servers().kafka_address());
    println!("CQL            {}", cluster.servers().cql_address());
    for url in cluster.stream_urls() {
        println!("stream         {url}");
    }
    for role in Role::ALL {
        for process in cluster.of(role) {
            let pid = process.pid().unwrap_or(0);
            println!("{:<14} http://{} (metrics, health; process {pid})", process.name(), process.admin());
        }
    }
    println!("logs           {folder}");
    if let Some(url) = cluster.stream_urls().first() {
        println!("Watch it with: mainstem tail {url}");
    }
    println!("Ctrl-C stops all of it.");
}
