//! Apache Cassandra: one node, the CQL server of tests.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
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

const PACKAGE: Package = Package { name: "cassandra", version: "5.0.6", pom: include_str!("pom.xml") };
const READY: &str = "Starting listening for CQL clients";
/// Where it asks for a password there is nobody to log in as before this is said, once in the life of its data.
const HAS_USER: &str = "Created default superuser role";
/// What it says of a port that somebody else has.
const PORT_TAKEN: [&str; 3] = ["in use by another process", "Address already in use", "Failed to bind port"];
/// How long it may take from its word until it listens.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(60);
/// How often ports are chosen anew because somebody took one first.
const TRIES: usize = 3;

/// A node. It ends with this value. What is done to it is done when the call answers; calls block.
pub struct Cassandra {
    process: Mutex<Process>,
    launch: Launch,
    address: (Ipv4Addr, u16),
    security: Security,
    /// Dropped last: the node's folder is in it.
    _dir: TempDir,
}

/// Who may log in.
pub const USER: &str = "cassandra";
/// That user's password.
pub const PASSWORD: &str = "cassandra";

/// How the node is started, the first time and again.
struct Launch {
    libs: PathBuf,
    dir: PathBuf,
}

impl Cassandra {
    /// Starts a node on loopback that lets everybody in and waits until it is ready: some ten seconds.
    pub fn start() -> Result<Cassandra> {
        Cassandra::start_with(Ipv4Addr::LOCALHOST, Security::None)
    }

    /// As [`Cassandra::start`], on an address of one's own and letting these in.
    pub fn start_with(address: Ipv4Addr, security: Security) -> Result<Cassandra> {
        let libs = PACKAGE.install()?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Cassandra::try_start(&libs, address, security) {
                Err(error) if tries < TRIES && PORT_TAKEN.iter().any(|text| format!("{error:#}").contains(text)) => {}
                started => return started,
            }
        }
    }

    /// The one node that all tests of a process share; it ends with the process. Tests keep apart by the names of their
    /// keyspaces.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn shared() -> &'static Cassandra {
        static SHARED: OnceLock<Cassandra> = OnceLock::new();
        SHARED.get_or_init(|| Cassandra::start().expect("Cassandra starts"))
    }

    fn try_start(libs: &Path, address: Ipv4Addr, security: Security) -> Result<Cassandra> {
        let dir =
            tempfile::Builder::new().prefix("mainstem-cassandra-").tempdir().context("failed to make a folder")?;
        let ports = ports::free(address, 3)?;
        let node = dir.path().join("node");
        let process = Process::new("Cassandra".to_owned(), node.clone(), node.join("logs/system.log"))?;
        if security == Security::TlsAndPassword {
            certificate::make(address, &node)?;
        }
        let settings = settings(address, &ports, security, &node);
        fs::write(node.join("cassandra.yaml"), settings).context("failed to write a node's settings")?;
        fs::write(node.join("logback.xml"), include_str!("logback.xml"))
            .context("failed to write a node's settings")?;
        fs::write(node.join("jvm.options"), include_str!("jvm.options"))
            .context("failed to write a node's settings")?;
        let launch = Launch { libs: libs.to_owned(), dir: node };
        let cassandra =
            Cassandra { process: Mutex::new(process), launch, address: (address, ports[0]), security, _dir: dir };
        cassandra.restart()?;
        if security == Security::TlsAndPassword {
            cassandra.process().wait_for(HAS_USER)?;
        }
        Ok(cassandra)
    }

    /// Where clients reach it: `host:port`.
    pub fn address(&self) -> String {
        let (address, port) = self.address;
        format!("{address}:{port}")
    }

    /// The certificate that its own can be checked with, in a PEM file; `None` where it has none.
    pub fn certificate(&self) -> Option<PathBuf> {
        match self.security {
            Security::None => None,
            Security::TlsAndPassword => Some(certificate::file_in(&self.launch.dir)),
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().pid()
    }

    /// Its folder; `logs/system.log` in it is what it says.
    pub fn dir(&self) -> &Path {
        &self.launch.dir
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

    /// SIGTERM: it finishes what was asked of it and ends.
    pub fn end(&self) -> Result<()> {
        self.process().end()
    }

    /// Starts it again on its data, after it was killed or ended, and waits until it is ready.
    pub fn restart(&self) -> Result<()> {
        let mut process = self.process();
        process.start(&mut self.launch.node())?;
        process.wait_for(READY)?;
        // It says so before it does.
        let said = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            ensure!(said.elapsed() < LISTEN_TIME_MAX, "Cassandra does not listen on {}", self.address());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launch {
    fn node(&self) -> Command {
        let dir = self.dir.display();
        let mut java = Command::new("java");
        java.arg(format!("@{dir}/jvm.options"))
            .arg(format!("-Dcassandra.config=file://{dir}/cassandra.yaml"))
            .arg(format!("-Dcassandra.storagedir={dir}/data"))
            .arg(format!("-Dcassandra.logdir={dir}/logs"))
            .arg(format!("-Dlogback.configurationFile={dir}/logback.xml"))
            .arg("-cp")
            .arg(self.libs.join("*"))
            .arg("org.apache.cassandra.service.CassandraDaemon");
        java
    }
}

fn settings(address: Ipv4Addr, ports: &[u16], security: Security, node: &Path) -> String {
    let [client_port, storage_port, ssl_storage_port] = ports else { unreachable!("three were asked for") };
    let node = node.display();
    let security = match security {
        Security::None => "authenticator: AllowAllAuthenticator".to_owned(),
        Security::TlsAndPassword => format!(
            "authenticator: PasswordAuthenticator
client_encryption_options:
  enabled: true
  optional: false
  keystore: {node}/{KEYS}
  keystore_password: {KEYS_PASSWORD}
  store_type: PKCS12
  require_client_auth: false"
        ),
    };
    format!(
        "cluster_name: tests
num_tokens: 16
allocate_tokens_for_local_replication_factor: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"{address}:{storage_port}\"
listen_address: {address}
rpc_address: {address}
storage_port: {storage_port}
ssl_storage_port: {ssl_storage_port}
native_transport_port: {client_port}
start_native_transport: true
endpoint_snitch: SimpleSnitch
{security}
authorizer: AllowAllAuthorizer
data_file_directories: [{node}/data/data]
commitlog_directory: {node}/data/commitlog
hints_directory: {node}/data/hints
saved_caches_directory: {node}/data/saved_caches
cdc_raw_directory: {node}/data/cdc_raw
commitlog_sync: periodic
commitlog_sync_period: 1000ms
commitlog_segment_size: 16MiB
commitlog_total_space: 256MiB
disk_failure_policy: stop
memtable_heap_space: 128MiB
memtable_offheap_space: 64MiB
file_cache_size: 64MiB
key_cache_size: 16MiB
concurrent_reads: 16
concurrent_writes: 16
concurrent_counter_writes: 4
native_transport_max_threads: 16
concurrent_compactors: 1
auto_snapshot: false
auto_bootstrap: false
hinted_handoff_enabled: false
materialized_views_enabled: false
read_request_timeout: 10s
write_request_timeout: 10s
range_request_timeout: 20s
"
    )
}
