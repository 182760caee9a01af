use std::fmt;

use super::SyntaxError;

/// A timestamp identifier: 13 characters of base32-sortable, 53 bits of microseconds and 10 bits of clock id. Kept as
/// its 64-bit number, whose order is the text's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(u64);

impl Tid {
    /// Parses the 13 characters; the first must be one of `234567abcdefghij` (the top bit is zero).
    pub fn parse(text: &str) -> Result<Tid, SyntaxError> {
        let _ = text;
        todo!()
    }

    /// From microseconds since the Unix epoch (53 bits are kept) and a clock id (10 bits are kept).
    pub fn from_micros(micros: u64, clock_id: u16) -> Tid {
        Tid((micros & ((1 << 53) - 1)) << 10 | u64::from(clock_id & 0x3ff))
    }

    /// Microseconds since the Unix epoch.
    pub fn micros(self) -> u64 {
        self.0 >> 10
    }

    /// The number itself; its order is the text's.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// From [`Tid::to_u64`]'s number; the top bit is dropped.
    pub fn from_u64(number: u64) -> Tid {
        Tid(number & (u64::MAX >> 1))
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
