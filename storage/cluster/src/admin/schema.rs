//! Making a cluster's keyspace, or bringing it up to this program's version. Safe to repeat.

use prometheus::Registry;

use crate::{
    config::{Config, Plan},
    cql::{
        Metrics, Settled,
        schema::{self, SchemaError},
    },
};

/// Makes what is missing, and says what was settled when the cluster was made; another number of lanes is refused. Before
/// the topics: whoever finds these finds their rows' tables too.
pub async fn init(config: &Config, plan: &Plan) -> Result<Settled, SchemaError> {
    // Nobody reads the metrics of a process that ends at once.
    let metrics = Metrics::register(&Registry::new())?;
    schema::init(&config.cql, &schema::keyspace_of(&config.name), plan, metrics).await
}
