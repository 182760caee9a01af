//! The cluster's servers: Kafka brokers and one CQL node.

use std::{net::Ipv4Addr, sync::Arc};

use testservers::{Cassandra, Kafka, Security, kafka::Broker};

use super::Error;

/// Kafka and a CQL server. They end with this value.
pub struct Servers {
    kafka: Arc<Kafka>,
    cassandra: Arc<Cassandra>,
}

impl Servers {
    /// Starts both at once on loopback and waits until they are ready: some ten seconds.
    pub async fn start(brokers: usize) -> Result<Servers, Error> {
        Servers::start_on(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, brokers).await
    }

    /// As [`Servers::start`], on addresses of their own.
    pub async fn start_on(brokers_at: Ipv4Addr, cql_at: Ipv4Addr, brokers: usize) -> Result<Servers, Error> {
        let kafka = blocking("start Kafka", move || Kafka::start_with(brokers_at, brokers, Security::None));
        let cassandra = blocking("start Cassandra", move || Cassandra::start_with(cql_at, Security::None));
        let (kafka, cassandra) = tokio::try_join!(kafka, cassandra)?;
        Ok(Servers { kafka: Arc::new(kafka), cassandra: Arc::new(cassandra) })
    }

    /// `host:port` of all brokers, joined by commas.
    pub fn kafka_address(&self) -> String {
        self.kafka.bootstrap()
    }

    /// `host:port` of the CQL server.
    pub fn cql_address(&self) -> String {
        self.cassandra.address()
    }

    /// How many brokers there are.
    pub fn brokers(&self) -> usize {
        self.kafka.brokers().len()
    }

    /// Does something to a broker, by its place from 0, and waits until it is done.
    pub async fn broker(
        &self,
        what: &'static str,
        at: usize,
        act: impl FnOnce(&Broker) -> anyhow::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let kafka = Arc::clone(&self.kafka);
        blocking(what, move || act(&kafka.brokers()[at])).await
    }

    /// Runs one of Kafka's own programs on the first broker: its class and its arguments. Gives what it prints.
    pub async fn kafka_tool(&self, class: &'static str, args: Vec<String>) -> Result<String, Error> {
        let kafka = Arc::clone(&self.kafka);
        blocking("run a program of Kafka's", move || kafka.tool(class, &args)).await
    }

    /// Where a broker listens, by its place from 0, and its process, while it runs.
    pub fn broker_at(&self, at: usize) -> (String, Option<u32>) {
        let broker = &self.kafka.brokers()[at];
        (broker.address(), broker.pid())
    }

    /// Does something to the CQL server, and waits until it is done.
    pub async fn cql(
        &self,
        what: &'static str,
        act: impl FnOnce(&Cassandra) -> anyhow::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let cassandra = Arc::clone(&self.cassandra);
        blocking(what, move || act(&cassandra)).await
    }

    /// The CQL server's process, while it runs.
    pub fn cql_pid(&self) -> Option<u32> {
        self.cassandra.pid()
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    act: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(act).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Error::Server { what, why: format!("{error:#}") }),
        Err(panic) => Err(Error::Server { what, why: panic.to_string() }),
    }
}
