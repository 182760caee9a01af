//! The parts of a relay that a process plays, all or some of them: built in order, started, and drained.
//!
//! [`Node::build`] opens the stores and binds the ports, so that every mistake in the settings is said before work
//! starts. [`Node::start`] starts the parts. On shutdown they end from the sources to the subscribers: nothing new is
//! read, what was read is judged and logged, the hub passes it on, and then subscribers are told to come back.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use crawler::Crawler;
use loadtest::network::Network;
use prometheus::Registry;
use runtime::{
    clock::Clock,
    egress::{Egress, Policy},
    http::{self, BindError, Limits, Listener},
    signals::Hangups,
    tasks::{Tasks, Undrained},
    trace::{self, Tracer},
};
use storage::{Stores, limits, log::ReadError, refusal::Refusals};
use storage_cluster::{Pulse, sequence::Sequencer};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use validator::{
    Accounts, Validator,
    identity::{self, Resolver},
};

use crate::{
    admin::{self, Administration, Audit},
    app::{App, Inner, start_of_hosts},
    backend,
    config::{self, Config, Crawl, Plc, Serve, Store, Validate},
    coverage, descriptors,
    fanout::{self, Hub, Roster, Trail, roster},
    lanes::WatchedIntake,
    limits_file, simulated, ui,
    version::VERSION,
    vitals::Vitals,
    xrpc,
};

/// Connections of the public listener beside those that become subscribers, and of them from one address.
const CONNECTIONS_SPARE: usize = 1_000;
const CONNECTIONS_SPARE_PER_ADDRESS: usize = 100;

/// Connections of the private listener.
const PRIVATE_CONNECTIONS_MAX: usize = 256;

/// What the crawler may take for events that are being judged; the validator then to end; the hub for the last events.
/// Subscribers have their `close_wait`, and the stores what is left.
const SETTLE_MAX: Duration = Duration::from_secs(3);
const JUDGED_MAX: Duration = Duration::from_secs(2);
const PUBLISHED_MAX: Duration = Duration::from_secs(1);

/// A process that is built and not started.
pub struct Node {
    vitals: Arc<Vitals>,
    metrics: admin::Metrics,
    registry: Registry,
    tracer: Tracer,
    opened: Option<backend::Opened>,
    private: Listener,
    limits_watch: Option<limits_file::Watch>,
    directory: Option<identity::Directory>,
    crawler: Option<Crawler>,
    judge: Option<Judge>,
    sequencer: Option<Sequencer>,
    pulse: Option<Pulse>,
    serving: Option<Serving>,
    network: Option<Network>,
}

/// Verifies events.
struct Judge {
    validator: Validator,
    workers: NonZeroUsize,
}

/// Serves subscribers.
struct Serving {
    app: App,
    public: Listener,
    administration: Option<Administration>,
    comparisons: Vec<coverage::Comparison>,
}

/// What all parts of a process work with.
struct Base {
    stores: Stores,
    refusals: Arc<Refusals>,
    limits: limits::Limits,
    egress: Egress,
    clock: Clock,
    tracer: Tracer,
    registry: Registry,
    tasks: Tasks,
}

/// Why a relay can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The stores can't be opened.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// The one order can't be made here.
    #[error("failed to join the cluster")]
    Sequencer(#[from] storage_cluster::OpenError),
    /// The simulated network can't be started.
    #[error(transparent)]
    Simulated(#[from] simulated::Error),
    /// The simulated directory's address is no URL.
    #[error("the simulated directory has no usable address")]
    SimulatedUrl(#[from] url::ParseError),
    /// What may not be served is not known.
    #[error("failed to read which accounts are taken down")]
    Takedowns(#[from] ReadError),
    /// The crawler can't be built.
    #[error("failed to build the crawler")]
    Crawler(#[from] crawler::Error),
    /// The record of changes can't be opened.
    #[error(transparent)]
    Audit(#[from] admin::audit::OpenError),
    /// Signals can't be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// Traces can't be sent.
    #[error(transparent)]
    Traces(#[from] trace::Error),
    /// Two parts want the same metric.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
}

impl Node {
    /// Binds the ports, opens the stores and builds the parts of the process's roles, from the log's end to its beginning.
    pub async fn build(mut config: Config, tasks: Tasks) -> Result<Node, Error> {
        let public = config.serve.as_ref().map(|serve| Listener::bind(serve.bind, "--bind")).transpose()?;
        let private = Listener::bind(config.admin_bind, "--admin-bind")?;
        let clock = Clock::system();
        let network = match config.simulate {
            true => Some(simulate(&mut config, clock.clone()).await?),
            false => None,
        };
        let tracer = match &config.traces {
            Some(traces) => Tracer::start(traces, config.role(), VERSION)?,
            None => Tracer::off(),
        };
        let registry = Registry::new();
        let metrics = admin::Metrics::register(&registry)?;
        let private = private.counting(http::Metrics::register(&registry, "private")?);
        if let (true, Store::Cluster(cluster)) = (config.sequence, &config.store) {
            let sequencer = Sequencer::open(cluster, &registry, clock, tracer.clone()).await?;
            return Ok(Node::sequencing(sequencer, tracer, private, metrics, registry, tasks));
        }
        let mut opened = backend::open(&config, &clock, &registry).await?;
        let pulse = opened.pulse();
        let mut stores = opened.stores();
        let intake = Arc::new(WatchedIntake::new(stores.intake.clone()));
        stores.intake = intake.clone();
        let limits = limits::Limits::new(config.network.rules.clone(), config.network.dev);
        let limits_watch = watch_limits(&config.network, &limits, &clock, &registry)?;
        let base = Base {
            stores,
            refusals: Arc::new(Refusals::default()),
            limits,
            egress: Egress::new(Policy {
                allow_local: config.network.dev,
                contact: config.network.contact.clone(),
                extra_roots: config.network.extra_roots.clone(),
                ..Policy::default()
            }),
            clock,
            tracer: tracer.clone(),
            registry: registry.clone(),
            tasks: tasks.clone(),
        };
        let vitals = Arc::new(Vitals {
            tasks,
            clock: base.clock.clone(),
            started: Instant::now(),
            // What one process of a cluster pushes another judges.
            intake: (config.crawl.is_some() && config.validate.is_some()).then_some(intake),
            log: Some(base.stores.log.clone()),
            cluster: pulse.as_ref().map(Pulse::health),
            sequencer: None,
            running: AtomicBool::new(false),
        });

        let hub = match &config.serve {
            Some(serve) => Some(base.hub(serve).await?),
            None => None,
        };
        let (resolver, directory) = match &config.plc {
            Some(plc) => base.identities(plc).map(|(resolver, directory)| (Some(resolver), Some(directory)))?,
            None => (None, None),
        };
        let judge = match (&config.validate, &resolver) {
            (Some(validate), Some(resolver)) => Some(base.judge(validate, resolver.clone())?),
            _ => None,
        };
        let (crawler, hosts) = match config.crawl.is_some() || config.serve.is_some() {
            true => base
                .crawler(config.crawl.as_ref(), config.network.dev)
                .map(|(crawler, hosts)| (Some(crawler), Some(hosts)))?,
            false => (None, None),
        };
        let serving = match (config.serve, public, hub, resolver, hosts) {
            (Some(serve), Some(public), Some((hub, fanout)), Some(resolver), Some(hosts)) => {
                let administration =
                    Administration::build(config.admin_password, config.admin_tokens, &metrics, || {
                        Audit::open(&config.audit_dir, base.clock.clone(), base.tasks.clone())
                    })?;
                let public_http = http::Metrics::register(&registry, "public")?;
                let (coverage, comparisons) = base.coverage(&serve.coverage, hosts.clone())?;
                let app = App::new(Inner {
                    accounts: Accounts::new(base.stores.intake.clone(), base.clock.clone()),
                    stores: base.stores,
                    vitals: vitals.clone(),
                    hub,
                    resolver,
                    hosts,
                    coverage,
                    fanout,
                    subscriber: serve.subscriber,
                    compression: serve.compression,
                    roster: Roster::new(roster::Limits {
                        max: serve.subscribers_max.get(),
                        with_token_max: serve.subscriber_tokens.iter().map(|token| token.subscribers_max.get()).sum(),
                        per_address_max: serve.subscribers_per_address.map(NonZeroUsize::get),
                        unlimited: serve.trusted_proxies.clone(),
                    }),
                    subscriber_tokens: serve.subscriber_tokens,
                    trusted_proxies: serve.trusted_proxies,
                    public_http: public_http.clone(),
                    subscribers_stop: CancellationToken::new(),
                    refusals: base.refusals,
                    dev: config.network.dev,
                    simulate: config.simulate,
                    clock: base.clock,
                    limits_file: limits_watch.as_ref().map(limits_file::Watch::status),
                });
                Some(Serving { app, public: public.counting(public_http), administration, comparisons })
            }
            _ => None,
        };
        Ok(Node {
            vitals,
            metrics,
            registry,
            tracer,
            opened: Some(opened),
            private,
            limits_watch,
            directory,
            // Who only serves follows the hosts' rows with it, and is given none to read.
            crawler,
            judge,
            sequencer: None,
            pulse,
            serving,
            network,
        })
    }

    /// A process that makes the one order and does nothing else.
    fn sequencing(
        sequencer: Sequencer,
        tracer: Tracer,
        private: Listener,
        metrics: admin::Metrics,
        registry: Registry,
        tasks: Tasks,
    ) -> Node {
        let vitals = Vitals {
            tasks,
            clock: Clock::system(),
            started: Instant::now(),
            intake: None,
            log: None,
            cluster: None,
            sequencer: Some(sequencer.phase()),
            running: AtomicBool::new(false),
        };
        Node {
            vitals: Arc::new(vitals),
            metrics,
            registry,
            tracer,
            opened: None,
            private,
            limits_watch: None,
            directory: None,
            crawler: None,
            judge: None,
            sequencer: Some(sequencer),
            pulse: None,
            serving: None,
            network: None,
        }
    }

    /// Where the stream, the public methods and the page are served, where they are.
    pub fn public_addr(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|serving| serving.public.local_addr())
    }

    /// Where metrics, health and administration are served.
    pub fn private_addr(&self) -> SocketAddr {
        self.private.local_addr()
    }

    /// How many sockets and files this process may want at once.
    pub fn descriptors_needed(&self) -> u64 {
        let public = self.serving.as_ref().map_or(0, |serving| serving.app.roster.seats_max() + CONNECTIONS_SPARE);
        descriptors::HOSTS_AND_FILES + (public + PRIVATE_CONNECTIONS_MAX) as u64
    }

    /// What handlers share, of a process that serves: for tests that play the part of a host, of the validator or of the
    /// operator.
    pub fn app(&self) -> Option<&App> {
        self.serving.as_ref().map(|serving| &serving.app)
    }

    /// Starts all parts, from the subscribers to the sources.
    pub fn start(self) -> Running {
        let Node { vitals, metrics, registry, opened, .. } = self;
        let tasks = vitals.tasks.clone();

        let app = self.serving.as_ref().map(|serving| serving.app.clone());
        let mut routes = admin::open_router(vitals.clone(), metrics.clone(), registry);
        let hub_stop = CancellationToken::new();
        if let Some(Serving { app, public, administration, comparisons }) = self.serving {
            for comparison in comparisons {
                tasks.spawn("coverage", comparison.run(tasks.token()));
            }
            tasks.spawn_critical("hub", app.hub.clone().run(hub_stop.clone()));
            routes = routes.merge(admin::router(app.clone(), &metrics, administration));
            let limits = public_limits(&app);
            tasks.spawn_critical("public http", public.serve(public_router(app), limits, tasks.clone()));
        }
        let limits = Limits { connections_max: PRIVATE_CONNECTIONS_MAX, ..Limits::default() };
        let routes = routes.fallback(async || xrpc::Error::NotFound);
        tasks.spawn_critical("private http", self.private.serve(routes, limits, tasks.clone()));

        let judging_stop = CancellationToken::new();
        if let Some(directory) = self.directory {
            tasks.spawn_critical("directory", directory.run(judging_stop.clone()));
        }
        let judging = self.judge.map(|Judge { validator, workers }| {
            let stop = judging_stop.clone();
            tasks.spawn_critical("validator", async move { validator.run_workers(workers, stop).await })
        });
        let crawling = self.crawler.map(|crawler| tasks.spawn_critical("crawler", crawler.run()));
        if let Some(sequencer) = self.sequencer {
            tasks.spawn_critical("sequencer", sequencer.run(tasks.token()));
        }
        if let Some(pulse) = self.pulse {
            tasks.spawn_critical("pulse", pulse.run(tasks.token()));
        }
        if let Some(broken) = opened.as_ref().and_then(backend::Opened::broken) {
            let stop = tasks.token();
            tasks.spawn_critical("stores", async move {
                match stop.run_until_cancelled(broken.cancelled()).await {
                    Some(()) => Err(Broken),
                    None => Ok(()),
                }
            });
        }
        if let Some(watch) = self.limits_watch {
            tasks.spawn_critical("limits file", watch.run(tasks.token()));
        }

        let ending = Ending { tasks: tasks.clone(), app: app.clone(), crawling, judging, judging_stop, hub_stop };
        tasks.spawn("ending", ending.run());
        vitals.running.store(true, Ordering::Relaxed);
        Running { tasks, app, vitals, opened, tracer: self.tracer, _network: self.network }
    }
}

impl Base {
    async fn hub(&self, serve: &Serve) -> Result<(Hub, fanout::Metrics), Error> {
        let metrics = fanout::Metrics::register(&self.registry)?;
        let Stores { log, repos, .. } = &self.stores;
        let trail = Trail::new(self.tracer.clone(), self.clock.clone());
        let hub = Hub::build(log.clone(), repos.clone(), serve.hub.clone(), metrics.clone(), trail).await?;
        Ok((hub, metrics))
    }

    fn identities(&self, plc: &Plc) -> Result<(Resolver, identity::Directory), Error> {
        let config = identity::Config {
            per_second: plc.rate,
            concurrent_max: plc.concurrency,
            ..identity::Config::new(plc.url.clone())
        };
        let kept = self.stores.identities.clone();
        Ok(identity::build(config, self.egress.clone(), self.clock.clone(), kept, &self.registry)?)
    }

    fn judge(&self, validate: &Validate, resolver: Resolver) -> Result<Judge, Error> {
        let parts = validator::Parts {
            stores: self.stores.clone(),
            resolver,
            egress: self.egress.clone(),
            limits: self.limits.clone(),
            refusals: self.refusals.clone(),
            clock: self.clock.clone(),
            tracer: self.tracer.clone(),
        };
        let validator = Validator::build(validator::Config::default(), parts, &self.registry)?;
        Ok(Judge { validator, workers: validate.workers })
    }

    fn coverage(
        &self,
        config: &coverage::Config,
        hosts: crawler::Handle,
    ) -> Result<(coverage::Handle, Vec<coverage::Comparison>), Error> {
        let parts = coverage::Parts {
            status_of: Box::new(move |name| Some(hosts.host(name)?.status)),
            repos: self.stores.repos.clone(),
            egress: self.egress.clone(),
            clock: self.clock.clone(),
        };
        Ok(coverage::build(config, parts, &self.registry)?)
    }

    fn crawler(&self, crawl: Option<&Crawl>, dev: bool) -> Result<(Crawler, crawler::Handle), Error> {
        let parts = crawler::Parts {
            intake: self.stores.intake.clone(),
            hosts: self.stores.hosts.clone(),
            crawled: self.stores.crawled.clone(),
            refusals: self.refusals.clone(),
            limits: self.limits.clone(),
            egress: self.egress.clone(),
            clock: self.clock.clone(),
            tracer: self.tracer.clone(),
            tasks: self.tasks.clone(),
            stop: self.tasks.token(),
        };
        Ok(Crawler::build(crawler_config(crawl, dev), parts, &self.registry)?)
    }
}

fn public_limits(app: &App) -> Limits {
    // A herd that comes back has its handshakes all at once.
    let seats = app.roster.limits();
    Limits {
        connections_max: app.roster.seats_max() + CONNECTIONS_SPARE,
        per_address_max: seats.per_address_max.map(|max| max + CONNECTIONS_SPARE_PER_ADDRESS),
        unlimited: app.trusted_proxies.clone(),
        ..Limits::default()
    }
}

/// Prepares to read the file of limits again, where there is one.
fn watch_limits(
    config: &config::Network,
    limits: &limits::Limits,
    clock: &Clock,
    registry: &Registry,
) -> Result<Option<limits_file::Watch>, Error> {
    let Some(path) = config.limits_file.clone() else { return Ok(None) };
    let metrics = limits_file::Metrics::register(registry)?;
    let hangups = Hangups::new().map_err(Error::Signals)?;
    Ok(Some(limits_file::Watch::new(path, config.rules.len(), limits.clone(), hangups, metrics, clock.clone())))
}

/// Starts a simulated network and points the settings to it.
async fn simulate(config: &mut Config, clock: Clock) -> Result<Network, Error> {
    if let Store::Local(local) = &config.store {
        simulated::prepare(&local.data_dir)?;
    }
    let network = simulated::start(clock).await?;
    if let Some(plc) = &mut config.plc {
        plc.url = network.plc_url().parse()?;
    }
    if let Some(crawl) = &mut config.crawl {
        crawl.hosts = network.hosts().to_vec();
    }
    info!(
        hosts = network.hosts().len(),
        accounts = network.accounts().len(),
        "a simulated network runs in this process; nothing of it is real"
    );
    Ok(network)
}

fn crawler_config(crawl: Option<&Crawl>, dev: bool) -> crawler::Config {
    let config =
        crawler::Config { start: start_of_hosts(dev), settle_within: SETTLE_MAX, ..crawler::Config::default() };
    let Some(crawl) = crawl else { return config };
    crawler::Config {
        // Who names a host wants all it has.
        hosts: crawl.hosts.iter().map(|host| (host.clone(), crawler::Start::Oldest)).collect(),
        bootstrap: crawl.bootstrap.clone(),
        timing: crawl.pace.timing,
        patience: crawl.pace.patience,
        handshake_within: crawl.pace.handshake_within,
        ..config
    }
}

fn public_router(app: App) -> Router {
    xrpc::router(app.clone()).merge(ui::router(app)).fallback(async || xrpc::Error::NotFound)
}

/// The order of the end.
struct Ending {
    tasks: Tasks,
    app: Option<App>,
    crawling: Option<JoinHandle<()>>,
    judging: Option<JoinHandle<()>>,
    judging_stop: CancellationToken,
    hub_stop: CancellationToken,
}

impl Ending {
    async fn run(self) {
        self.tasks.stopped().await;
        // The crawler stops reading and waits for its receipts, for which the validator must go on.
        if let Some(crawling) = self.crawling
            && timeout(SETTLE_MAX + Duration::from_secs(1), crawling).await.is_err()
        {
            warn!("the crawler did not end in time");
        }
        self.judging_stop.cancel();
        if let Some(judging) = self.judging
            && timeout(JUDGED_MAX, judging).await.is_err()
        {
            warn!("the validator did not end in time");
        }
        let Some(app) = self.app else { return };
        // The last events reach the ring, and with it whoever keeps up, before subscribers are sent away.
        let last = app.hub.window().last;
        let mut tail = app.hub.tail();
        let _late = timeout(PUBLISHED_MAX, tail.wait_for(|tail| *tail >= last)).await;
        self.hub_stop.cancel();
        app.subscribers_stop.cancel();
    }
}

/// The stores can't be used any more.
#[derive(Debug, thiserror::Error)]
#[error("what was sent to kafka may not be there; start again, and it is read anew")]
struct Broken;

/// A process at work.
pub struct Running {
    tasks: Tasks,
    app: Option<App>,
    vitals: Arc<Vitals>,
    opened: Option<backend::Opened>,
    tracer: Tracer,
    _network: Option<Network>,
}

/// Why the end was not in order. Nothing durable is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Some tasks did not end.
    #[error(transparent)]
    Undrained(#[from] Undrained),
    /// The stores could not be closed.
    #[error("failed to close the stores")]
    Close(#[from] storage::error::Error),
    /// The stores took too long.
    #[error("the stores were not closed in time")]
    CloseLate,
}

impl Running {
    /// Ends all parts in their order, and closes the stores, within the deadline.
    pub async fn drain(self, deadline: Duration) -> Result<(), DrainError> {
        let until = Instant::now() + deadline;
        let drained = self.tasks.drain(deadline.mul_f64(0.9)).await;
        drop((self.app, self.vitals));
        if let Some(opened) = self.opened {
            tokio::time::timeout_at(until, opened.close()).await.map_err(|_| DrainError::CloseLate)??;
        }
        // Traces are no reason to be late.
        let _late = tokio::time::timeout_at(until, self.tracer.end()).await;
        Ok(drained?)
    }
}
