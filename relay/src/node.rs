//! All parts of a relay in one process: built in order, started, and drained.
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
};
use storage::{limits, log::ReadError, refusal::Refusals};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use validator::{Validator, identity};

use crate::{
    admin::{self, Administration, Audit},
    app::{App, Inner, start_of_hosts},
    backend::{self, Backend},
    config::Config,
    descriptors,
    fanout::{self, Hub, Roster, roster},
    lanes::WatchedIntake,
    limits_file, simulated, ui, xrpc,
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

/// A relay that is built and not started.
pub struct Node {
    app: App,
    opened: backend::Opened,
    crawler: Crawler,
    limits_watch: Option<limits_file::Watch>,
    validator: Validator,
    directory: identity::Directory,
    workers: NonZeroUsize,
    metrics: admin::Metrics,
    registry: Registry,
    public: Listener,
    private: Listener,
    administration: Option<Administration>,
    network: Option<Network>,
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
    /// Two parts want the same metric.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
}

impl Node {
    /// Binds the ports, opens the stores and builds the parts, from the log's end to its beginning.
    pub async fn build(mut config: Config, backend: Backend, tasks: Tasks) -> Result<Node, Error> {
        let public = Listener::bind(config.bind, "--bind")?;
        let private = Listener::bind(config.admin_bind, "--admin-bind")?;
        let clock = Clock::system();
        let network = match config.simulate {
            true => Some(simulate(&mut config, backend, clock.clone()).await?),
            false => None,
        };
        let registry = Registry::new();
        let metrics = admin::Metrics::register(&registry)?;
        let public_http = http::Metrics::register(&registry, "public")?;
        let private_http = http::Metrics::register(&registry, "private")?;
        let opened = backend::open(backend, &config, &clock, &registry).await?;
        let mut stores = opened.stores();
        let intake = Arc::new(WatchedIntake::new(stores.intake.clone()));
        stores.intake = intake.clone();
        let refusals = Arc::new(Refusals::default());
        let limits = limits::Limits::new(config.rules.clone(), config.dev);
        let limits_watch = watch_limits(&config, &limits, &clock, &registry)?;
        let egress = Egress::new(Policy {
            allow_local: config.dev,
            contact: config.contact.clone(),
            extra_roots: config.extra_roots.clone(),
            ..Policy::default()
        });

        let fanout = fanout::Metrics::register(&registry)?;
        let hub = Hub::build(stores.log.clone(), stores.repos.clone(), config.hub.clone(), fanout.clone()).await?;

        let identities = identity::Config {
            per_second: config.plc_rate,
            concurrent_max: config.plc_concurrency,
            ..identity::Config::new(config.plc_url.clone())
        };
        let kept = stores.identities.clone();
        let (resolver, directory) = identity::build(identities, egress.clone(), clock.clone(), kept, &registry)?;
        let parts = validator::Parts {
            stores: stores.clone(),
            resolver: resolver.clone(),
            egress: egress.clone(),
            limits: limits.clone(),
            refusals: refusals.clone(),
            clock: clock.clone(),
        };
        let validator = Validator::build(validator::Config::default(), parts, &registry)?;

        let parts = crawler::Parts {
            intake: stores.intake.clone(),
            hosts: stores.hosts.clone(),
            refusals: refusals.clone(),
            limits,
            egress,
            clock: clock.clone(),
            tasks: tasks.clone(),
            stop: tasks.token(),
        };
        let (crawler, hosts) = Crawler::build(crawler_config(&config), parts, &registry)?;

        let administration = Administration::build(config.admin_password, config.admin_tokens, &metrics, || {
            Audit::open(&config.data_dir, clock.clone(), tasks.clone())
        })?;

        let app = App::new(Inner {
            stores,
            intake,
            hub,
            resolver,
            accounts: validator.accounts(),
            hosts,
            fanout,
            subscriber: config.subscriber.clone(),
            compression: config.compression,
            roster: Roster::new(roster::Limits {
                max: config.subscribers_max.get(),
                with_token_max: config.subscriber_tokens.iter().map(|token| token.subscribers_max.get()).sum(),
                per_address_max: config.subscribers_per_address.map(NonZeroUsize::get),
                unlimited: config.trusted_proxies.clone(),
            }),
            subscriber_tokens: config.subscriber_tokens.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            public_http: public_http.clone(),
            subscribers_stop: CancellationToken::new(),
            refusals,
            dev: config.dev,
            simulate: config.simulate,
            tasks,
            clock,
            started: Instant::now(),
            limits_file: limits_watch.as_ref().map(limits_file::Watch::status),
            running: AtomicBool::new(false),
        });
        Ok(Node {
            app,
            opened,
            crawler,
            limits_watch,
            validator,
            directory,
            workers: config.workers,
            metrics,
            registry,
            public: public.counting(public_http),
            private: private.counting(private_http),
            administration,
            network,
        })
    }

    /// Where the stream, the public methods and the page are served.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where metrics, health and administration are served.
    pub fn private_addr(&self) -> SocketAddr {
        self.private.local_addr()
    }

    /// How many sockets and files this relay may want at once.
    pub fn descriptors_needed(&self) -> u64 {
        let connections = self.app.roster.seats_max() + CONNECTIONS_SPARE + PRIVATE_CONNECTIONS_MAX;
        descriptors::HOSTS_AND_FILES + connections as u64
    }

    /// What handlers share, for tests that play the part of a host, of the validator or of the operator.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Starts all parts, from the subscribers to the sources.
    pub fn start(self) -> Running {
        let Node { app, opened, crawler, validator, directory, workers, metrics, registry, .. } = self;
        let tasks = app.tasks.clone();

        let hub_stop = CancellationToken::new();
        tasks.spawn_critical("hub", app.hub.clone().run(hub_stop.clone()));

        // A herd that comes back has its handshakes all at once.
        let seats = app.roster.limits();
        let limits = Limits {
            connections_max: app.roster.seats_max() + CONNECTIONS_SPARE,
            per_address_max: seats.per_address_max.map(|max| max + CONNECTIONS_SPARE_PER_ADDRESS),
            unlimited: app.trusted_proxies.clone(),
            ..Limits::default()
        };
        let routes = public_router(app.clone());
        tasks.spawn_critical("public http", self.public.serve(routes, limits, tasks.clone()));
        let routes =
            admin::router(app.clone(), metrics, registry, self.administration).fallback(async || xrpc::Error::NotFound);
        let limits = Limits { connections_max: PRIVATE_CONNECTIONS_MAX, ..Limits::default() };
        tasks.spawn_critical("private http", self.private.serve(routes, limits, tasks.clone()));

        let judging_stop = CancellationToken::new();
        tasks.spawn_critical("directory", directory.run(judging_stop.clone()));
        let stop = judging_stop.clone();
        let judging = tasks.spawn_critical("validator", async move { validator.run_workers(workers, stop).await });
        let crawling = tasks.spawn_critical("crawler", crawler.run());
        if let Some(watch) = self.limits_watch {
            tasks.spawn_critical("limits file", watch.run(tasks.token()));
        }

        let ending = Ending { app: app.clone(), crawling, judging, judging_stop, hub_stop };
        tasks.spawn("ending", ending.run());
        app.running.store(true, Ordering::Relaxed);
        Running { app, opened, _network: self.network }
    }
}

/// Prepares to read the file of limits again, where there is one.
fn watch_limits(
    config: &Config,
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
async fn simulate(config: &mut Config, backend: Backend, clock: Clock) -> Result<Network, Error> {
    if backend == Backend::Local {
        simulated::prepare(&config.data_dir)?;
    }
    let network = simulated::start(clock).await?;
    config.plc_url = network.plc_url().parse()?;
    config.hosts = network.hosts().to_vec();
    info!(
        hosts = network.hosts().len(),
        accounts = network.accounts().len(),
        "a simulated network runs in this process; nothing of it is real"
    );
    Ok(network)
}

fn crawler_config(config: &Config) -> crawler::Config {
    crawler::Config {
        // Who names a host wants all it has.
        hosts: config.hosts.iter().map(|host| (host.clone(), crawler::Start::Oldest)).collect(),
        bootstrap: config.bootstrap.clone(),
        start: start_of_hosts(config.dev),
        settle_within: SETTLE_MAX,
        timing: config.crawl.timing,
        patience: config.crawl.patience,
        handshake_within: config.crawl.handshake_within,
        ..crawler::Config::default()
    }
}

fn public_router(app: App) -> Router {
    xrpc::router(app.clone()).merge(ui::router(app)).fallback(async || xrpc::Error::NotFound)
}

/// The order of the end.
struct Ending {
    app: App,
    crawling: JoinHandle<()>,
    judging: JoinHandle<()>,
    judging_stop: CancellationToken,
    hub_stop: CancellationToken,
}

impl Ending {
    async fn run(self) {
        self.app.tasks.stopped().await;
        // The crawler stops reading and waits for its receipts, for which the validator must go on.
        if timeout(SETTLE_MAX + Duration::from_secs(1), self.crawling).await.is_err() {
            warn!("the crawler did not end in time");
        }
        self.judging_stop.cancel();
        if timeout(JUDGED_MAX, self.judging).await.is_err() {
            warn!("the validator did not end in time");
        }
        // The last events reach the ring, and with it whoever keeps up, before subscribers are sent away.
        let last = self.app.hub.window().last;
        let mut tail = self.app.hub.tail();
        let _late = timeout(PUBLISHED_MAX, tail.wait_for(|tail| *tail >= last)).await;
        self.hub_stop.cancel();
        self.app.subscribers_stop.cancel();
    }
}

/// A relay at work.
pub struct Running {
    app: App,
    opened: backend::Opened,
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
        let drained = self.app.tasks.drain(deadline.mul_f64(0.9)).await;
        drop(self.app);
        tokio::time::timeout_at(until, self.opened.close()).await.map_err(|_| DrainError::CloseLate)??;
        Ok(drained?)
    }
}
