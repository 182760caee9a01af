//! Lanes: accounts are spread over a fixed number of ordered queues.

use std::num::NonZeroU32;

use atproto::syntax::Did;

/// One lane, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u32);

/// How many lanes there are; fixed when the data is made and checked at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCount(pub NonZeroU32);

impl LaneCount {
    /// The lane of a DID: the first 8 bytes of its SHA-256, big-endian, modulo the number of lanes.
    pub fn lane_of(self, did: &Did) -> Lane {
        let lane = Did::lane_hash(did.as_str()) % u64::from(self.0.get());
        Lane(u32::try_from(lane).expect("a remainder of a u32"))
    }

    /// All lanes.
    pub fn all(self) -> impl Iterator<Item = Lane> {
        (0..self.0.get()).map(Lane)
    }
}
