use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{SyntaxError, is_label};

/// Where a host (PDS) listens: a lower-case DNS name or an IP literal, with `:port` where it is not the default of its
/// scheme: `pds.example.com`, `localhost:2583`, `[::1]:2583`. It is the host's identity everywhere: in the stores, in
/// routing, in listHosts. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses `HOST[:PORT]`, or a URL of scheme http, https, ws or wss with nothing after the authority but `/`.
    /// Lower-cases it and drops the scheme's default port (443 for none, https and wss; 80 for http and ws). Parsing
    /// what [`HostName::as_str`] gives makes the same name again.
    pub fn parse(text: &str) -> Result<HostName, SyntaxError> {
        let invalid = |why| SyntaxError { what: "host name", why };
        let (is_plain, authority) = match text.split_once("://") {
            None => (false, text),
            Some((scheme, rest)) => {
                let is_plain = match scheme.to_ascii_lowercase().as_str() {
                    "https" | "wss" => false,
                    "http" | "ws" => true,
                    _ => return Err(invalid("a scheme other than http, https, ws and wss")),
                };
                (is_plain, rest.strip_suffix('/').unwrap_or(rest))
            }
        };
        let (host, port) = split(authority).ok_or(invalid("unbalanced brackets"))?;
        let host = canonical_host(host).map_err(invalid)?;
        let port = port.map(parse_port).transpose().map_err(invalid)?;
        Ok(HostName(match port {
            None => Arc::from(host),
            // 443 is dropped whatever the scheme: the text alone must mean the same.
            Some(443) => Arc::from(host),
            Some(80) if is_plain => Arc::from(host),
            Some(port) => Arc::from(format!("{host}:{port}")),
        }))
    }

    /// `HOST[:PORT]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without the port (IPv6 without brackets).
    pub fn host(&self) -> &str {
        let (host, _) = split(&self.0).unwrap_or((&self.0, None));
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, if one is given.
    pub fn port(&self) -> Option<u16> {
        let (_, port) = split(&self.0)?;
        port?.parse().ok()
    }

    /// True for `localhost`, names under `.localhost`, and loopback or private addresses: what `--dev` reaches over
    /// plain ws and http.
    pub fn is_local(&self) -> bool {
        match self.host().parse::<IpAddr>() {
            Ok(address) => is_local_address(address.to_canonical()),
            Err(_) => self.host() == "localhost" || self.host().ends_with(".localhost"),
        }
    }

    /// `http` for a local host where local hosts are allowed (`--dev`), `https` for all others.
    pub fn scheme(&self, allow_local: bool) -> &'static str {
        if allow_local && self.is_local() { "http" } else { "https" }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits `HOST[:PORT]`; IPv6 keeps its brackets.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let (host, rest) = authority.split_at(authority.find(']')? + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn canonical_host(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "brackets around what is not an IPv6 address")?;
        return Ok(format!("[{address}]"));
    }
    if host.len() > 253 {
        return Err("longer than 253 bytes");
    }
    if !host.split('.').all(is_label) {
        return Err("a label that is not 1 to 63 letters, digits and inner hyphens");
    }
    // Resolvers and URL parsers read names such as `127.1` or `1.0x7f` as addresses, so only the plain form may pass.
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.starts_with(|c: char| c.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err("a last label that begins with a digit, and no IPv4 address");
    }
    Ok(host.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a port that is not a number");
    }
    match text.parse() {
        Ok(0) | Err(_) => Err("a port out of range"),
        Ok(port) => Ok(port),
    }
}

fn is_local_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
