//! A server that is killed, stands still, or asks who we are.

use std::{net::Ipv4Addr, time::Duration};

use storage::{conformance::sample, error::Error};
use storage_cluster::{
    config::{Cql, Login, Tls},
    cql::{
        Session,
        schema::{self, SchemaError},
    },
};
use testservers::{
    Cassandra, Security,
    cassandra::{PASSWORD, USER},
};

use crate::harness::{Keyspace, LANES, cql, metrics, plan};

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_after_the_server_was_killed_and_started_again() {
    let node = std::sync::Arc::new(blocking(|| Cassandra::start().unwrap()).await);
    let keyspace = Keyspace::make_on(cql(&node), LANES).await;
    let rows = keyspace.rows().await;
    let did = sample::did(1);
    let lane = LANES.lane_of(&did);
    let of = |number| sample::state(sample::host(1), number);
    rows.apply(lane, &[(did.clone(), of(1), 1)]).await.unwrap();
    // What the server had answered more than a commit log's period ago outlives it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let impatient = Keyspace {
        cql: Cql { patience: Duration::ZERO, ..keyspace.cql.clone() },
        name: keyspace.name.clone(),
        lanes: LANES,
    };
    let impatient = impatient.rows().await;
    let killed = node.clone();
    blocking(move || killed.kill().unwrap()).await;
    assert!(matches!(impatient.get(&did).await, Err(Error::Determinate { .. })));
    let write = [(did.clone(), of(2), 2)];
    let restarted = node.clone();
    let (written, ()) = tokio::join!(rows.apply(lane, &write), blocking(move || restarted.restart().unwrap()));
    written.unwrap();
    assert_eq!(rows.get(&did).await.unwrap(), Some(of(2)));
    let stopped = node.clone();
    blocking(move || stopped.stop().unwrap()).await;
    let write = [(did.clone(), of(3), 3)];
    let stopped = node.clone();
    let goes_on = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        blocking(move || stopped.go_on().unwrap()).await;
    };
    let (written, ()) = tokio::join!(rows.apply(lane, &write), goes_on);
    written.unwrap();
    assert_eq!(rows.get(&did).await.unwrap(), Some(of(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_a_password_are_used_and_checked() {
    let node = blocking(|| Cassandra::start_with(Ipv4Addr::LOCALHOST, Security::TlsAndPassword).unwrap()).await;
    let login = |password: &str| Some(Login { user: USER.to_owned(), password: password.to_owned() });
    let tls = Some(Tls { ca: node.certificate(), own: None });
    let good = Cql { login: login(PASSWORD), tls: tls.clone(), ..cql(&node) };
    let made = schema::init(&good, "secured", &plan(LANES), metrics()).await.unwrap();
    let (_session, settled) = schema::open(&good, "secured", metrics()).await.unwrap();
    assert_eq!(settled, made);
    for (what, refused) in [
        ("another password", Cql { login: login("guessed"), tls: tls.clone(), ..cql(&node) }),
        ("no password", Cql { tls, ..cql(&node) }),
        ("no tls", Cql { login: login(PASSWORD), ..cql(&node) }),
        (
            "a certificate of nobody known",
            Cql { login: login(PASSWORD), tls: Some(Tls { ca: None, own: None }), ..cql(&node) },
        ),
    ] {
        assert!(Session::connect(&refused, None, metrics()).await.is_err(), "{what}");
        let opened = schema::open(&refused, "secured", metrics()).await;
        assert!(matches!(opened, Err(SchemaError::Connect(_))), "{what}");
    }
}
