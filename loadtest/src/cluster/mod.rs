//! A whole cluster on this machine: Kafka, a CQL server, and processes of every role, started, watched, hurt and ended.
//!
//! [`servers`] are Kafka and Cassandra; [`role`] says what there is to be run and by which arguments; [`process`] is one
//! running role; [`guard`] ends all of them should this process be killed.
//!
//! What must hold: nothing outlives this process, however it ends; whoever is ended is ended by its process id; nothing
//! listens on anything but the address that was asked for; all logs stay in one folder until their owner removes it.

pub mod guard;
pub mod process;
pub mod role;
pub mod servers;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use atproto::syntax::HostName;
use tokio::{process::Command, task::JoinSet};

use crate::lan::Site;

use self::guard::Guard;
pub use self::{
    process::{Launch, RoleProcess},
    role::{Counts, Role},
    servers::Servers,
};
/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `mainstem` program.
    pub program: PathBuf,
    /// The cluster's name, before the names of its topics and in that of its keyspace.
    pub name: String,
    /// Where logs are kept, `ROLE-NUMBER.log` each.
    pub folder: PathBuf,
    /// How many processes of each role.
    pub counts: Counts,
    /// Where processes listen.
    pub address: Ipv4Addr,
    /// Where the first fan-out node serves, for whoever must know before it is there; a free port if `None`.
    pub first_public: Option<SocketAddrV4>,
    /// The directory of identities; `None` for the real one.
    pub plc_url: Option<String>,
    /// The hosts to relay.
    pub hosts: Vec<HostName>,
    /// Whether hosts on this machine may be read.
    pub dev: bool,
    /// More arguments of `mainstem cluster init`.
    pub init_args: Vec<String>,
    /// More arguments of all processes of a role.
    pub role_args: Vec<(Role, Vec<String>)>,
    /// Where a process, by its role and number, runs if not among all others: a site whose cable to Kafka can be pulled.
    pub sites: Vec<(Role, usize, Site)>,
}

/// Why there is no cluster, or why it is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server does not do what it should.
    #[error("failed to {what}: {why}")]
    Server {
        /// What.
        what: &'static str,
        /// Why, with the end of its log.
        why: String,
    },
    /// `mainstem cluster` refused.
    #[error("`mainstem cluster {command}` ended with {status}:\n{output}")]
    Command {
        /// Which.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// A process ended, though nobody had asked it to.
    #[error("{name} ended with {status}; its log ends:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// A process did not do something in time.
    #[error("{name} did not {what} within {limit:?}; its log ends:\n{log}")]
    Late {
        /// Which.
        name: String,
        /// What.
        what: &'static str,
        /// The time it had.
        limit: Duration,
        /// Its last lines.
        log: String,
    },
    /// It is not running.
    #[error("{name} is not running")]
    NotRunning {
        /// Which.
        name: String,
    },
    /// The machine refused something.
    #[error("failed to {what}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}

/// How long processes have to end in good order before they are killed.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A running cluster. Its processes are killed with its value; [`Cluster::stop`] ends them in good order.
pub struct Cluster {
    config: Config,
    servers: Arc<Servers>,
    processes: Vec<RoleProcess>,
    // Dropped last: it watches over the processes.
    guard: Arc<Guard>,
}

impl Cluster {
    /// Makes the cluster's topics and tables, starts all processes and waits until each is ready.
    pub async fn start(config: Config, servers: Arc<Servers>) -> Result<Cluster, Error> {
        fs::create_dir_all(&config.folder).map_err(Error::io("make the folder of logs"))?;
        let guard = Arc::new(Guard::start().map_err(Error::io("start the guard"))?);
        let mut cluster = Cluster { config, servers, processes: Vec::new(), guard };
        cluster.init().await?;
        for role in Role::ALL {
            for number in 1..=cluster.config.counts.of(role) {
                let launch = cluster.launch(role, number)?;
                cluster.processes.push(RoleProcess::new(launch, Arc::clone(&cluster.guard)));
            }
        }
        cluster.processes.iter_mut().try_for_each(RoleProcess::spawn)?;
        for process in &mut cluster.processes {
            process.wait_ready().await?;
        }
        Ok(cluster)
    }

    /// `mainstem cluster init`; safe to repeat.
    pub async fn init(&self) -> Result<String, Error> {
        let replicas = self.servers.brokers().min(3).to_string();
        let mut args = vec!["--replication".to_owned(), replicas, "--cql-replication".to_owned(), "1".to_owned()];
        args.extend(self.config.init_args.iter().cloned());
        self.command("init", &args).await
    }

    /// `mainstem cluster NAME` with these arguments. Gives what it prints.
    pub async fn command(&self, name: &str, args: &[String]) -> Result<String, Error> {
        let mut command = Command::new(&self.config.program);
        command.args(["cluster", name]).args(self.place()).args(args);
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(Error::io("run mainstem"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(Error::Command {
                command: name.to_owned(),
                status: output.status,
                output: said + &String::from_utf8_lossy(&output.stderr),
            }),
        }
    }

    /// How it was started.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its servers.
    pub fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    /// All processes.
    pub fn processes(&self) -> &[RoleProcess] {
        &self.processes
    }

    /// The processes of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &RoleProcess> {
        self.processes.iter().filter(move |process| process.role() == role)
    }

    /// A process by its role and its number, from 1.
    ///
    /// # Panics
    /// Where there is none.
    pub fn process(&mut self, role: Role, number: usize) -> &mut RoleProcess {
        let sought = self.processes.iter_mut().find(|process| process.role() == role && process.number() == number);
        sought.expect("numbers are from 1 to the role's count")
    }

    /// `ws://ADDRESS:PORT` of all fan-out nodes.
    pub fn stream_urls(&self) -> Vec<String> {
        self.of(Role::Serve).filter_map(RoleProcess::public).map(|address| format!("ws://{address}")).collect()
    }

    /// Fails where a process has ended that nobody has asked to.
    pub fn check(&mut self) -> Result<(), Error> {
        self.processes.iter_mut().try_for_each(RoleProcess::check)
    }

    /// Processes that have ended by themselves since this was last asked, and how, with their last lines.
    pub fn ended(&mut self) -> Result<Vec<(Role, usize, String)>, Error> {
        let mut ended = Vec::new();
        for process in &mut self.processes {
            match process.check() {
                Ok(()) => {}
                Err(Error::Ended { status, log, .. }) => {
                    ended.push((process.role(), process.number(), format!("ended with {status} ({log})")));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(ended)
    }

    /// Ends all processes in good order, whatever reads hosts first and whatever serves last.
    pub async fn stop(mut self) -> Result<(), Error> {
        for role in Role::ALL {
            let (of_role, others) = self.processes.into_iter().partition(|process| process.role() == role);
            self.processes = others;
            let of_role: Vec<RoleProcess> = of_role;
            let mut ending = JoinSet::new();
            for mut process in of_role.into_iter().filter(RoleProcess::is_running) {
                ending.spawn(async move { process.terminate(END_WITHIN).await.map(drop) });
            }
            for ended in ending.join_all().await {
                ended?;
            }
        }
        Ok(())
    }

    /// Where the cluster is, as arguments.
    fn place(&self) -> [String; 6] {
        [
            "--cluster".to_owned(),
            self.config.name.clone(),
            "--kafka".to_owned(),
            self.servers.kafka_address(),
            "--cql".to_owned(),
            self.servers.cql_address(),
        ]
    }

    fn launch(&self, role: Role, number: usize) -> Result<Launch, Error> {
        let config = &self.config;
        let [mut admin, mut public] = free_ports(config.address)?;
        if let (1, Some(first)) = (number, config.first_public) {
            public = first;
        }
        let site =
            config.sites.iter().find(|(of, which, _)| (*of, *which) == (role, number)).map(|(.., site)| site.clone());
        if let Some(address) = site.as_ref().and_then(|site| site.side_address) {
            // Nobody else is there to have the same port.
            admin.set_ip(address);
            public.set_ip(address);
        }
        let mut args: Vec<String> = self.place().into();
        args.extend(["--admin-bind".to_owned(), admin.to_string()]);
        if config.dev && role != Role::Sequence {
            args.push("--dev".to_owned());
        }
        if let Some(plc_url) = &config.plc_url
            && matches!(role, Role::Validate | Role::Serve)
        {
            args.extend(["--plc-url".to_owned(), plc_url.clone()]);
        }
        match role {
            Role::Crawl => {
                for host in &config.hosts {
                    args.extend(["--host".to_owned(), host.to_string()]);
                }
            }
            Role::Serve => args.extend(["--bind".to_owned(), public.to_string()]),
            Role::Validate | Role::Sequence => {}
        }
        let more = config.role_args.iter().filter(|(of, _)| *of == role);
        args.extend(more.flat_map(|(_, args)| args.iter().cloned()));
        Ok(Launch {
            role,
            number,
            program: config.program.clone(),
            args,
            admin,
            public: (role == Role::Serve).then_some(public),
            site,
            log: config.folder.join(format!("{}-{number}.log", role.as_str())),
        })
    }
}

/// Ports that nobody listens on, a moment ago.
pub fn free_ports<const N: usize>(address: Ipv4Addr) -> Result<[SocketAddrV4; N], Error> {
    let find = || -> io::Result<[SocketAddrV4; N]> {
        // All at once, so that they differ.
        let mut listeners = Vec::with_capacity(N);
        for _ in 0..N {
            listeners.push(TcpListener::bind((address, 0))?);
        }
        let mut ports = [SocketAddrV4::new(address, 0); N];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            port.set_port(listener.local_addr()?.port());
        }
        Ok(ports)
    };
    find().map_err(Error::io("find a free port"))
}
