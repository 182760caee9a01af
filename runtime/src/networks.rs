//! Addresses as limits see them: networks in CIDR notation, what one party has of them, and whom a trusted proxy serves.
//! Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network; write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7")]
pub struct NotANetwork(String);

/// Some networks. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Network {
    /// Whether an address is in it. An IPv4 address is the same whether it stands in an IPv6 one or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                masked(network.to_bits().into(), 32, self.prefix) == masked(address.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                masked(network.to_bits(), 128, self.prefix) == masked(address.to_bits(), 128, self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The first `prefix` of the low `width` bits.
fn masked(bits: u128, width: u8, prefix: u8) -> u128 {
    bits.checked_shr(u32::from(width - prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let bad = || NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return Err(bad());
        }
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Networks {
    /// This machine itself: `127.0.0.0/8` and `::1`.
    pub fn loopback() -> Networks {
        Networks(vec![
            Network { address: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 },
            Network { address: Ipv6Addr::LOCALHOST.into(), prefix: 128 },
        ])
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whom a connection from `peer` serves, where these are the networks of proxies that are believed: the rightmost
    /// address of `X-Forwarded-For` (`forwarded_for`: its lines, first to last) that is not of such a proxy. All that
    /// stands left of it was written by who knows whom. What can't be read ends the search at the proxy that wrote it.
    pub fn client<'a>(&self, peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in forwarded_for.rev().flat_map(|line| line.rsplit(',')) {
            if !self.contain(client) {
                break;
            }
            match hop_address(hop.trim()) {
                Some(address) => client = address.to_canonical(),
                None => break,
            }
        }
        client
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        Networks(networks.into_iter().collect())
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// An entry of `X-Forwarded-For`: an address, and with some proxies its port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|addr: SocketAddr| addr.ip()))
}

/// What one party has, so that limits by address count it as one: of IPv4 the address, of IPv6 its /64.
pub fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_their_prefix_says() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.9.9.9", "9.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("::1", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(ip(inside)), "{inside} is in {network}");
            assert!(!parsed.contains(ip(outside)), "{outside} is not in {network}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "10.0.0.0/-1", "1.2.3.4:80"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!(Networks::loopback().to_string(), "127.0.0.0/8,::1/128");
    }

    #[test]
    fn a_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let trusted: Networks = ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|text| text.parse().unwrap()).collect();
        for (peer, lines, client) in [
            // Nobody between.
            ("203.0.113.9", &[][..], "203.0.113.9"),
            // A stranger's word counts for nothing.
            ("203.0.113.9", &["192.0.2.1"], "203.0.113.9"),
            ("127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("::ffff:127.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            // What the client wrote itself stands on the left.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["1.1.1.1", "192.0.2.1"], "192.0.2.1"),
            // A chain of proxies.
            ("127.0.0.1", &["1.1.1.1, 192.0.2.1,10.0.0.3 , 10.0.0.2"], "192.0.2.1"),
            ("127.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            // A proxy that says nothing, or nothing that can be read.
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["unknown"], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &[""], "127.0.0.1"),
            // A client within.
            ("127.0.0.1", &["10.0.0.7"], "10.0.0.7"),
        ] {
            assert_eq!(trusted.client(ip(peer), lines.iter().copied()), ip(client), "{peer} {lines:?}");
        }
        assert_eq!(Networks::default().client(ip("127.0.0.1"), ["192.0.2.1"].into_iter()), ip("127.0.0.1"));
    }

    #[test]
    fn a_party_has_an_address_or_a_slash_64() {
        assert_eq!(party(ip("192.0.2.7")), ip("192.0.2.7"));
        assert_eq!(party(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
        assert_eq!(party(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    }
}
