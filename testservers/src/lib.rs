//! Real servers for tests of whole parts: started on loopback, watched, hurt and ended.
//!
//! Owns how a server is fetched (Maven, once a machine, into `~/.cache/mainstem/servers`), on which ports it listens, where
//! its data lies and when it ends. What is asked of a server is the tests' own matter.
//!
//! What must hold:
//! 1. a server never outlives the process that started it, however that ends: a guard, one small shell a server, waits
//!    for the end of a pipe and then ends the server and removes its data;
//! 2. a server is ended by its process id, never by a name;
//! 3. nothing listens on anything but the address that was asked for, by default 127.0.0.1;
//! 4. a server that does not start says why: the end of its log is in the error.
//!
//! A crate of its own, because the tests of the cluster's store, of whole processes and the benchmarks all start the same
//! servers, and none of these should have to build the others. It needs `java` (17) and, for the first time, `mvn`.

pub mod cassandra;
mod certificate;
mod install;
pub mod kafka;
mod ports;
mod process;

pub use cassandra::Cassandra;
pub use kafka::Kafka;

/// Whom a server lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Everybody, in clear text.
    None,
    /// Only over TLS, and only with its user and password.
    TlsAndPassword,
}
