//! Where a host is reached. Pure.

use atproto::syntax::HostName;
use url::Url;

/// Where a host's services are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl<'a> Origin<'a> {
    /// A local host is reached over plain ws and http where local hosts are allowed; all others over TLS.
    pub(crate) fn of(name: &'a HostName, allow_local: bool) -> Origin<'a> {
        let tls = name.scheme(allow_local) == "https";
        Origin { host: name.host(), port: name.port().unwrap_or(if tls { 443 } else { 80 }), tls }
    }
}

/// The URL of an XRPC method at a host.
pub(crate) fn xrpc_url(name: &HostName, allow_local: bool, method: &str) -> Result<Url, url::ParseError> {
    Url::parse(&format!("{}://{name}/xrpc/{method}", name.scheme(allow_local)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_hosts_in_development_go_without_tls() {
        for (name, allow_local, host, port, tls) in [
            ("pds.example.com", false, "pds.example.com", 443, true),
            ("pds.example.com", true, "pds.example.com", 443, true),
            ("pds.example.com:8443", true, "pds.example.com", 8443, true),
            ("localhost:2583", true, "localhost", 2583, false),
            ("localhost:2583", false, "localhost", 2583, true),
            ("127.0.0.1", true, "127.0.0.1", 80, false),
            ("[::1]:2583", true, "::1", 2583, false),
        ] {
            let name = HostName::parse(name).unwrap();
            assert_eq!(Origin::of(&name, allow_local), Origin { host, port, tls }, "{name}");
        }
        let name = HostName::parse("[::1]:2583").unwrap();
        assert_eq!(xrpc_url(&name, true, "a.b.c").unwrap().as_str(), "http://[::1]:2583/xrpc/a.b.c");
    }
}
