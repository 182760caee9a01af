use std::{fmt, sync::Arc};

use super::SyntaxError;

/// Where a host (PDS) listens: a lower-case DNS name or an IP literal, with `:port` where it is not the default of its
/// scheme: `pds.example.com`, `localhost:2583`, `[::1]:2583`. It is the host's identity everywhere: in the stores, in
/// routing, in listHosts. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses `HOST[:PORT]`, or a URL of scheme http, https, ws or wss with nothing after the authority but `/`.
    /// Lower-cases it and drops the scheme's default port (443 for none, https and wss; 80 for http and ws).
    pub fn parse(text: &str) -> Result<HostName, SyntaxError> {
        let _ = text;
        todo!()
    }

    /// `HOST[:PORT]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without the port (IPv6 without brackets).
    pub fn host(&self) -> &str {
        todo!()
    }

    /// The port, if one is given.
    pub fn port(&self) -> Option<u16> {
        todo!()
    }

    /// True for `localhost`, names under `.localhost`, and loopback or private addresses: what `--dev` reaches over
    /// plain ws and http.
    pub fn is_local(&self) -> bool {
        todo!()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
