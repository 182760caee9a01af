//! How many hosts strangers may make known. Pure.
//!
//! Two bounds that keep for any 24 hours, in all and under one registrable domain, and one on how often hosts of one
//! domain are looked at, for those that turn out to be none. Memory is bounded by the bounds.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use atproto::syntax::HostName;
use storage::hosts::CrawlRequests;

const DAY_MICROS: u64 = 24 * 3_600 * 1_000_000;
const HOUR_MICROS: u64 = 3_600 * 1_000_000;

/// Looks at hosts of one domain in an hour.
const LOOKS_PER_HOUR_AND_DOMAIN: u32 = 60;

/// Domains of which it is known how often they were looked at in this hour. One more waits for the next hour.
const DOMAINS_MAX: usize = 10_000;

/// What has been used.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    /// When hosts were made known in the last 24 hours, and under which domain; in order.
    added: VecDeque<(u64, Option<String>)>,
    looks: HashMap<String, u32>,
    /// When this hour of looks began.
    looks_since_micros: u64,
}

/// A quota is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scope}; try again in {} minutes", retry_after.as_secs() / 60 + 1)]
pub struct Spent {
    /// Which one.
    pub scope: Scope,
    /// When a request may be heard again.
    pub retry_after: Duration,
}

/// Which quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of all new hosts in a day.
    All,
    /// That of new hosts of this registrable domain in a day.
    Domain(String),
    /// That of looks at hosts of this domain in an hour.
    Looks(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => f.write_str("as many new hosts as may be were added by requests today"),
            Scope::Domain(domain) => write!(f, "as many new hosts of {domain} as may be were added by requests today"),
            Scope::Looks(domain) => write!(f, "too many requests for hosts of {domain}"),
        }
    }
}

impl Quota {
    /// Whether a new host may be looked at now; counts the look.
    pub fn look(&mut self, name: &HostName, rules: &CrawlRequests, now_micros: u64) -> Result<(), Spent> {
        self.check(name, rules, now_micros)?;
        let Some(domain) = registrable_domain(name) else { return Ok(()) };
        let looks = self.looks.get(&domain).copied();
        if looks.unwrap_or(0) >= LOOKS_PER_HOUR_AND_DOMAIN || (looks.is_none() && self.looks.len() >= DOMAINS_MAX) {
            let retry_after = back_in(self.looks_since_micros, HOUR_MICROS, now_micros);
            return Err(Spent { scope: Scope::Looks(domain), retry_after });
        }
        *self.looks.entry(domain).or_default() += 1;
        Ok(())
    }

    /// Counts a host that was looked at and is to be added, if it still may be.
    pub fn take(&mut self, name: &HostName, rules: &CrawlRequests, now_micros: u64) -> Result<(), Spent> {
        self.check(name, rules, now_micros)?;
        self.added(name, now_micros);
        Ok(())
    }

    fn check(&mut self, name: &HostName, rules: &CrawlRequests, now_micros: u64) -> Result<(), Spent> {
        self.expire(now_micros);
        let back_in = |at, after| back_in(at, after, now_micros);
        if self.added.len() >= rules.new_hosts_per_day as usize {
            let retry_after =
                self.added.front().map_or(Duration::from_micros(DAY_MICROS), |(at, _)| back_in(*at, DAY_MICROS));
            return Err(Spent { scope: Scope::All, retry_after });
        }
        let Some(domain) = registrable_domain(name) else { return Ok(()) };
        let mut same = self.added.iter().filter(|(_, other)| other.as_ref() == Some(&domain));
        let oldest = same.next().map(|(at, _)| *at);
        let count = same.count() + usize::from(oldest.is_some());
        if count >= rules.new_hosts_per_day_and_domain as usize {
            let retry_after = oldest.map_or(Duration::from_micros(DAY_MICROS), |at| back_in(at, DAY_MICROS));
            return Err(Spent { scope: Scope::Domain(domain), retry_after });
        }
        Ok(())
    }

    /// A host has become known by a request, now or before this process began.
    pub fn added(&mut self, name: &HostName, at_micros: u64) {
        let entry = (at_micros, registrable_domain(name));
        let place = self.added.partition_point(|(at, _)| *at <= at_micros);
        self.added.insert(place, entry);
    }

    /// New hosts in the last 24 hours.
    pub fn used(&mut self, now_micros: u64) -> usize {
        self.expire(now_micros);
        self.added.len()
    }

    fn expire(&mut self, now_micros: u64) {
        while self.added.front().is_some_and(|(at, _)| at.saturating_add(DAY_MICROS) <= now_micros) {
            self.added.pop_front();
        }
        if self.looks_since_micros.saturating_add(HOUR_MICROS) <= now_micros {
            self.looks.clear();
            self.looks_since_micros = now_micros;
        }
    }
}

fn back_in(at_micros: u64, after_micros: u64, now_micros: u64) -> Duration {
    Duration::from_micros(at_micros.saturating_add(after_micros).saturating_sub(now_micros))
}

/// What one owner has: the name under a public suffix (`example.co.uk`), by the list that browsers use; or an IPv4
/// address; or an IPv6 network, of which everybody has one. `None` where there is no owner: `localhost` and addresses
/// of private networks, which only a relay for development reaches at all.
fn registrable_domain(name: &HostName) -> Option<String> {
    match name.host().parse::<IpAddr>() {
        Ok(_) if name.is_local() => None,
        Ok(IpAddr::V4(address)) => Some(address.to_string()),
        Ok(IpAddr::V6(address)) => {
            let network = u128::from(address) & (u128::MAX << 64);
            Some(format!("{}/64", Ipv6Addr::from(network)))
        }
        Err(_) if name.host() == "localhost" => None,
        // A name that is itself a public suffix stands for itself.
        Err(_) => Some(psl::domain_str(name.host()).unwrap_or(name.host()).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    const RULES: CrawlRequests =
        CrawlRequests { accepted: true, new_hosts_per_day: 5, new_hosts_per_day_and_domain: 2 };

    #[test]
    fn owners() {
        for (host, owner) in [
            ("pds.example.com", Some("example.com")),
            ("a.b.example.co.uk:8443", Some("example.co.uk")),
            ("me.github.io", Some("me.github.io")),
            ("com", Some("com")),
            ("x.y.localhost:2583", Some("y.localhost")),
            ("localhost:2583", None),
            ("127.0.0.1:2583", None),
            ("1.2.3.4", Some("1.2.3.4")),
            ("[2a00:1:2:3:4:5:6:7]:8443", Some("2a00:1:2:3::/64")),
        ] {
            assert_eq!(registrable_domain(&name(host)).as_deref(), owner, "{host}");
        }
    }

    #[test]
    fn in_all_and_by_domain_for_any_day() {
        let mut quota = Quota::default();
        let hour = HOUR_MICROS;
        let day = 100 * DAY_MICROS;
        let mut ask = |host: &str, at: u64| {
            let result = quota.look(&name(host), &RULES, at);
            if result.is_ok() {
                quota.added(&name(host), at);
            }
            result.map_err(|spent| (spent.scope, spent.retry_after.as_secs() / 3_600))
        };
        assert_eq!(ask("a.example.com", day), Ok(()));
        assert_eq!(ask("b.example.com", day + hour), Ok(()));
        assert_eq!(ask("c.example.com", day + 2 * hour), Err((Scope::Domain("example.com".into()), 22)));
        for other in ["x.org", "y.org", "z.org"] {
            assert_eq!(ask(other, day + 3 * hour), Ok(()));
        }
        assert_eq!(ask("v.org", day + 4 * hour), Err((Scope::All, 20)));
        assert_eq!(ask("c.example.com", day + 24 * hour), Ok(()), "the first is a day ago");
        assert_eq!(ask("d.example.com", day + 24 * hour), Err((Scope::All, 1)));
        assert_eq!(ask("d.example.com", day + 27 * hour), Ok(()));
    }

    #[test]
    fn looks_are_bounded_too_and_memory_with_them() {
        let mut quota = Quota::default();
        let rules = CrawlRequests::default();
        for look in 0..LOOKS_PER_HOUR_AND_DOMAIN {
            assert_eq!(quota.look(&name(&format!("h{look}.example.com")), &rules, 5), Ok(()));
        }
        let spent = quota.look(&name("more.example.com"), &rules, 5).unwrap_err();
        assert_eq!(spent.scope, Scope::Looks("example.com".into()));
        assert_eq!(quota.look(&name("localhost:1"), &rules, 5), Ok(()));
        for number in 0..2 * DOMAINS_MAX {
            let _ = quota.look(&name(&format!("d{number}.org")), &rules, 5);
        }
        assert_eq!(quota.looks.len(), DOMAINS_MAX);
        assert_eq!(quota.look(&name("more.example.com"), &rules, 5 + HOUR_MICROS), Ok(()));
        assert_eq!(quota.looks.len(), 1);
        let none = CrawlRequests { new_hosts_per_day: 0, ..rules };
        assert_eq!(quota.look(&name("localhost:1"), &none, 5).unwrap_err().scope, Scope::All);
    }
}
