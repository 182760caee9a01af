//! Apache Kafka: one broker or three, each controller too (KRaft).

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Security,
    certificate::{self, KEYS, KEYS_PASSWORD},
    install::Package,
    ports,
    process::Process,
};

const PACKAGE: Package = Package { name: "kafka", version: "4.3.1", pom: include_str!("pom.xml") };
const READY: &str = "Kafka Server started";
/// Where the users of these are kept: in the data, from their beginning.
const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];
/// Any text in its form: it only tells one cluster's data from another's.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// How often ports are chosen anew because somebody took one first.
const TRIES: usize = 3;

/// Who may log in where a password is asked for, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
pub const USER: &str = "mainstem";
/// That user's password.
pub const PASSWORD: &str = "of a test";

/// Brokers that form a cluster. They end with this value.
pub struct Kafka {
    brokers: Vec<Broker>,
    /// Dropped last: the brokers' folders are in it.
    _dir: TempDir,
}

/// One broker. What is done to it is done when the call answers; calls block.
pub struct Broker {
    process: Mutex<Process>,
    launch: Launch,
    address: (Ipv4Addr, u16),
    security: Security,
}

/// How a broker is started, the first time and again.
struct Launch {
    libs: PathBuf,
    properties: PathBuf,
    logging: PathBuf,
}

impl Kafka {
    /// Starts a cluster of one broker or more on loopback and waits until it is ready: some seconds. Replication is as wide
    /// as there are brokers, at most 3.
    pub fn start(brokers: usize) -> Result<Kafka> {
        Kafka::start_with(Ipv4Addr::LOCALHOST, brokers, Security::None)
    }

    /// As [`Kafka::start`], on an address of one's own (that of a link that will be cut) and letting these in.
    pub fn start_with(address: Ipv4Addr, brokers: usize, security: Security) -> Result<Kafka> {
        ensure!(brokers > 0, "a cluster has a broker");
        let libs = PACKAGE.install()?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Kafka::try_start(&libs, address, brokers, security) {
                Err(error) if tries < TRIES && format!("{error:#}").contains("Address already in use") => {}
                started => return started,
            }
        }
    }

    /// The one broker that all tests of a process share; it ends with the process. Tests keep apart by the names of their
    /// topics.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Kafka::start(1).expect("Kafka starts"))
    }

    fn try_start(libs: &Path, address: Ipv4Addr, count: usize, security: Security) -> Result<Kafka> {
        let dir = tempfile::Builder::new().prefix("mainstem-kafka-").tempdir().context("failed to make a folder")?;
        let ports = ports::free(address, 3 * count)?;
        let (controller_ports, ports) = ports.split_at(count);
        let (inner_ports, secured_ports) = ports.split_at(count);
        let voters: Vec<_> = (1..).zip(controller_ports).map(|(id, port)| format!("{id}@{address}:{port}")).collect();
        let voters = voters.join(",");
        let mut brokers = Vec::new();
        for (place, &controller_port) in controller_ports.iter().enumerate() {
            let (id, inner_port, secured_port) = (place + 1, inner_ports[place], secured_ports[place]);
            let broker_dir = dir.path().join(format!("broker-{id}"));
            let log = broker_dir.join("output.log");
            let process = Process::new(format!("Kafka broker {id}"), broker_dir.clone(), log)?;
            let properties = broker_dir.join("server.properties");
            let (client_port, secured_port) = match security {
                Security::None => (inner_port, None),
                Security::TlsAndPassword => {
                    certificate::make(address, &broker_dir)?;
                    (secured_port, Some(secured_port))
                }
            };
            let (dir, voters) = (&broker_dir, &voters);
            let settings = Settings { id, count, address, inner_port, secured_port, controller_port, voters, dir };
            fs::write(&properties, settings.render()).context("failed to write a broker's settings")?;
            let logging = broker_dir.join("log4j2.properties");
            fs::write(&logging, include_str!("log4j2.properties")).context("failed to write a broker's settings")?;
            let launch = Launch { libs: libs.to_owned(), properties, logging };
            brokers.push(Broker { process: Mutex::new(process), launch, address: (address, client_port), security });
        }
        let kafka = Kafka { brokers, _dir: dir };
        let formatting: Vec<_> = kafka.brokers.iter().map(|broker| broker.launch.format()).collect();
        for format in formatting {
            let done = format.context("failed to run java: scripts/setup.sh test installs it")?.wait_with_output()?;
            ensure!(done.status.success(), "the data can't be laid out:\n{}", String::from_utf8_lossy(&done.stdout));
        }
        kafka.brokers.iter().try_for_each(Broker::launch)?;
        kafka.brokers.iter().try_for_each(Broker::wait_until_ready)?;
        Ok(kafka)
    }

    /// `host:port` of all brokers, joined by commas, as clients want it.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// Runs one of Kafka's own programs, such as `org.apache.kafka.tools.TopicCommand`, and gives what it prints: some
    /// seconds.
    pub fn tool(&self, class: &str, args: &[String]) -> Result<String> {
        let launch = &self.brokers.first().context("a cluster has a broker")?.launch;
        let mut java = launch.java();
        java.arg(class).args(["--bootstrap-server", &self.bootstrap()]).args(args).stdin(Stdio::null());
        let ran = java.output().context("failed to run java")?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(ran.status.success(), "{class} {}:\n{}{}", args.join(" "), said(&ran.stdout), said(&ran.stderr));
        Ok(said(&ran.stdout))
    }

    /// The brokers; their ids are these places and one.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }
}

impl Broker {
    /// Where clients reach it: `host:port`.
    pub fn address(&self) -> String {
        let (address, port) = self.address;
        format!("{address}:{port}")
    }

    /// The certificate that its own can be checked with, in a PEM file; `None` where it has none.
    pub fn certificate(&self) -> Option<PathBuf> {
        match self.security {
            Security::None => None,
            Security::TlsAndPassword => Some(certificate::file_in(&self.dir())),
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().pid()
    }

    /// Its folder; `output.log` in it is what it says.
    pub fn dir(&self) -> PathBuf {
        self.process().dir().to_owned()
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.process().kill()
    }

    /// SIGSTOP: it is there, and says nothing.
    pub fn stop(&self) -> Result<()> {
        self.process().signal(Signal::STOP)
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub fn go_on(&self) -> Result<()> {
        self.process().signal(Signal::CONT)
    }

    /// SIGTERM: it hands its partitions over and ends.
    pub fn end(&self) -> Result<()> {
        self.process().end()
    }

    /// Starts it again on its data, after it was killed or ended, and waits until it is ready.
    pub fn restart(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    fn launch(&self) -> Result<()> {
        self.process().start(&mut self.launch.broker())
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.process().wait_for(READY)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launch {
    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-XX:+UseSerialGC", "-Xshare:auto"])
            .arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()))
            .arg("-cp")
            .arg(self.libs.join("*"));
        java
    }

    fn format(&self) -> std::io::Result<std::process::Child> {
        let mut java = self.java();
        java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&self.properties);
        for mechanism in SCRAM {
            java.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
        java.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
    }

    fn broker(&self) -> Command {
        // Options stand before the class, whatever else the command has.
        let mut java = Command::new("java");
        java.args(["-Xms64m", "-Xmx512m"]).args(self.java().get_args());
        java.arg("kafka.Kafka").arg(&self.properties);
        java
    }
}

/// What a broker's settings depend on.
struct Settings<'a> {
    id: usize,
    count: usize,
    address: Ipv4Addr,
    /// For the brokers themselves, and for clients where everybody is let in.
    inner_port: u16,
    /// For clients that speak TLS and log in.
    secured_port: Option<u16>,
    controller_port: u16,
    voters: &'a str,
    dir: &'a Path,
}

impl Settings<'_> {
    fn render(&self) -> String {
        let Settings { id, count, address, inner_port, secured_port, controller_port, voters, dir } = *self;
        let replicas = count.min(3);
        let in_sync = (replicas - 1).max(1);
        // On a busy machine a broker alone must not be fenced by its own controller; of three, a dead one's partitions
        // should move within seconds. Who was killed and comes back is let in when its last session is over.
        let session_ms = if count > 1 { 9_000 } else { 15_000 };
        let data = dir.join("data");
        let data = data.display();
        let clients = secured_port.map(|port| format!(",CLIENTS://{address}:{port}")).unwrap_or_default();
        let security = secured_port.map(|_| secured(dir)).unwrap_or_default();
        format!(
            "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{address}:{inner_port}{clients},CONTROLLER://{address}:{controller_port}
advertised.listeners=PLAINTEXT://{address}:{inner_port}{clients}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENTS:SASL_SSL
{security}log.dirs={data}
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session_ms}
initial.broker.registration.timeout.ms=170000
transaction.max.timeout.ms=900000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.dedupe.buffer.size=4194304
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
"
        )
    }
}

/// Where a broker's key is, and how clients log in.
fn secured(dir: &Path) -> String {
    let (keys, modules) = (dir.join(KEYS), "org.apache.kafka.common.security");
    let keys = keys.display();
    let (scram, of) = (SCRAM.join(","), "listener.name.clients");
    let scram_logins = SCRAM.map(|mechanism| {
        let mechanism = mechanism.to_lowercase();
        format!("{of}.{mechanism}.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n")
    });
    let scram_logins = scram_logins.concat();
    format!(
        "{scram_logins}{of}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
{of}.sasl.enabled.mechanisms=PLAIN,{scram}
ssl.keystore.location={keys}
ssl.keystore.password={KEYS_PASSWORD}
ssl.keystore.type=PKCS12
"
    )
}
