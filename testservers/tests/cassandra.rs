//! The CQL server itself: that it starts, ends, and leaves nothing behind.

use std::net::{Ipv4Addr, TcpStream};

use testservers::{Cassandra, Security};

#[test]
fn a_node_is_killed_started_again_and_ended_with_its_data() {
    let node = Cassandra::start().unwrap();
    TcpStream::connect(node.address()).unwrap();
    node.kill().unwrap();
    assert_eq!(node.pid(), None);
    TcpStream::connect(node.address()).unwrap_err();
    node.restart().unwrap();
    TcpStream::connect(node.address()).unwrap();
    node.end().unwrap();
    TcpStream::connect(node.address()).unwrap_err();
    let dir = node.dir().to_owned();
    assert!(dir.exists());
    drop(node);
    assert!(!dir.parent().unwrap().exists());
}

#[test]
fn a_node_can_ask_for_tls_and_a_password() {
    let node = Cassandra::start_with(Ipv4Addr::LOCALHOST, Security::TlsAndPassword).unwrap();
    TcpStream::connect(node.address()).unwrap();
    let certificate = std::fs::read_to_string(node.certificate().unwrap()).unwrap();
    assert!(certificate.contains("BEGIN CERTIFICATE"));
}
