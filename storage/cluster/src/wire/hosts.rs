//! The records of `hosts`: crawlers' claims of the partition that they are in, and nudges.
//!
//! ```text
//!   0 version │ 1 kind: 0 claim, 1 host, 2 policy │ 2 whose, 16 bytes │ 18 of a host: its name
//! ```

use atproto::syntax::HostName;
use storage::hosts::Nudge;

use super::{Malformed, verified::Instance};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 18;
const CLAIM: u8 = 0;
const HOST: u8 = 1;
const POLICY: u8 = 2;

/// A record, and which process wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who says so.
    pub(crate) from: Instance,
    /// What.
    pub(crate) says: Says,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// The partition's hosts are its writer's from here on; the record's offset is the claim's number.
    Claim,
    /// Something is to be looked at again.
    Nudge(Nudge),
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, name) = match &self.says {
            Says::Claim => (CLAIM, ""),
            Says::Nudge(Nudge::Host(name)) => (HOST, name.as_str()),
            Says::Nudge(Nudge::Policy) => (POLICY, ""),
        };
        [&[VERSION, kind], &self.from[..], name.as_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
        let malformed = Malformed { what: "a record of hosts" };
        let (head, name) = bytes.split_at_checked(HEAD_BYTES).ok_or(malformed)?;
        let says = match (head[0], head[1], name) {
            (VERSION, CLAIM, []) => Says::Claim,
            (VERSION, HOST, name) => {
                let name = std::str::from_utf8(name).ok().and_then(|name| HostName::parse(name).ok());
                Says::Nudge(Nudge::Host(name.ok_or(malformed)?))
            }
            (VERSION, POLICY, []) => Says::Nudge(Nudge::Policy),
            _ => return Err(malformed),
        };
        Ok(Record { from: head[2..].try_into().map_err(|_| malformed)?, says })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_encoding_and_nothing_else_is_read() {
        let host = Nudge::Host(HostName::parse("localhost:2583").unwrap());
        for says in [Says::Claim, Says::Nudge(host), Says::Nudge(Nudge::Policy)] {
            let record = Record { from: [9; 16], says };
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Ok(record.clone()));
            assert!((0..HEAD_BYTES).all(|cut| Record::decode(&bytes[..cut]).is_err()));
            assert!(Record::decode(&[&bytes[..], b" "].concat()).is_err(), "{record:?}");
            assert!(Record::decode(&[&[2], &bytes[1..]].concat()).is_err(), "a later version");
        }
        assert!(Record::decode(&[&[1, 3][..], &[9; 16]].concat()).is_err());
    }

    #[test]
    fn frozen_bytes() {
        let says = Says::Nudge(Nudge::Host(HostName::parse("a.example").unwrap()));
        let bytes = Record { from: [7; 16], says }.encode();
        assert_eq!(bytes, [&[1, 1][..], &[7; 16], b"a.example"].concat());
    }
}
