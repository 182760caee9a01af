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

/// Which lane accounts belong to.
#[derive(Clone, Debug)]
pub struct Lanes {
    count: u64,
    known: HashMap<Box<str>, usize>,
}

impl Lanes {
    /// Of a cluster of so many.
    pub fn new(count: u32) -> Lanes {
        Lanes { count: u64::from(count.max(1)), known: HashMap::new() }
    }

    /// The lane of an account: the first 8 bytes of the SHA-256 of its DID, big-endian, modulo the number of lanes.
    pub fn of(&mut self, did: &str) -> usize {
        if let Some(lane) = self.known.get(did) {
            return *lane;
        }
        let hash = sha256(did.as_bytes());
        let first = u64::from_be_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes"));
        let lane = (first % self.count) as usize;
        self.known.insert(did.into(), lane);
        lane
    }

    /// The longest stretch without a delivery of each lane, longest first, of deliveries in the order in which they came.
    pub fn longest<'a>(
        &mut self,
        deliveries: impl IntoIterator<Item = (Instant, &'a str)>,
        from: Instant,
        to: Instant,
    ) -> Vec<Duration> {
        let mut times = vec![Vec::new(); self.count as usize];
        for (time, did) in deliveries {
            times[self.of(did)].push(time);
        }
        let mut longest: Vec<_> = times.into_iter().map(|times| self::longest(times, from, to)).collect();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        longest
    }
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
    fn lanes_stand_still_by_themselves() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut lanes = Lanes::new(2);
        let dids: Vec<String> = (0..20).map(|n| format!("did:web:{n}.test")).collect();
        let of = |lanes: &mut Lanes, lane| dids.iter().find(|did| lanes.of(did) == lane).unwrap().clone();
        let (zero, one) = (of(&mut lanes, 0), of(&mut lanes, 1));
        let deliveries = [(at(10), &zero), (at(20), &one), (at(30), &zero), (at(900), &one), (at(40), &zero)];
        let deliveries = deliveries.iter().map(|(time, did)| (*time, did.as_str()));
        let longest = lanes.longest(deliveries, at(0), at(1_000));
        assert_eq!(longest, [Duration::from_millis(960), Duration::from_millis(880)]);
    }
}
