//! Brokers that ask for TLS and a password.

use std::{net::Ipv4Addr, num::NonZeroU32, path::PathBuf, time::Duration};

use storage::{lane::LaneCount, seq::Seq};
use storage_cluster::{
    admin::{init, status},
    config::{Config, Cql, Kafka as KafkaConfig, Limits, Login, Plan, Replication, Sasl, SaslMechanism, Tls},
};
use testservers::{
    Kafka, Security,
    kafka::{PASSWORD, USER},
};

fn config(name: &str, brokers: &Kafka, ca: Option<PathBuf>, sasl: Option<Sasl>) -> Config {
    Config {
        name: name.to_owned(),
        kafka: KafkaConfig { brokers: vec![brokers.bootstrap()], tls: Some(Tls { ca, own: None }), sasl },
        cql: Cql {
            contact_points: Vec::new(),
            datacenter: None,
            login: None,
            tls: None,
            patience: Duration::from_secs(1),
        },
        limits: Limits::default(),
    }
}

fn plan() -> Plan {
    Plan { lanes: LaneCount(NonZeroU32::MIN), replication: Replication { kafka: 1, cql: 1 }, ..Plan::default() }
}

fn sasl(mechanism: SaslMechanism, password: &str) -> Option<Sasl> {
    Some(Sasl { mechanism, login: Login { user: USER.to_owned(), password: password.to_owned() } })
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_over_tls_by_whoever_knows_the_password() {
    let start = || Kafka::start_with(Ipv4Addr::LOCALHOST, 1, Security::TlsAndPassword).unwrap();
    let kafka = tokio::task::spawn_blocking(start).await.unwrap();
    let ca = kafka.brokers()[0].certificate();
    let mechanisms = [
        ("plain", SaslMechanism::Plain),
        ("scram256", SaslMechanism::ScramSha256),
        ("scram512", SaslMechanism::ScramSha512),
    ];
    for (name, mechanism) in mechanisms {
        let good = config(name, &kafka, ca.clone(), sasl(mechanism, PASSWORD));
        let made = init::topics(&good, &plan(), Seq(7)).await.unwrap();
        assert_eq!(made, init::Made { differs: Vec::new(), began_at: Some(Seq(7)) }, "{name}");
        let status = tokio::task::spawn_blocking(move || status::topics(&good)).await.unwrap();
        assert_eq!(status.unwrap().next_seq, Some(Seq(7)), "{name}");
    }
    let wrong = [
        ("another password", ca.clone(), sasl(SaslMechanism::ScramSha512, "guessed"), "Authentication failed"),
        ("a certificate that nobody knows", None, sasl(SaslMechanism::Plain, PASSWORD), "certificate verify failed"),
    ];
    for (what, ca, sasl, reason) in wrong {
        let error = init::topics(&config("wrong", &kafka, ca, sasl), &plan(), Seq(7)).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(&kafka.bootstrap()) && source.contains(reason), "{what}: {source}");
    }
}
