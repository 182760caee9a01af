//! Other relays, that the same traffic can be given to. Their programs are not of this project: the README says how to
//! get them.

mod indigo;

use std::path::PathBuf;

pub(super) use self::indigo::Indigo;

/// A relay that `--peer` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub kind: PeerKind,
    /// Its program.
    pub program: PathBuf,
}

/// Which relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// `cmd/relay` of <https://github.com/bluesky-social/indigo>, the reference relay.
    Indigo,
}

/// Text that names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a peer: {text:?}; indigo=PATH is one")]
pub struct PeerError {
    /// What was said.
    pub text: String,
}

impl std::str::FromStr for Peer {
    type Err = PeerError;

    /// From `indigo=PATH`.
    fn from_str(text: &str) -> Result<Peer, PeerError> {
        match text.split_once('=') {
            Some(("indigo", path)) if !path.is_empty() => Ok(Peer { kind: PeerKind::Indigo, program: path.into() }),
            Some(_) | None => Err(PeerError { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_path() {
        let peer: Peer = "indigo=/tmp/a=b".parse().unwrap();
        assert_eq!((peer.kind, peer.program), (PeerKind::Indigo, PathBuf::from("/tmp/a=b")));
        for bad in ["", "indigo", "indigo=", "other=/tmp/a", "=x"] {
            assert!(bad.parse::<Peer>().is_err(), "{bad:?}");
        }
    }
}
