//! Making, repeating and refusing a keyspace.

use std::num::NonZeroU32;

use scylla::client::session_builder::SessionBuilder;
use storage::{conformance::sample, lane::LaneCount};
use storage_cluster::cql::schema::{self, SchemaError};
use testservers::Cassandra;

use crate::harness::{Keyspace, LANES, cql, metrics, new_keyspace, plan};

#[tokio::test(flavor = "multi_thread")]
async fn init_may_be_repeated_and_at_once() {
    let keyspace = Keyspace::make().await;
    let rows = keyspace.rows().await;
    let did = sample::did(1);
    let state = sample::state(sample::host(1), 1);
    rows.apply(LANES.lane_of(&did), &[(did.clone(), state.clone(), 1)]).await.unwrap();
    let plan = plan(LANES);
    let again = || schema::init(&keyspace.cql, &keyspace.name, &plan, metrics());
    let (first, second) = tokio::join!(again(), again());
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(keyspace.rows().await.get(&did).await.unwrap(), Some(state));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_by_name() {
    let cql = cql(Cassandra::shared());
    let name = new_keyspace();
    let open = async || schema::open(&cql, &name, metrics()).await.map(drop);
    let outside = SessionBuilder::new().known_node(&cql.contact_points[0]).build().await.unwrap();
    let say = async |statement: String| outside.query_unpaged(statement, ()).await.map(drop).unwrap();
    assert!(matches!(open().await, Err(SchemaError::Missing { .. })));
    say(format!("CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"))
        .await;
    assert!(matches!(open().await, Err(SchemaError::Missing { .. })), "cut off before anything was settled");
    schema::init(&cql, &name, &plan(LANES), metrics()).await.unwrap();
    open().await.unwrap();
    let other = LaneCount(NonZeroU32::new(5).unwrap());
    let init = schema::init(&cql, &name, &plan(other), metrics()).await;
    assert!(matches!(init, Err(SchemaError::Lanes { found: 4, asked: 5 })));
    open().await.unwrap();
    // In the way of `put`: the same cell by the servers' agreement.
    let version = async |number: u32| {
        say(format!("UPDATE {name}.settled SET value = '{number}' WHERE name = 'schema_version' IF EXISTS")).await;
    };
    version(1_000).await;
    let newer = open().await.unwrap_err();
    assert!(matches!(newer, SchemaError::Newer { found: 1_000, .. }));
    assert!(newer.to_string().contains("use the newer program"));
    let init = schema::init(&cql, &name, &plan(LANES), metrics()).await;
    assert!(matches!(init, Err(SchemaError::Newer { .. })));
    version(0).await;
    assert!(matches!(open().await, Err(SchemaError::Older { found: 0, .. })));
    schema::init(&cql, &name, &plan(LANES), metrics()).await.unwrap();
    open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_new_generation_win_over_all_earlier_ones() {
    let keyspace = Keyspace::make().await;
    assert_eq!(keyspace.open().await.1.generation, 0);
    let did = sample::did(1);
    let of = |number| sample::state(sample::host(1), number);
    let old = keyspace.rows().await;
    old.apply(LANES.lane_of(&did), &[(did.clone(), of(1), 1 << 39)]).await.unwrap();
    let more = LaneCount(NonZeroU32::new(8).unwrap());
    let begun = schema::begin_generation(&keyspace.cql, &keyspace.name, more, metrics()).await.unwrap();
    assert_eq!((begun.generation, begun.lanes), (1, more));
    let grown = Keyspace { lanes: more, ..keyspace };
    let new = grown.rows().await;
    new.apply(more.lane_of(&did), &[(did.clone(), of(2), 0)]).await.unwrap();
    old.apply(LANES.lane_of(&did), &[(did.clone(), of(3), (1 << 39) + 1)]).await.unwrap();
    assert_eq!(new.get(&did).await.unwrap(), Some(of(2)));
}
