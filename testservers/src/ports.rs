//! Ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// So many ports of an address, all different and free a moment ago. Somebody else may take one before it is used: who
/// starts a server on them tries anew.
pub(crate) fn free(address: Ipv4Addr, count: usize) -> Result<Vec<u16>> {
    let listen = || TcpListener::bind((address, 0));
    let listeners: Vec<_> = (0..count).map(|_| listen()).collect::<Result<_, _>>().context("failed to find a port")?;
    listeners.iter().map(|listener| Ok(listener.local_addr().context("failed to ask for a port")?.port())).collect()
}
