//! Which addresses are public. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Reachable by anybody.
    Public,
    /// This machine.
    Loopback,
    /// A network of one's own (RFC 1918, RFC 6598, RFC 4193).
    Private,
    /// No place for a host: link-local (cloud metadata services are there), multicast, unspecified, documentation,
    /// reserved, or a way to hide another address that can't be read from it.
    Special,
}

impl Class {
    /// The class of an address. An IPv6 address that carries an IPv4 address in it (mapped, compatible, NAT64, 6to4)
    /// has that one's class.
    pub fn of(address: IpAddr) -> Class {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Public => "public",
            Class::Loopback => "loopback",
            Class::Private => "private",
            Class::Special => "special",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// IANA's special-purpose registry of IPv4, and where clouds tell a machine its secrets outside of it.
fn of_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [100, 100, 100, 200] | [168, 63, 129, 16] => Class::Special,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Class::Private,
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Class::Special,
        _ => Class::Public,
    }
}

/// IANA's special-purpose registry of IPv6: global unicast is 2000::/3, and not all of it.
fn of_v6(address: Ipv6Addr) -> Class {
    let carried = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Special,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => carried(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        [0x2002, high, low, ..] => carried(high, low),
        // Where clouds tell a machine its secrets, in the middle of what is private.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254] => Class::Special,
        [0xfc00..=0xfdff, ..] => Class::Private,
        // Teredo and the rest of the protocol assignments, documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Special,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_class() {
        let table = [
            (
                Class::Public,
                "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 192.169.0.1 223.255.255.255",
            ),
            (
                Class::Public,
                "2606:4700::1111 2a00::1 2001:4860:4860::8888 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:101:101::1",
            ),
            (
                Class::Loopback,
                "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::127.0.0.1 2002:7f00:1::",
            ),
            (Class::Private, "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.0.1 fc00::1 fdff::1"),
            (Class::Private, "::ffff:10.0.0.1 2002:a00:1::"),
            (Class::Special, "0.0.0.0 0.1.2.3 169.254.169.254 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1"),
            (Class::Special, "224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 192.88.99.1"),
            (Class::Special, ":: fe80::1 fec0::1 ff02::1 2001:db8::1 2001::1 100::1 64:ff9b:1::1 3fff::1 4000::1"),
            (Class::Special, "::ffff:169.254.169.254 ::ffff:0.0.0.0 fe80::a9fe:a9fe ::ffff:0:1.1.1.1"),
            (Class::Special, "100.100.100.200 168.63.129.16 fd00:ec2::254 fd20:ce::254 ::ffff:168.63.129.16"),
            (Class::Special, "64:ff9b::169.254.169.254 2002:a9fe:a9fe::1 2001:0:102:304::1 2001:2::1 ff0e::1"),
        ];
        for (class, addresses) in table {
            for address in addresses.split(' ') {
                assert_eq!(Class::of(address.parse().unwrap()), class, "{address}");
            }
        }
    }
}
