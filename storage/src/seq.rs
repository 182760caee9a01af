//! Positions in the merged firehose.

use std::fmt;

/// A position in the firehose: 1 ≤ seq < 2^53, rising by one an event. Zero stands for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The largest seq a JSON reader can hold exactly.
    pub const MAX: Seq = Seq((1 << 53) - 1);

    /// The seq after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
