//! How long a stream stood still. Pure.

use std::{collections::HashMap, time::Duration};

use atproto::crypto::sha256;
use tokio::time::Instant;

/// The longest stretch without a delivery between two moments, of deliveries in the order in which they came.
pub fn longest(times: impl IntoIterator<Item = Instant>, from: Instant, to: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = from;
    for time in times.into_iter().filter(|time| *time > from).take_while(|time| *time <= to) {
        longest = longest.max(time - last);
        last = time;
    }
    longest.max(to.saturating_duration_since(last))
}

/// Parts of a stream that can stand still by themselves, each account in one: lanes, or hosts.
#[derive(Clone, Debug)]
pub struct Parts {
    count: usize,
    of: HashMap<Box<str>, usize>,
}

impl Parts {
    /// The lanes of a cluster of so many: by the first 8 bytes of the SHA-256 of a DID, big-endian.
    pub fn lanes<'a>(count: u32, dids: impl IntoIterator<Item = &'a str>) -> Parts {
        let lane = |did: &str| {
            let hash = sha256(did.as_bytes());
            let first = u64::from_be_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes"));
            (first % u64::from(count.max(1))) as usize
        };
        Parts::by(dids.into_iter().map(|did| (did, lane(did))))
    }

    /// Any parts: who is in which, from 0.
    pub fn by<'a>(places: impl IntoIterator<Item = (&'a str, usize)>) -> Parts {
        let of: HashMap<Box<str>, usize> = places.into_iter().map(|(did, part)| (did.into(), part)).collect();
        Parts { count: of.values().max().map_or(0, |last| last + 1), of }
    }

    /// The longest that each part stood still since `from`, longest first, of deliveries since then in the order in which
    /// they came: the time since the one before in its part, or since it was sent if that is shorter. So neither does a part stand still in
    /// which little happens, nor one of which one event waits, for its identity perhaps, while others pass.
    pub fn longest<'a>(&self, deliveries: impl IntoIterator<Item = Delivery<'a>>, from: Instant) -> Vec<Duration> {
        let mut last = vec![from; self.count];
        let mut longest = vec![Duration::ZERO; self.count];
        for Delivery { did, sent, came } in deliveries {
            let Some(part) = self.of.get(did) else { continue };
            let since = std::mem::replace(&mut last[*part], came).max(sent);
            longest[*part] = longest[*part].max(came.saturating_duration_since(since));
        }
        longest.sort_unstable_by(|a, b| b.cmp(a));
        longest
    }
}

/// An event that has come to a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Whose it is.
    pub did: &'a str,
    /// When its host sent it.
    pub sent: Instant,
    /// When it came.
    pub came: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stretch_is_between_deliveries_or_at_an_end() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        for (deliveries, from, to, millis) in [
            (&[10, 20, 500, 510][..], 0, 520, 480),
            (&[10, 20, 500, 510], 100, 520, 400),
            (&[10, 20, 500, 510], 0, 2_000, 1_490),
            (&[10, 20, 500, 510], 15, 30, 10),
            (&[], 0, 30, 30),
        ] {
            let times = deliveries.iter().map(|millis| at(*millis));
            assert_eq!(longest(times, at(from), at(to)), Duration::from_millis(millis), "{deliveries:?} {from} {to}");
        }
    }

    #[test]
    fn parts_stand_still_by_themselves() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let parts = Parts::by([("a", 0), ("b", 1), ("c", 2), ("d", 3)]);
        let deliveries = [
            // Little happens in this one.
            ("a", 0, 10),
            ("a", 2_000, 2_020),
            // Here one waits, and others pass it.
            ("b", 100, 130),
            ("b", 200, 230),
            ("b", 90, 290),
            // This one stands still.
            ("c", 300, 320),
            ("c", 400, 1_300),
            ("c", 500, 1_301),
            ("stranger", 0, 9_000),
        ];
        let deliveries = deliveries.map(|(did, sent, came)| Delivery { did, sent: at(sent), came: at(came) });
        assert_eq!(parts.longest(deliveries, start), [900, 60, 20, 0].map(Duration::from_millis));
    }

    #[test]
    fn lanes_are_those_of_the_cluster() {
        let did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
        let first = u64::from_be_bytes(*sha256(did.as_bytes()).first_chunk().unwrap());
        for lanes in [1, 2, 7, 64] {
            assert_eq!(Parts::lanes(lanes, [did]).of[did], (first % u64::from(lanes)) as usize);
        }
    }
}
