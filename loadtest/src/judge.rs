//! Compares what hosts have sent with what a relay's subscriber received.

use atproto::{
    crypto::sha256,
    event::{Kind, Route, Routed, route},
    syntax::{Did, HostName},
};

/// What the hosts have sent, in the order in which each sent it.
#[derive(Clone, Debug)]
pub struct Truth {
    hosts: Vec<HostName>,
    events: Vec<Sent>,
}

/// An event as its host sent it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which of [`Truth::hosts`].
    pub host: usize,
    /// The host's seq.
    pub seq: u64,
    /// Whose event it is.
    pub did: Did,
    /// Its kind.
    pub kind: Kind,
    /// [`digest`] of the frame.
    pub digest: Digest,
    /// What a relay must do with it.
    pub expect: Expect,
}

/// What a relay must do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Pass it on, once.
    Pass,
    /// Never pass it on.
    Refuse,
    /// Either is right, for it depends on what the relay knows when it reads it.
    Either,
}

/// SHA-256 of a frame without the bytes of its seq: the same for what a host sent and what the relay made of it.
pub type Digest = [u8; 32];

/// The digest of a frame that carries a seq, and where it does.
pub fn digest(frame: &[u8], route: &Route<'_>) -> Digest {
    let mut bytes = Vec::with_capacity(frame.len());
    bytes.extend_from_slice(&frame[..route.seq_slot.start as usize]);
    bytes.extend_from_slice(&frame[route.seq_slot.end as usize..]);
    sha256(&bytes)
}

impl Truth {
    /// Nothing sent yet.
    pub fn new(hosts: Vec<HostName>) -> Truth {
        Truth { hosts, events: Vec::new() }
    }

    /// Takes note of an event.
    pub fn sent(&mut self, host: usize, seq: u64, did: &Did, kind: Kind, frame: &[u8], expect: Expect) {
        let digest = match route(frame) {
            Ok(Routed::Event(route)) => digest(frame, &route),
            // Not an event at all; nothing a relay gives out can be it.
            Ok(Routed::Info { .. } | Routed::Error { .. } | Routed::Unknown { .. }) | Err(_) => sha256(frame),
        };
        self.events.push(Sent { host, seq, did: did.clone(), kind, digest, expect });
    }

    /// The hosts.
    pub fn hosts(&self) -> &[HostName] {
        &self.hosts
    }

    /// All events.
    pub fn events(&self) -> &[Sent] {
        &self.events
    }
}
