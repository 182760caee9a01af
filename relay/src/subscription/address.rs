//! Where a stream is.

use atproto::syntax::HostName;
use url::Url;

const PATH: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// Where a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name or address, of IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// `host` or `host:port`, as the Host header has it.
    pub authority: String,
    /// The stream's path.
    pub path: String,
}

/// Not the address of a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the address of a stream; write it like ws://127.0.0.1:2470, wss://relay.example.com or pds.example.com"
)]
pub struct NotAnAddress(String);

impl Address {
    /// From `ws://`, `wss://`, `http://` or `https://`, or from `HOST` or `HOST:PORT` alone. Without a path it is that of
    /// `subscribeRepos`.
    pub fn parse(text: &str) -> Result<Address, NotAnAddress> {
        let bad = || NotAnAddress(text.to_owned());
        if !text.contains("://") {
            let name = HostName::parse(text).map_err(|_| bad())?;
            let tls = !name.is_local();
            return Ok(Address {
                host: name.host().to_owned(),
                port: name.port().unwrap_or(if tls { 443 } else { 80 }),
                tls,
                authority: name.to_string(),
                path: PATH.to_owned(),
            });
        }
        let url = Url::parse(text).map_err(|_| bad())?;
        let tls = match url.scheme() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(bad()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = match url.path() {
            "" | "/" => PATH.to_owned(),
            path => path.to_owned(),
        };
        Ok(Address {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            authority,
            path,
        })
    }

    /// Where the same server's methods are, without a path.
    pub fn methods(&self) -> Option<Url> {
        let scheme = if self.tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}", self.authority)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |host: &str, port, tls, authority: &str, path: &str| Address {
            host: host.into(),
            port,
            tls,
            authority: authority.into(),
            path: path.into(),
        };
        for (text, expected, methods) in [
            (
                "ws://127.0.0.1:2470",
                address("127.0.0.1", 2470, false, "127.0.0.1:2470", PATH),
                "http://127.0.0.1:2470/",
            ),
            (
                "wss://relay.example.com/",
                address("relay.example.com", 443, true, "relay.example.com", PATH),
                "https://relay.example.com/",
            ),
            (
                "https://relay.example.com",
                address("relay.example.com", 443, true, "relay.example.com", PATH),
                "https://relay.example.com/",
            ),
            ("ws://[::1]:80/other", address("::1", 80, false, "[::1]", "/other"), "http://[::1]/"),
            (
                "pds.example.com",
                address("pds.example.com", 443, true, "pds.example.com", PATH),
                "https://pds.example.com/",
            ),
            ("localhost:2583", address("localhost", 2583, false, "localhost:2583", PATH), "http://localhost:2583/"),
        ] {
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
            assert_eq!(expected.methods().unwrap().as_str(), methods, "{text}");
        }
        for text in ["", "ftp://example.com", "not a host", "wss://"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
