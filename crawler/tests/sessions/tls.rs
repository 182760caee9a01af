//! Hosts over TLS.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use atproto::syntax::HostName;
use crawler::{End, Start};
use futures_util::{SinkExt, StreamExt};
use runtime::{
    egress::{Policy, read_certificates},
    tasks::Tasks,
};
use storage::hosts::HostStatus;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{World, identity, quick, until};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A host with this certificate that sends one event to everybody; gives its port and a count of handshakes that failed.
async fn host(tasks: &Tasks, certificate: &str) -> (u16, Arc<AtomicU64>) {
    let chain = vec![CertificateDer::from_pem_file(testdata(&format!("{certificate}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(testdata(&format!("{certificate}.key"))).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicU64::new(0));
    let (count, connections) = (refused.clone(), tasks.clone());
    tasks.spawn("host", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), count.clone());
            connections.spawn("connection", async move {
                let Ok(tls) = acceptor.accept(tcp).await else {
                    count.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let mut socket = tokio_tungstenite::accept_async(tls).await.unwrap();
                socket.send(Message::binary(identity(7))).await.unwrap();
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            });
        }
    });
    (port, refused)
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_authorities_and_those_that_are_given() {
    let tasks = Tasks::new();
    let (trusted, trusted_refused) = host(&tasks, "trusted").await;
    let (stranger, stranger_refused) = host(&tasks, "stranger").await;
    let policy = Policy {
        allow_local: true,
        extra_roots: read_certificates(&testdata("trusted.pem")).unwrap(),
        fixed_names: vec![
            ("pds.example.com".into(), Ipv4Addr::LOCALHOST.into()),
            ("other.example.com".into(), Ipv4Addr::LOCALHOST.into()),
        ],
        ..Policy::default()
    };
    let world = World::with_policy(quick(), storage::memory::open().hosts, policy);
    let name = |host: &str, port| HostName::parse(&format!("{host}:{port}")).unwrap();
    let good = name("pds.example.com", trusted);
    let wrong_name = name("other.example.com", trusted);
    let wrong_authority = name("pds.example.com", stranger);
    for name in [&good, &wrong_name, &wrong_authority] {
        world.handle.add_host(name, Start::Live).await.unwrap();
    }
    let view = |name| world.handle.host(name).unwrap();
    world.intake.has(&[7]).await;
    assert_eq!(world.intake.frames()[0].host, good);
    assert_eq!(view(&good).status, HostStatus::Active);
    for name in [&wrong_name, &wrong_authority] {
        until("offline", || view(name).tries >= 3).await;
        until("offline", || view(name).status == HostStatus::Offline).await;
        let last = view(name).last_end.unwrap();
        assert!(last.end == End::Unreachable && last.detail.contains("certificate"), "{last:?}");
    }
    assert!(trusted_refused.load(Ordering::Relaxed) > 0 && stranger_refused.load(Ordering::Relaxed) > 0);
    assert_eq!(view(&good).connections, 1, "its neighbours' certificates are nothing to it");
    world.stopped().await;
}

#[tokio::test]
async fn a_file_of_certificates_is_checked_when_it_is_read() {
    assert_eq!(read_certificates(&testdata("trusted.pem")).unwrap().len(), 1);
    for bad in ["README.md", "trusted.key", "no-such-file"] {
        assert!(read_certificates(&testdata(bad)).is_err(), "{bad}");
    }
}
