//! How each fault is done, and how it is shown that it happened.

use std::{net::SocketAddr, os::unix::process::ExitStatusExt, path::Path, time::Duration};

use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Error, Fault, plan::Round, scene::Scene};
use crate::{
    cluster::{self, Role, RoleProcess},
    lan::Cut,
};

/// The time after which the group gives a silent member's work to others (`session.timeout.ms`), and some more.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(8);
/// How long a process may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How long the kernel may take until what was asked of it is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What a host has still to give when crawlers have stopped reading.
const WAITING_AT_A_HOST_BYTES: usize = 12 << 20;
/// How long it may take until `raw` is full.
const FULL_WITHIN: Duration = Duration::from_secs(300);
/// How long a sequencer may take to find that its state is lost.
const REFUSES_WITHIN: Duration = Duration::from_secs(60);
const TOPIC_COMMAND: &str = "org.apache.kafka.tools.TopicCommand";

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// How it is known that it happened.
    pub(super) evidence: Vec<String>,
    /// The processes that it was done to.
    pub(super) victims: Vec<String>,
    /// What went wrong on the way back.
    pub(super) problems: Vec<String>,
    /// What the victim alone worked on.
    pub(super) own_parts: Option<OwnParts>,
}

/// How many parts of the stream were a process's own.
#[derive(Clone, Copy, Debug)]
pub(super) enum OwnParts {
    /// A validator's.
    Lanes(usize),
    /// A crawler's.
    Hosts(usize),
}

/// Does it, and undoes it. The victims run again and are ready when this answers.
pub(super) async fn strike(scene: &mut Scene, round: &Round) -> Result<Struck, Error> {
    let fault = round.fault;
    match fault {
        Fault::Kill(role) => {
            let process = victim(scene, role, round).await;
            let mut struck = about(process).await;
            struck.evidence.push(kill(process, fault).await?);
            tokio::time::sleep(round.away).await;
            struck.problems = process.start_supervised().await?;
            Ok(struck)
        }
        Fault::Freeze(role) => {
            let process = victim(scene, role, round).await;
            let mut struck = about(process).await;
            let since = Instant::now();
            process.signal(Signal::STOP)?;
            becomes(process, fault, "stopped", |state| state == Some('T')).await?;
            tokio::time::sleep(LONGER_THAN_A_SESSION + round.away).await;
            if process.kernel_state() != Some('T') {
                return Err(not_shown(fault, format!("it went on by itself, in state {:?}", process.kernel_state())));
            }
            struck.evidence.push(format!("{} was in state T for {:.1?}", process.name(), since.elapsed()));
            process.signal(Signal::CONT)?;
            becomes(process, fault, "running", |state| state != Some('T')).await?;
            Ok(struck)
        }
        Fault::Restart(role) => {
            let process = victim(scene, role, round).await;
            let mut struck = about(process).await;
            let (status, took) = process.terminate(END_WITHIN).await?;
            if !status.success() {
                return Err(not_shown(fault, format!("{} ended with {status}", process.name())));
            }
            struck.problems = process.start_supervised().await?;
            struck.evidence.push(format!("{} ended with {status} after {took:.1?}", process.name()));
            Ok(struck)
        }
        Fault::Cut(role) => {
            let process = victim(scene, role, round).await;
            let mut struck = about(process).await;
            let site = process.site().cloned().ok_or_else(|| not_shown(fault, "it runs beside us".to_owned()))?;
            // Both ends believe that all is well: what is worst.
            site.cut(Cut::Unplugged)?;
            let (through, since) = (site.bytes_towards(), Instant::now());
            tokio::time::sleep(LONGER_THAN_A_SESSION + round.away).await;
            let more = site.bytes_towards() - through;
            if more > 0 {
                return Err(not_shown(fault, format!("{more} bytes went through a cable that was pulled")));
            }
            struck.evidence.push(format!("nothing came to {} from Kafka for {:.1?}", process.name(), since.elapsed()));
            site.mend(Cut::Unplugged)?;
            Ok(struck)
        }
        Fault::KillBroker => {
            let broker = round.victim % scene.cluster.servers().brokers();
            let evidence = vec![kill_broker(scene, broker, fault).await?];
            tokio::time::sleep(round.away).await;
            scene.cluster.servers().broker("start a broker again", broker, |broker| broker.restart()).await?;
            Ok(Struck { evidence, ..Struck::default() })
        }
        Fault::KillCql => {
            let servers = scene.cluster.servers();
            let pid = servers.cql_pid();
            servers.cql("kill the CQL server", |cql| cql.kill()).await?;
            let evidence = vec![is_gone(fault, "the CQL server", pid, &servers.cql_address()).await?];
            tokio::time::sleep(round.away).await;
            servers.cql("start the CQL server again", |cql| cql.restart()).await?;
            Ok(Struck { evidence, ..Struck::default() })
        }
        Fault::KafkaGone => {
            let brokers = 0..scene.cluster.servers().brokers();
            let mut evidence = Vec::new();
            for broker in brokers.clone() {
                evidence.push(kill_broker(scene, broker, fault).await?);
            }
            tokio::time::sleep(scene.kafka_gone).await;
            let servers = scene.cluster.servers();
            // Together: none is ready before most of them are there.
            let starting = brokers.map(|at| servers.broker("start a broker again", at, |broker| broker.restart()));
            futures_util::future::try_join_all(starting).await?;
            evidence.push(format!("after {:?} all brokers were started again", scene.kafka_gone));
            Ok(Struck { evidence, ..Struck::default() })
        }
        Fault::CrawlersGone => crawlers_gone(scene, fault).await,
        Fault::RawFull => raw_full(scene, fault).await,
        Fault::StateLost => state_lost(scene, fault).await,
    }
}

/// All crawlers are killed, and what hosts' cursors promise is awaited before any reads again.
async fn crawlers_gone(scene: &mut Scene, fault: Fault) -> Result<Struck, Error> {
    let mut struck = Struck::default();
    let numbers: Vec<usize> = scene.cluster.of(Role::Crawl).map(RoleProcess::number).collect();
    for number in &numbers {
        let process = scene.cluster.process(Role::Crawl, *number);
        struck.victims.push(process.name());
        struck.evidence.push(kill(process, fault).await?);
    }
    scene.quiet().await;
    let cursors = scene.cursors().await.map_err(|why| not_shown(fault, why))?;
    let missing = scene.missing(&cursors, &scene.received());
    if cursors.is_empty() {
        return Err(not_shown(fault, "no host has a cursor".to_owned()));
    }
    if !missing.is_empty() {
        let why = format!("{} events before hosts' cursors have not come: {:?}", missing.len(), missing.first());
        return Err(not_shown(fault, why));
    }
    struck.evidence.push(format!("with no crawler alive, all before the cursors of {} hosts came out", cursors.len()));
    for number in numbers {
        struck.problems.extend(scene.cluster.process(Role::Crawl, number).start_supervised().await?);
    }
    Ok(struck)
}

/// All validators leave, hosts go on, and crawlers read until `raw` is full. What hosts have still to give then waits there.
async fn raw_full(scene: &mut Scene, fault: Fault) -> Result<Struck, Error> {
    let mut struck = Struck::default();
    let numbers: Vec<usize> = scene.cluster.of(Role::Validate).map(RoleProcess::number).collect();
    for number in &numbers {
        let process = scene.cluster.process(Role::Validate, *number);
        process.terminate(END_WITHIN).await?;
        struck.victims.push(process.name());
    }
    let started = Instant::now();
    let waiting = |scene: &Scene| scene.network.backlog_bytes().unwrap_or(usize::MAX);
    // Sockets and the crawlers' own buffers hold some; this is beyond them.
    while waiting(scene) < WAITING_AT_A_HOST_BYTES {
        if started.elapsed() > FULL_WITHIN {
            let why = format!("hosts have only {} bytes that nobody has read", waiting(scene));
            return Err(not_shown(fault, why));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    struck.evidence.push(format!(
        "after {:.1?} without validators a host had {} bytes that nobody read",
        started.elapsed(),
        waiting(scene)
    ));
    for number in numbers {
        struck.problems.extend(scene.cluster.process(Role::Validate, number).start_supervised().await?);
    }
    Ok(struck)
}

/// The topic of the order's state goes. A sequencer must refuse to start without it, and start when it was made anew.
async fn state_lost(scene: &mut Scene, fault: Fault) -> Result<Struck, Error> {
    let mut struck = Struck::default();
    let numbers: Vec<usize> = scene.cluster.of(Role::Sequence).map(RoleProcess::number).collect();
    for number in &numbers {
        let process = scene.cluster.process(Role::Sequence, *number);
        process.terminate(END_WITHIN).await?;
        struck.victims.push(process.name());
    }
    let topic = format!("{}.sequencer-state", scene.cluster.config().name);
    let delete = vec!["--delete".to_owned(), "--topic".to_owned(), topic.clone()];
    scene.cluster.servers().kafka_tool(TOPIC_COMMAND, delete).await?;
    let topics = scene.cluster.servers().kafka_tool(TOPIC_COMMAND, vec!["--list".to_owned()]).await?;
    if topics.lines().any(|name| name == topic) {
        return Err(not_shown(fault, format!("{topic} is still there")));
    }
    // Makes the topic, and says what it lacks; whether that is an exit code of its own is not ours to say.
    let said = match scene.cluster.init().await {
        Ok(said) => said,
        Err(cluster::Error::Command { output, .. }) => output,
        Err(other) => return Err(other.into()),
    };
    struck.evidence.push(format!("{topic} was deleted; init says: {}", last_line(&said)));
    let process = scene.cluster.process(Role::Sequence, 1);
    process.spawn()?;
    match process.wait_ended(REFUSES_WITHIN).await {
        Ok(status) if !status.success() => {
            let log = process.log_tail(1);
            struck.evidence.push(format!("{} refused to start, with {status}: {log}", process.name()));
        }
        Ok(status) => return Err(not_shown(fault, format!("a sequencer without a state ended with {status}"))),
        Err(error) => return Err(not_shown(fault, format!("a sequencer without a state goes on: {error}"))),
    }
    let said = scene.cluster.command("restore-sequencer", &[]).await?;
    struck.evidence.push(format!("restore-sequencer says: {}", last_line(&said)));
    for number in numbers {
        struck.problems.extend(scene.cluster.process(Role::Sequence, number).start_supervised().await?);
    }
    Ok(struck)
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").trim()
}

/// Whom it meets: of the sequencers the one that leads, else anybody.
async fn victim<'a>(scene: &'a mut Scene, role: Role, round: &Round) -> &'a mut RoleProcess {
    let count = scene.cluster.config().counts.of(role);
    let mut number = round.victim % count + 1;
    if role == Role::Sequence {
        for process in scene.cluster.of(role) {
            if process.metric("mainstem_sequencer_phase{phase=\"leading\"}").await == Some(1.0) {
                number = process.number();
            }
        }
    }
    scene.cluster.process(role, number)
}

async fn about(process: &RoleProcess) -> Struck {
    let mut struck = Struck { victims: vec![process.name()], ..Struck::default() };
    match process.role() {
        Role::Crawl => {
            let mut hosts = 0.0;
            for status in ["active", "idle", "throttled"] {
                let metric = format!("mainstem_crawler_hosts{{status=\"{status}\"}}");
                hosts += process.metric(&metric).await.unwrap_or(0.0);
            }
            struck.evidence.push(format!("{} read {hosts} hosts", process.name()));
            struck.own_parts = Some(OwnParts::Hosts(hosts as usize));
        }
        Role::Validate => {
            let lanes = process.metric("mainstem_lane_held").await.unwrap_or(0.0);
            struck.evidence.push(format!("{} had {lanes} lanes", process.name()));
            struck.own_parts = Some(OwnParts::Lanes(lanes as usize));
        }
        Role::Sequence | Role::Serve => {}
    }
    struck
}

async fn kill(process: &mut RoleProcess, fault: Fault) -> Result<String, Error> {
    let pid = process.pid();
    let status = process.kill().await?;
    match status.signal() {
        Some(9) => Ok(format!("{} (process {}) ended by signal 9", process.name(), pid.unwrap_or(0))),
        _other => Err(not_shown(fault, format!("{} ended with {status}", process.name()))),
    }
}

async fn kill_broker(scene: &Scene, at: usize, fault: Fault) -> Result<String, Error> {
    let servers = scene.cluster.servers();
    let (address, pid) = servers.broker_at(at);
    servers.broker("kill a broker", at, |broker| broker.kill()).await?;
    is_gone(fault, &format!("broker {}", at + 1), pid, &address).await
}

/// A server's process is not there, and its port refuses.
async fn is_gone(fault: Fault, name: &str, pid: Option<u32>, address: &str) -> Result<String, Error> {
    let pid = pid.ok_or_else(|| not_shown(fault, format!("{name} was not running")))?;
    if Path::new(&format!("/proc/{pid}")).exists() {
        return Err(not_shown(fault, format!("process {pid} of {name} is still there")));
    }
    let address: SocketAddr = address.parse().map_err(|_| not_shown(fault, format!("{address} is no address")))?;
    match timeout(SEEN_WITHIN, TcpStream::connect(address)).await {
        Ok(Err(error)) => Ok(format!("{name}: process {pid} is gone, {address} says: {error}")),
        Ok(Ok(_)) => Err(not_shown(fault, format!("{name} can still be reached"))),
        Err(_) => Err(not_shown(fault, format!("{name} does not refuse"))),
    }
}

async fn becomes(
    process: &RoleProcess,
    fault: Fault,
    what: &str,
    is: impl Fn(Option<char>) -> bool,
) -> Result<(), Error> {
    let started = Instant::now();
    while !is(process.kernel_state()) {
        if started.elapsed() > SEEN_WITHIN {
            return Err(not_shown(fault, format!("{} is not {what}: {:?}", process.name(), process.kernel_state())));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn not_shown(fault: Fault, why: String) -> Error {
    Error::NotShown { fault, why }
}
